import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.trajectory import Capture, execution_basis, prefix_basis, subspace_capture


def frame(P, m, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(P, m, generator=g, dtype=torch.float64)).Q


def test_known_shares():
    delta = torch.tensor([3.0, 4.0, 0.0, 0.0])
    energy = subspace_capture(delta, torch.eye(4)[:, :1])
    norm = subspace_capture(delta, torch.eye(4)[:, :1], kind="norm")
    assert isinstance(energy, Capture) and energy.size == 1 and energy.dim == 4
    assert float(energy) == pytest.approx(0.36) and float(norm) == pytest.approx(0.6)
    assert energy.random == 0.25 and energy.ratio == pytest.approx(1.44)
    assert float(subspace_capture(delta, torch.eye(4))) == pytest.approx(1)
    assert float(subspace_capture(delta, torch.eye(4)[:, 2:])) == 0


@pytest.mark.parametrize("kind", ["energy", "norm"])
def test_random_frames_capture_what_chance_gives(kind):
    P, m = 40, 6
    g = torch.Generator().manual_seed(0)
    delta = torch.randn(P, generator=g)
    found = [subspace_capture(delta, frame(P, m, i), kind=kind) for i in range(400)]
    shares = torch.tensor([float(c) for c in found])
    error = float(shares.std()) / 20
    assert abs(float(shares.mean()) - found[0].random) < 4 * error
    if kind == "energy":
        assert found[0].random == m / P
    else:
        assert found[0].random < math.sqrt(m / P)


def test_bases_in_blocks():
    g = torch.Generator().manual_seed(0)
    path = [
        {"w": torch.randn(3, 4, generator=g).double(), "b": torch.randn(3, generator=g).double()}
        for _ in range(6)
    ]
    delta = torch.randn(15, generator=g).double()
    for basis in (execution_basis(path, 2), prefix_basis(path, 3)):
        blockwise, whole = (subspace_capture(delta, b) for b in (basis, basis.dense()))
        assert float(blockwise) == pytest.approx(float(whole))
        assert blockwise.random == whole.random and blockwise.dim == 15


@given(seed=st.integers(0, 10_000), P=st.integers(1, 20), data=st.data())
def test_bounds_scale_and_rotation(seed, P, data):
    m = data.draw(st.integers(0, P))
    g = torch.Generator().manual_seed(seed)
    delta = torch.randn(P, generator=g, dtype=torch.float64)
    Q, R = frame(P, m, seed + 1), frame(P, P, seed + 2)
    share = float(subspace_capture(delta, Q))
    assert 0 <= share <= 1
    assert float(subspace_capture(1e200 * delta, Q)) == pytest.approx(share)
    assert float(subspace_capture(R @ delta, R @ Q)) == pytest.approx(share)
    assert float(subspace_capture(delta, Q, kind="norm")) == pytest.approx(share**0.5)
    assert share == pytest.approx(float((Q @ Q.T @ delta).norm() ** 2 / delta.norm() ** 2))


def test_bad_input():
    Q = torch.eye(4)[:, :2]
    with pytest.raises(ValueError, match="the displacement has length 0"):
        subspace_capture(torch.zeros(4), Q)
    with pytest.raises(ValueError, match="the displacement has length nan"):
        subspace_capture(torch.full((4,), torch.nan), Q)
    with pytest.raises(ValueError, match="not orthonormal"):
        subspace_capture(torch.ones(4), 2 * Q)
    with pytest.raises(ValueError, match=r"a basis of \(5, m\), got \(4, 2\)"):
        subspace_capture(torch.ones(5), Q)
    with pytest.raises(ValueError, match=r"a vector \(P,\), got \(2, 2\)"):
        subspace_capture(torch.ones(2, 2), Q)
    with pytest.raises(ValueError, match="'energy' or 'norm', got 'power'"):
        subspace_capture(torch.ones(4), Q, kind="power")  # type: ignore[arg-type]
