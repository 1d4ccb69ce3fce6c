"""Layers."""

from thalweg.nn.equivariant_linear import EquivariantLinear
from thalweg.nn.p4 import GroupPool, P4Conv2d, P4LiftConv2d

__all__ = ["EquivariantLinear", "GroupPool", "P4Conv2d", "P4LiftConv2d"]
