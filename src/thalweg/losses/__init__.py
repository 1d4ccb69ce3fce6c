"""Terms of the loss."""

from thalweg.losses.isometry import isometry_gradient as isometry_gradient
from thalweg.losses.isometry import isometry_penalty as isometry_penalty
from thalweg.losses.parseval import ParsevalRegularizer as ParsevalRegularizer
from thalweg.losses.spectral_regularizer import SpectralRegularizer as SpectralRegularizer

__all__ = [
    "ParsevalRegularizer",
    "SpectralRegularizer",
    "isometry_gradient",
    "isometry_penalty",
]
