import numpy as np
import pytest

from thalweg.doctor.readings import (
    ReadOnce,
    by_part,
    levels,
    matrices,
    shapes,
    spread,
    training_loss,
    whole,
)


def test_spread_is_the_standard_deviation_of_a_normal_law_and_ignores_spikes():
    values = np.random.default_rng(0).standard_normal(20_000)
    assert spread(values) == pytest.approx(1, rel=0.03)
    values[:100] = 1e9
    assert spread(values) == pytest.approx(1, rel=0.03)


def test_levels_skip_what_is_not_finite():
    found = levels((np.arange(8), np.array([1, 1, np.nan, 1, 5, 5, 5, 5.0])), 2)
    assert found.medians.tolist() == [1, 5] and found.starts.tolist() == [0, 5]


def test_parts_keep_the_order_of_the_forward_pass(make_run):
    run = make_run({("activation_rms", n): [1.0] for n in ("stem", "body", "a", "head")})
    assert list(by_part(run, "activation_rms")) == ["stem", "body", "a", "head"]
    assert len(whole(run, "loss")[0]) == 0


def test_one_loss_of_two_optimizers(make_run):
    run = make_run({("loss", ""): [1.0, 0.5], ("loss", "optimizer1"): [1.0, 0.5]})
    assert training_loss(run)[1].tolist() == [1.0, 0.5]


def test_shapes_of_several_models(make_run):
    models = [{"label": n, "tensors": {"w": [2, 3], "b": [3]}} for n in ("A", "B")]
    run = make_run({}, models=models)
    assert list(shapes(run)) == ["A.w", "A.b", "B.w", "B.b"]
    assert matrices(run) == {"A.w": 6, "B.w": 6}


def test_a_run_is_read_once(make_run):
    run = ReadOnce(make_run({("loss", ""): [1.0]}).path)
    assert run.all_series() is run.all_series() and run.header is run.header
