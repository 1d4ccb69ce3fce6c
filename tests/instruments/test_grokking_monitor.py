import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.instruments import GrokkingMonitor


def test_the_first_step_counts_and_only_it():
    monitor = GrokkingMonitor()
    assert (monitor.memorised_at, monitor.generalised_at, monitor.delay) == (None, None, None)
    assert monitor.update(0, train=0.5, test=0.25) == {"generalisation_gap": 0.25}
    monitor.update(10, train=0.99, test=0.5)
    assert monitor.memorised_at == 10 and monitor.delay is None
    monitor.update(20, train=0.5, test=0.95)
    monitor.update(30, train=1.0, test=1.0)
    assert (monitor.memorised_at, monitor.generalised_at, monitor.delay) == (10, 20, 10)


def test_generalising_first_is_a_negative_delay():
    monitor = GrokkingMonitor(memorised=1.0, generalised=0.9)
    monitor.update(1, train=0.95, test=0.9)
    monitor.update(4, train=1.0, test=0.8)
    assert monitor.delay == -3


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_it_is_the_first_index(accuracies):
    monitor = GrokkingMonitor(memorised=0.8, generalised=0.6)
    for step, (train, test) in enumerate(accuracies):
        monitor.update(step, train=train, test=test)
    first = lambda marks: next((i for i, hit in enumerate(marks) if hit), None)  # noqa: E731
    assert monitor.memorised_at == first(a >= 0.8 for a, _ in accuracies)
    assert monitor.generalised_at == first(b >= 0.6 for _, b in accuracies)


def test_what_is_no_accuracy_and_no_later_step_is_refused():
    for marks in ({"memorised": 0}, {"generalised": 95}, {"memorised": math.nan}):
        with pytest.raises(ValueError, match=r"in \(0, 1\]"):
            GrokkingMonitor(**marks)
    monitor = GrokkingMonitor()
    with pytest.raises(ValueError, match="per cent"):
        monitor.update(0, train=1.0, test=97.0)
    with pytest.raises(ValueError, match="accuracy"):
        monitor.update(0, train=math.nan, test=0.5)
    monitor.update(3, train=1.0, test=0.5)
    with pytest.raises(ValueError, match="must increase: got 3 after 3"):
        monitor.update(3, train=1.0, test=0.5)
