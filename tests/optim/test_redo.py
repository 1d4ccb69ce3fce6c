from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.instruments import dormant_fraction
from thalweg.nn import hidden_units
from thalweg.optim import AdamO, ReDo
from thalweg.optim.redo import dormant_scores

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "adamo-isometry.npz", allow_pickle=False)


def kill(layer, units):
    with torch.no_grad():
        layer.bias[units] = -1e3


def convolutional():
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)),
        *(nn.ReLU(), nn.Linear(5, 2)),
    )


def test_vectors_of_an_independent_prototype():
    w1, b1, x = (torch.from_numpy(VECTORS[f"gnt_{k}"]) for k in ("w1", "b1", "X_steps"))
    h = (x.flatten(0, 1) @ w1.T + b1).relu()
    want = torch.from_numpy(VECTORS["redo_scores"])
    assert torch.allclose(dormant_scores(h.unsqueeze(-1)), want, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.1, 0.5])
def test_the_units_recycled_are_those_the_instrument_counts(tau):
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))
    kill(model[0], [2, 7])
    x = torch.randn(32, 6)
    share = dormant_fraction(model[:2](x), tau)
    redo = ReDo(model, tau=tau, every=1)
    model(x)
    assert redo.after_step() == {"0": round(40 * float(share))}


@pytest.mark.parametrize("make", [torch.optim.Adam, AdamO])
def test_a_dead_unit_starts_anew_and_the_function_and_the_others_stay(make):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    kill(model[0], [1, 3])
    optimizer = make(model.parameters(), 1e-3)
    redo = ReDo(model, optimizer, tau=0.0, every=2, generator=torch.Generator().manual_seed(0))
    x = torch.randn(16, 6)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model(x)
    optimizer.step()
    assert redo.after_step() == {}
    model(x)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    y = model(x)
    assert redo.after_step()["0"] == 2
    assert torch.allclose(model(x), y, atol=1e-6)
    others = [0, 2, 4]
    assert torch.equal(model[0].weight[others], before["0.weight"][others])
    assert not torch.equal(model[0].weight[1], before["0.weight"][1])
    assert (model[0].bias[[1, 3]] == 0).all() and not model[2].weight[:, [1, 3]].any()
    for p, axis in ((model[0].weight, 0), (model[0].bias, 0), (model[2].weight, 1)):
        for name in ("exp_avg", "exp_avg_sq"):
            moment = optimizer.state[p][name]
            assert not moment.index_select(axis, torch.tensor([1, 3])).any()
            assert moment.index_select(axis, torch.tensor(others)).all()
    assert dormant_fraction(model[:2](x)) == 0


def test_convolutions_with_batch_norm_and_flattened_maps():
    model = convolutional()
    with torch.no_grad():
        model[1].weight[2], model[1].bias[2] = 0.1, -50.0
    redo = ReDo(model, tau=0.0, every=1)
    x = torch.randn(8, 1, 8, 8)
    y = model(x)
    assert redo.after_step()["0"] == 1
    model.eval()  # the units that stay have the same statistics
    model.train()
    assert torch.allclose(model(x), y, atol=1e-5)
    assert (model[1].weight[2], model[1].bias[2]) == (1, 0)
    assert (model[1].running_mean[2] != 0) and not model[4].weight[:, 72:108].any()


def test_nothing_is_recycled_where_nothing_is_dormant_and_evaluation_does_not_count():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    redo = ReDo(model, tau=0.0, every=1, inputs=torch.ones(1, 6))
    model.eval()(torch.zeros(4, 6) * float("nan"))
    assert redo.after_step() == {}
    model.train()(torch.randn(4, 6))
    assert redo.after_step() == {"0": 0}


def test_a_model_without_separate_units_is_refused_with_the_reasons():
    redo = ReDo(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"no layer has hidden units.*outputs of the model"):
        redo.model(torch.ones(1, 3))
    with pytest.raises(ValueError, match="first forward in training mode"):
        redo.units  # noqa: B018


def test_hooks_come_off_and_counting_resumes():
    model = convolutional()
    first = ReDo(model, every=5)
    model(torch.randn(2, 1, 8, 8))
    assert len(first.units.layers) == 2 and "6" in first.units.not_covered
    for _ in range(4):
        first.after_step()
    second = ReDo(model, every=5, inputs=torch.randn(1, 1, 8, 8))
    second.load_state_dict(first.state_dict())
    model(torch.randn(2, 1, 8, 8))
    assert second.after_step().keys() == {"0", "4"}
    first.close()
    second.close()
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert hidden_units(model, torch.randn(1, 1, 8, 8)).layers


@pytest.mark.parametrize("options", [{"tau": -1.0}, {"every": 0}])
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        ReDo(nn.Linear(2, 2), **options)


def test_the_mlp_of_a_transformer_and_named_inputs():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
            self.head = nn.Linear(8, 11)

        def forward(self, tokens, scale=1.0):
            return self.head(self.block(self.embed(tokens)) * scale)

    model = Model()
    kill(model.block.linear1, [4])
    redo = ReDo(model, tau=0.0, every=1)
    tokens = torch.randint(11, (3, 5))
    y = model(tokens=tokens, scale=0.5)
    y.sum().backward()
    assert redo.after_step() == {"block.linear1": 1}
    assert torch.allclose(model(tokens=tokens, scale=0.5), y, atol=1e-6)
    assert model.block.linear1.bias[4] == 0 and not model.block.linear2.weight[:, 4].any()
    reasons = redo.units.not_covered
    assert set(reasons) == {"block.self_attn.out_proj", "block.linear2", "head"}


def test_inside_residual_blocks():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))

        def forward(self, x):
            return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))

    model = nn.Sequential(nn.Conv2d(1, 3, 1), Block(), Block(), nn.Flatten(), nn.Linear(48, 2))
    kill(model[2].conv1, [0, 2])
    redo = ReDo(model, tau=0.0, every=1)
    x = torch.randn(4, 1, 4, 4)
    y = model(x)
    counts = redo.after_step()
    assert set(counts) == {"1.conv1", "2.conv1"} and counts["2.conv1"] == 2
    assert torch.allclose(model(x), y, atol=1e-6)
