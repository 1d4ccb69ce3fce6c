"""Shared mathematics: norms, operators, Lanczos, sketches, projections, parameter trees."""

from thalweg.numerics.block_sketch import BlockSketch as BlockSketch
from thalweg.numerics.norms import Norms as Norms
from thalweg.numerics.norms import norms as norms

__all__ = ["BlockSketch", "Norms", "norms"]
