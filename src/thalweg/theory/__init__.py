"""Closed-form predictions of curves and spectra."""

from thalweg.theory.characteristic_time import characteristic_time as characteristic_time

__all__ = [
    "characteristic_time",
]
