"""Closed-form predictions of curves and spectra."""

from thalweg.theory.central_flow import CentralFlow as CentralFlow
from thalweg.theory.central_flow import central_flow as central_flow
from thalweg.theory.characteristic_time import characteristic_time as characteristic_time
from thalweg.theory.width_scaling import predicted_exponents as predicted_exponents
from thalweg.theory.width_scaling import predicted_slopes as predicted_slopes
from thalweg.theory.width_scaling import width_regime as width_regime

__all__ = [
    "CentralFlow",
    "central_flow",
    "characteristic_time",
    "predicted_exponents",
    "predicted_slopes",
    "width_regime",
]
