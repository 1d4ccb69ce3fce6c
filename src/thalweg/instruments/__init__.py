"""Instruments: plain functions that measure one thing at one moment."""

from thalweg.instruments.activations import activation_rms as activation_rms
from thalweg.instruments.activations import dormant_fraction as dormant_fraction
from thalweg.instruments.attention_entropy import attention_entropy as attention_entropy
from thalweg.instruments.attention_entropy import truncated_attention as truncated_attention
from thalweg.instruments.centroids import centroid_alignment as centroid_alignment
from thalweg.instruments.centroids import centroids as centroids
from thalweg.instruments.centroids import jacobian_alignment as jacobian_alignment
from thalweg.instruments.centroids import jacobian_pc1 as jacobian_pc1
from thalweg.instruments.check_accumulation import AccumulationReport as AccumulationReport
from thalweg.instruments.check_accumulation import check_accumulation as check_accumulation
from thalweg.instruments.check_accumulation import simulate_ddp as simulate_ddp
from thalweg.instruments.coordinate_check import CoordCheck as CoordCheck
from thalweg.instruments.coordinate_check import Coordinate as Coordinate
from thalweg.instruments.coordinate_check import coord_check as coord_check
from thalweg.instruments.critical_sharpness import critical_sharpness as critical_sharpness
from thalweg.instruments.edge_of_stability import EdgeOfStability as EdgeOfStability
from thalweg.instruments.edge_of_stability import EdgeReading as EdgeReading
from thalweg.instruments.entk import EntkRank as EntkRank
from thalweg.instruments.entk import entk as entk
from thalweg.instruments.entk import entk_rank as entk_rank
from thalweg.instruments.gradient_spikes import GradientSpikeMonitor as GradientSpikeMonitor
from thalweg.instruments.gradient_spikes import SpikeHistory as SpikeHistory
from thalweg.instruments.gradients import grad_norm as grad_norm
from thalweg.instruments.grokking_monitor import GrokkingMonitor as GrokkingMonitor
from thalweg.instruments.hessian_density import HessianDensity as HessianDensity
from thalweg.instruments.hessian_density import hessian_density as hessian_density
from thalweg.instruments.hessian_trace import hessian_trace as hessian_trace
from thalweg.instruments.instrument import Reading as Reading
from thalweg.instruments.instrument import instrument as instrument
from thalweg.instruments.isometry import IsometryDefect as IsometryDefect
from thalweg.instruments.isometry import JacobianSpectrum as JacobianSpectrum
from thalweg.instruments.isometry import isometry_defect as isometry_defect
from thalweg.instruments.isometry import jacobian_spectrum as jacobian_spectrum
from thalweg.instruments.mean_square import ms_threshold as ms_threshold
from thalweg.instruments.mean_square import second_moment_radius as second_moment_radius
from thalweg.instruments.memorization import Memorization as Memorization
from thalweg.instruments.memorization import MemorizationTracker as MemorizationTracker
from thalweg.instruments.noise_scale import grad_noise_scale as grad_noise_scale
from thalweg.instruments.noise_scale import noise_scale_of_gram as noise_scale_of_gram
from thalweg.instruments.plasticity_monitor import PlasticityMonitor as PlasticityMonitor
from thalweg.instruments.plasticity_monitor import PlasticityRow as PlasticityRow
from thalweg.instruments.proportionality import ProportionalityReport as ProportionalityReport
from thalweg.instruments.proportionality import proportionality as proportionality
from thalweg.instruments.rank import effective_rank as effective_rank
from thalweg.instruments.rank import frobenius_rank as frobenius_rank
from thalweg.instruments.rank import stable_rank as stable_rank
from thalweg.instruments.readings import readings as readings
from thalweg.instruments.refined_coordinate_check import CoordinateChange as CoordinateChange
from thalweg.instruments.refined_coordinate_check import LayerChange as LayerChange
from thalweg.instruments.refined_coordinate_check import (
    RefinedCoordinateCheck as RefinedCoordinateCheck,
)
from thalweg.instruments.sgd_stability import StabilityReport as StabilityReport
from thalweg.instruments.sgd_stability import alignment as alignment
from thalweg.instruments.sgd_stability import sgd_stability as sgd_stability
from thalweg.instruments.sharpness import Sharpness as Sharpness
from thalweg.instruments.sharpness import sharpness as sharpness
from thalweg.instruments.ska import SKAMonitor as SKAMonitor
from thalweg.instruments.ska import bernoulli_entropy_change as bernoulli_entropy_change
from thalweg.instruments.ska import is_null_lagrangian as is_null_lagrangian
from thalweg.instruments.ska import ska_lagrangian as ska_lagrangian
from thalweg.instruments.stability_threshold import StabilityThreshold as StabilityThreshold
from thalweg.instruments.stability_threshold import stability_threshold as stability_threshold
from thalweg.instruments.statistics import LayerStatistics as LayerStatistics
from thalweg.instruments.statistics import layer_statistics as layer_statistics
from thalweg.instruments.steering import caa_vector as caa_vector
from thalweg.instruments.steering import gradient_step_shift as gradient_step_shift
from thalweg.instruments.steering import steer as steer
from thalweg.instruments.weights import distance_from_init as distance_from_init
from thalweg.instruments.weights import update_norm as update_norm
from thalweg.instruments.weights import update_ratio as update_ratio
from thalweg.instruments.weights import weight_norm as weight_norm
from thalweg.instruments.width_scaling import LrWidthScaling as LrWidthScaling
from thalweg.instruments.width_scaling import WidthRun as WidthRun
from thalweg.instruments.width_scaling import lr_width_scaling as lr_width_scaling

__all__ = [
    "AccumulationReport",
    "CoordCheck",
    "Coordinate",
    "CoordinateChange",
    "EdgeOfStability",
    "EdgeReading",
    "EntkRank",
    "GradientSpikeMonitor",
    "GrokkingMonitor",
    "HessianDensity",
    "IsometryDefect",
    "JacobianSpectrum",
    "LayerChange",
    "LayerStatistics",
    "LrWidthScaling",
    "Memorization",
    "MemorizationTracker",
    "PlasticityMonitor",
    "PlasticityRow",
    "ProportionalityReport",
    "Reading",
    "RefinedCoordinateCheck",
    "SKAMonitor",
    "Sharpness",
    "SpikeHistory",
    "StabilityReport",
    "StabilityThreshold",
    "WidthRun",
    "activation_rms",
    "alignment",
    "attention_entropy",
    "bernoulli_entropy_change",
    "caa_vector",
    "centroid_alignment",
    "centroids",
    "check_accumulation",
    "coord_check",
    "critical_sharpness",
    "distance_from_init",
    "dormant_fraction",
    "effective_rank",
    "entk",
    "entk_rank",
    "frobenius_rank",
    "grad_noise_scale",
    "grad_norm",
    "gradient_step_shift",
    "hessian_density",
    "hessian_trace",
    "instrument",
    "is_null_lagrangian",
    "isometry_defect",
    "jacobian_alignment",
    "jacobian_pc1",
    "jacobian_spectrum",
    "layer_statistics",
    "lr_width_scaling",
    "ms_threshold",
    "noise_scale_of_gram",
    "proportionality",
    "readings",
    "second_moment_radius",
    "sgd_stability",
    "sharpness",
    "simulate_ddp",
    "ska_lagrangian",
    "stability_threshold",
    "stable_rank",
    "steer",
    "truncated_attention",
    "update_norm",
    "update_ratio",
    "weight_norm",
]
