"""Hypernetworks against the authors' code, and what homogeneity and its absence imply."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.nn import HyperNet, encode, hypernetwork

VECTORS = np.load(
    Path(__file__).parents[1] / "vectors" / "hypernetwork-mip.npz", allow_pickle=False
)
SHAPES = {"fc1.weight": (3, 4), "fc1.bias": (3,), "fc2.weight": (2, 3)}


def vector(name):
    return torch.from_numpy(VECTORS[name])


def standard(**options):
    made = {"encoding": None, "residual": False, "dtype": torch.float64}
    return HyperNet({"z": (2,)}, SHAPES, (5, 6), **(made | options))


# Known answers


def test_ends_and_middle_of_the_encoding():
    half = 0.5**0.5
    found = encode(torch.tensor([[0.0], [1.0], [0.5]], dtype=torch.float64))
    expected = torch.tensor([[1, 0], [0, 1], [half, half]], dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-15)


def test_a_standard_network_is_homogeneous_and_what_it_predicts_of_order_its_depth():
    net = standard()
    z = torch.rand(2, dtype=torch.float64)
    once, twice = net(z=z), net(z=2 * z)
    for name in SHAPES:
        assert torch.equal(twice[name], 2 * once[name])

    def primary(w, x):
        return torch.relu(x @ w["fc1.weight"].T) @ w["fc2.weight"].T

    x = torch.randn(7, 4, dtype=torch.float64)
    assert torch.allclose(primary(twice, x), 4 * primary(once, x), rtol=1e-14)


def test_without_a_last_weight_every_input_gives_the_same():
    net = HyperNet({"z": ()}, SHAPES | {"norm.weight": (4,)}, generator=torch.Generator())
    nn.init.zeros_(net.output.weight)
    a, b = net(z=torch.tensor(0.0)), net(z=torch.tensor(1.0))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not a["fc1.bias"].any() and (a["norm.weight"] == 1).all()


def test_the_additive_part_starts_by_kaimings_law_and_changes_start_small():
    net = HyperNet({"z": ()}, {"conv.weight": (64, 16, 3, 3)})
    assert net.output.bias.std().item() == pytest.approx((2 / 144) ** 0.5, rel=0.03)
    change = net(z=torch.rand(5))["conv.weight"].flatten(1) - net.output.bias
    assert change.norm(dim=1).max() < 0.5 * net.output.bias.norm()


def test_changes_are_zero_on_average_over_initial_weights():
    generator = torch.Generator().manual_seed(0)
    changes = []
    for _ in range(400):
        net = HyperNet({"z": ()}, {"w": (6,)}, (8,), generator=generator)
        changes.append(net(z=torch.tensor(0.3))["w"].detach() - net.output.bias.detach())
    changes = torch.stack(changes)
    assert (changes.mean(0).abs() < 4 * changes.std(0) / 400**0.5).all()


def test_the_gradient_of_the_additive_part_is_the_sum_over_the_batch():
    net = HyperNet({"z": (2,)}, SHAPES, dtype=torch.float64)
    theta = net(z=torch.rand(5, 2, dtype=torch.float64))
    sum(t.square().sum() for t in theta.values()).backward()
    expected = torch.cat([2 * t.sum(0).flatten() for t in theta.values()])
    assert torch.allclose(net.output.bias.grad, expected, rtol=1e-12)


def test_a_module_gives_its_own_values():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    net = HyperNet.from_module(module, {"z": ()})
    nn.init.zeros_(net.output.weight)
    found = net(z=torch.tensor(0.7))
    for name, p in module.named_parameters():
        assert torch.equal(found[name], p)
    one = HyperNet.from_module(module, {"z": ()}, names=["2.bias"])
    assert one.output_shapes == {"2.bias": (2,)}


# The authors' numbers


@pytest.mark.parametrize(("mode", "key"), [("cos|sin", "cos_sin"), ("z|1-z", "z_1mz")])
def test_encodings_of_the_official_code(mode, key):
    found = encode(vector("enc_in"), mode)
    assert torch.allclose(found, vector(f"enc_{key}"), rtol=1e-14, atol=1e-16)


def test_predictions_of_the_official_code():
    net = HyperNet({"b": (2,), "a": (1,)}, SHAPES, (5, 6), dtype=torch.float64)
    ours = {"layers.0": "block0_lin", "layers.1": "block1_lin", "output": "output"}
    net.load_state_dict(
        {
            f"{mine}.{kind}": vector(f"param_backbone__{theirs}__{kind}")
            for mine, theirs in ours.items()
            for kind in ("weight", "bias")
        }
    )
    a, b = vector("input_a"), vector("input_b")
    batch, first = net(a=a, b=b), net(a=a[0], b=b[0])
    for name in SHAPES:
        key = name.replace(".", "__")
        # float64: matrix products sum in another order.
        assert torch.allclose(batch[name], vector(f"out_{key}"), rtol=1e-12, atol=1e-14)
        assert torch.allclose(first[name], vector(f"out_b1_{key}"), rtol=1e-12, atol=1e-14)
        assert net(a=a[:1], b=b[:1])[name].shape == (1, *SHAPES[name])


# Properties


@given(seed=st.integers(0, 10**6), d=st.integers(1, 9), scale=st.sampled_from([1.0, 50.0]))
def test_the_norm_of_the_encoding_is_constant(seed, d, scale):
    gamma = scale * torch.randn(
        4, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    norms = encode(gamma).square().sum(-1)
    assert torch.allclose(norms, torch.full_like(norms, d), rtol=1e-13)


@given(seed=st.integers(0, 10**6), batch=st.integers(0, 5))
def test_a_batch_is_its_inputs_one_by_one(seed, batch):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"z": (2, 2), "a": ()}
    net = HyperNet(shapes, SHAPES, (4,), dtype=torch.float64, generator=generator)
    z = torch.rand(batch, 2, 2, dtype=torch.float64, generator=generator)
    a = torch.rand(batch, dtype=torch.float64, generator=generator)
    together = net(z=z, a=a)
    for i in range(batch):
        for name, t in net(a=a[i], z=z[i]).items():
            assert torch.allclose(together[name][i], t, rtol=1e-12, atol=1e-14)
    assert together["fc1.weight"].shape == (batch, 3, 4)


def test_weights_saved_and_drawn_anew_from_a_seed():
    a, b = (HyperNet({"z": ()}, SHAPES, generator=torch.Generator().manual_seed(3)) for _ in "ab")
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    c = HyperNet({"z": ()}, SHAPES)
    c.load_state_dict(a.state_dict())
    assert torch.equal(a(z=torch.tensor(0.2))["fc2.weight"], c(z=torch.tensor(0.2))["fc2.weight"])
    assert "residual=True" in repr(a)


# Errors


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"z": torch.rand(2), "b": torch.rand(1)}, r"missing \[\], unknown \['b'\]"),
        ({}, r"missing \['z'\], unknown \[\]"),
        ({"z": torch.rand(3)}, r"input 'z' must be \(2,\).*got \(3,\)"),
        ({"z": torch.rand(4, 5, 2)}, r"got \(4, 5, 2\)"),
        ({"z": torch.tensor([0.5, 1.5])}, r"in \[0, 1\], got 0.5 … 1.5"),
        ({"z": torch.tensor([0.5, torch.nan])}, r"in \[0, 1\], got nan"),
    ],
)
def test_bad_inputs(inputs, said):
    with pytest.raises(ValueError, match=said):
        HyperNet({"z": (2,)}, SHAPES)(**inputs)


def test_batch_sizes_that_differ():
    net = HyperNet({"a": (), "z": (2,)}, SHAPES)
    with pytest.raises(ValueError, match=r"one batch size.*'a': 3, 'z': 4"):
        net(a=torch.rand(3), z=torch.rand(4, 2))
    with pytest.raises(ValueError, match=r"'a': None, 'z': 4"):
        net(a=torch.tensor(0.5), z=torch.rand(4, 2))


def test_bad_settings(monkeypatch):
    with pytest.raises(ValueError, match="or None, got 'sin'"):
        HyperNet({"z": ()}, SHAPES, encoding="sin")
    with pytest.raises(ValueError, match="an input and an output"):
        HyperNet({}, SHAPES)
    with pytest.raises(ValueError, match="widths must be at least 1"):
        HyperNet({"z": ()}, SHAPES, (0,))
    with pytest.raises(ValueError, match=r"no parameter \['3.weight'\]"):
        HyperNet.from_module(nn.Linear(2, 2), {"z": ()}, names=["3.weight"])
    monkeypatch.setattr(hypernetwork, "LARGE", 100)
    with pytest.warns(UserWarning, match="predict fewer parameters"):
        HyperNet({"z": ()}, SHAPES)
