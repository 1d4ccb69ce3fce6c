import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thalweg.report.decimate import decimate, envelope


def test_few_points_are_shown_as_they_are():
    shown = decimate(np.array([1, 5, 9]), np.array([2.0, np.nan, 4.0]), 10)
    assert shown.steps.tolist() == [1, 5, 9] and not shown.decimated and not shown.banded
    np.testing.assert_array_equal(shown.middle, [2.0, np.nan, 4.0])
    assert shown.nonfinite.tolist() == [0, 1, 0]


@given(st.integers(1, 3000), st.integers(1, 700), st.integers(0, 10**6))
def test_least_greatest_and_every_nonfinite_survive(size, columns, seed):
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(1, 50, size))
    values = rng.normal(size=size) * 10.0 ** rng.integers(-300, 308, size)
    values[rng.random(size) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
    shown = decimate(steps, values, columns)
    finite = values[np.isfinite(values)]
    assert len(shown) <= columns or size <= columns
    assert shown.points == size
    assert shown.nonfinite.sum() == size - len(finite)
    if len(finite):
        assert np.nanmin(shown.low) == finite.min() and np.nanmax(shown.high) == finite.max()
        inside = np.isfinite(shown.middle)
        assert (shown.low <= shown.middle)[inside].all()
        assert (shown.middle <= shown.high)[inside].all()
    # Each bad value lies in the column that says so.
    column = np.searchsorted(shown.steps, steps[~np.isfinite(values)], side="right") - 1
    assert (shown.nonfinite[column] > 0).all()


def test_an_uncertainty_widens_its_column():
    shown = decimate(np.arange(2), np.array([1.0, 2.0]), 9, spread=np.array([0.5, np.nan]))
    assert shown.low.tolist() == [0.5, 2.0] and shown.high.tolist() == [1.5, 2.0] and shown.banded


def test_an_envelope_spans_series_of_other_steps():
    a = np.array([0, 1, 2]), np.array([1.0, 2.0, np.nan])
    b = np.array([1, 3]), np.array([6.0, -1.0])
    both = envelope([a, b], 10)
    assert both.steps.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(both.low, [1.0, 2.0, np.nan, -1.0])
    np.testing.assert_array_equal(both.middle, [1.0, 4.0, np.nan, -1.0])
    np.testing.assert_array_equal(both.high, [1.0, 6.0, np.nan, -1.0])
    assert both.nonfinite.sum() == 1 and both.points == 5
