"""Optimizers, and other ways to change weights."""

from thalweg.optim.ska_fit import SKAHistory as SKAHistory
from thalweg.optim.ska_fit import ska_fit as ska_fit

__all__ = [
    "SKAHistory",
    "ska_fit",
]
