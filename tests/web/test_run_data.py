"""What charts get, beside reading the whole series."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import ThalwegError
from thalweg.recorder.run import Run
from thalweg.recorder.tables import list_parts
from thalweg.web import run_data
from thalweg.web.run_data import OVERVIEW, RunData, plain, version_of
from thalweg.web.run_folder import RunFolder

STEPS = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory, plant):
    root = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=(12, STEPS))
    values[3, 7_777] = 1e6  # a spike of one step
    values[4, 5] = np.nan
    plant(root / "long", {("grad_norm", f"layer.{i}"): values[i] for i in range(12)})
    plant(root / "short", {("loss", ""): values[0, :50]})
    return RunFolder(root)


def test_names_are_in_natural_order(folder):
    assert RunData(folder).names("long") == {"grad_norm": [f"layer.{i}" for i in range(12)]}


def test_the_whole_keeps_every_extreme(folder):
    data, run = RunData(folder), folder.open("long")
    for part in ("layer.3", "layer.4"):
        [(name, c)] = data.columns("long", "grad_norm", [part], columns=100)
        _, values = run.series("grad_norm", part)
        assert name == part and len(c) <= 100 and c.banded
        assert c.high.max() == np.nanmax(values) and c.low.min() == np.nanmin(values)
        assert (c.nonfinite > 0).sum() == int(np.isnan(values).any())


@given(st.integers(0, STEPS - 2), st.integers(1, STEPS), st.integers(50, 500))
def test_a_stretch_has_the_extremes_of_its_steps(folder, first, width, columns):
    last = min(first + width, STEPS - 1)
    steps, values = folder.open("long").series("grad_norm", "layer.1")
    inside = values[(first <= steps) & (steps <= last)]
    found = RunData(folder).columns(
        "long", "grad_norm", ["layer.1"], first=first, last=last, columns=columns
    )
    c = found[0][1]
    assert len(c) <= max(columns, 3)
    assert c.high.max() >= inside.max() and c.low.min() <= inside.min()
    margin = (last - first) // 10 + 2 + 2 * (STEPS // OVERVIEW + 1)
    assert c.steps[0] >= first - margin and c.steps[-1] <= last + margin
    if last - first + 1 <= columns:  # every step by itself
        assert set(range(first, last + 1)) <= set(c.steps.tolist())


def test_a_short_series_is_given_as_it_is(folder):
    [(_, c)] = RunData(folder).columns("short", "loss", [""])
    steps, values = folder.open("short").series("loss")
    assert not c.banded
    np.testing.assert_array_equal(c.steps, steps)
    np.testing.assert_array_equal(c.middle, values)
    [said] = plain([("loss", c)])
    assert said["low"] is None and said["steps"] == steps.tolist()


def test_what_is_asked_for_is_capped(folder):
    data = RunData(folder)
    for wrong in (
        {"parts": []},
        {"parts": [""] * 25},
        {"parts": [""], "columns": 0},
        {"parts": [""], "columns": 10**6},
    ):
        with pytest.raises(ThalwegError, match="between 1 and"):
            data.columns("short", "loss", **wrong)
    with pytest.raises(ThalwegError, match="unknown instrument"):
        data.columns("short", "los", [""])
    with pytest.raises(ThalwegError, match="unknown part"):
        data.columns("long", "grad_norm", ["layer.99"])


def test_memory_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(run_data, "KEPT_BYTES", 5 * OVERVIEW * 8 * 3)
    data = RunData(folder)
    for i in range(12):
        data.columns("long", "grad_norm", [f"layer.{i}"])
    assert len(data._kept) == 3


def test_what_is_expected_is_read_once_and_what_is_wrong_with_it_is_told_to_who_asks(
    folder, monkeypatch
):
    data, read = RunData(folder), []
    real = Run.some_series
    monkeypatch.setattr(
        Run, "some_series", lambda self, *a, **k: (read.append(a), real(self, *a, **k))[1]
    )
    data.expect("long", "grad_norm", ["layer.1"])
    data.columns("long", "grad_norm", ["layer.1"])
    _until(lambda: not data._lock.locked())
    assert read == [("grad_norm", ["layer.1"])]
    data.expect("long", "grad_norm", ["layer.99"])
    data.expect("none", "grad_norm", [])
    with data._lock:
        data.expect("long", "grad_norm", ["layer.2"])  # somebody reads: nothing is begun
    assert ("long", "grad_norm", "layer.2") not in data._kept


def _until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_growth_is_seen(tmp_path, plant, append):
    writer = plant(tmp_path / "a", {("loss", ""): np.ones(10)}, close=False)
    data = RunData(RunFolder(tmp_path))
    before = version_of(Run(tmp_path / "a"))
    assert data.columns("a", "loss", [""])[0][1].steps[-1] == 9
    append(writer, {("loss", ""): np.ones(5), ("lr", ""): np.ones(5)}, first=10)
    assert version_of(Run(tmp_path / "a")) != before
    assert data.columns("a", "loss", [""])[0][1].steps[-1] == 14
    assert set(data.names("a")) == {"loss", "lr"}
    writer.close()


def test_some_series_are_those_of_one_by_one(folder):
    run = folder.open("long")
    parts = ["layer.7", "layer.2"]
    found = run.some_series("grad_norm", parts, first=100, last=300)
    assert list(found) == parts
    for part in parts:
        steps, values = run.series("grad_norm", part)
        inside = (100 <= steps) & (steps <= 300)
        np.testing.assert_array_equal(found[part][0], steps[inside])
        np.testing.assert_array_equal(found[part][1], values[inside])
    assert len(list_parts(run.path / "measurements")) >= 1
