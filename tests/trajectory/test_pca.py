from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.trajectory import PCAResult, random_walk_null, trajectory_pca

CI = settings(max_examples=20, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "execution-manifold.npz"


def test_vectors():
    v = np.load(VECTORS, allow_pickle=False)
    pca = trajectory_pca(torch.tensor(v["traj"]))
    assert isinstance(pca, PCAResult)
    torch.testing.assert_close(pca.explained, torch.tensor(v["explained"]))
    assert pca.r(0.9) == int(v["r90"])
    assert pca.entropy_rank == pytest.approx(float(v["entropy_rank_singular"]))


@CI
@given(n=st.integers(3, 8), seed=st.integers(0, 10**6), center=st.booleans())
def test_is_the_svd(n, seed, center):
    path = torch.randn(n, 12, generator=torch.Generator().manual_seed(seed)).double()
    pca = trajectory_pca(path, center)
    moved = path - path[0]
    moved = moved - moved.mean(0) if center else moved
    U, S, Vh = torch.linalg.svd(moved, full_matrices=False)
    torch.testing.assert_close(pca.singular_values, S[: n - 1], atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(pca.scores.abs(), (U * S)[:, : n - 1].abs(), atol=1e-6, rtol=1e-6)
    k = min(2, n - 1)
    B = pca.basis(path, k)
    torch.testing.assert_close(B.T @ B, torch.eye(k).double(), atol=1e-7, rtol=0)
    torch.testing.assert_close((B * Vh[:k].T).sum(0).abs(), torch.ones(k).double())


def test_a_store_gives_the_same():
    path = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    states = [{"a": p[:8].view(2, 4), "b": p[8:]} for p in path]
    pca, of_matrix = trajectory_pca(states), trajectory_pca(path)
    torch.testing.assert_close(pca.explained, of_matrix.explained, atol=1e-6, rtol=1e-5)
    assert pca.steps == (0, 1, 2, 3, 4, 5) and pca.dim == 12
    B = pca.basis(states, 3)
    torch.testing.assert_close(
        (B * of_matrix.basis(path, 3)).sum(0).abs(), torch.ones(3).double(), atol=1e-5, rtol=0
    )
    part = trajectory_pca(states, names=["b"])
    assert part.basis(states, 1, names=["b"]).shape == (4, 1) and part.dim == 4


def test_straight_and_bent_paths():
    t = torch.arange(20.0)
    line = torch.outer(t, torch.randn(30, generator=torch.Generator().manual_seed(0)))
    straight = trajectory_pca(line)
    assert straight.r(0.9) == straight.r(1.0) == 1
    torch.testing.assert_close(straight.alignment, torch.ones(19).double())
    bent = torch.zeros(21, 30)
    bent[:, 0] = torch.arange(21.0).clamp(max=10)
    bent[:, 1] = (torch.arange(21.0) - 10).clamp(min=0)
    assert trajectory_pca(bent).r(0.9) == 2


def test_noise_is_its_null():
    walk = torch.randn(60, 20_000, generator=torch.Generator().manual_seed(0)).cumsum(0)
    for center in (True, False):
        pca = trajectory_pca(walk, center)
        torch.testing.assert_close(pca.explained[:4], pca.null[:4], atol=0.02, rtol=0)
    assert trajectory_pca(walk).r() == trajectory_pca(walk).null_r() == 6
    torch.testing.assert_close(trajectory_pca(walk).null, random_walk_null(60)[:-1])


def test_uneven_steps_have_their_own_null():
    g = torch.Generator().manual_seed(0)
    walk = torch.cat([torch.zeros(1, 20_000), torch.randn(64, 20_000, generator=g).cumsum(0)])
    pca = trajectory_pca({t: {"w": walk[t]} for t in (0, 1, 2, 4, 8, 16, 32, 64)})
    torch.testing.assert_close(pca.explained[:3], pca.null[:3], atol=0.02, rtol=0)


def test_a_path_that_stands_still():
    pca = trajectory_pca(torch.ones(5, 3))
    assert pca.r() == 0 and pca.entropy_rank == 0 and pca.explained.tolist() == [0.0] * 4


def test_bad_input():
    path = torch.randn(4, 3)
    with pytest.raises(ValueError, match="n >= 3"):
        trajectory_pca(path[:2])
    with pytest.raises(ValueError, match="at least 3 points"):
        trajectory_pca([{"w": p} for p in path[:2]])
    with pytest.raises(ValueError, match="q must be"):
        trajectory_pca(path).r(0.0)
    with pytest.raises(ValueError, match="1 <= k <= 3"):
        trajectory_pca(path).basis(path, 4)
    values = path.numpy()
    sketch = SimpleNamespace(steps=np.arange(1, 5), values=values, dim=3, seed=0)
    run = SimpleNamespace(weights=dict, sketches=lambda: {"0": sketch})
    with pytest.raises(ValueError, match="directions need weights"):
        trajectory_pca(run).basis(run, 1)
