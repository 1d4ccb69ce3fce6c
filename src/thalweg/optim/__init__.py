"""Optimizers, and what belongs to taking a step."""

from thalweg.optim.muon import Muon
from thalweg.optim.muon_param_groups import muon_param_groups
from thalweg.optim.orthogonalize import orthogonalize, smoothed_nuclear
from thalweg.optim.regularized_muon import RegularizedMuon

__all__ = [
    "Muon",
    "RegularizedMuon",
    "muon_param_groups",
    "orthogonalize",
    "smoothed_nuclear",
]
