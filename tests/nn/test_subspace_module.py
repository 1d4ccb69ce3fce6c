import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.errors import ThalwegError
from thalweg.nn import RandomMap, SubspaceModule

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "intrinsic-dimension-finetuning.npz"
PROJECTIONS = ("fastfood", "dense", "sparse", "orthonormal")


def mlp(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def trained_names(inside):
    return [n for n, p in inside.named_parameters() if p.requires_grad]


def matrix(inside):
    """P, column by column, as what theta moves."""
    columns, zero = [], torch.zeros_like(inside.theta)
    flat = lambda: torch.cat([w.reshape(-1) for w in inside._weights().values()])  # noqa: E731
    with torch.no_grad():
        start = flat()
        for j in range(len(zero)):
            inside.theta.copy_(zero)
            inside.theta[j] = 1
            columns.append(flat() - start)
        inside.theta.copy_(zero)
    return torch.stack(columns, 1)


# Known answers


@pytest.mark.parametrize("granularity", ["model", "tensor"])
@pytest.mark.parametrize("projection", ["fastfood", "dense", "sparse"])
@pytest.mark.parametrize("said", [False, True])
def test_zero_theta_is_the_module_bit_for_bit(projection, granularity, said):
    model, x = mlp(dtype=torch.float32), torch.randn(4, 5)
    inside = SubspaceModule(model, 20, projection, granularity=granularity, said=said)
    assert torch.equal(inside(x), model(x))
    assert inside.D == 5 * 8 + 8 + 8 * 3 + 3
    assert trained_names(inside) == (["theta", "scales"] if said else ["theta"])
    assert len(inside.theta) == (18 if said else 20)


def test_gradient_descent_on_orthonormal_columns_is_projected_gradient_descent():
    model = mlp()
    inside = SubspaceModule(model, 6, "orthonormal", seed=1)
    P = matrix(inside)
    torch.testing.assert_close(P.T @ P, torch.eye(6).double())
    x, y = torch.randn(20, 5).double(), torch.randn(20, 3).double()
    optimizer = torch.optim.SGD([inside.theta], lr=0.1)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    for _ in range(5):
        optimizer.zero_grad()
        (inside(x) - y).square().mean().backward()
        optimizer.step()
        nn.utils.vector_to_parameters(theta, model.parameters())
        g = torch.autograd.grad((model(x) - y).square().mean(), list(model.parameters()))
        theta = theta - 0.1 * P @ (P.T @ nn.utils.parameters_to_vector(g))
    moved = nn.utils.parameters_to_vector(inside.materialize().values())
    torch.testing.assert_close(moved.detach(), theta)


def test_linear_least_squares_ends_at_the_best_point_of_the_subspace():
    torch.manual_seed(0)
    model = nn.Linear(30, 1, bias=False).double()
    A, b = torch.randn(40, 30).double(), torch.randn(40).double()
    inside = SubspaceModule(model, 4, "orthonormal")
    P, start = matrix(inside), model.weight.detach()[0]
    optimizer = torch.optim.LBFGS([inside.theta], max_iter=200, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = (inside(A)[:, 0] - b).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    best = start + P @ torch.linalg.lstsq(A @ P, (b - A @ start)[:, None]).solution[:, 0]
    torch.testing.assert_close(inside.materialize()["weight"][0].detach(), best)


def test_as_many_dimensions_as_parameters_reach_every_point():
    model = nn.Linear(3, 1).double()
    assert torch.linalg.matrix_rank(matrix(SubspaceModule(model, 4, "dense"))) == 4


def test_saddle_of_the_scales():
    inside = SubspaceModule(mlp(), 12, said=True, granularity="tensor")
    x = torch.randn(4, 5).double()
    inside(x).square().sum().backward()
    assert not inside.scales.grad.any() and inside.theta.grad.all()
    inside.zero_grad()
    with torch.no_grad():
        inside.scales.zero_()
        inside.theta.normal_()
    inside(x).square().sum().backward()
    assert inside.scales.grad.all() and not inside.theta.grad.any()


def test_scales_of_one_are_no_scales():
    with_scales = SubspaceModule(mlp(), 12, said=True, granularity="tensor")
    without = SubspaceModule(mlp(), 10, granularity="tensor")
    theta = torch.randn(10).double()
    with torch.no_grad():
        with_scales.theta.copy_(theta)
        without.theta.copy_(theta)
    for a, b in zip(
        with_scales.materialize().values(), without.materialize().values(), strict=True
    ):
        assert torch.equal(a, b)


# A slow reference: finite differences and explicit columns


@CI
@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 20),
    projection=st.sampled_from(PROJECTIONS),
)
def test_the_gradient_is_the_projected_one(seed, d, projection):
    model, x = mlp(seed), torch.randn(4, 5).double()
    inside = SubspaceModule(model, d, projection, seed=seed)
    P = matrix(inside)
    grads = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    inside(x).square().sum().backward()
    torch.testing.assert_close(inside.theta.grad, P.T @ nn.utils.parameters_to_vector(grads))
    if projection in ("dense", "sparse"):
        torch.testing.assert_close(P.norm(dim=0), torch.ones(d).double())


def test_per_tensor_maps_have_unit_columns_each():
    inside = SubspaceModule(mlp(), 3, "dense", granularity="tensor")
    P = matrix(inside)
    torch.testing.assert_close(P.norm(dim=0), torch.full((3,), 2.0).double())  # √4 tensors
    assert [m.D for m in inside.maps] == [40, 8, 24, 3]
    # Each tensor's map comes from its own name, so that a new head does not change the others.
    other = nn.Sequential(mlp()[0], nn.Tanh(), nn.Linear(8, 2).double())
    mine = SubspaceModule(other, 3, "dense", granularity="tensor")
    assert torch.equal(mine.maps[0].constants["matrix"], inside.maps[0].constants["matrix"])


# Vectors


def test_published_maps(monkeypatch):
    data = {k: torch.from_numpy(v) for k, v in np.load(VECTORS, allow_pickle=False).items()}
    model = nn.ParameterDict({f"t{i}": nn.Parameter(data[f"t{i}_w0"]) for i in range(3)})
    drawn = iter(range(3))

    def factors(length, seed, **options):
        i = next(drawn)
        assert length <= int(data[f"t{i}_L"])
        return data[f"t{i}_B"], data[f"t{i}_Pi"], data[f"t{i}_G"], None

    monkeypatch.setattr("thalweg.nn.random_map.fastfood_factors", factors)
    inside = SubspaceModule(model, 9, granularity="tensor", said=True, said_groups="tensor")
    with torch.no_grad():
        inside.theta.copy_(data["theta"])
        for i, w in enumerate(inside.materialize().values()):
            np.testing.assert_allclose(w, data[f"t{i}_did"], atol=1e-12)
        inside.scales.copy_(data["lam"])
        for i, w in enumerate(inside.materialize().values()):
            np.testing.assert_allclose(w, data[f"t{i}_said"], atol=1e-12)


# Modules of all kinds


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.nothing = nn.Parameter(torch.empty(0, 3))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, tokens):
        return self.head(self.table(tokens)) * self.scale + self.frozen.sum()


def test_tied_weights_move_as_one_and_frozen_ones_not():
    torch.manual_seed(0)
    model = Tied()
    inside = SubspaceModule(model, 5)
    assert inside.D == 29
    nn.init.normal_(inside.theta)
    weights = inside.materialize()
    assert weights["head.weight"] is weights["table.weight"]
    assert not torch.equal(weights["table.weight"], model.table.weight)
    assert torch.equal(weights["frozen"], model.frozen)
    after = copy.deepcopy(model)
    after.load_state_dict(weights)
    tokens = torch.arange(7)
    torch.testing.assert_close(after(tokens), inside(tokens))


def test_excluded_parameters_stay_and_the_module_is_not_touched():
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    inside = SubspaceModule(model, 4, exclude="0")
    assert inside.D == 27
    nn.init.normal_(inside.theta)
    inside(torch.randn(2, 5).double()).sum().backward()
    assert all(p.grad is None for n, p in inside.named_parameters() if n != "theta")
    weights = inside.materialize()
    assert torch.equal(weights["0.weight"], model[0].weight)
    assert not torch.equal(weights["2.weight"], model[2].weight)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_residual_block_and_a_transformer_layer():
    block = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
    inside = SubspaceModule(block, 5)
    inside(torch.randn(4, 2, 6, 6)).sum().backward()
    assert inside.module[1].num_batches_tracked == 1 and block[1].num_batches_tracked == 0
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    inside = SubspaceModule(layer, 30, said=True, granularity="tensor")
    inside(torch.randn(2, 3, 8), is_causal=False).sum().backward()
    assert inside.theta.grad.abs().sum() > 0


def test_dtypes():
    model = mlp(dtype=torch.bfloat16)
    inside = SubspaceModule(model, 3)
    assert inside.theta.dtype == torch.float32
    out = inside(torch.randn(2, 5).bfloat16())
    assert out.dtype == torch.bfloat16
    # The maps keep their digits on the way through a lower precision.
    double = SubspaceModule(mlp(), 3)
    there = copy.deepcopy(double.maps[0].constants["gains"])
    double.to(torch.bfloat16)
    assert double.theta.dtype == torch.bfloat16
    assert double.maps[0].constants["gains"].dtype == torch.float32
    double.double()
    assert torch.equal(double.maps[0].constants["gains"], there)


def test_nothing_saves_or_sends_the_maps():
    inside = SubspaceModule(mlp(), 4)
    assert not list(inside.buffers())
    assert set(inside.state_dict()) == {
        "theta",
        "_extra_state",
        *(f"module.{n}" for n in mlp().state_dict()),
    }
    meta = copy.deepcopy(inside).to("meta")
    assert all(c.is_meta for c in meta.maps[0].constants.values())


def test_state_dict_round_trip_and_a_state_of_other_maps():
    inside, other = SubspaceModule(mlp(), 4), SubspaceModule(mlp(1), 4)
    nn.init.normal_(inside.theta)
    other.load_state_dict(inside.state_dict())
    x = torch.randn(2, 5).double()
    assert torch.equal(inside(x), other(x))
    with pytest.raises((ValueError, RuntimeError), match="seed=0, the module has 1"):
        SubspaceModule(mlp(), 4, seed=1).load_state_dict(inside.state_dict())


def test_compiles():
    inside = SubspaceModule(mlp(), 4)
    nn.init.normal_(inside.theta)
    x = torch.randn(2, 5).double()
    compiled = torch.compile(inside, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), inside(x))


def test_the_random_state_is_left_alone():
    model = mlp()
    state = torch.get_rng_state()
    SubspaceModule(model, 4)
    assert torch.equal(state, torch.get_rng_state())
    assert repr(RandomMap("dense", 4, 2, seed=1, max_bytes=99)) == (
        "RandomMap(dense, 4 -> 2, seed=1)".replace("4 -> 2", "2 -> 4")
    )


# Files

OTHER_PROCESS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_subspace_module import mlp
from thalweg.nn import SubspaceModule
inside = SubspaceModule.load(mlp(dtype=torch.float32), sys.argv[2])
torch.save(inside(torch.ones(2, 5)).detach(), sys.argv[3])
"""


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_seed_and_d_numbers_are_all(projection, tmp_path):
    inside = SubspaceModule(mlp(dtype=torch.float32), 11, projection, seed=3, said=True)
    nn.init.normal_(inside.theta)
    nn.init.normal_(inside.scales)
    path = tmp_path / "small.safetensors"
    inside.export(path)
    again = SubspaceModule.load(mlp(dtype=torch.float32), path)
    assert torch.equal(again(torch.ones(2, 5)), inside(torch.ones(2, 5)))
    from safetensors.torch import load_file

    assert sum(t.numel() for t in load_file(path).values()) == 11


def test_another_process_gives_the_same_bits(tmp_path):
    inside = SubspaceModule(mlp(dtype=torch.float32), 7, exclude="0.bias", granularity="tensor")
    nn.init.normal_(inside.theta)
    inside.export(tmp_path / "small.safetensors")
    words = [str(Path(__file__).parent), tmp_path / "small.safetensors", tmp_path / "out.pt"]
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, *words], check=True)
    assert torch.equal(torch.load(tmp_path / "out.pt"), inside(torch.ones(2, 5)))


def test_changed_statistics_come_along(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    inside = SubspaceModule(model, 2)
    inside(torch.randn(9, 3))
    inside.export(tmp_path / "f")
    again = SubspaceModule.load(model, tmp_path / "f").eval()
    assert torch.equal(again(torch.ones(2, 3)), inside.eval()(torch.ones(2, 3)))


def test_bad_files(tmp_path, monkeypatch):
    path = tmp_path / "f"
    SubspaceModule(mlp(), 2).export(path)
    with pytest.raises(ThalwegError, match="its values are others"):
        SubspaceModule.load(mlp(1), path)
    with pytest.raises(ThalwegError, match=r"no parameter '0\.weight'"):
        SubspaceModule.load(nn.Linear(2, 2), path)
    (tmp_path / "text").write_text("nothing")
    with pytest.raises(ThalwegError, match="no export of a SubspaceModule"):
        SubspaceModule.load(mlp(), tmp_path / "text")
    from thalweg.numerics import fastfood_factors

    monkeypatch.setattr(
        "thalweg.nn.random_map.fastfood_factors",
        lambda D, seed, **options: fastfood_factors(D, seed + 1, **options),
    )
    with pytest.raises(ThalwegError, match="draws other numbers"):
        SubspaceModule.load(mlp(), path)


# Errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"d": 0}, "need 1 <= d <= D, got d=0 for D=75"),
        ({"d": 76}, "got d=76"),
        ({"d": 2, "said": True}, "d=2 leaves no room for 2 SAID scales"),
        ({"d": 2, "projection": "slow"}, "fastfood, dense, sparse, orthonormal; got 'slow'"),
        ({"d": 2, "granularity": "layer"}, "granularity"),
        ({"d": 2, "include": "9"}, "include='9' matches no parameter"),
        ({"d": 2, "dtype": torch.int64}, "floating"),
        ({"d": 4, "projection": "orthonormal", "granularity": "tensor"}, "cannot be orthonormal"),
        ({"d": 5, "projection": "dense", "max_bytes": 999}, "projection='fastfood'"),
        ({"d": 5, "projection": "sparse", "max_bytes": 99}, "projection='fastfood'"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        SubspaceModule(mlp(), **options)
