"""instruments/coordinate_check.py"""

import math

import pytest
import torch
from torch import nn

from thalweg import instruments
from thalweg.instruments import CoordCheck, Coordinate, coord_check
from thalweg.nn import MuReadout
from thalweg.theory import predicted_slopes

WIDTHS = (32, 64, 128, 256)


def mlp(n):
    """Two hidden layers without biases, standard initialisation for ReLU."""
    layers = [nn.Linear(6, n, bias=False), nn.ReLU(), nn.Linear(n, n, bias=False), nn.ReLU()]
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight)
    out = MuReadout(n, 3, bias=False)
    nn.init.normal_(out.weight, std=n**-0.5)
    return nn.Sequential(*layers, out)


def data(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(64, 6, generator=g), torch.randint(3, (64,), generator=g)


def test_sizes_at_the_start_are_those_of_the_model():
    check = coord_check(mlp, data(), (8, 16), 0.1, 1, seeds=[5])
    torch.manual_seed(5)
    model = mlp(16)[:4]
    h = model(data()[0])
    row = next(r for r in check.rows if (r.width, r.module, r.step) == (16, "3", 0))
    assert isinstance(row, Coordinate) and isinstance(check, CoordCheck)
    assert math.isclose(row.l1, h.abs().mean().item(), rel_tol=1e-6)
    assert math.isclose(row.rms, h.square().mean().sqrt().item(), rel_tol=1e-6)
    assert math.isnan(row.effective)
    table = check.table
    assert list(table) == ["width", "module", "step", "l1", "rms", "effective", "propagated"]
    assert len(table["l1"]) == 2 * 5 * 2


def test_in_mup_coordinates_keep_their_size_and_in_standard_parametrisation_they_grow():
    common = {"optimizer": "adam", "seeds": 4}
    mup = coord_check(mlp, data(), WIDTHS, 0.03, 3, "mup", **common)
    sp = coord_check(mlp, data(), WIDTHS, 0.03, 3, "sp", **common)
    for module in ("2", "4"):  # what precedes them is an input layer, whose rate is right in both
        assert abs(mup.slopes(step=3)[module].exponent) < 0.15
        assert sp.slopes()[module].exponent > 0.4
    assert mup.parametrization == "mup"


def test_updates_scale_with_the_width_as_predicted():
    """Effective updates after one step at η ∝ 1/n; 16 seeds leave an error of about 0.1."""
    check = coord_check(mlp, data(), WIDTHS, lambda n: 5 / n, 1, seeds=16, refined=True)
    slopes, theory = check.slopes("effective"), predicted_slopes(-1.0)
    assert abs(slopes["0"].exponent - theory["input"]) < 0.2
    assert abs(slopes["2"].exponent - theory["hidden"]) < 0.2
    assert abs(slopes["4"].exponent - theory["output"]) < 0.25
    assert "0" not in check.slopes("propagated")  # nothing precedes it: size 0


def test_all_data_in_batches_and_drawn_by_a_callable():
    x, y = data()
    drawn = coord_check(mlp, lambda g: (x, y), (8, 16), 0.1, 2, seeds=1)
    assert drawn.table["rms"] == coord_check(mlp, (x, y), (8, 16), 0.1, 2, seeds=1).table["rms"]
    small = coord_check(mlp, (x, y), (8, 16), 0.1, 2, seeds=1, batch_size=4)
    again = coord_check(mlp, (x, y), (8, 16), 0.1, 2, seeds=1, batch_size=4)
    assert small.table["rms"] == again.table["rms"] != drawn.table["rms"]


def test_the_random_state_stays():
    torch.manual_seed(0)
    coord_check(mlp, data(), (8, 16), 0.1, 1, seeds=1)
    found = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(found, torch.rand(1))


def test_a_plot_is_a_figure():
    check = coord_check(mlp, data(), (8, 16), 0.1, 6, seeds=1)
    figure = check.plot("l1")
    assert len(figure.axes) == 4  # of seven steps
    assert [line.get_label() for line in figure.axes[0].lines] == ["0", "1", "2", "3", "4"]
    figure.canvas.draw()


def test_nan_sizes_have_no_slope():
    check = coord_check(mlp, data(), (8, 16), 1e30, 3, loss="mse", seeds=1)
    assert check.slopes() == {} and check.slopes(step=0).keys() == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"widths": [8]}, "two distinct"),
        ({"widths": [8, 8]}, "two distinct"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"steps": 0}, "steps and seeds"),
        ({"seeds": 0}, "steps and seeds"),
        ({"parametrization": "ntk"}, "parametrization"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"loss": "hinge"}, "loss"),
        ({"make_model": lambda n: nn.Linear(6, 3)}, "no parameter depends on the width"),
    ],
)
def test_errors(settings, said):
    with pytest.raises(ValueError, match=said):
        coord_check(**{"make_model": mlp, "data": data(), "widths": (8, 16)} | settings)


def test_errors_of_slopes():
    check = coord_check(mlp, data(), (8, 16), 0.1, 1, seeds=1)
    with pytest.raises(ValueError, match="quantity"):
        check.slopes("l2")
    with pytest.raises(ValueError, match="step must be"):
        check.slopes(step=2)
    assert instruments.coord_check is coord_check
