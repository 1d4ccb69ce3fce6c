"""What is found in each kind of model; and that a unit's outgoing weights are all of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thalweg.nn import HiddenUnits, hidden_units


def shape_of(found):
    assert isinstance(found, HiddenUnits)
    return {layer.name: [c.module for c in layer.consumers] for layer in found.layers}


class Block(nn.Module):
    """Of a residual network."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(x + self.bn2(self.conv2(h)))


def residual():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def convolutional():
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 2), nn.GELU(), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(24, 5)),
        *(nn.Tanh(), nn.Dropout(), nn.Linear(5, 2)),
    )


def dense():
    return nn.Sequential(
        *(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True)),
        nn.Linear(4, 3),
    )


class Fork(nn.Module):
    """Units read by two layers."""

    def __init__(self):
        super().__init__()
        self.body, self.left, self.right = nn.Linear(6, 5), nn.Linear(5, 2), nn.Linear(5, 3)

    def forward(self, x):
        h = self.body(x).relu()
        return self.left(h), self.right(h * 0.5)


MODELS = {
    "dense": (dense, (4, 6), {"0": ["2"], "2": ["5"]}),
    "convolutional": (convolutional, (2, 1, 8, 8), {"0": ["4"], "4": ["8"], "8": ["11"]}),
    "residual": (residual, (2, 1, 8, 8), {"1.conv1": ["1.conv2"]}),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(6, 2, 12, batch_first=True),
        (2, 5, 6),
        {"linear1": ["linear2"]},
    ),
    "fork": (Fork, (4, 6), {"body": ["left", "right"]}),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_found(name):
    make, shape, want = MODELS[name]
    model = make()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    found = hidden_units(model, torch.randn(shape))
    assert shape_of(found) == want
    layers = (nn.Linear, nn.Conv2d)
    every = {n for n, m in model.named_modules() if isinstance(m, layers)}
    assert set(found.not_covered) == every - set(want)
    assert model.training and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_without_its_outgoing_weights_a_unit_does_not_matter_and_with_them_it_does(name):
    make, shape, _ = MODELS[name]
    model, x = make().eval(), torch.randn(shape)
    for layer in hidden_units(model, x).layers:
        for unit in (0, layer.size - 1):
            for cut in (False, True):
                copied = make().eval()
                copied.load_state_dict(model.state_dict())
                if cut:
                    for consumer in layer.consumers:
                        weight = copied.get_submodule(consumer.module).weight
                        weight.data[:, consumer.units == unit] = 0
                outputs = []
                rows = copied.get_submodule(layer.name).weight
                direction = torch.randn_like(rows[unit])
                for value in (-3.0, 5.0):
                    rows.data[unit] = value * direction
                    out = copied(x)
                    outputs.append(torch.cat([*out], 1) if isinstance(out, tuple) else out)
                assert torch.allclose(*outputs, atol=1e-6) == cut, (layer.name, unit)


def test_batch_norms_on_the_way_and_flattened_maps():
    found = hidden_units(convolutional(), torch.randn(2, 1, 8, 8))
    assert [layer.norms for layer in found.layers] == [("1",), (), ()]
    (consumer,) = found.layers[1].consumers
    assert consumer.units.tolist() == [u for u in range(6) for _ in range(4)]
    assert (consumer.axis, found.layers[0].consumers[0].axis) == (-1, 1)


def test_the_reasons_are_given():
    found = hidden_units(residual(), torch.randn(2, 1, 8, 8)).not_covered
    assert "add" in found["1.conv2"] and "outputs of the model" in found["4"]
    found = hidden_units(MODELS["transformer"][0](), torch.randn(2, 5, 6)).not_covered
    assert found["self_attn.out_proj"] == "it is not called as a module"

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.normed, self.last = (nn.Linear(4, 4) for _ in range(3))
            self.norm, self.unread = nn.LayerNorm(4), nn.Linear(4, 4)

        def forward(self, x):
            self.unread(x)
            h = self.norm(self.normed(self.twice(self.twice(x))))
            return self.last(h)

    found = hidden_units(Odd(), torch.randn(2, 4)).not_covered
    assert found["twice"] == "it is called more than once"
    assert "layer_norm" in found["normed"] and "not called" in found["unread"]
    grouped = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Conv1d(4, 4, 1, groups=2))
    assert hidden_units(grouped, torch.randn(1, 2, 3)).layers == ()


def test_sequences_means_and_named_inputs():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x, scale=None):
            return self.down(F.gelu(self.up(x)).mean(1))

    found = hidden_units(Pooled(), {"x": torch.randn(2, 4, 3), "scale": None})
    assert shape_of(found) == {"up": ["down"]}
