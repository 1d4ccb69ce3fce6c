"""Losses and penalties."""

from thalweg.losses.elr import ELRLoss as ELRLoss
from thalweg.losses.elr import elr_regularizer as elr_regularizer

__all__ = [
    "ELRLoss",
    "elr_regularizer",
]
