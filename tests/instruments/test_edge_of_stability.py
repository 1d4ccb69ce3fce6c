"""The edge of stability by hand and in a recording."""

import dataclasses
import math

import pytest
import torch
from torch import nn

import thalweg
from thalweg.instruments import EdgeOfStability, EdgeReading


def quadratic(curvatures):
    w = torch.ones(len(curvatures), dtype=torch.float64, requires_grad=True)
    c = torch.tensor(curvatures, dtype=torch.float64)
    return w, lambda: 0.5 * (c * w.square()).sum()


@pytest.mark.parametrize(
    ("make", "threshold"),
    [
        (lambda w: torch.optim.SGD([w], 0.1), 20.0),
        (lambda w: torch.optim.SGD([w], 0.1, momentum=0.9), 38.0),
    ],
)
def test_ratios_of_a_quadratic(make, threshold):
    w, loss = quadratic([5.0, 3.0, 1.0, 0.5])
    edge = EdgeOfStability(make(w), loss, every=2, k=2, with_trace=True)
    assert edge.after_step() is None
    reading = edge.after_step()
    assert reading == edge.history[0] and reading.step == 2 and reading.status == "ok"
    assert reading.eigenvalues == pytest.approx((5.0, 3.0), rel=1e-3)
    assert reading.ratios == pytest.approx((5 / threshold, 3 / threshold), rel=1e-3)
    assert reading.trace_ratio == pytest.approx(9.5 / threshold, rel=0.3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.step = 1
    assert type(reading) is EdgeReading


def test_adam_is_measured_with_its_preconditioner():
    w, loss = quadratic([4.0, 1.0])
    adam = torch.optim.Adam([w], 0.01, betas=(0.9, 0.999), eps=1e-12)
    adam.zero_grad()
    loss().backward()
    adam.step()
    # √v̂ = |gradient| = (4, 1) at w = 1: preconditioned curvatures are 1 and 1
    reading = EdgeOfStability(adam, loss, every=1).after_step()
    assert reading.eigenvalues == pytest.approx((1.0,), rel=1e-3)
    assert reading.threshold == pytest.approx(2 * 1.9 / (0.1 * 0.01), rel=1e-9)


def test_what_cannot_be_measured_has_a_status():
    w, loss = quadratic([4.0, 1.0])
    unknown = EdgeOfStability(torch.optim.Rprop([w]), loss, every=1).after_step()
    assert unknown.status.startswith("unsupported:") and math.isnan(unknown.ratios[0])
    lost = EdgeOfStability(torch.optim.SGD([w], 0.1), lambda: w.sum() * math.nan, every=1)
    assert lost.after_step().status == "nonfinite" and lost.history[0].ratios == ()


def test_in_a_recording_it_leaves_the_training_alone(run_dir):
    def train(recorded):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        x, y = torch.randn(8, 3), torch.randn(8, 1)
        sgd = torch.optim.SGD(model.parameters(), 0.1)

        def loss():
            return (model(x) - y).square().mean()

        def loop(edge):
            for _ in range(6):
                sgd.zero_grad()
                loss().backward()
                sgd.step()
                if edge is not None:
                    edge.after_step()

        if not recorded:
            loop(None)
        else:
            with thalweg.record(model, sgd, run_dir) as run:
                edge = EdgeOfStability(sgd, loss, every=3, run=run, with_trace=True)
                loop(edge)
                assert len(edge.history) == 2
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(False), train(True), strict=True))
    run = thalweg.Run(run_dir)
    assert run.series("user/edge_ratio")[0].tolist() == [3, 6]
    assert len(run.series("user/edge_trace_ratio")[0]) == 2
    assert len(run.series("loss")[0]) == 6


def test_errors():
    w, loss = quadratic([1.0])
    for kwargs in ({"every": 0}, {"k": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            EdgeOfStability(torch.optim.SGD([w], 0.1), loss, **kwargs)
