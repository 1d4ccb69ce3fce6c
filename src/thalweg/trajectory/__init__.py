"""Trajectories: the low-dimensional path of the weights, where it drifts, and where it will go."""

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
from thalweg.trajectory.inner_products import InnerProducts, inner_products
from thalweg.trajectory.intrinsic_dimension import description_length, measure_intrinsic_dimension
from thalweg.trajectory.matrix_spectrum import principal_angles, spectral_drift
from thalweg.trajectory.outlook import Outlook, outlook
from thalweg.trajectory.pca import PCAResult, trajectory_pca
from thalweg.trajectory.random_walk import WalkNull, random_walk_null
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
    "Checkpoint",
    "CommutatorResult",
    "Course",
    "DeltaStore",
    "Extrapolated",
    "ExtrapolationCallback",
    "Foresight",
    "GeometrySettings",
    "GroupGeometry",
    "InnerProducts",
    "IntrinsicDimensionResult",
    "MissingTensor",
    "Outlook",
    "PCAResult",
    "SubspaceBasis",
    "TensorGeometry",
    "TensorInfo",
    "TrajectoryModel",
    "UpdateGeometryCallback",
    "UpdateGeometryReport",
    "WalkNull",
    "bf16_ulp",
    "bf16_visible",
    "commutator",
    "commutator_alignment",
    "compare_checkpoints",
    "compression_bound",
    "description_length",
    "execution_basis",
    "find_checkpoints",
    "fit_rank1",
    "foresight",
    "foresight_of",
    "inner_products",
    "intrinsic_dimension_of_finetuning",
    "low_magnitude_mask",
    "mask_overlap",
    "measure_intrinsic_dimension",
    "open_checkpoint",
    "outlook",
    "principal_angles",
    "principal_mask",
    "random_walk_null",
    "reconstruct",
    "spectral_drift",
    "trajectory_pca",
    "update_mask",
    "write_checkpoint",
]
