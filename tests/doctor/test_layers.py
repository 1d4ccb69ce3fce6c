"""Gradients, units, coverage: rules that look at parts."""

import numpy as np
import pytest

from thalweg.doctor.gradients import (
    exploding_activations,
    exploding_gradients,
    gradients_not_cleared,
    vanishing_gradients,
)
from thalweg.doctor.optimizer_coverage import never_moves, outside_optimizer
from thalweg.doctor.units import dead_units, dominating_layer, starved_layer

LAYERS = ("a.weight", "b.weight", "c.weight")


def _layers(instrument, values, records=12):
    return {(instrument, n): [v] * records for n, v in zip(LAYERS, values, strict=True)}


def test_exploding_gradients(make_run):
    grown = np.geomspace(1, 1e5, 40)
    run = make_run({("grad_norm", ""): grown, ("grad_norm", "b.weight"): grown})
    (found,) = exploding_gradients(run)
    assert found.evidence[0].value > 1e3 and "'b.weight'" in found.evidence[1].text
    assert exploding_gradients(make_run({("grad_norm", ""): np.geomspace(1, 20, 40)})) == []


def test_one_spike_is_no_explosion(make_run):
    assert exploding_gradients(make_run({("grad_norm", ""): [1.0] * 30 + [1e6]})) == []


def test_vanishing_gradients(make_run):
    weights = _layers("weight_norm", (2.0, 2.0, 2.0))
    (found,) = vanishing_gradients(make_run(_layers("grad_norm", (1e-9, 1e-6, 1.0)) | weights))
    assert found.severity == "problem" and "2 of 3 layers" in found.symptom


@pytest.mark.parametrize("sizes", [(1e-2, 0.1, 1.0), (1.0, 1e-6, 1e-9), (1e-9, 1.0, 1.0)])
def test_gentle_profiles_and_small_heads_have_not_vanished(make_run, sizes):
    weights = _layers("weight_norm", (2.0, 2.0, 2.0))
    assert vanishing_gradients(make_run(_layers("grad_norm", sizes) | weights)) == []


def test_exploding_activations(make_run):
    (found,) = exploding_activations(make_run(_layers("activation_rms", (1.0, 30.0, 900.0))))
    assert found.evidence[0].value == 900.0


@pytest.mark.parametrize("sizes", [(1.0, 3.0, 30.0), (200.0, 300.0, 900.0)])
def test_activations_on_a_scale_of_their_own_do_not_explode(make_run, sizes):
    assert exploding_activations(make_run(_layers("activation_rms", sizes))) == []


def test_a_head_that_learns_large_targets_is_healthy(make_run):
    series = _layers("activation_rms", (1.0, 1.0, 1.0))
    series["activation_rms", "c.weight"] = np.linspace(1, 2e5, 12)
    assert exploding_activations(make_run(series)) == []


def test_gradients_not_cleared(make_run):
    piling = {("grad_norm", ""): np.linspace(1, 30, 40)}
    assert gradients_not_cleared(make_run(piling, gradients_kept=True))
    assert not gradients_not_cleared(make_run(piling, gradients_kept=False))


def test_gradients_zeroed_by_hand_are_no_finding(make_run):
    assert not gradients_not_cleared(
        make_run({("grad_norm", ""): np.linspace(1, 0.3, 40)}, gradients_kept=True)
    )


def test_dead_units(make_run):
    run = make_run(
        {("dormant_fraction", "r"): np.linspace(0, 1, 12), ("dormant_fraction", "s"): [0.3] * 12}
    )
    (found,) = dead_units(run)
    assert "'r'" in found.symptom and len(found.evidence) == 1 and not found.planned
    assert dead_units(make_run({("dormant_fraction", "r"): [0.4] * 12})) == []
    assert dead_units(make_run({("dormant_fraction", "r"): [1.0, 1.0]})) == []  # too few


def _travelled(values):
    return _layers("weight_norm", (1.0, 1.0, 1.0)) | {
        ("distance_from_init", n): np.linspace(0, v, 12)
        for n, v in zip(LAYERS, values, strict=True)
    }


def test_dominating_and_starved_layers(make_run):
    far = make_run(_travelled((0.5, 90.0, 0.7)))
    assert "'b.weight' dominates" in dominating_layer(far)[0].symptom
    assert starved_layer(far) == []


def test_starved_layer_and_its_param_group(make_run):
    groups = [
        {"lr": 0.1, "params": ["b.weight", "c.weight"]},
        {"lr": 1e-7, "params": ["a.weight"]},
    ]
    optimizers = [{"part": "", "class": "SGD", "groups": groups}]
    run = make_run(_travelled((1e-6, 0.5, 0.7)), optimizers=optimizers)
    (found,) = starved_layer(run)
    assert "lr=1e-07, others have 0.1" in found.evidence[1].text
    assert dominating_layer(run) == []


def test_never_moves(make_run):
    still = {("distance_from_init", n): [0.0] * 5 for n in LAYERS}
    moved = still | {("distance_from_init", "c.weight"): [0.0, 0.1, 0.1, 0.1, 0.1]}
    gradients = {("grad_norm", "a.weight"): [0.0] * 5, ("grad_norm", "b.weight"): [1e-9] * 5}
    silent, rounded = never_moves(make_run(moved | gradients))
    assert "no gradient reaches them" in silent.symptom and "a.weight" in silent.evidence[0].text
    assert "although they have gradients" in rounded.symptom


def test_frozen_weights_in_the_optimizer_are_a_note(make_run):
    models = [{"label": "", "tensors": {"a.weight": [4, 4]}, "frozen": ["a.weight"]}]
    run = make_run({("distance_from_init", "a.weight"): [0.0] * 5}, models=models)
    assert [f.severity for f in never_moves(run)] == ["note"]


def test_outside_optimizer(make_run):
    outside = [{"name": "x", "gradient": True}, {"name": "y", "gradient": False}]
    found = outside_optimizer(make_run({}, outside_optimizers=outside))
    assert [f.severity for f in found] == ["problem", "note"]
    assert "model.get_parameter('x')" in found[0].treatment


def test_a_param_group_added_later_is_not_outside(make_run):
    outside = [{"name": "a.weight", "gradient": True}]
    assert outside_optimizer(make_run({}, outside_optimizers=outside)) == []
