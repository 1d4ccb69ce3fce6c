"""Trajectories: the low-dimensional path of the weights, where it drifts, and where it will go."""

from thalweg.trajectory.basis_drift import DriftCurve, basis_drift
from thalweg.trajectory.checkpoint import (
    Checkpoint,
    TensorInfo,
    find_checkpoints,
    open_checkpoint,
    write_checkpoint,
)
from thalweg.trajectory.commutator import (
    Alignment,
    CommutatorResult,
    commutator,
    commutator_alignment,
)
from thalweg.trajectory.course import Course
from thalweg.trajectory.delta_store import DeltaStore, MissingTensor
from thalweg.trajectory.dimension_sweep import IntrinsicDimensionResult
from thalweg.trajectory.execution_basis import SubspaceBasis, execution_basis
from thalweg.trajectory.extrapolation import TrajectoryModel, fit_rank1, reconstruct
from thalweg.trajectory.extrapolation_callback import Extrapolated, ExtrapolationCallback
from thalweg.trajectory.finetuning_dimension import (
    Bound,
    compression_bound,
    intrinsic_dimension_of_finetuning,
)
from thalweg.trajectory.foresight import Foresight, foresight, foresight_of
from thalweg.trajectory.gradient_bank import GradientBank, task_gradients
from thalweg.trajectory.inner_products import InnerProducts, inner_products
from thalweg.trajectory.intrinsic_dimension import description_length, measure_intrinsic_dimension
from thalweg.trajectory.outlook import Outlook, outlook
from thalweg.trajectory.pca import PCAResult, trajectory_pca
from thalweg.trajectory.prefix_basis import PrefixBasis, prefix_basis
from thalweg.trajectory.random_search import SearchResult, random_search, random_search_gain
from thalweg.trajectory.random_walk import WalkNull, random_walk_null
from thalweg.trajectory.subspace_capture import Capture, subspace_capture

__all__ = [
    "Alignment",
    "Bound",
    "Capture",
    "Checkpoint",
    "CommutatorResult",
    "Course",
    "DeltaStore",
    "DriftCurve",
    "Extrapolated",
    "ExtrapolationCallback",
    "Foresight",
    "GradientBank",
    "InnerProducts",
    "IntrinsicDimensionResult",
    "MissingTensor",
    "Outlook",
    "PCAResult",
    "PrefixBasis",
    "SearchResult",
    "SubspaceBasis",
    "TensorInfo",
    "TrajectoryModel",
    "WalkNull",
    "basis_drift",
    "commutator",
    "commutator_alignment",
    "compression_bound",
    "description_length",
    "execution_basis",
    "find_checkpoints",
    "fit_rank1",
    "foresight",
    "foresight_of",
    "inner_products",
    "intrinsic_dimension_of_finetuning",
    "measure_intrinsic_dimension",
    "open_checkpoint",
    "outlook",
    "prefix_basis",
    "random_search",
    "random_search_gain",
    "random_walk_null",
    "reconstruct",
    "subspace_capture",
    "task_gradients",
    "trajectory_pca",
    "write_checkpoint",
]
