"""Closed-form predictions of curves and spectra."""

from thalweg.theory.characteristic_time import characteristic_time as characteristic_time
from thalweg.theory.curve_prediction import NoiseAndSNR as NoiseAndSNR
from thalweg.theory.curve_prediction import Prediction as Prediction
from thalweg.theory.curve_prediction import estimate_noise_and_snr as estimate_noise_and_snr
from thalweg.theory.curve_prediction import predict_from_data as predict_from_data
from thalweg.theory.double_descent import double_descent as double_descent
from thalweg.theory.linear_dynamics import LinearDynamics as LinearDynamics
from thalweg.theory.linear_dynamics import Stopping as Stopping
from thalweg.theory.linear_modes import frozen_fraction as frozen_fraction
from thalweg.theory.marchenko_pastur import mp_density as mp_density
from thalweg.theory.marchenko_pastur import mp_quadrature as mp_quadrature
from thalweg.theory.marchenko_pastur import mp_support as mp_support
from thalweg.theory.student_teacher import StudentTeacher as StudentTeacher
from thalweg.theory.student_teacher import simulate_student_teacher as simulate_student_teacher

__all__ = [
    "LinearDynamics",
    "NoiseAndSNR",
    "Prediction",
    "Stopping",
    "StudentTeacher",
    "characteristic_time",
    "double_descent",
    "estimate_noise_and_snr",
    "frozen_fraction",
    "mp_density",
    "mp_quadrature",
    "mp_support",
    "predict_from_data",
    "simulate_student_teacher",
]
