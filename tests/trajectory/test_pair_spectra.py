"""Shares of a change in the directions of a matrix, against closed forms and vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from thalweg.trajectory.pair_spectra import PairSpectra

V = np.load(Path(__file__).parents[1] / "vectors" / "rlvr-off-principals.npz", allow_pickle=False)


def test_vectors():
    W0, W1, k = torch.from_numpy(V["W0"]), torch.from_numpy(V["W1"]), int(V["k"])
    s = PairSpectra(W0, W1, k)
    expected = [float(V[name]) for name in ("two_sided", "left", "right")]
    assert s.energy(k) == pytest.approx(expected, rel=1e-9)
    assert s.drift() / s.norm == pytest.approx(float(V["drift_over_delta"]), rel=1e-8)
    top = float(s.change.values[0])
    assert s.norm**2 / top**2 == pytest.approx(float(V["stable_rank"]), rel=1e-9)
    wedin = top / float(s.before.values[k - 1] - s.after.values[k])
    assert wedin == pytest.approx(float(V["wedin_rhs"]), rel=1e-8)


def test_unit_changes():
    W = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    E = torch.zeros(3, 3)
    E[0, 1] = 1.0
    s = PairSpectra(W, W + E, 1)
    assert s.energy(1) == pytest.approx((0, 1, 0), abs=1e-12)
    W_ = PairSpectra(W, 2 * W, 3)
    assert W_.energy(3) == pytest.approx((1, 1, 1))
    assert W_.energy(2)[0] == pytest.approx(13 / 14)  # Σ_{≤k}σ² / Σσ²
    assert W_.drift() / W_.norm == pytest.approx(1)


def test_isotropic_change():
    g = torch.Generator().manual_seed(0)
    W = torch.randn(60, 40, generator=g)
    shares = torch.tensor(
        [PairSpectra(W, W + torch.randn(60, 40, generator=g), 8).energy(8) for _ in range(30)]
    ).mean(0)
    expected = torch.tensor([64 / 2400, 8 / 60, 8 / 40])
    torch.testing.assert_close(shares, expected, rtol=0.08, atol=0)


def test_nothing_is_found_before_it_is_asked_for():
    W = torch.randn(5, 4)
    s = PairSpectra(W, W + 1, 9)
    assert s.k == 4 and not {"before", "after", "change"} & set(vars(s))


def test_randomised_has_no_drift():
    W = torch.randn(12, 10)
    s = PairSpectra(W, W + 1, 2, max_svd_dim=5)
    assert np.isnan(s.drift()) and s.change.values[0] > 0 and not s.change.exact
