"""Layers."""

from thalweg.nn.at_width import at_width as at_width
from thalweg.nn.equivariant_linear import EquivariantLinear
from thalweg.nn.fake_quantize import fake_quantize as fake_quantize
from thalweg.nn.fresh_weights import fresh_weights as fresh_weights
from thalweg.nn.group_sort import GroupSort as GroupSort
from thalweg.nn.hidden_units import HiddenUnits as HiddenUnits
from thalweg.nn.hidden_units import hidden_units as hidden_units
from thalweg.nn.hierarchical_cnn import HierarchicalCNN as HierarchicalCNN
from thalweg.nn.hypernetize import HyperModule as HyperModule
from thalweg.nn.hypernetize import hypernetize as hypernetize
from thalweg.nn.hypernetwork import HyperNet as HyperNet
from thalweg.nn.hypernetwork import encode as encode
from thalweg.nn.lightning_attention import alibi_slopes as alibi_slopes
from thalweg.nn.lightning_attention import lightning_attention as lightning_attention
from thalweg.nn.lightning_attention import tnl_slopes as tnl_slopes
from thalweg.nn.lightning_attention_layer import LightningAttention as LightningAttention
from thalweg.nn.mup import BaseShape as BaseShape
from thalweg.nn.mup import MuReadout as MuReadout
from thalweg.nn.mup import base_shape_of as base_shape_of
from thalweg.nn.mup import set_base_shapes as set_base_shapes
from thalweg.nn.p4 import GroupPool, P4Conv2d, P4LiftConv2d
from thalweg.nn.quant_linear import QuantLinear as QuantLinear
from thalweg.nn.quant_linear import quantize_model as quantize_model
from thalweg.nn.random_map import RandomMap as RandomMap
from thalweg.nn.ska_network import SKANetwork as SKANetwork
from thalweg.nn.subspace_module import SubspaceModule as SubspaceModule

__all__ = [
    "BaseShape",
    "EquivariantLinear",
    "GroupPool",
    "GroupSort",
    "HiddenUnits",
    "HierarchicalCNN",
    "HyperModule",
    "HyperNet",
    "LightningAttention",
    "MuReadout",
    "P4Conv2d",
    "P4LiftConv2d",
    "QuantLinear",
    "RandomMap",
    "SKANetwork",
    "SubspaceModule",
    "alibi_slopes",
    "at_width",
    "base_shape_of",
    "encode",
    "fake_quantize",
    "fresh_weights",
    "hidden_units",
    "hypernetize",
    "lightning_attention",
    "quantize_model",
    "set_base_shapes",
    "tnl_slopes",
]
