import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.optim import ContinualBackprop

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "adamo-isometry.npz", allow_pickle=False)


def net():
    """That of the vectors."""
    w1, b1, w2 = (torch.from_numpy(VECTORS[f"gnt_{k}"]) for k in ("w1", "b1", "w2"))
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(w1)
        model[0].bias.copy_(b1)
        model[2].weight.copy_(w2)
    return model


@pytest.mark.parametrize("utility", ["contribution", "adaptable_contribution", "weight"])
def test_vectors_of_the_official_code(utility):
    model = net()
    cbp = ContinualBackprop(model, replacement_rate=0.0, decay=0.9, utility=utility)
    for t, x in enumerate(torch.from_numpy(VECTORS["gnt_X_steps"])):
        model(x)
        assert cbp.after_step() == {}
        want = torch.from_numpy(VECTORS[f"gnt_util_{utility}"][t])
        # their averages are float32
        assert torch.allclose(cbp.utilities()["0"], want, rtol=1e-6)


def test_the_least_useful_mature_unit_goes_and_its_mean_moves_to_the_next_bias():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    cbp = ContinualBackprop(
        model, optimizer, replacement_rate=1 / 6, maturity=3, decay=0.5, gain=2.0
    )
    x = torch.randn(64, 4, dtype=torch.float64)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for _ in range(3):
        model(x)
        optimizer.step()
        assert cbp.after_step() == {}  # not mature
    y, h = model(x), model[:2](x)
    worst = int(cbp.utilities()["0"].argmin())
    rows = model[0].weight.detach().clone()
    for state in cbp._state.values():  # a mean that is exactly that of now
        state["mean"].copy_(h.detach().mean(0) * (1 - 0.5**3))
    assert cbp.after_step() == {"0": 1}
    assert torch.allclose(model(x).mean(0), y.mean(0), atol=1e-12)
    others = [i for i in range(6) if i != worst]
    assert torch.equal(model[0].weight[others], rows[others])
    assert model[0].weight[worst].abs().max() <= 2 * math.sqrt(3 / 4)
    assert model[0].bias[worst] == 0 and not model[2].weight[:, worst].any()
    assert not optimizer.state[model[0].weight]["exp_avg"][worst].any()
    state = cbp.state_dict()["0"]
    assert state["age"][worst] == 0 and state["age"][others].tolist() == [4] * 5
    assert state["utility"][worst] == 0 and state["mean"][worst] == 0


def test_fractions_are_carried_over():
    model = nn.Sequential(nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 2))
    cbp = ContinualBackprop(model, replacement_rate=0.025, maturity=0)
    counts = []
    for _ in range(12):
        model(torch.randn(8, 3))
        counts.append(cbp.after_step().get("0", 0))
    # a quarter of a unit a step, the units just replaced being mature again one step later
    assert sum(counts) == 3 and max(counts) == 1


def test_a_convolutional_network():
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(48, 2)),
    ).double()
    cbp = ContinualBackprop(model, replacement_rate=0.25, maturity=2)
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    for _ in range(2):
        model(x)
        cbp.after_step()
    h = model[:2](x)
    model(x)
    replaced = cbp.after_step()
    out = model[2].weight.abs().mean((0, 2, 3))
    size = model[0].weight.abs().mean((1, 2, 3))
    want = out * (h - h.mean((0, 2, 3))[:, None, None]).abs().mean((0, 2, 3)) / size
    found = cbp.utilities()["0"]
    kept = found > 0
    assert replaced["0"] == 1 and kept.sum() == 3
    assert torch.allclose(found[kept], want[kept], rtol=1e-9)  # the same batch thrice


def test_a_resumed_training_goes_on_the_same():
    def train(model, cbp, steps, generator):
        for _ in range(steps):
            model(torch.randn(8, 3, generator=generator))
            cbp.after_step()

    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 2))
        draws = torch.Generator().manual_seed(1)
        options = {"replacement_rate": 0.05, "maturity": 2, "generator": draws}
        return model, ContinualBackprop(model, inputs=torch.ones(1, 3), **options), draws

    whole, cbp, _ = make()
    batches = torch.Generator().manual_seed(2)
    train(whole, cbp, 20, batches)
    part, cbp, draws = make()
    batches = torch.Generator().manual_seed(2)
    train(part, cbp, 10, batches)
    again, resumed, new_draws = make()
    again.load_state_dict(part.state_dict())
    resumed.load_state_dict(cbp.state_dict())
    new_draws.set_state(draws.get_state())
    train(again, resumed, 10, batches)
    pairs = zip(whole.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "options",
    [{"replacement_rate": 2.0}, {"maturity": -1}, {"decay": 1.0}, {"utility": "x"}, {"gain": 0.0}],
)
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        ContinualBackprop(nn.Linear(2, 2), **options)
