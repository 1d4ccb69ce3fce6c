"""Layers."""

from thalweg.nn.equivariant_linear import EquivariantLinear
from thalweg.nn.fake_quantize import fake_quantize as fake_quantize
from thalweg.nn.hierarchical_cnn import HierarchicalCNN as HierarchicalCNN
from thalweg.nn.hypernetize import HyperModule as HyperModule
from thalweg.nn.hypernetize import hypernetize as hypernetize
from thalweg.nn.hypernetwork import HyperNet as HyperNet
from thalweg.nn.hypernetwork import encode as encode
from thalweg.nn.lightning_attention import alibi_slopes as alibi_slopes
from thalweg.nn.lightning_attention import lightning_attention as lightning_attention
from thalweg.nn.lightning_attention import tnl_slopes as tnl_slopes
from thalweg.nn.lightning_attention_layer import LightningAttention as LightningAttention
from thalweg.nn.p4 import GroupPool, P4Conv2d, P4LiftConv2d
from thalweg.nn.quant_linear import QuantLinear as QuantLinear
from thalweg.nn.quant_linear import quantize_model as quantize_model
from thalweg.nn.ska_network import SKANetwork as SKANetwork

__all__ = [
    "EquivariantLinear",
    "GroupPool",
    "HierarchicalCNN",
    "HyperModule",
    "HyperNet",
    "LightningAttention",
    "P4Conv2d",
    "P4LiftConv2d",
    "QuantLinear",
    "SKANetwork",
    "alibi_slopes",
    "encode",
    "fake_quantize",
    "hypernetize",
    "lightning_attention",
    "quantize_model",
    "tnl_slopes",
]
