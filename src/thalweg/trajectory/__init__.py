"""The path of the weights: how many dimensions it takes."""

from thalweg.trajectory.dimension_sweep import IntrinsicDimensionResult as IntrinsicDimensionResult
from thalweg.trajectory.finetuning_dimension import Bound as Bound
from thalweg.trajectory.finetuning_dimension import compression_bound as compression_bound
from thalweg.trajectory.finetuning_dimension import (
    intrinsic_dimension_of_finetuning as intrinsic_dimension_of_finetuning,
)
from thalweg.trajectory.intrinsic_dimension import description_length as description_length
from thalweg.trajectory.intrinsic_dimension import (
    measure_intrinsic_dimension as measure_intrinsic_dimension,
)

__all__ = [
    "Bound",
    "IntrinsicDimensionResult",
    "compression_bound",
    "description_length",
    "intrinsic_dimension_of_finetuning",
    "measure_intrinsic_dimension",
]
