import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.trajectory import DeltaStore, DriftCurve, basis_drift, task_gradients

VECTORS = np.load(
    Path(__file__).parent.parent / "vectors" / "local-linear-structure.npz", allow_pickle=False
)


def bank_of(rows):
    model = nn.Linear(rows.shape[1], 1, bias=False).to(rows.dtype)
    return task_gradients(model, lambda m, x: m(x[None]).sum(), list(rows))


def naive(rows, m, w, t):
    first, later = (torch.linalg.svd(rows[s : s + w].double()).Vh[:m] for s in (0, t))
    return float((later @ first.T).square().sum() / m)


def test_vectors():
    rows = torch.from_numpy(np.concatenate([VECTORS["grads"], VECTORS["grads2"]]))
    m = int(VECTORS["m"])
    found = basis_drift(rows, m, 30, stride=30)
    assert found.at(30) == pytest.approx(float(VECTORS["overlap_top_m"]), abs=1e-10)
    assert bank_of(rows).noise_ceiling(m) == pytest.approx(float(VECTORS["overlap_top_m"]))


def test_orthogonal_and_unchanged():
    g = torch.Generator().manual_seed(0)
    plane = torch.randn(6, 2, generator=g)
    still = basis_drift(torch.cat([plane @ torch.eye(8)[:2]] * 3), 2, 6)
    assert still.overlap[6] == pytest.approx(1) and still.overlap[12] == pytest.approx(1)
    turned = torch.cat([plane @ torch.eye(8)[:2], plane @ torch.eye(8)[2:4]])
    found = basis_drift(turned, 2, 6)
    assert isinstance(found, DriftCurve)
    assert found.overlap[0] == pytest.approx(1) and found.at(6) == pytest.approx(0, abs=1e-12)
    assert found.random == 0.25 and found.starts == tuple(range(7))


def test_against_svds():
    rows = torch.randn(20, 9, generator=torch.Generator().manual_seed(0))
    found = basis_drift(rows, 3, 5, stride=4)
    assert found.starts == (0, 4, 8, 12)
    for t, overlap in zip(found.starts, found.overlap, strict=True):
        assert overlap == pytest.approx(naive(rows, 3, 5, t), abs=1e-6)


def test_independent_gradients_overlap_by_chance():
    rows = torch.randn(400, 30, generator=torch.Generator().manual_seed(0))
    found = basis_drift(rows, 3, 10, stride=10)
    later = torch.tensor(found.overlap[1:])
    assert abs(float(later.mean()) - found.random) < 4 * float(later.std()) / len(later) ** 0.5
    assert found.random == 0.1


def test_half_life():
    # Rows turn from the first axis to the second by one degree a step: O = cos² of the angle.
    angle = torch.arange(100).double() * math.pi / 180
    rows = torch.stack([angle.cos(), angle.sin(), 0 * angle], 1)
    found = basis_drift(rows, 1, 1)
    np.testing.assert_allclose(found.overlap, angle.cos().square(), atol=1e-12)
    at_first = float(angle[1].cos().square())
    assert found.half_life == next(t for t in range(100) if found.overlap[t] < 0.5 * at_first)
    assert basis_drift(rows[:10], 1, 1).half_life == math.inf
    assert basis_drift(rows, 1, 60).half_life == math.inf  # no later window falls so far


def test_the_ceiling_is_of_equally_many_gradients():
    rows = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    bank = bank_of(rows)
    assert basis_drift(rows, 2, 6, ceiling=bank).ceiling == pytest.approx(bank.noise_ceiling(2))
    four = basis_drift(rows, 2, 4, ceiling=bank).ceiling
    assert four == pytest.approx(bank_of(rows[:8]).noise_ceiling(2))
    assert basis_drift(rows, 2, 6, ceiling=0.7).ceiling == 0.7
    assert math.isnan(basis_drift(rows, 2, 6).ceiling)
    with pytest.raises(ValueError, match="needs 14 gradients, got 12"):
        basis_drift(rows, 2, 7, ceiling=bank)


def test_updates_of_a_path():
    g = torch.Generator().manual_seed(0)
    updates = torch.randn(9, 8, generator=g, dtype=torch.float64)
    points = torch.cat([torch.randn(1, 8, generator=g).double(), updates]).cumsum(0)
    path = {10 * t: {"a": p[:5], "b": p[5:]} for t, p in enumerate(points)}
    want = basis_drift(updates, 2, 3)
    for source in (path, DeltaStore(path)):
        got = basis_drift(source, 2, 3)
        np.testing.assert_allclose(got.overlap, want.overlap, atol=1e-9)
        assert got.steps == tuple(range(0, 70, 10)) and got.starts == tuple(range(7))
    only = basis_drift(path, 1, 3, names=["b"])
    np.testing.assert_allclose(only.overlap, basis_drift(updates[:, 5:], 1, 3).overlap, atol=1e-9)
    assert only.random == pytest.approx(1 / 3)


def test_windows_that_span_less():
    rows = torch.eye(6)[[0, 0, 0, 1, 1, 2]]
    found = basis_drift(rows, 2, 3)
    assert found.overlap[0] == pytest.approx(1)  # of one direction each
    still = basis_drift(torch.cat([rows, torch.zeros(3, 6)]), 2, 3)
    assert math.isnan(still.at(6))


@given(seed=st.integers(0, 10_000), P=st.integers(2, 12), w=st.integers(1, 5))
def test_bounds_scale_and_rotation(seed, P, w):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(3 * w, P, generator=g, dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(P, P, generator=g, dtype=torch.float64)).Q
    m = min(w, P)
    found = basis_drift(rows, m, w)
    assert all(0 <= o <= 1 for o in found.overlap) and found.overlap[0] == pytest.approx(1)
    other = basis_drift(5 * rows @ Q, m, w)
    np.testing.assert_allclose(other.overlap, found.overlap, atol=1e-6)


def test_bad_input():
    rows = torch.ones(6, 4)
    with pytest.raises(ValueError, match="1 <= m <= window <= 6 rows"):
        basis_drift(rows, 3, 2)
    with pytest.raises(ValueError, match="1 <= m <= window <= 6 rows"):
        basis_drift(rows, 1, 7)
    with pytest.raises(ValueError, match="nothing moves in the first window"):
        basis_drift(torch.cat([torch.zeros(2, 4), rows]), 1, 2)
    with pytest.raises(ValueError, match="not finite"):
        basis_drift(rows * torch.inf, 1, 2)
    with pytest.raises(ValueError, match=r"\(T, P\) matrix without names"):
        basis_drift(rows, 1, 2, names=["w"])
    with pytest.raises(ValueError, match="no window begins at row 9"):
        basis_drift(rows, 1, 2).at(9)
