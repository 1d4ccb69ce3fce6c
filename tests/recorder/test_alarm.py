"""What sets the black box off."""

import math

import pytest
import torch

from thalweg.recorder.alarm import SPIKE_Z, Alarm


def _after(losses):
    alarm = Alarm()
    assert [alarm.hear(x) for x in losses] == [None] * len(losses)
    return alarm


def test_the_limit_is_the_median_and_twelve_robust_deviations():
    alarm = _after([1.0, 3.0] * 32)  # median 2, median absolute deviation 1
    assert alarm.limit == pytest.approx(2 + SPIKE_Z * 1.4826)
    assert alarm.hear(alarm.limit) is None
    kind, why = alarm.hear(2 + 20 * 1.4826)
    assert kind == "spike"
    assert "20 robust standard deviations above the median 2 " in why


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_needs_no_past(value):
    assert Alarm().hear(value) == ("nonfinite", f"the loss is {value}")


def test_no_spike_before_there_is_a_past():
    assert _after([1.0] * 31).hear(1e9) is None


def test_a_constant_loss_may_rise_by_half():
    alarm = _after([2.0] * 64)
    assert alarm.hear(2.9) is None
    assert alarm.hear(3.1)[0] == "spike"


def test_healthy_noise_is_no_spike():
    noise = torch.distributions.StudentT(5.0).sample((4000,))  # heavier tails than mini-batches
    losses = (2 * torch.exp(-torch.arange(4000) / 800) + 0.1 * noise + 1).tolist()
    assert all(map(math.isfinite, losses))
    _after(losses)
