"""The rule for a path that turns, on made paths and on real trainings."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import thalweg
from thalweg.data import digits
from thalweg.doctor.path_turned import path_turned
from thalweg.doctor.plasticity import loss_of_plasticity
from thalweg.doctor.turns import TURNED, Turn, new_length, turns
from thalweg.recorder.snapshots import SketchWriter


def gram(points):
    points = np.asarray(points, dtype=np.float64)
    return points @ points.T


def sketched(run, points, steps=None):
    """The run, with the sketches of a path (T, P) that starts at its first point."""
    writer = SketchWriter(run.path, rank=0, segment=0)
    points = torch.as_tensor(points, dtype=torch.float32)
    writer.start("", [points[0]])
    for step, point in zip(steps if steps is not None else range(len(points)), points, strict=True):
        writer.write(int(step), 0.1 * float(step), {"": [point]})
    writer.close()
    return run


def kinked(at=100, total=200, noise=0.02, seed=0):
    """A line that goes on in another direction, three times as fast."""
    rng = np.random.default_rng(seed)
    t = np.arange(total + 1)[:, None]
    a, b = rng.normal(size=(2, 300)) / 300**0.5
    walk = rng.normal(size=(total + 1, 300)).cumsum(0) * noise / 300**0.5
    return np.minimum(t, at) * a + 3 * np.maximum(t - at, 0) * b + walk


def test_known_lengths():
    steps = np.arange(60)
    line = np.outer(steps, np.ones(3))
    assert new_length(steps, gram(line), 40, 10.0) == pytest.approx((0, 1), abs=1e-6)
    corner = np.stack([np.minimum(steps, 40), np.maximum(steps - 40, 0) * 3.0], 1)
    assert new_length(steps, gram(corner), 40, 10.0) == pytest.approx((3, 0), abs=1e-6)
    slanted = corner + np.stack([np.maximum(steps - 40, 0) * 4.0, 0 * steps], 1)
    assert new_length(steps, gram(slanted), 40, 10.0) == pytest.approx((3, 16 / 25), abs=1e-6)


def test_a_projection_by_hand():
    points = np.random.default_rng(0).normal(size=(31, 40)).cumsum(0)
    steps = np.arange(31) * 2
    # windows of 10 steps, half of one is 2.5 points
    at = np.interp(np.arange(-8, 1) * 2.5 + 20, np.arange(31), np.arange(31))
    low = np.floor(at).astype(int)
    halves = points[low] + (at - low)[:, None] * (points[np.minimum(low + 1, 30)] - points[low])
    Q = np.linalg.qr(np.diff(halves, axis=0).T)[0]
    after = points[25] - points[20]
    new = np.linalg.norm(after - Q @ (Q.T @ after))
    longest = np.linalg.norm(np.diff(points[[0, 5, 10, 15, 20]], axis=0), axis=1).max()
    length, known = new_length(steps, gram(points), 40, 10.0)
    assert length == pytest.approx(new / longest)
    assert known == pytest.approx(1 - new**2 / (after @ after))


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_a_walk_is_at_one_and_lengths_have_no_unit(seed, scale):
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(101, 4000)).cumsum(0)
    steps = np.arange(101)
    length, known = new_length(steps, gram(walk), 60, 12.0)
    assert 0.9 < length < 1.1 and known < 0.05
    turned = walk[:, rng.permutation(4000)] * scale
    assert new_length(steps, gram(turned), 60, 12.0) == pytest.approx((length, known), rel=1e-6)


@pytest.mark.parametrize("at", [70, 100, 150])
def test_a_kink_is_found_where_it_is(make_run, at):
    run = sketched(make_run({}), kinked(at))
    (turn,) = turns(run)
    assert isinstance(turn, Turn) and abs(turn.step - at) <= 2
    assert turn.length > 2 * TURNED > 2 * turn.usual and turn.known < 0.2
    (found,) = path_turned(run)
    assert found.entry == "local-linear-structure" and str(turn.step) in found.treatment
    assert "1 for a random walk" in found.evidence[0].text and "Look for what" in found.treatment
    assert found.severity == "note"


def test_the_cause_is_named(make_run):
    rose = make_run({("lr", ""): {1: 0.01, 101: 0.1}, ("loss", ""): {1: 1.0}})
    (found,) = path_turned(sketched(rose, kinked()))
    assert "rose from 0.01 to 0.1" in found.evidence[1].text and "LinearLR" in found.treatment
    loss = np.r_[np.linspace(2, 0.2, 100), np.linspace(2, 0.2, 100)]
    (found,) = path_turned(sketched(make_run({("loss", ""): loss}), kinked()))
    assert "the loss rose from" in found.evidence[1].text and "replay" in found.treatment
    assert found.severity == "warning"
    # eight times as much, but a tenth of nothing is lost
    loss = np.r_[np.linspace(2, 0.02, 100), np.full(100, 0.16)]
    (found,) = path_turned(sketched(make_run({("loss", ""): loss}), kinked()))
    assert len(found.evidence) == 1 and found.severity == "note"
    moved = {("distance_from_init", "c.weight"): np.maximum(np.arange(200) - 100, 0)}
    (found,) = path_turned(sketched(make_run(moved), kinked()))
    assert "'c.weight' did not move before" in found.evidence[1].text
    assert "unfrozen" in found.treatment
    noted = make_run({}, events=[{"event": "task 2", "step": 98}])
    (found,) = path_turned(sketched(noted, kinked()))
    assert "'task 2' at step 98" in found.evidence[1].text


def test_rules_that_explain_it_speak_alone(make_run):
    gone = np.r_[np.linspace(2, 0.2, 100), np.full(100, 3.0)]
    run = sketched(make_run({("loss", ""): gone}), kinked())
    assert turns(run) and path_turned(run) == []
    assert [f.rule for f in thalweg.diagnose(run)] == ["lr_too_high"]


def test_one_turn_is_no_loss_of_plasticity(make_run):
    falling = np.linspace(2, 0.2, 100)
    worn = {("dormant_fraction", "1"): np.linspace(0.1, 0.9, 200)}
    learns = worn | {("loss", ""): np.r_[falling, np.linspace(2.4, 0.6, 100)]}
    stuck = worn | {("loss", ""): np.r_[falling, np.linspace(0.9, 0.62, 100)]}
    raised = stuck | {("lr", ""): {1: 0.01, 101: 0.1}}
    for series in (learns, stuck, raised):
        assert loss_of_plasticity(make_run(series)) != []
    rules = (path_turned, loss_of_plasticity)
    for series, said in zip((learns, stuck, raised), (*rules, path_turned), strict=True):
        run = sketched(make_run(series), kinked())
        assert [rule for rule in rules if rule(run)] == [said]


@pytest.mark.parametrize("seed", range(3))
def test_paths_that_bend_or_wander_are_no_finding(make_run, seed):
    rng = np.random.default_rng(seed)
    t = np.arange(301)[:, None]
    a, b, c = rng.normal(size=(3, 2000)) / 2000**0.5
    walk = rng.normal(size=(301, 2000)).cumsum(0) / 2000**0.5
    for path in (
        walk,
        20 * (1 - np.exp(-t / 40)) * a + walk * 0.1,
        50 * np.sin(t / 100) * a + 50 * np.cos(t / 100) * b,
        t * a + 30 * (1 - np.exp(-t / 80)) * b + 0.3 * walk,
        t * a + np.sqrt(t) * c,
        0 * walk,
    ):
        assert turns(sketched(make_run({}), path)) == []


def test_too_few_or_resumed_or_gone(make_run):
    assert path_turned(make_run({})) == []
    assert path_turned(sketched(make_run({}), kinked()[::10], range(0, 201, 10))) == []
    steps = np.r_[0:85, 115:201]  # nothing known of the steps around the turn
    assert turns(sketched(make_run({}), kinked()[steps], steps)) == []
    resumed = make_run({}, segments=[{"segment": 0}, {"segment": 1}])
    assert turns(sketched(resumed, kinked())) == []


def test_long_recordings_are_thinned(make_run):
    path = kinked(1000, 2000)
    (turn,) = turns(sketched(make_run({}), path))
    assert abs(turn.step - 1000) <= 10


@pytest.mark.parametrize("switched", [True, False])
def test_a_real_training(tmp_path, switched):
    torch.manual_seed(0)
    data = digits()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    y = data.y
    with thalweg.record(model, optimizer, tmp_path / "run", overhead=1e9, instruments=["loss"]):
        for step in range(240):
            if switched and step == 120:
                y = (data.y + 1) % 10
            rows = torch.randint(len(y), (32,))
            loss = nn.functional.cross_entropy(model(data.x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = [d for d in thalweg.diagnose(tmp_path / "run") if d.rule == "path_turned"]
    assert bool(found) == switched
    if switched:
        assert abs(found[0].evidence[0].steps[0] - 120) <= 6
