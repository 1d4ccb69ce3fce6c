from types import SimpleNamespace

import numpy as np
import pytest
import torch

from thalweg.trajectory import DeltaStore, InnerProducts, inner_products

M = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).double()
STATES = [{"a": torch.zeros(30).double(), "b": torch.zeros(10).double()}] + [
    {"a": row[:30], "b": row[30:]} for row in M
]


def run(*, snapshots=0, groups=2, T=6, dim=40, m=40):
    """A stand-in for a Run with these parts."""
    values = M[:T].float().numpy()
    zero = np.zeros((1, 40), np.float32)
    sketch = SimpleNamespace(
        steps=np.arange(T + 1), values=np.concatenate([zero, values])[:, :m], dim=dim, seed=0
    )
    return SimpleNamespace(
        weights=lambda: dict(enumerate(STATES[:snapshots])),
        sketches=lambda: {str(i): sketch for i in range(groups)},
    )


@pytest.mark.parametrize("source", [STATES, DeltaStore(STATES), dict(enumerate(STATES)), M])
def test_all_sources_agree(source):
    got = inner_products(source)
    assert isinstance(got, InnerProducts)
    torch.testing.assert_close(got.gram, M @ M.T)
    assert got.steps == (1, 2, 3, 4, 5, 6) and got.dim == 40 and got.error == 0


def test_names():
    got = inner_products(STATES, names=["b"])
    torch.testing.assert_close(got.gram, M[:, 30:] @ M[:, 30:].T)
    assert got.dim == 10
    with pytest.raises(ValueError, match="no tensor 'c'"):
        inner_products(STATES, names=["c"])


def test_sketches_of_a_run():
    got = inner_products(run())
    torch.testing.assert_close(got.gram, 2 * (M @ M.T), rtol=1e-5, atol=1e-5)
    assert got.known_from == "sketches" and got.steps == (1, 2, 3, 4, 5, 6) and got.dim == 80
    assert got.error == 5e-4
    assert inner_products(run(dim=1000, m=16)).error == 0.25
    with pytest.raises(ValueError, match="sketches mix all tensors"):
        inner_products(run(), names=["a"])
    with pytest.raises(ValueError, match="neither snapshots nor sketches"):
        inner_products(run(groups=0))
    resumed = run()
    resumed.header = {"segments": [{}, {}]}
    with pytest.raises(ValueError, match="the run was resumed"):
        inner_products(resumed)
    with pytest.raises(ValueError, match="no finite change"):
        inner_products(run(T=0))


def test_bad_matrices():
    with pytest.raises(ValueError, match=r"expected a \(T, P\) matrix"):
        inner_products(torch.zeros(3))
    with pytest.raises(ValueError, match="row 1 of the matrix"):
        inner_products(torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(ValueError, match="5000 points"):
        inner_products(torch.zeros(5000, 1))
