import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.trajectory import SearchResult, random_search, random_search_gain

VECTORS = np.load(
    Path(__file__).parent.parent / "vectors" / "local-linear-structure.npz", allow_pickle=False
)


class Quadratic(nn.Module):
    """g·θ + ½c‖θ‖² at θ = 0."""

    def __init__(self, g, c=0.0):
        super().__init__()
        self.theta, self.g, self.c = nn.Parameter(torch.zeros_like(g)), g, c

    def forward(self):
        return self.g @ self.theta + 0.5 * self.c * self.theta.square().sum()


def value(model, _):
    return model()


def test_vectors():
    got = [random_search_gain(1.0, 1.0, int(n)) for n in VECTORS["emax_n"]]
    np.testing.assert_allclose(got, VECTORS["emax"], rtol=1e-9)


def test_closed_forms():
    assert random_search_gain(0.5, 3.0, 1) == 0
    assert random_search_gain(0.5, 3.0, 2) == pytest.approx(1.5 / math.sqrt(math.pi))
    assert random_search_gain(0.5, 3.0, 3) == pytest.approx(1.5 * 1.5 / math.sqrt(math.pi))
    assert random_search_gain(0.1, 0.0, 1, trace_h=4.0) == pytest.approx(-0.02)
    assert random_search_gain(1.0, 1.0, 10**6) < math.sqrt(2 * math.log(10**6))


@pytest.mark.parametrize("dim", [100, 10_000, 100_000])
def test_the_gain_of_a_linear_loss_does_not_depend_on_the_dimension(dim):
    g = torch.Generator().manual_seed(dim)
    direction = torch.randn(dim, generator=g)
    model = Quadratic(2.0 * direction / direction.norm())
    times, n = (200, 10) if dim < 1000 else (60, 10)
    gains = torch.tensor(
        [random_search(model, value, None, sigma=0.1, n=n, generator=g).gain for _ in range(times)]
    )
    # The best of 10 spreads by .59 of σ‖g‖.
    error = 0.59 * 0.2 / times**0.5
    assert abs(float(gains.mean()) - random_search_gain(0.1, 2.0, n)) < 3.5 * error


def test_curvature_takes_the_gain_away():
    dim, c, sigma, n = 400, 1.0, 0.2, 20
    direction = torch.zeros(dim)
    direction[0] = 10.0
    model, g = Quadratic(direction, c), torch.Generator().manual_seed(0)
    gains = torch.tensor(
        [random_search(model, value, None, sigma=sigma, n=n, generator=g).gain for _ in range(100)]
    )
    want = random_search_gain(sigma, 10.0, n, trace_h=c * dim, fro_h=c * dim**0.5)
    assert want < 0 < random_search_gain(sigma, 10.0, n)
    assert float(gains.mean()) == pytest.approx(want, abs=4 * float(gains.std()) / 10)


def test_the_update_leads_to_the_best_loss_and_the_model_stays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    model[3].bias.requires_grad_(False)
    x = torch.randn(6, 3)
    loss_fn = lambda m, x: m(x).square().mean()  # noqa: E731
    before = [(t._version, t.clone()) for t in model.state_dict().values()]
    state = torch.get_rng_state()
    found = random_search(
        model, loss_fn, x, sigma=0.1, n=8, generator=torch.Generator().manual_seed(1)
    )
    assert isinstance(found, SearchResult) and found.losses.shape == (8,)
    assert torch.equal(torch.get_rng_state(), state) and model.training and model[2].training
    for t, (version, kept) in zip(model.state_dict().values(), before, strict=True):
        assert t._version == version and torch.equal(t, kept)
    model.eval()
    assert found.start == pytest.approx(loss_fn(model, x).item())
    params = [p for p in model.parameters() if p.requires_grad]
    norm = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss_fn(model, x), params)]).norm()
    assert found.grad_norm == pytest.approx(float(norm), rel=1e-5)
    with torch.no_grad():
        for p, step in zip(params, found.update, strict=True):
            p += step
        assert loss_fn(model, x).item() == pytest.approx(float(found.losses.min()))
    assert found.gain == pytest.approx(found.start - float(found.losses.min()))


def test_bad_input():
    model = Quadratic(torch.ones(3))
    with pytest.raises(ValueError, match="need sigma > 0"):
        random_search(model, value, None, sigma=0.0, n=3)
    with pytest.raises(ValueError, match="0 parameters"):
        random_search(nn.Identity(), lambda m, b: torch.zeros(()), None, sigma=1.0, n=3)
    with pytest.raises(ValueError, match="the loss at the point is nan"):
        random_search(model, lambda m, b: m() * torch.nan, None, sigma=1.0, n=3)
    with pytest.raises(ValueError, match="not finite at any draw"):
        random_search(
            model,
            lambda m, b: m() - (m.theta.sum().abs() * torch.inf).nan_to_num(0.0, torch.nan),
            None,
            sigma=1.0,
            n=3,
        )
    with pytest.raises(ValueError, match="n >= 1"):
        random_search_gain(1.0, 1.0, 0)
    with pytest.raises(ValueError, match="norms >= 0"):
        random_search_gain(1.0, -1.0, 2)
