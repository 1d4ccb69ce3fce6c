"""Closed-form predictions of curves and spectra."""

from thalweg.theory.central_flow import CentralFlow as CentralFlow
from thalweg.theory.central_flow import central_flow as central_flow
from thalweg.theory.characteristic_time import characteristic_time as characteristic_time

__all__ = [
    "CentralFlow",
    "central_flow",
    "characteristic_time",
]
