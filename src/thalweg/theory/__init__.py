"""Closed-form predictions of curves and spectra."""

from thalweg.numerics import curve_from_gram as curve_from_gram
from thalweg.numerics import kernel_regression as kernel_regression
from thalweg.numerics import kernel_spectrum as kernel_spectrum
from thalweg.numerics import predict_learning_curve as predict_learning_curve
from thalweg.numerics import sample_gaussian_field as sample_gaussian_field
from thalweg.theory.central_flow import CentralFlow as CentralFlow
from thalweg.theory.central_flow import central_flow as central_flow
from thalweg.theory.characteristic_time import characteristic_time as characteristic_time
from thalweg.theory.curve_prediction import NoiseAndSNR as NoiseAndSNR
from thalweg.theory.curve_prediction import Prediction as Prediction
from thalweg.theory.curve_prediction import estimate_noise_and_snr as estimate_noise_and_snr
from thalweg.theory.curve_prediction import predict_from_data as predict_from_data
from thalweg.theory.double_descent import double_descent as double_descent
from thalweg.theory.hierarchical_kernel import HierarchicalKernel as HierarchicalKernel
from thalweg.theory.hierarchical_kernel import arccos0 as arccos0
from thalweg.theory.hierarchical_kernel import arccos1 as arccos1
from thalweg.theory.hierarchical_kernel import fc_kernel as fc_kernel
from thalweg.theory.hierarchical_kernel import patch_dimension as patch_dimension
from thalweg.theory.learning_curve import LearningCurve as LearningCurve
from thalweg.theory.learning_curve import curve_exponent as curve_exponent
from thalweg.theory.learning_curve import learning_curve as learning_curve
from thalweg.theory.learning_curve import multisphere as multisphere
from thalweg.theory.linear_dynamics import LinearDynamics as LinearDynamics
from thalweg.theory.linear_dynamics import Stopping as Stopping
from thalweg.theory.linear_modes import frozen_fraction as frozen_fraction
from thalweg.theory.marchenko_pastur import mp_density as mp_density
from thalweg.theory.marchenko_pastur import mp_quadrature as mp_quadrature
from thalweg.theory.marchenko_pastur import mp_support as mp_support
from thalweg.theory.student_teacher import StudentTeacher as StudentTeacher
from thalweg.theory.student_teacher import simulate_student_teacher as simulate_student_teacher
from thalweg.theory.width_scaling import predicted_exponents as predicted_exponents
from thalweg.theory.width_scaling import predicted_slopes as predicted_slopes
from thalweg.theory.width_scaling import width_regime as width_regime

__all__ = [
    "CentralFlow",
    "HierarchicalKernel",
    "LearningCurve",
    "LinearDynamics",
    "NoiseAndSNR",
    "Prediction",
    "Stopping",
    "StudentTeacher",
    "arccos0",
    "arccos1",
    "central_flow",
    "characteristic_time",
    "curve_exponent",
    "curve_from_gram",
    "double_descent",
    "estimate_noise_and_snr",
    "fc_kernel",
    "frozen_fraction",
    "kernel_regression",
    "kernel_spectrum",
    "learning_curve",
    "mp_density",
    "mp_quadrature",
    "mp_support",
    "multisphere",
    "patch_dimension",
    "predict_from_data",
    "predict_learning_curve",
    "predicted_exponents",
    "predicted_slopes",
    "sample_gaussian_field",
    "simulate_student_teacher",
    "width_regime",
]
