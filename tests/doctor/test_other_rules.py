"""Validation, clipping, mixed precision, shapes."""

import numpy as np
import pytest

from thalweg.doctor.clipping import clipping_always
from thalweg.doctor.generalisation import overfitting
from thalweg.doctor.mixed_precision import loss_scale_collapse
from thalweg.doctor.shapes import broadcast_loss

TRAIN = {("loss", ""): np.geomspace(2, 0.01, 200)}


def _validation(values):
    return {("val_loss", ""): {20 * (i + 1): v for i, v in enumerate(values)}}


def test_overfitting(make_run):
    run = make_run(TRAIN | _validation([2, 1.5, 1.2, 1.3, 1.5, 1.7, 2.0, 2.2]), uncertainty=0.05)
    (found,) = overfitting(run)
    assert found.symptom.endswith("step 60 on")
    assert found.evidence[0].uncertainty == pytest.approx(0.05 * 2**0.5)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ([2, 1.5, 1.2, 1.1, 1.0, 1.0, 1.02, 1.05], 0.01),  # hardly rises
        ([2, 1.5, 1.0, 1.3, 1.5, 1.7, 1.7, 1.7], 0.4),  # within its uncertainty
        ([2, 1.5, 1.0, 1.6, 1.7], 0.01),  # too few evaluations since
        ([2, 1.0, 2.0, 1.1, 1.9, 1.01, 2.0, 1.0], 0.02),  # noisy, and comes back
    ],
)
def test_no_overfitting(make_run, values, error):
    assert overfitting(make_run(TRAIN | _validation(values), uncertainty=error)) == []


def test_both_losses_rising_is_not_memorisation(make_run):
    rising = {("loss", ""): np.linspace(1, 3, 200)}
    run = make_run(rising | _validation([1, 1.2, 1.5, 2, 2.4, 3]), uncertainty=0.01)
    assert overfitting(run) == []


def test_clipping_always(make_run):
    raw = np.linspace(5, 10, 40)
    series = {("grad_norm_preclip", ""): raw, ("grad_norm", ""): [0.01] * 40}
    (found,) = clipping_always(make_run(series))
    assert found.evidence[1].value == pytest.approx(7.5)
    assert "clip_grad_norm_(model.parameters(), 15)" in found.treatment


@pytest.mark.parametrize("limit", [0.5, 1.0, 20.0])
def test_clipping_that_leaves_a_tenth_is_healthy(make_run, limit):
    raw = np.linspace(5, 10, 40)
    series = {("grad_norm_preclip", ""): raw, ("grad_norm", ""): np.minimum(raw, limit)}
    assert clipping_always(make_run(series)) == []


def _skips(steps, scale):
    return [
        {"event": "skipped step", "step": s, "loss_scale": scale(i)} for i, s in enumerate(steps)
    ]


def test_loss_scale_collapse(make_run):
    events = _skips(range(20, 100), lambda i: 65536 / 2**i)
    (found,) = loss_scale_collapse(make_run({("loss", ""): [1.0] * 100}, events=events))
    assert "80 of 100 steps skipped" in found.evidence[0].text
    assert "65536 at the first skip" in found.evidence[1].text


def test_a_scaler_finding_its_scale_is_healthy(make_run):
    events = _skips(range(1, 13), lambda i: 65536 / 2**i)
    assert loss_scale_collapse(make_run({("loss", ""): [1.0] * 100}, events=events)) == []


def _call(name, *inputs):
    return {"loss_calls": [{"call": name, "inputs": inputs, "outputs": [[]]}]}


@pytest.mark.parametrize("name", ["mse_loss", "sub", "l1_loss"])
def test_broadcast_loss(make_run, name):
    (found,) = broadcast_loss(make_run(TRAIN, **_call(name, [32, 1], [32])))
    assert found.severity == "problem" and "(32, 32)" in found.evidence[0].text


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("mse_loss", ([32, 1], [32, 1])),
        ("cross_entropy", ([32, 10], [32])),
        ("sub", ([32, 10], [10])),
        ("sub", ([32, 1], [1, 32])),  # pairs, on purpose
        ("sub", ([8, 1, 3], [1, 8, 3])),
        ("mul", ([32, 1], [32])),
    ],
)
def test_ordinary_shapes(make_run, name, inputs):
    assert broadcast_loss(make_run(TRAIN, **_call(name, *inputs))) == []
