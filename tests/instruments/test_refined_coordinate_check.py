"""instruments/refined_coordinate_check.py"""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.instruments import CoordinateChange, LayerChange, RefinedCoordinateCheck
from thalweg.instruments.refined_coordinate_check import RefinedCoordinateCheck as home

VECTORS = np.load(
    Path(__file__).parent.parent / "vectors" / "large-learning-rates.npz", allow_pickle=False
)


def check_of(case, **options):
    """The network of the vectors, and its check."""
    arrays = {k.removeprefix(f"{case}__"): v for k, v in VECTORS.items() if k.startswith(case)}
    n = arrays["init__0.weight"].shape[0]
    act = nn.ReLU if case == "rcc0" else nn.Tanh
    layers = [
        nn.Linear(6, n),
        act(),
        nn.Linear(n, n, bias=False),
        act(),
        nn.LayerNorm(n),
        nn.Linear(n, 4),
    ]
    net = nn.Sequential(*layers).double()

    def load(part):
        own = {k: torch.from_numpy(arrays[f"{part}__{k}"]) for k in net.state_dict()}
        net.load_state_dict(own)
        return net

    check = RefinedCoordinateCheck(load("init"), **options)
    load("final")
    return check, torch.from_numpy(arrays["x"]), arrays


@pytest.mark.parametrize("case", ["rcc0", "rcc1"])
def test_vectors(case):
    """torch-module-monitor at 74b583b; sums of a dozen doubles, so 1e-12."""
    check, x, arrays = check_of(case, norm="l2")
    whole, _, _ = check_of(case, norm="l2", bias=True)
    free, biased = check.step(x), whole.step(x)
    compared = 0
    for key, value in arrays.items():
        parts = key.removeprefix("metric__RCC ").split("|")
        if not key.startswith("metric") or len(parts) > 3:
            continue
        field = {
            "(W_t-W_0)x_t": "effective", "W_0(x_t-x_0)": "propagated",
            "x_t": "xt", "(x_t-x_0)": "dx",
        }[parts[0]]  # fmt: skip
        module, _, without_bias = parts[1].partition(".")
        if field in ("xt", "dx") and module == "4":
            continue  # inputs of the LayerNorm before normalisation; below
        found = (free if without_bias else biased)[module]
        assert math.isclose(getattr(found, field), float(value), rel_tol=1e-12, abs_tol=1e-13), key
        compared += 1
    assert compared == 12 + 10 + 8
    normalised = arrays["metric__RCC (W_t-W_0)x_t|4.weight|x_t|l2norm"]
    moved = arrays["metric__RCC W_0(x_t-x_0)|4.weight|x_t-x_0|l2norm"]
    assert math.isclose(free["4"].xt, float(normalised), rel_tol=1e-12)
    assert math.isclose(free["4"].dx, float(moved), rel_tol=1e-12)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 9))
def test_the_parts_add_up_to_the_change_of_the_output(seed, n):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(3, n, bias=False), nn.Tanh(), nn.Linear(n, 2, bias=False)
    ).double()
    check = RefinedCoordinateCheck(net)
    with torch.no_grad():
        for p in net.parameters():
            p += torch.randn_like(p)
    x = torch.randn(5, 3, dtype=torch.float64)
    parts = check.vectors(x)
    change = net(x) - check.reference(x)
    assert torch.allclose(parts["2"].effective + parts["2"].propagated, change, atol=1e-12)
    inner = net[0](x) - check.reference[0](x)
    assert torch.allclose(parts["0"].effective, inner, atol=1e-12)
    assert isinstance(parts["0"], LayerChange) and not parts["0"].propagated.any()


def test_one_step_of_a_readout_moves_it_by_the_kernel_of_its_inputs():
    """−η Σ_i χ_i ⟨x_i, x⟩ / B."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    net[0].requires_grad_(False)
    check = RefinedCoordinateCheck(net)
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    h, out = net[:2](x), net(x)
    chi = out.softmax(1) - nn.functional.one_hot(y, 3)
    nn.functional.cross_entropy(out, y).backward()
    torch.optim.SGD(net[2].parameters(), lr=0.7).step()
    expected = -0.7 * (h @ h.T) @ chi / 6
    parts = check.vectors(x)["2"]
    assert torch.allclose(parts.effective, expected.detach(), atol=1e-12)
    assert not parts.propagated.any() and not parts.dx.any()  # nothing before it moved


def test_an_unchanged_model_has_not_changed():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    found = RefinedCoordinateCheck(net).step(torch.arange(5)[None])
    assert found["0"][:2] == found["1"][:2] == (0.0, 0.0)
    assert home is RefinedCoordinateCheck and isinstance(found["1"], CoordinateChange)


def test_an_embedding_has_an_effective_part_only():
    net = nn.Sequential(nn.Embedding(5, 4))
    check = RefinedCoordinateCheck(net)
    with torch.no_grad():
        net[0].weight += 2
    part = check.step(torch.arange(5))["0"]
    assert (part.effective, part.propagated, part.dx) == (2.0, 0.0, 0.0) and math.isnan(part.xt)


def test_convolutions_have_their_units_in_the_channels():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 2, 1))
    check = RefinedCoordinateCheck(net)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1
    x = torch.randn(4, 3, 5, 5)
    parts = check.vectors(x)
    assert parts["2"].effective.shape == (4, 3, 3, 2)
    change = (net(x) - check.reference(x)).movedim(1, -1) - 0.1  # without the bias
    assert torch.allclose(parts["2"].effective + parts["2"].propagated, change, atol=1e-5)


def test_a_module_called_twice_counts_both_calls_and_outputs_that_are_tuples_are_left_out():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.rnn = nn.Linear(3, 3, bias=False), nn.GRU(3, 3)

        def forward(self, x):
            return self.rnn(self.layer(self.layer(x)))[0]

    net = Twice()
    check = RefinedCoordinateCheck(net)
    with torch.no_grad():
        net.layer.weight.add_(0.1)
    parts = check.vectors(torch.randn(4, 3))
    assert set(parts) == {"layer"} and parts["layer"].effective.shape == (8, 3)


def test_nothing_of_the_model_changes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    check = RefinedCoordinateCheck(net)
    state, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    check.step(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and net.training
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_errors():
    with pytest.raises(ValueError, match="norm must be"):
        RefinedCoordinateCheck(nn.Linear(2, 2), norm="l1")
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    with pytest.raises(ValueError, match="dropout"):
        RefinedCoordinateCheck(net).step(torch.ones(1, 2))
    assert RefinedCoordinateCheck(net.eval()).step(torch.ones(1, 2))["0"].effective == 0.0
