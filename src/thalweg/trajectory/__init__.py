"""Trajectories: the low-dimensional path of the weights, where it drifts, and where it will go."""

from thalweg.trajectory.basis_drift import DriftCurve, basis_drift
from thalweg.trajectory.bf16 import bf16_ulp, bf16_visible
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
from thalweg.trajectory.compare_checkpoints import (
    GroupGeometry,
    UpdateGeometryReport,
    compare_checkpoints,
)
from thalweg.trajectory.course import Course
from thalweg.trajectory.delta_report import DeltaReport, TensorDelta, delta_report
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
from thalweg.trajectory.long_paths import leading_directions, sketch_path, stream_directions
from thalweg.trajectory.matrix_spectrum import principal_angles, spectral_drift
from thalweg.trajectory.outlook import Outlook, outlook
from thalweg.trajectory.pca import PCAResult, trajectory_pca
from thalweg.trajectory.prefix_basis import PrefixBasis, prefix_basis
from thalweg.trajectory.random_search import SearchResult, random_search, random_search_gain
from thalweg.trajectory.random_walk import WalkNull, random_walk_null
from thalweg.trajectory.subspace_capture import Capture, subspace_capture
from thalweg.trajectory.subspace_lock import SubspaceLock
from thalweg.trajectory.update_geometry import GeometrySettings, TensorGeometry
from thalweg.trajectory.update_geometry_callback import UpdateGeometryCallback
from thalweg.trajectory.update_masks import (
    low_magnitude_mask,
    mask_overlap,
    principal_mask,
    update_mask,
)

__all__ = [
    "Alignment",
    "Bound",
    "Capture",
    "Checkpoint",
    "CommutatorResult",
    "Course",
    "DeltaReport",
    "DeltaStore",
    "DriftCurve",
    "Extrapolated",
    "ExtrapolationCallback",
    "Foresight",
    "GeometrySettings",
    "GradientBank",
    "GroupGeometry",
    "InnerProducts",
    "IntrinsicDimensionResult",
    "MissingTensor",
    "Outlook",
    "PCAResult",
    "PrefixBasis",
    "SearchResult",
    "SubspaceBasis",
    "SubspaceLock",
    "TensorDelta",
    "TensorGeometry",
    "TensorInfo",
    "TrajectoryModel",
    "UpdateGeometryCallback",
    "UpdateGeometryReport",
    "WalkNull",
    "basis_drift",
    "bf16_ulp",
    "bf16_visible",
    "commutator",
    "commutator_alignment",
    "compare_checkpoints",
    "compression_bound",
    "delta_report",
    "description_length",
    "execution_basis",
    "find_checkpoints",
    "fit_rank1",
    "foresight",
    "foresight_of",
    "inner_products",
    "intrinsic_dimension_of_finetuning",
    "leading_directions",
    "low_magnitude_mask",
    "mask_overlap",
    "measure_intrinsic_dimension",
    "open_checkpoint",
    "outlook",
    "prefix_basis",
    "principal_angles",
    "principal_mask",
    "random_search",
    "random_search_gain",
    "random_walk_null",
    "reconstruct",
    "sketch_path",
    "spectral_drift",
    "stream_directions",
    "subspace_capture",
    "task_gradients",
    "trajectory_pca",
    "update_mask",
    "write_checkpoint",
]
