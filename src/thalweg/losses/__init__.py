"""Losses, and penalties beside them."""

from thalweg.losses.elr import ELRLoss as ELRLoss
from thalweg.losses.elr import elr_regularizer as elr_regularizer
from thalweg.losses.grokalign import GrokAlign as GrokAlign
from thalweg.losses.grokalign import jacobian_norm as jacobian_norm
from thalweg.losses.isometry import isometry_gradient as isometry_gradient
from thalweg.losses.isometry import isometry_penalty as isometry_penalty
from thalweg.losses.opd import opd_loss as opd_loss
from thalweg.losses.parseval import ParsevalRegularizer as ParsevalRegularizer
from thalweg.losses.spectral_regularizer import SpectralRegularizer as SpectralRegularizer

__all__ = [
    "ELRLoss",
    "GrokAlign",
    "ParsevalRegularizer",
    "SpectralRegularizer",
    "elr_regularizer",
    "isometry_gradient",
    "isometry_penalty",
    "jacobian_norm",
    "opd_loss",
]
