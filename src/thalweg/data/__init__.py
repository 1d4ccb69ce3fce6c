"""Small real and made data sets for studies and tests; nothing is downloaded."""

from thalweg.data.digits import Digits, digits

__all__ = ["Digits", "digits"]
