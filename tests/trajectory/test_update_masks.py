"""Masks of weights: exact counts, closed forms, and two sets of vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.trajectory import low_magnitude_mask, mask_overlap, principal_mask, update_mask
from thalweg.trajectory.update_masks import lowest

VECTORS = Path(__file__).parents[1] / "vectors"
OWN = np.load(VECTORS / "rlvr-off-principals.npz", allow_pickle=False)
PEER = np.load(VECTORS / "opd-geometry.npz", allow_pickle=False)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    alpha=st.sampled_from([0.01, 0.3, 0.5, 1.0]),
)
def test_ties_leave_the_count_exact(seed, n, alpha):
    g = torch.Generator().manual_seed(seed)
    w = torch.randint(-2, 3, (n,), generator=g).float()  # quantised: most are ties
    count = max(1, int(alpha * n))
    mask = low_magnitude_mask(w, alpha)
    assert int(mask.sum()) == count
    order = sorted(range(n), key=lambda i: (abs(float(w[i])), i))
    assert sorted(order[:count]) == mask.nonzero()[:, 0].tolist()
    assert int(principal_mask(w.expand(2, n), 1, alpha).sum()) == max(1, int(alpha * 2 * n))


def test_none_and_all():
    assert not lowest(torch.ones(3), 0).any() and lowest(torch.ones(3), 3).all()


def test_principal_entries_of_a_rank_one_matrix():
    u, v = torch.tensor([1.0, 3.0]), torch.tensor([1.0, -2.0, 5.0])
    assert principal_mask(torch.outer(u, v), 1, 0.34).nonzero().tolist() == [[1, 1], [1, 2]]
    wide = principal_mask(torch.outer(v, u), 9, 0.34)  # rank beyond the smaller side
    assert wide.nonzero().tolist() == [[1, 1], [2, 1]]


def test_overlap_is_the_jaccard_index():
    a, b = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    assert mask_overlap(a, b) == 1 / 3 and mask_overlap(a, a) == 1
    assert mask_overlap(a & ~a, b & ~b) == 1 and mask_overlap(a & ~a, b) == 0
    g = torch.Generator().manual_seed(0)
    p, q, n = 0.3, 0.6, 200_000
    a, b = torch.rand(n, generator=g) < p, torch.rand(n, generator=g) < q
    assert mask_overlap(a, b) == pytest.approx(p * q / (p + q - p * q), abs=5e-3)  # independent


def test_update_mask_is_strict_and_wide():
    a = torch.tensor([1.0, 1.0], dtype=torch.bfloat16)
    b = torch.tensor([1.0078125, float("nan")], dtype=torch.bfloat16)
    assert update_mask(a, b).tolist() == [True, True]
    assert update_mask(a, b, atol=0.0078125).tolist() == [False, True]


def test_own_vectors():
    W0, alpha = torch.from_numpy(OWN["W0"]), float(OWN["alpha"])
    changed = torch.from_numpy(OWN["update_mask"])
    principal = principal_mask(W0, int(OWN["r"]), alpha)
    low = low_magnitude_mask(W0, alpha)
    assert torch.equal(principal, torch.from_numpy(OWN["princ_mask"]))
    assert torch.equal(low, torch.from_numpy(OWN["low_mask"]))
    for mask, name in ((principal, "overlap_princ"), (low, "overlap_low")):
        share = (mask & changed).sum().item() / changed.sum().item()
        assert share == pytest.approx(float(OWN[name]), abs=1e-15)


@pytest.mark.parametrize("pct", [1, 5, 10, 20])
@pytest.mark.parametrize(("prefix", "atol"), [("mask0", 0.0), ("mask1e5", 1e-5)])
def test_vectors_of_the_authors_script(prefix, atol, pct):
    W0, W1 = torch.from_numpy(PEER["W0"]), torch.from_numpy(PEER["W1"])
    changed = update_mask(W0, W1, atol)
    count = int(PEER[f"{prefix}_update_count"])
    # Theirs compares a float32 difference; one entry may lie on the line.
    assert abs(int(changed.sum()) - count) <= 1
    principal = principal_mask(W0, max(1, int(pct / 100 * 40)), pct / 100)
    low = low_magnitude_mask(W0, pct / 100)
    masks = {
        "principal": principal,
        "low_magnitude": low,
        "principal_not_low": principal & ~low,
        "nonprincipal_or_low": ~principal | low,
    }
    # The script takes ⌈αn⌉ entries, here it is the integer part: one entry at 1 % of 1920.
    entries = 1 if pct == 1 else 0
    for name, mask in masks.items():
        share = (mask & changed).sum().item() / count
        theirs = float(PEER[f"{prefix}_{name}_{pct}pct_update_overlap_ratio"])
        assert abs(share - theirs) <= (entries + 1e-9) / count


def test_errors():
    with pytest.raises(ValueError, match="alpha <= 1, got 0"):
        low_magnitude_mask(torch.ones(3), 0)
    with pytest.raises(ValueError, match="finite floating"):
        low_magnitude_mask(torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match="matrix"):
        principal_mask(torch.ones(3))
    with pytest.raises(ValueError, match="one shape and atol"):
        update_mask(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="atol >= 0"):
        update_mask(torch.ones(3), torch.ones(3), atol=-1)
    with pytest.raises(TypeError, match="bool"):
        mask_overlap(torch.ones(3), torch.ones(3).bool())
    with pytest.raises(ValueError, match="one shape"):
        mask_overlap(torch.ones(3).bool(), torch.ones(2).bool())
