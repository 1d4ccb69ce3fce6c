"""Shared mathematics: norms, operators, Lanczos, sketches, projections, parameter trees."""

from thalweg.numerics.action import Action as Action
from thalweg.numerics.action import Representation as Representation
from thalweg.numerics.action import as_action as as_action
from thalweg.numerics.action import inverses as inverses
from thalweg.numerics.block_sketch import BlockSketch as BlockSketch
from thalweg.numerics.conjugate_gradient import conjugate_gradient as conjugate_gradient
from thalweg.numerics.curvature import CurvatureOperator as CurvatureOperator
from thalweg.numerics.curvature import ggnvp as ggnvp
from thalweg.numerics.curvature import hessian_operator as hessian_operator
from thalweg.numerics.curvature import hvp as hvp
from thalweg.numerics.density import SpectralDensity as SpectralDensity
from thalweg.numerics.density import spectral_density as spectral_density
from thalweg.numerics.eigsh import Eigenpairs as Eigenpairs
from thalweg.numerics.eigsh import eigsh as eigsh
from thalweg.numerics.exponent import ExponentFit as ExponentFit
from thalweg.numerics.exponent import fit_exponent as fit_exponent
from thalweg.numerics.fastfood import fastfood as fastfood
from thalweg.numerics.fastfood import fastfood_factors as fastfood_factors
from thalweg.numerics.fastfood import fwht as fwht
from thalweg.numerics.fastfood import reduced_factors as reduced_factors
from thalweg.numerics.fastfood import reduced_fastfood as reduced_fastfood
from thalweg.numerics.frequent_directions import FrequentDirections as FrequentDirections
from thalweg.numerics.gradient_flow import gradient_flow as gradient_flow
from thalweg.numerics.group import Group as Group
from thalweg.numerics.group import Isotype as Isotype
from thalweg.numerics.group import commutant as commutant
from thalweg.numerics.group import isotypic as isotypic
from thalweg.numerics.group import require_orthogonal as require_orthogonal
from thalweg.numerics.group import reynolds as reynolds
from thalweg.numerics.jacobians import entk_gram as entk_gram
from thalweg.numerics.jacobians import jacobian as jacobian
from thalweg.numerics.kernel_regression import curve_from_gram as curve_from_gram
from thalweg.numerics.kernel_regression import kernel_regression as kernel_regression
from thalweg.numerics.kernel_regression import kernel_spectrum as kernel_spectrum
from thalweg.numerics.kernel_regression import predict_learning_curve as predict_learning_curve
from thalweg.numerics.kernel_regression import sample_gaussian_field as sample_gaussian_field
from thalweg.numerics.lanczos import lanczos as lanczos
from thalweg.numerics.norms import Norms as Norms
from thalweg.numerics.norms import norms as norms
from thalweg.numerics.operators import LinearOperator as LinearOperator
from thalweg.numerics.operators import as_operator as as_operator
from thalweg.numerics.projections import dense_projection as dense_projection
from thalweg.numerics.projections import sparse_projection as sparse_projection
from thalweg.numerics.sketches import SRHT as SRHT
from thalweg.numerics.sketches import CountSketch as CountSketch
from thalweg.numerics.svd import SVD as SVD
from thalweg.numerics.svd import randomized_svd as randomized_svd
from thalweg.numerics.trace import TraceEstimate as TraceEstimate
from thalweg.numerics.trace import trace as trace
from thalweg.numerics.untouched import untouched as untouched

__all__ = [
    "SRHT",
    "SVD",
    "Action",
    "BlockSketch",
    "CountSketch",
    "CurvatureOperator",
    "Eigenpairs",
    "ExponentFit",
    "FrequentDirections",
    "Group",
    "Isotype",
    "LinearOperator",
    "Norms",
    "Representation",
    "SpectralDensity",
    "TraceEstimate",
    "as_action",
    "as_operator",
    "commutant",
    "conjugate_gradient",
    "curve_from_gram",
    "dense_projection",
    "eigsh",
    "entk_gram",
    "fastfood",
    "fastfood_factors",
    "fit_exponent",
    "fwht",
    "ggnvp",
    "gradient_flow",
    "hessian_operator",
    "hvp",
    "inverses",
    "isotypic",
    "jacobian",
    "kernel_regression",
    "kernel_spectrum",
    "lanczos",
    "norms",
    "predict_learning_curve",
    "randomized_svd",
    "reduced_factors",
    "reduced_fastfood",
    "require_orthogonal",
    "reynolds",
    "sample_gaussian_field",
    "sparse_projection",
    "spectral_density",
    "trace",
    "untouched",
]
