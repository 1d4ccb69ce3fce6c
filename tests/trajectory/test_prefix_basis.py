from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.trajectory import (
    DeltaStore,
    PrefixBasis,
    inner_products,
    prefix_basis,
    subspace_capture,
    task_gradients,
)
from thalweg.trajectory.outlook import captured_by_prefix

VECTORS = np.load(
    Path(__file__).parent.parent / "vectors" / "local-linear-structure.npz", allow_pickle=False
)


def descent(H, phi, eta, T):
    path = [phi]
    for _ in range(T):
        path.append(path[-1] - eta * H @ path[-1])
    return torch.stack(path)


def walk(T=9, seed=0):
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(T, 14, generator=g, dtype=torch.float64).cumsum(0)
    return [{"a": p[:8].reshape(2, 4), "b": p[8:]} for p in points]


def flat(states):
    return torch.stack([torch.cat([v.reshape(-1) for v in s.values()]) for s in states])


def test_vectors():
    v = {k: torch.from_numpy(VECTORS[k]) for k in ("H", "phi0")}
    path = descent(v["H"], v["phi0"], float(VECTORS["eta"]), int(VECTORS["T"]))
    np.testing.assert_allclose(path[-1] - path[0], VECTORS["displacement"], atol=1e-12)
    for k, whole, rest in zip(
        range(1, int(VECTORS["m"]) + 1),
        VECTORS["capture_prefix_energy"],
        VECTORS["capture_residual_energy"],
        strict=True,
    ):
        found = prefix_basis(path.diff(dim=0), k)
        # Five Krylov vectors have a Gram matrix of condition 4e8, and round-off is 2e-16 of it.
        assert found.captured == pytest.approx(whole, abs=1e-7)
        assert found.residual == pytest.approx(rest, abs=1e-7)
        assert float(subspace_capture(path[-1] - path[0], found)) == pytest.approx(whole, abs=1e-7)


def test_one_step_of_descent_is_the_static_basis():
    H, phi = torch.from_numpy(VECTORS["H"]), torch.from_numpy(VECTORS["phi0"])
    displacement = torch.from_numpy(VECTORS["displacement"])
    g = H @ phi
    static = subspace_capture(displacement, (g / g.norm())[:, None])
    assert float(static) == pytest.approx(float(VECTORS["capture_static_gradient"]), abs=1e-12)
    model = torch.nn.Linear(len(phi), 1, bias=False).double()
    bank = task_gradients(model, lambda m, x: m(x).sum(), [g[None], 2 * g[None]])
    assert float(subspace_capture(displacement, bank.basis(1))) == pytest.approx(float(static))
    updates = descent(H, phi, float(VECTORS["eta"]), int(VECTORS["T"])).diff(dim=0)
    assert prefix_basis(updates, 1).captured == pytest.approx(float(static))


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_as_many_updates_as_distinct_eigenvalues_suffice(distinct):
    g = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(12, 12, generator=g, dtype=torch.float64)).Q
    values = torch.tensor([0.2, 0.7, 1.3]).double()[:distinct].repeat(12)[:12]
    path = descent(Q * values @ Q.T, torch.randn(12, generator=g).double(), 0.5, 20)
    found = prefix_basis(path.diff(dim=0), distinct)
    assert found.captured == pytest.approx(1) and found.residual == pytest.approx(1)
    longer = prefix_basis(path.diff(dim=0), 12)
    assert longer.size == distinct  # the others are spanned


@pytest.mark.parametrize("m", [1, 2, 4, 6])
def test_agrees_with_the_outlook_and_with_a_qr(m):
    path = walk()
    found = prefix_basis(path, m)
    known = {p.step: p for p in captured_by_prefix(inner_products(path))}
    assert isinstance(found, PrefixBasis) and found.step == m and found.dim == 14
    assert found.captured == pytest.approx(known[m].share, abs=1e-12)
    assert found.walk == pytest.approx(known[m].walk, abs=1e-12)
    points = flat(path)
    Q = torch.linalg.qr(points.diff(dim=0)[:m].T).Q
    last, rest = points[-1] - points[0], points[-1] - points[m]
    for got, delta in ((found.captured, last), (found.residual, rest)):
        assert got == pytest.approx(float((Q.T @ delta).square().sum() / delta.square().sum()))
    assert found.random == m / 14
    B = found.dense()
    torch.testing.assert_close(B.T @ B, torch.eye(m).double())
    torch.testing.assert_close(B @ B.T, Q @ Q.T)
    torch.testing.assert_close(found.coordinates(last), B.T @ last)
    torch.testing.assert_close(found.project(last), B @ (B.T @ last))


def test_every_source_gives_the_same(tmp_path):
    path = walk()
    store = DeltaStore(tmp_path / "path")
    for step, state in enumerate(path):
        store.append(step, state)
    run = SimpleNamespace(weights=lambda: dict(enumerate(path)), sketches=dict)

    class Weights(dict):
        def path(self, step):
            return self[step]

    run.weights = lambda: Weights(enumerate(path))
    want = prefix_basis(flat(path).diff(dim=0), 3)
    for source in (path, store, DeltaStore(path), dict(enumerate(path)), run):
        got = prefix_basis(source, 3)
        assert got.captured == pytest.approx(want.captured)
        assert got.residual == pytest.approx(want.residual)
        torch.testing.assert_close(got.dense() @ got.dense().T, want.dense() @ want.dense().T)
    only = prefix_basis(path, 3, names=["b"])
    assert only.dim == 6
    assert only.captured == pytest.approx(prefix_basis(flat(path)[:, 8:].diff(dim=0), 3).captured)


def test_directions_come_in_stretches(tmp_path):
    wide = 300_000
    g = torch.Generator().manual_seed(0)
    path = [{"w": torch.randn(wide, generator=g)} for _ in range(4)]
    found = prefix_basis(path, 2)
    blocks = list(found.blocks())
    assert len(blocks) > 1 and [s for s, _ in blocks] == sorted(s for s, _ in blocks)
    assert sum(len(Q) for _, Q in blocks) == wide
    matrix = torch.stack([s["w"] for s in path]).double().diff(dim=0)
    torch.testing.assert_close(
        torch.cat([Q for _, Q in prefix_basis(matrix, 2).blocks()]).abs(),
        found.dense().abs(),
        atol=1e-8,
        rtol=1e-4,
    )


def test_sketches_give_shares_but_no_directions():
    points = flat(walk()) - flat(walk())[0]
    sketch = SimpleNamespace(steps=np.arange(len(points)), values=points.numpy(), dim=14, seed=0)
    run = SimpleNamespace(weights=dict, sketches=lambda: {"all": sketch})
    found = prefix_basis(run, 3)
    assert found.known_from == "sketches"
    assert found.captured == pytest.approx(prefix_basis(walk(), 3).captured)
    with pytest.raises(ValueError, match="keep snapshots"):
        found.dense()


@given(seed=st.integers(0, 10_000), T=st.integers(2, 8), P=st.integers(1, 12))
def test_more_updates_never_tell_less(seed, T, P):
    g = torch.Generator().manual_seed(seed)
    updates = torch.randn(T, P, generator=g, dtype=torch.float64)
    shares = [prefix_basis(updates, m).captured for m in range(1, T + 1)]
    assert all(a <= b + 1e-6 for a, b in pairwise(shares))
    assert shares[-1] == pytest.approx(1, abs=1e-6)
    assert prefix_basis(7 * updates, 1).captured == pytest.approx(shares[0])


def test_a_walk_is_told_as_a_walk():
    updates = torch.randn(40, 5000, generator=torch.Generator().manual_seed(0))
    found = prefix_basis(updates, 10)
    assert found.walk == pytest.approx(0.25)
    assert found.captured == pytest.approx(0.25, abs=0.03) and found.residual < 0.01


def test_bad_input():
    path = walk()
    with pytest.raises(ValueError, match="1 <= m <= 8 updates, got 9"):
        prefix_basis(path, 9)
    with pytest.raises(ValueError, match="1 <= m <= 8 updates, got 0"):
        prefix_basis(path, 0)
    with pytest.raises(ValueError, match="nothing moved in the first 2 updates"):
        prefix_basis([path[0], path[0], path[0], path[1]], 2)
    with pytest.raises(ValueError, match="no tensor names"):
        prefix_basis(flat(path), 2, names=["a"])
    with pytest.raises(ValueError, match=r"expected a \(T, P\) matrix"):
        prefix_basis(torch.ones(3), 1)
    with pytest.raises(ValueError, match="not finite"):
        prefix_basis(flat(path) * torch.nan, 1)
    with pytest.raises(ValueError, match="a vector of 14 entries"):
        prefix_basis(path, 2).coordinates(torch.ones(3))
    zero = prefix_basis(torch.tensor([[1.0], [-1.0]]), 1)
    assert np.isnan(zero.captured)
