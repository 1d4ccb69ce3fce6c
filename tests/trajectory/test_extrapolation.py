from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.trajectory import DeltaStore, TrajectoryModel, fit_rank1, reconstruct, write_checkpoint

CI = settings(max_examples=20, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "relex.npz"
g0 = torch.tensor([1.0, -2.0, 0.5, 0.0]).double()
h0 = torch.tensor([0.0, 0.0, 0.0, 3.0]).double()


def states(rows, base=None):
    rows = torch.stack([torch.as_tensor(row) for row in rows]).double()
    base = torch.zeros(rows.shape[1]).double() if base is None else base
    return {0: {"w": base}, **{t + 1: {"w": base + row} for t, row in enumerate(rows)}}


@pytest.fixture(scope="module")
def vectors():
    return np.load(VECTORS, allow_pickle=False)


@pytest.mark.parametrize("rank", [1, 3])
def test_vectors(vectors, rank):
    v = {k: torch.as_tensor(vectors[k]) for k in vectors}
    model = fit_rank1(states(v["M"]), rank=rank)
    assert isinstance(model, TrajectoryModel) and model.steps == tuple(v["steps"].tolist())
    C = model.coefficients["w"]
    torch.testing.assert_close(C.abs(), v[f"r{rank}_absC"])
    torch.testing.assert_close(C.square().sum(0).sqrt(), v[f"r{rank}_S"])
    assert model.explained_variance["w"] == pytest.approx(float(v[f"r{rank}_ev"]))
    target = int(v["target"])
    torch.testing.assert_close(model.predict(target)["w"], v[f"r{rank}_pred_delta"])
    parabola = fit_rank1(states(v["M"]), rank=rank, fit="polynomial")
    torch.testing.assert_close(parabola.predict(target)["w"], v[f"r{rank}_pred_delta_poly2"])
    torch.testing.assert_close(
        reconstruct(states(v["M"]), rank=rank)["w"], v[f"r{rank}_recon_last"]
    )


def test_vectors_window(vectors):
    model = fit_rank1(states(vectors["M"]), window=5)
    torch.testing.assert_close(
        model.predict(int(vectors["target"]))["w"], torch.tensor(vectors["r1_window5_pred_delta"])
    )


def test_a_straight_path_is_met_at_any_step():
    model = fit_rank1(states([t * g0 for t in range(1, 5)]))
    assert model.explained_variance["w"] == pytest.approx(1) and model.r2["w"] == pytest.approx(1)
    for step in (2, 17.5, 1000):
        torch.testing.assert_close(model.predict(step)["w"], step * g0)


def test_a_path_beside_the_origin_needs_two_directions():
    path = states([t * g0 + h0 for t in range(1, 7)])
    torch.testing.assert_close(fit_rank1(path, rank=2).predict(90)["w"], 90 * g0 + h0)
    assert not torch.allclose(fit_rank1(path).predict(90)["w"], 90 * g0 + h0, rtol=1e-3)


def test_two_checkpoints_by_hand():
    """M = [[1, 0], [2, 1]]: G = [[1, 2], [2, 5]], λ = 3 ± 2√2, and a line through two points."""
    lam = 3 + 2 * 2**0.5
    u = torch.tensor([2.0, lam - 1]).double()
    u = u / u.norm()
    c = lam**0.5 * u
    v = torch.tensor([[1.0, 0.0], [2.0, 1.0]]).double().T @ u / lam**0.5
    model = fit_rank1(states([[1.0, 0.0], [2.0, 1.0]]))
    torch.testing.assert_close(model.predict(5)["w"], (c[1] + 3 * (c[1] - c[0])) * v)


@CI
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([-2.0, 1e-3, 7.0]),
    rank=st.integers(1, 3),
    fit=st.sampled_from(["linear", "polynomial"]),
)
def test_scaling_and_permuting(seed, scale, rank, fit):
    g = torch.Generator().manual_seed(seed)
    M = torch.randn(6, 20, generator=g).double()
    order = torch.randperm(20, generator=g)
    plain = fit_rank1(states(M), rank=rank, fit=fit).predict(9)["w"]
    scaled = fit_rank1(states(scale * M), rank=rank, fit=fit).predict(9)["w"]
    torch.testing.assert_close(scaled, scale * plain)
    permuted = fit_rank1(states(M[:, order]), rank=rank, fit=fit).predict(9)["w"]
    torch.testing.assert_close(permuted, plain[order])


def test_all_directions_give_back_what_was_seen():
    M = torch.randn(3, 20, generator=torch.Generator().manual_seed(0)).double()
    model = fit_rank1(states(M), rank=3, fit="polynomial")
    for t in range(3):
        torch.testing.assert_close(model.predict(t + 1)["w"], M[t])
        torch.testing.assert_close(reconstruct(states(M), step=t + 1, rank=3)["w"], M[t])


def test_only_some_steps_and_another_clock():
    M = torch.randn(9, 20, generator=torch.Generator().manual_seed(0)).double()
    some = fit_rank1(states(M), steps=slice(1, 4))
    assert some.steps == (1, 2, 3, 4)
    torch.testing.assert_close(some.predict(9)["w"], fit_rank1(states(M[:4])).predict(9)["w"])
    assert fit_rank1(states(M), steps=[2, 5, 9]).steps == (2, 5, 9)
    decayed = states([t**0.5 * g0 for t in range(1, 9)])
    model = fit_rank1(decayed, clock=lambda t: t**0.5)
    torch.testing.assert_close(model.predict(64)["w"], 8 * g0)


def test_kinds_of_tensors():
    w = torch.ones(2)
    path = {}
    for t in range(4):
        moved = (w + t).to(torch.bfloat16)
        path[t] = {
            "w": moved,
            "tied": moved,
            "count": torch.tensor(10 * t),
            "bn.running_var": torch.full((2,), 3.0 * t),
            "still": torch.zeros(3),
        }
    model = fit_rank1(path)
    state = model.predict(10)
    assert state["w"].dtype == torch.bfloat16 and state["w"].tolist() == [11.0, 11.0]
    assert state["tied"] is state["w"]
    assert state["count"] == 30 and state["bn.running_var"].tolist() == [9.0, 9.0]
    assert state["still"].tolist() == [0.0] * 3
    assert model.explained_variance["still"] == 0 and np.isnan(model.r2["still"])
    assert model.predict(10, out_dtype=torch.float64)["w"].dtype == torch.float64
    half = model.predict(10, scale=0.5)["w"]
    assert half.tolist() == [6.0, 6.0]


def test_written_in_stretches(tmp_path):
    M = torch.randn(5, 20, generator=torch.Generator().manual_seed(0)).double()
    model = fit_rank1(states(M))
    path = write_checkpoint(
        tmp_path / "at-50.safetensors", model.store.tensors, model.stretches(50)
    )
    assert DeltaStore({50: path}, base=states(M)[0]).rows("w")[0].tolist() == (
        model.predict(50)["w"].tolist()
    )


def test_a_store_that_grows_does_not_disturb():
    M = torch.randn(5, 20, generator=torch.Generator().manual_seed(0)).double()
    store = DeltaStore(states(M[:4]))
    model = fit_rank1(store)
    before = model.predict(9)["w"]
    store.append(5, states(M)[5])
    torch.testing.assert_close(model.predict(9)["w"], before)


def test_bad_input():
    path = states(torch.eye(4))
    with pytest.raises(ValueError, match="needs 2 checkpoints after the base, got 1"):
        fit_rank1(path, steps=[2])
    with pytest.raises(ValueError, match="needs 3 checkpoints"):
        fit_rank1(path, steps=[1, 2], fit="polynomial")
    with pytest.raises(ValueError, match="no checkpoint of step 7"):
        fit_rank1(path, steps=[1, 7])
    with pytest.raises(ValueError, match="clock must grow"):
        fit_rank1(path, clock=lambda t: 1.0)
    with pytest.raises(ValueError, match="has its base already"):
        fit_rank1(DeltaStore(path), base=path[0])
    with pytest.raises(ValueError, match="rank >= 1"):
        fit_rank1(path, rank=0)
    with pytest.raises(ValueError, match="rank >= 1"):
        reconstruct(path, rank=0)
    with pytest.raises(ValueError, match="no checkpoint of step 9"):
        reconstruct(path, step=9)
    with pytest.raises(ValueError, match="rank >= 1 and a checkpoint"):
        reconstruct({0: path[0]})
