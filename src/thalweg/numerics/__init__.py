"""Shared mathematics: norms, operators, Lanczos, sketches, projections, parameter trees."""

from thalweg.numerics.norms import Norms as Norms
from thalweg.numerics.norms import norms as norms

__all__ = ["Norms", "norms"]
