"""Laws: what training conserves, why, and how it breaks."""

from thalweg.laws.broken import Hyper, LawState, advance
from thalweg.laws.conservation_laws import LawReport, conservation_laws
from thalweg.laws.data_symmetry import (
    LiftedGroup,
    augment_fully,
    extra_laws,
    lifted_group,
    linear_extra_laws,
)
from thalweg.laws.discovery import SymmetryReport, discover_symmetries
from thalweg.laws.equivariance import (
    EquivarianceMonitor,
    equivariance_error,
    lie_derivative_error,
)
from thalweg.laws.fields import Fields, fields_from_map, generic_point, path_map
from thalweg.laws.frozen import frozen_laws
from thalweg.laws.known_laws import KnownLaws, NotCovered, known_laws
from thalweg.laws.law import Law, Piece
from thalweg.laws.linear_symmetry import LinearSymmetries, linear_symmetries
from thalweg.laws.model_fields import fields_from_model
from thalweg.laws.monitor import LawMonitor, LawReading
from thalweg.laws.muon_energy import MuonEnergyMonitor
from thalweg.laws.rank import AmbiguousRank
from thalweg.laws.symmetrize import Symmetrized, symmetrize
from thalweg.numerics.group import Group

__all__ = [
    "AmbiguousRank",
    "EquivarianceMonitor",
    "Fields",
    "Group",
    "Hyper",
    "KnownLaws",
    "Law",
    "LawMonitor",
    "LawReading",
    "LawReport",
    "LawState",
    "LiftedGroup",
    "LinearSymmetries",
    "MuonEnergyMonitor",
    "NotCovered",
    "Piece",
    "Symmetrized",
    "SymmetryReport",
    "advance",
    "augment_fully",
    "conservation_laws",
    "discover_symmetries",
    "equivariance_error",
    "extra_laws",
    "fields_from_map",
    "fields_from_model",
    "frozen_laws",
    "generic_point",
    "known_laws",
    "lie_derivative_error",
    "lifted_group",
    "linear_extra_laws",
    "linear_symmetries",
    "path_map",
    "symmetrize",
]
