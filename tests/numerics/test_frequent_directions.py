from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.numerics import FrequentDirections

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "coso.npz"


@CI
@given(seed=st.integers(0, 10**6), r=st.integers(1, 6), decay=st.sampled_from([1.0, 0.5]))
def test_the_guarantee(seed, r, decay):
    g = torch.Generator().manual_seed(seed)
    fd, A = FrequentDirections(r, decay=decay), torch.zeros(8, 8).double()
    for _ in range(6):
        Q = torch.randn(8, 3, generator=g).double()
        fd.update(Q)
        A = decay**2 * A + Q @ Q.T
    gap = torch.linalg.eigvalsh(A - fd.sketch @ fd.sketch.T)
    assert gap[0] >= -1e-9 and gap[-1] <= fd.error_bound + 1e-9


def test_few_columns_are_kept_exactly():
    Q = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double()
    fd = FrequentDirections(5)
    fd.update(Q[:, :3])
    fd.update(Q[:, 3])
    torch.testing.assert_close(fd.sketch @ fd.sketch.T, Q @ Q.T)
    assert fd.error_bound == 0.0 and fd.sketch.shape == (9, 5)


def test_basis_counts_by_energy():
    fd = FrequentDirections(3)
    fd.update(torch.diag(torch.tensor([0.6, 0.3, 0.1]).double().sqrt()))
    assert [fd.basis(e).shape[1] for e in (0.5, 0.7, 0.98, 1.0)] == [1, 1, 2, 3]
    alone = FrequentDirections(2)
    alone.update(torch.tensor([[1.0], [0.0], [0.0]]))
    assert alone.basis(0.98).shape == (3, 1)


def test_vectors():
    """The official projector shrinks each gradient by itself before it takes it in."""
    data = np.load(VECTORS, allow_pickle=False)
    r2, decay, energy = data["hyper_r1_r2_decay_thr_lr_b1_b2_eps"][1:4]
    r2 = int(r2)
    history = np.zeros((12, 0))
    for task in range(3):
        fd = FrequentDirections(r2, decay=float(decay))
        for G in data["G"][task]:
            G = G - history @ (history.T @ G)
            U, s, _ = np.linalg.svd(G, full_matrices=False)
            shrunk = np.sqrt(np.maximum(s[:r2] ** 2 - s[r2] ** 2, 0))
            fd.update(torch.from_numpy(U[:, :r2] * shrunk))
        np.testing.assert_allclose(fd.singular_values, data["everystep_sketch_sigma"][task])
        np.testing.assert_allclose(
            fd.sketch @ fd.sketch.T, data["everystep_sketch_SSt"][task], atol=1e-10
        )
        new = fd.basis(float(energy)).numpy()
        assert new.shape[1] == data["everystep_n_directions_added"][task]
        history = np.concatenate([history, new], 1)
        expected = data[f"everystep_hist_proj_task{task}"]
        np.testing.assert_allclose(history @ history.T, expected, atol=1e-10)


def test_errors():
    fd = FrequentDirections(2)
    with pytest.raises(ValueError, match="nothing seen"):
        _ = fd.sketch
    with pytest.raises(ValueError, match="nan"):
        fd.update(torch.full((2, 2), float("nan")))
    fd.update(torch.ones(3, 1))
    with pytest.raises(ValueError, match="entries"):
        fd.update(torch.ones(4, 1))
    with pytest.raises(ValueError, match="energy"):
        fd.basis(0.0)
    for args in ((0,), (2, 1.5)):
        with pytest.raises(ValueError, match="rank"):
            FrequentDirections(args[0], decay=args[1] if len(args) > 1 else 1.0)
