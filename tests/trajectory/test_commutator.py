from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.trajectory import Alignment, CommutatorResult, commutator, commutator_alignment

VECTORS = Path(__file__).parents[1] / "vectors" / "execution-manifold.npz"


@pytest.fixture(scope="module")
def v():
    data = np.load(VECTORS, allow_pickle=False)
    return {k: torch.as_tensor(data[k]) for k in data}


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_vectors(v):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    for p, value in zip(model.parameters(), (v[f"param{i}"] for i in range(4)), strict=True):
        p.data.copy_(value)
    found = commutator(
        cross_entropy, model, (v["xA"], v["yA"]), (v["xB"], v["yB"]), float(v["eta"])
    )
    assert isinstance(found, CommutatorResult)
    torch.testing.assert_close(found.delta, v["delta"])
    assert found.defect == pytest.approx(float(v["defect"]))
    assert found.grad_cos == pytest.approx(float(v["grad_cos"]))
    assert found.step_norms == pytest.approx((float(v["normA"]), float(v["normB"])))
    share = commutator_alignment(found.delta, v["basis"])
    assert isinstance(share, Alignment)
    assert share.rho == pytest.approx(float(v["rho"]))
    assert share.perpendicular == pytest.approx(float(v["resid_scaled"] / v["full_scaled"]))


class Point(nn.Module):
    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(theta)


def quadratic(model, batch):
    H, minimum = batch
    d = model.theta - minimum
    return 0.5 * d @ H @ d


def spd(seed):
    A = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)).double()
    return A @ A.T


def test_quadratics_are_exact():
    theta, a, b = torch.randn(3, 5, generator=torch.Generator().manual_seed(9)).double()
    H_a, H_b, eta = spd(0), spd(1), 0.01
    model = Point(theta.clone())
    found = commutator(quadratic, model, (H_a, a), (H_b, b), eta)
    g_a, g_b = H_a @ (theta - a), H_b @ (theta - b)
    torch.testing.assert_close(found.delta, eta**2 * (H_b @ g_a - H_a @ g_b))
    same = commutator(quadratic, model, (H_a, a), (H_a, b), eta)
    torch.testing.assert_close(same.delta, eta**2 * H_a @ H_a @ (b - a))
    twice = commutator(quadratic, model, (H_a, a), (H_a, a), eta)
    assert twice.defect == 0
    commuting = commutator(quadratic, model, (H_a, a), (H_a @ H_a, a), eta)
    assert float(commuting.delta.abs().max()) < 1e-15
    assert torch.equal(model.theta, theta)


def test_the_defect_does_not_depend_on_eta():
    model = Point(torch.ones(5).double())
    batches = (spd(0), torch.zeros(5).double()), (spd(1), torch.ones(5).double() * 2)
    small, large = (commutator(quadratic, model, *batches, eta).defect for eta in (1e-4, 1e-3))
    assert small == pytest.approx(large, rel=1e-4)


def test_nothing_of_it_remains():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    model[1].eval()
    before = {k: t.clone() for k, t in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    state = torch.get_rng_state()
    found = commutator(cross_entropy, model, (x, y), (x.flip(0), y.flip(0)))
    assert found.defect < 1e-3  # the same batch in another order: dropout is off
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())

    def failing(model, batch):
        if model[0].weight.abs().sum() != before["0.weight"].abs().sum():
            raise RuntimeError("late")
        return cross_entropy(model, batch)

    with pytest.raises(RuntimeError, match="late"):
        commutator(failing, model, (x, y), (x, y), 0.1)
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())


def test_unused_and_frozen_parameters():
    model = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})
    model["a"].bias.requires_grad_(False)
    found = commutator(
        lambda m, x: m["a"](x).square().mean(), model, torch.ones(2, 3), torch.eye(3)
    )
    assert found.delta.shape == (3 + 4,) and bool((found.delta[3:] == 0).all())


def test_shares_of_random_vectors_are_those_of_random_frames():
    g = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(600, 60, generator=g).double()).Q
    inside = commutator_alignment(Q @ torch.randn(60, generator=g).double(), Q)
    assert inside.rho == pytest.approx(1) and inside.perpendicular < 1e-6
    assert inside.rho_random == pytest.approx(0.1**0.5, rel=0.1)
    assert inside.ratio == pytest.approx(inside.rho / inside.rho_random)
    many = commutator_alignment(torch.ones(600), Q, n_random=400)
    frames = [
        torch.linalg.qr(torch.randn(600, 60, generator=g).double()).Q[0].norm() for _ in range(400)
    ]
    frames = torch.stack(frames)
    assert many.rho_random == pytest.approx(float(frames.mean()), abs=0.003)
    assert many.rho_random_std == pytest.approx(float(frames.std()), rel=0.15)


def test_bad_input():
    model = nn.Linear(2, 1)
    loss = lambda m, x: m(x).sum()  # noqa: E731
    x = torch.ones(1, 2)
    with pytest.raises(ValueError, match="eta > 0"):
        commutator(loss, model, x, x, 0.0)
    with pytest.raises(ValueError, match="half-precision"):
        commutator(loss, model.half(), x.half(), x.half())
    with pytest.raises(ValueError, match="loss is not finite"):
        commutator(lambda m, x: m(x).sum() / 0, model.float(), x, x)
    Q = torch.eye(4)[:, :2]
    with pytest.raises(ValueError, match=r"a basis of \(3, K\)"):
        commutator_alignment(torch.ones(3), Q)
    with pytest.raises(ValueError, match="not orthonormal"):
        commutator_alignment(torch.ones(4), 2 * Q)
    with pytest.raises(ValueError, match="not 0"):
        commutator_alignment(torch.zeros(4), Q)
    with pytest.raises(ValueError, match="finite vector"):
        commutator_alignment(torch.tensor([torch.nan, 0, 0, 0]), Q)
