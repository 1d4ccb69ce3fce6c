"""instruments/width_scaling.py"""

import math

import pytest
import torch
from torch import nn

from thalweg.instruments import LrWidthScaling, WidthRun, lr_width_scaling
from thalweg.nn import MuReadout, set_base_shapes
from thalweg.optim import MuSGD

GRID = [2.0**i / 1.1 for i in range(-8, 3)]


class Sum(nn.Module):
    """n equal weights on one input: curvature n, so that gradient descent diverges above 2/n."""

    def __init__(self, n):
        super().__init__()
        self.w = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return (x * self.w).sum(1, keepdim=True)


def line():
    return torch.ones(4, 1), torch.zeros(4, 1)


def test_a_quadratic_has_its_edge_at_two_over_n_and_its_best_rate_at_one_over_n():
    found = lr_width_scaling(
        Sum, line(), "mse", (2, 4, 8, 16), GRID, steps=30, seeds=1, batch_size=None
    )
    assert isinstance(found, LrWidthScaling)
    for n, lr in found.max_stable.items():
        assert lr == max(g for g in GRID if g < 2 / n)
    # (1 − ηn)² after each step: 1/1.1 and 2/1.1 are equally far from 1 but for rounding
    assert all(n * lr in (1 / 1.1, 2 / 1.1) for n, lr in found.optimal.items())
    assert math.isclose(found.exponent_max, -1) and math.isclose(found.fit_max.r2, 1)
    assert found.fit_max.window == (2, 16) and math.isnan(found.interval_max[0])


def test_against_a_naive_sweep():
    """Every rate at every width, by hand."""

    def model(n):
        return nn.Sequential(nn.Linear(4, n), nn.Tanh(), nn.Linear(n, 2))

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 4, generator=g), torch.randint(2, (32,), generator=g)
    lrs = [0.1, 1.0, 10.0]
    found = lr_width_scaling(
        model, (x, y), "ce", (4, 8), lrs, steps=5, seeds=[3], batch_size=8, stop_at_failure=False
    )
    assert len(found.runs) == 6 and all(isinstance(r, WidthRun) for r in found.runs)
    for run in found.runs:
        torch.manual_seed(3)
        net = model(run.width)
        sgd = torch.optim.SGD(net.parameters(), lr=run.lr)
        order = torch.Generator().manual_seed(3)
        for _ in range(5):
            rows = torch.randperm(32, generator=order)[:8]
            sgd.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            sgd.step()
        loss = nn.functional.cross_entropy(net(x), y).item()
        assert math.isclose(run.loss, loss, rel_tol=1e-5)
        assert run.accuracy == (net(x).argmax(1) == y).double().mean().item()


def made_up(table, lrs):
    """Runs of (width, seed) to the number of stable rates and the best of them."""
    runs = [
        WidthRun(w, s, lr, abs(i - best) + 0.1, 1.0, i < stable)
        for (w, s), (stable, best) in table.items()
        for i, lr in enumerate(lrs)
    ]
    widths, seeds = ({k[i] for k in table} for i in (0, 1))
    return LrWidthScaling(tuple(runs), tuple(sorted(widths)), tuple(lrs), tuple(sorted(seeds)))


def test_all_seeds_must_be_stable_and_ties_go_to_the_larger_rate():
    lrs = [1.0, 2.0, 4.0, 8.0, 16.0]
    found = made_up({(8, 0): (4, 2), (8, 1): (3, 1), (16, 0): (2, 1), (16, 1): (2, 1)}, lrs)
    assert found.max_stable == {8: 4.0, 16: 2.0} and found.exponent_max == pytest.approx(-1)
    assert found.optimal == {8: 4.0, 16: 2.0}  # 2 and 4 have the same mean at width 8
    low, high = found.interval_max
    assert low == pytest.approx(-2) and high == pytest.approx(-1)  # with seed 0 alone 8 to 2


def test_an_end_of_the_grid_gives_no_exponent():
    lrs = [1.0, 2.0, 4.0]
    for stable in (0, 1, 3):
        found = made_up({(8, 0): (2, 1), (16, 0): (stable, 0)}, lrs)
        assert math.isnan(found.exponent_max) and found.fit_max is None
        assert math.isnan(found.max_stable[16]) == (stable == 0)
        assert math.isnan(found.exponent_opt)


def test_a_net_that_ends_finite_but_has_not_learnt_is_not_stable():
    """One step too large: all units dead, the loss finite."""

    def model(n):
        net = nn.Sequential(nn.Linear(2, n), nn.ReLU(), nn.Linear(n, 2))
        with torch.no_grad():
            net[0].bias += 3.0  # alive to begin with
        return net

    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(16, 1)
    y = torch.tensor([0, 1]).repeat(16)
    lrs = [0.05, 0.1, 0.2, 1e4]
    found = lr_width_scaling(model, (x, y), "ce", (16, 32), lrs, steps=40, seeds=1, tau=0.9)
    last = [r for r in found.runs if r.lr == 1e4]
    assert last and all(not r.stable for r in last)
    assert all(math.isfinite(r.loss) and r.accuracy == 0.5 for r in last)
    assert max(found.max_stable.values()) < 1e4


def test_models_with_base_shapes_train_in_mup_by_name_or_by_class():
    def model(n):
        return nn.Sequential(nn.Linear(4, n), nn.ReLU(), MuReadout(n, 2))

    def own(n):
        return set_base_shapes(model(n), model(4), model(8))

    g = torch.Generator().manual_seed(0)
    data = torch.randn(32, 4, generator=g), torch.randint(2, (32,), generator=g)
    lrs = [0.1, 0.2, 0.4]
    common = {"widths": (4, 16), "lrs": lrs, "steps": 3, "seeds": 1}
    runs = [
        lr_width_scaling(model, data, parametrization="mup", **common).runs,
        lr_width_scaling(own, data, optimizer="sgd", **common).runs,
        lr_width_scaling(own, data, optimizer=MuSGD, **common).runs,
    ]
    assert runs[0] == runs[1] == runs[2]
    assert lr_width_scaling(model, data, **common).runs != runs[0]


def test_the_random_state_stays_and_batches_may_be_drawn():
    torch.manual_seed(0)
    drawn = lr_width_scaling(Sum, lambda g: line(), "mse", (2, 4), GRID, steps=2, seeds=1)
    found = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(found, torch.rand(1))
    fixed = lr_width_scaling(Sum, line(), "mse", (2, 4), GRID, steps=2, seeds=1)
    assert [r.loss for r in drawn.runs] == [r.loss for r in fixed.runs]


def test_a_plot_is_a_figure():
    found = lr_width_scaling(Sum, line(), "mse", (2, 4, 8), GRID, steps=20, seeds=1)
    left, right = found.plot().axes
    assert [line.get_label() for line in left.lines] == ["width 2", "width 4", "width 8"]
    assert "exponent -1.00" in right.lines[0].get_label()
    found.plot().canvas.draw()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"widths": [8]}, "two distinct"),
        ({"lrs": [0.1]}, "two positive learning rates"),
        ({"lrs": [0.0, 0.1]}, "two positive learning rates"),
        ({"lrs": [-0.1, 0.1]}, "two positive learning rates"),
        ({"steps": 0}, "steps and seeds"),
        ({"seeds": []}, "steps and seeds"),
        ({"loss": "hinge"}, "loss"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"parametrization": "ntk"}, "parametrization"),
        ({"make_model": lambda n: nn.Linear(1, 1)}, "no parameter depends on the width"),
    ],
)
def test_errors(settings, said):
    given = {"make_model": Sum, "data": line(), "loss": "mse", "widths": (2, 4), "lrs": GRID}
    with pytest.raises(ValueError, match=said):
        lr_width_scaling(**given | settings)
