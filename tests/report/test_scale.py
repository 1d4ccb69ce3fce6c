import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.report.scale import number, scale_of, short_step, step_ticks


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0.01, 1.0, True), (0.5, 1.0, False), (-1.0, 100.0, False)]
)
def test_a_wide_positive_stretch_is_logarithmic(low, high, log):
    scale = scale_of(np.array([low]), np.array([high]))
    assert scale is not None and scale.log == log
    assert scale.low <= low and high <= scale.high


@given(st.floats(-1.7e308, 1.7e308), st.floats(-1.7e308, 1.7e308))
def test_any_two_values_make_an_axis(a, b):
    scale = scale_of(np.array([min(a, b)]), np.array([max(a, b)]))
    assert scale is not None and scale.low < scale.high
    place = scale.place(np.array([a, b]))
    assert np.isfinite(place).all() and (place >= 0).all() and (place <= 1).all()
    assert 1 <= len(scale.ticks()) <= 14


def test_no_finite_value_has_no_axis():
    assert scale_of(np.array([np.nan]), np.array([np.nan])) is None


def test_words():
    assert step_ticks(0, 92) == [0, 50] or len(step_ticks(0, 92)) >= 3
    assert short_step(100_000) == "100k" and number(float("-inf")) == "−∞"
