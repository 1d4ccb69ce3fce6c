"""Layers."""

from thalweg.nn.at_width import at_width as at_width
from thalweg.nn.equivariant_linear import EquivariantLinear
from thalweg.nn.lightning_attention import alibi_slopes as alibi_slopes
from thalweg.nn.lightning_attention import lightning_attention as lightning_attention
from thalweg.nn.lightning_attention import tnl_slopes as tnl_slopes
from thalweg.nn.lightning_attention_layer import LightningAttention as LightningAttention
from thalweg.nn.mup import BaseShape as BaseShape
from thalweg.nn.mup import MuReadout as MuReadout
from thalweg.nn.mup import base_shape_of as base_shape_of
from thalweg.nn.mup import set_base_shapes as set_base_shapes
from thalweg.nn.p4 import GroupPool, P4Conv2d, P4LiftConv2d
from thalweg.nn.ska_network import SKANetwork as SKANetwork

__all__ = [
    "BaseShape",
    "EquivariantLinear",
    "GroupPool",
    "LightningAttention",
    "MuReadout",
    "P4Conv2d",
    "P4LiftConv2d",
    "SKANetwork",
    "alibi_slopes",
    "at_width",
    "base_shape_of",
    "lightning_attention",
    "set_base_shapes",
    "tnl_slopes",
]
