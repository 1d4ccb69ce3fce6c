"""Instruments: plain functions that measure one thing at one moment."""

from thalweg.instruments.activations import activation_rms as activation_rms
from thalweg.instruments.activations import dormant_fraction as dormant_fraction
from thalweg.instruments.gradients import grad_norm as grad_norm
from thalweg.instruments.instrument import Reading as Reading
from thalweg.instruments.instrument import instrument as instrument
from thalweg.instruments.weights import distance_from_init as distance_from_init
from thalweg.instruments.weights import update_norm as update_norm
from thalweg.instruments.weights import update_ratio as update_ratio
from thalweg.instruments.weights import weight_norm as weight_norm

__all__ = [
    "Reading",
    "activation_rms",
    "distance_from_init",
    "dormant_fraction",
    "grad_norm",
    "instrument",
    "update_norm",
    "update_ratio",
    "weight_norm",
]
