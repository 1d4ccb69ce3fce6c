import math

import numpy as np
import pytest

from thalweg.doctor.learning_rate import lr_too_high, lr_too_low

RNG = np.random.default_rng(0)


def _falling(n=300):
    return 2.0 * np.exp(-np.arange(n) / 60) + 0.1 + 0.03 * RNG.standard_normal(n)


def test_a_loss_that_leaves_its_band_for_good(make_run):
    loss = _falling()
    loss[200:] += 1.5
    (found,) = lr_too_high(make_run({("loss", ""): loss, ("lr", ""): [0.5]}))
    assert found.severity == "problem" and "did not come back" in found.symptom
    assert "`lr=0.05`" in found.treatment
    start = found.evidence[0].steps[1]
    assert 185 < start < 220


@pytest.mark.parametrize("width", [1, 20, 45])
def test_a_loss_that_comes_back_is_no_finding(make_run, width):
    loss = _falling()
    loss[150 : 150 + width] += 20.0
    assert lr_too_high(make_run({("loss", ""): loss})) == []


def test_edge_of_stability_is_no_finding_whatever_the_sharpness(make_run):
    n = 600
    loss = np.exp(-np.arange(n) / 200) * (1 + 0.3 * (RNG.random(n) < 0.1))
    series = {("loss", ""): loss, ("lr", ""): [0.4], ("sharpness", ""): [5.05] * n}
    assert lr_too_high(make_run(series)) == []


def test_sharpness_is_shown_as_evidence(make_run):
    loss = _falling()
    loss[200:] += 5
    series = {("loss", ""): loss, ("lr", ""): [0.4], ("sharpness", ""): {100: 10.0}}
    (found,) = lr_too_high(make_run(series))
    assert found.evidence[-1].value == pytest.approx(2.0)  # 10 · 0.4 / 2
    assert "evidence only" in found.evidence[-1].text


def test_divergence_to_infinity_and_blow_up_to_chance(make_run):
    grown = [2.0, 2.1, 9.0, 400.0, math.inf, math.nan]
    assert lr_too_high(make_run({("loss", ""): grown}))[0].symptom == "the loss diverges"


def test_blow_up_that_ends_at_chance(make_run):
    loss = np.r_[2.3, 80.0, 900.0, np.full(100, 2.303)]
    found = lr_too_high(make_run({("loss", ""): loss, ("update_ratio", ""): [3.0, 0.1]}))
    assert found[0].symptom == "the loss blew up and never recovered"
    assert found[0].evidence[1].value == 3.0


def test_the_param_group_with_the_largest_rate_is_named(make_run):
    series = {("loss", ""): [2.0, 9.0, math.inf], ("lr", ""): [0.1], ("lr", "group1"): [300.0]}
    assert "of param group1 tenfold: `lr=30`" in lr_too_high(make_run(series))[0].treatment


def test_short_runs_and_players_of_a_game_are_left_alone(make_run):
    assert lr_too_high(make_run({("loss", ""): [1.0, 0.5, 4.0, 4.0]})) == []
    game = {("loss", ""): np.linspace(1, 9, 90), ("loss", "optimizer1"): np.linspace(9, 1, 90)}
    assert lr_too_high(make_run(game)) == []


def test_too_low(make_run):
    flat = 2.3 + 0.05 * RNG.standard_normal(200)
    series = {("loss", ""): flat, ("update_ratio", ""): [1e-8] * 20, ("lr", ""): [1e-7]}
    (found,) = lr_too_low(make_run(series))
    assert found.severity == "warning" and "`lr=1e-05`" in found.treatment


@pytest.mark.parametrize(
    ("loss", "ratio"),
    [(np.linspace(2.3, 1.0, 200), 1e-8), (np.full(200, 0.01), 1e-3), (np.full(20, 2.3), 1e-8)],
)
def test_too_low_needs_a_flat_loss_and_still_weights(make_run, loss, ratio):
    assert lr_too_low(make_run({("loss", ""): loss, ("update_ratio", ""): [ratio] * 20})) == []
