import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.laws import KnownLaws, NotCovered, known_laws


def _params(model):
    gen = torch.Generator().manual_seed(0)
    return {
        n: torch.randn(p.shape, generator=gen, dtype=torch.float64)
        for n, p in model.named_parameters()
    }


def _one(laws, *parts):
    """The only law whose parameters are exactly these."""
    found = [law for law in laws if set(law.parameters) == set(parts)]
    assert len(found) == 1, [law.parameters for law in laws]
    return found[0]


def _everything(laws):
    return [(law.name, law.formula, law.form, law.note.split(";")[0]) for law in laws]


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Square(nn.Module):
    def forward(self, x):
        return torch.relu(x) ** 2


# Known answers


@pytest.mark.parametrize(
    "between",
    [
        [nn.ReLU()],
        [nn.LeakyReLU(0.1)],
        [nn.ReLU(inplace=True), nn.Dropout(0.5)],
        [nn.Dropout(0.3)],
        [nn.PReLU()],
    ],
    ids=str,
)
def test_homogeneous_activations_balance_every_unit(between):
    model = nn.Sequential(nn.Linear(3, 5), *between, nn.Linear(5, 2))
    last = f"{len(model) - 1}.weight"
    laws = known_laws(model, torch.randn(7, 3))
    p = _params(model)
    law = _one(laws, "0.weight", "0.bias", last)
    closed = (p[last] ** 2).sum(0) - (p["0.weight"] ** 2).sum(1) - p["0.bias"] ** 2
    assert law.form == "rows" and torch.allclose(law.fn(p), closed)
    assert law.verified and law.defect < 1e-12 and len(laws) == 1 and not laws.not_covered


def test_degree_two_counts_the_outputs_twice():
    model = nn.Sequential(nn.Linear(3, 5), Square(), nn.Linear(5, 2))
    (law,) = known_laws(model, torch.randn(7, 3))
    p = _params(model)
    closed = 2 * (p["2.weight"] ** 2).sum(0) - (p["0.weight"] ** 2).sum(1) - p["0.bias"] ** 2
    assert torch.allclose(law.fn(p), closed)


def test_a_deep_linear_net_conserves_gram_matrices():
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2), nn.Linear(2, 3))
    laws = known_laws(model, torch.randn(6, 3))
    p = _params(model)
    w, b, v = p["0.weight"], p["0.bias"], p["2.weight"]
    full = v.T @ v - w @ w.T - torch.outer(b, b)
    law = _one(laws, "0.weight", "0.bias", "2.weight")
    assert law.form == "gram"
    assert torch.allclose(law.fn(p), full[tuple(torch.triu_indices(4, 4))])
    assert [x.count(p) for x in laws] == [10, 3]


def test_a_convolutional_net_balances_channels():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2, groups=2, padding=1),
        nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 6, 1, groups=6), nn.ReLU(), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip
    laws = known_laws(model, torch.randn(5, 2, 9, 9))
    p = _params(model)
    first = _one(laws, "0.weight", "0.bias", "3.weight")
    w, v = p["0.weight"], p["3.weight"]
    # Channel c is channel c mod 2 of group c // 2, whose outputs are three.
    closed = [
        (v[3 * (c // 2) : 3 * (c // 2) + 3, c % 2] ** 2).sum() - (w[c] ** 2).sum()
        - p["0.bias"][c] ** 2
        for c in range(4)
    ]  # fmt: skip
    assert torch.allclose(first.fn(p), torch.stack(closed))
    last = _one(laws, "6.weight", "6.bias", "9.weight")
    columns = p["9.weight"].reshape(3, 6, 4)
    closed = (columns**2).sum((0, 2)) - (p["6.weight"] ** 2).sum((1, 2, 3)) - p["6.bias"] ** 2
    assert torch.allclose(last.fn(p), closed)
    assert [x.count(p) for x in laws] == [4, 6, 6]


def test_conv1d_without_activation_is_linear():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.AvgPool1d(2), nn.Conv1d(3, 2, 2))
    (law,) = known_laws(model, torch.randn(5, 2, 8))
    assert law.form == "gram" and law.count(_params(model)) == 6


def test_batch_norm_leaves_the_norm_of_each_filter_and_its_own_balance():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten()
    )
    laws = known_laws(model, torch.randn(6, 2, 8, 8))
    p = _params(model)
    scale = _one(laws, "0.weight")
    assert torch.allclose(scale.fn(p), (p["0.weight"] ** 2).sum((1, 2, 3)))
    assert "eps (1e-05)" in scale.note and "relative rate" in scale.note and scale.verified
    gain = _one(laws, "1.weight", "1.bias", "3.weight")
    closed = p["1.weight"] ** 2 + p["1.bias"] ** 2 - (p["3.weight"] ** 2).sum((0, 2, 3))
    assert torch.allclose(gain.fn(p), closed) and not gain.note
    assert torch.equal(_one(laws, "0.bias").fn(p), p["0.bias"])


def test_group_norm_leaves_norms_of_groups():
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten())
    laws = known_laws(model, torch.randn(4, 2, 6, 6))
    p = _params(model)
    scale, shift = _one(laws, "0.weight", "0.bias"), _one(laws, "0.bias")
    both = (p["0.weight"] ** 2).sum((1, 2, 3)) + p["0.bias"] ** 2
    assert torch.allclose(scale.fn(p), both.reshape(2, 4).sum(1))
    assert torch.allclose(shift.fn(p), p["0.bias"].reshape(2, 4).sum(1))


def test_layer_norm_blocks_the_balance_before_it_and_leaves_scale_and_sums():
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 2))
    laws = known_laws(model, torch.randn(6, 3))
    p = _params(model)
    scale = _one(laws, "0.weight", "0.bias")
    assert torch.allclose(scale.fn(p), (p["0.weight"] ** 2).sum() + (p["0.bias"] ** 2).sum())
    assert torch.allclose(_one(laws, "0.weight").fn(p), p["0.weight"].sum(0))
    assert torch.allclose(_one(laws, "0.bias").fn(p), p["0.bias"].sum().reshape(1))
    assert _one(laws, "1.weight", "1.bias", "3.weight").form == "rows" and len(laws) == 4


def test_cross_entropy_adds_the_column_sums_of_the_head_and_nothing_else_does():
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))
    x = torch.randn(6, 3)
    assert known_laws(model, x) == []
    laws = known_laws(model, x, loss="cross-entropy")
    p = _params(model)
    assert torch.allclose(_one(laws, "2.weight").fn(p), p["2.weight"].sum(0))
    assert torch.allclose(_one(laws, "2.bias").fn(p), p["2.bias"].sum().reshape(1))
    assert all("under cross-entropy" in law.note and law.order == 1 for law in laws)


def test_weights_used_by_hand_are_followed_too():
    class Hand(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.v = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(2, 5))
            self.b = nn.Parameter(torch.randn(5))

        def forward(self, x):
            return torch.relu(x @ self.w + self.b) @ self.v.T

    model = Hand()
    (law,) = known_laws(model, torch.randn(4, 3))
    p = _params(model)
    closed = (p["v"] ** 2).sum(0) - (p["w"] ** 2).sum(0) - p["b"] ** 2
    assert torch.allclose(law.fn(p), closed)


# Skips, ties and frozen parts


def test_only_laws_inside_a_residual_block_survive_its_skip():
    inner = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    laws = known_laws(Residual(inner), torch.randn(5, 4))
    assert [set(law.parameters) for law in laws] == [
        {"inner.0.weight", "inner.0.bias", "inner.2.weight"}
    ]


def test_a_stream_has_one_joint_balance_and_no_pairwise_one():
    inner = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Softplus(), nn.Linear(6, 4, bias=False))
    model = nn.Sequential(
        nn.Linear(3, 4, bias=False), Residual(inner), nn.ReLU(), nn.Linear(4, 2, bias=False)
    )
    (law,) = known_laws(model, torch.randn(5, 3))
    p = _params(model)
    # All that writes to the stream against all that reads from it.
    closed = (
        (p["3.weight"] ** 2).sum(0) + (p["1.inner.0.weight"] ** 2).sum(0)
        - (p["0.weight"] ** 2).sum(1) - (p["1.inner.2.weight"] ** 2).sum(1)
    )  # fmt: skip
    assert torch.allclose(law.fn(p), closed)


def test_a_resnet_block_with_batch_norm():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            out = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(x + self.bn2(self.conv2(out)))

    laws = known_laws(Block(), torch.randn(6, 4, 5, 5))
    assert [set(law.parameters) for law in laws] == [
        {"conv1.weight"},
        {"bn1.weight", "bn1.bias", "conv2.weight"},
        {"conv2.weight"},
    ]


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.ReLU6()])
def test_other_activations_conserve_nothing(activation):
    laws = known_laws(nn.Sequential(nn.Linear(3, 5), activation, nn.Linear(5, 2)), torch.ones(2, 3))
    assert laws == [] and laws.not_covered == ()


def test_swiglu_keeps_its_linear_branch_only():
    class SwiGLU(nn.Module):
        def __init__(self):
            super().__init__()
            self.w1, self.w2, self.w3 = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.w3(nn.functional.silu(self.w1(x)) * self.w2(x))

    model = SwiGLU()
    (law,) = known_laws(model, torch.randn(4, 3))
    p = _params(model)
    closed = (p["w3.weight"] ** 2).sum(0) - (p["w2.weight"] ** 2).sum(1) - p["w2.bias"] ** 2
    assert torch.allclose(law.fn(p), closed)


def test_a_bilinear_unit_has_two_laws():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.c(self.a(x) * self.b(x))

    laws = known_laws(Gated(), torch.randn(4, 3))
    assert {law.parameters for law in laws} == {
        ("c.weight", "a.weight", "a.bias"),
        ("c.weight", "b.weight", "b.bias"),
    }


def test_a_shared_layer_is_balanced_once_for_all_its_uses():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(),
                          nn.Linear(4, 2))  # fmt: skip
    (law,) = known_laws(model, torch.randn(5, 3))
    p = _params(model)
    # Units before and after the shared layer are scaled alike: its rows and columns both count.
    w = p["2.weight"]
    closed = (
        (p["6.weight"] ** 2).sum(0) + (w**2).sum(0) - (w**2).sum(1) - p["2.bias"] ** 2
        - (p["0.weight"] ** 2).sum(1) - p["0.bias"] ** 2
    )  # fmt: skip
    assert torch.allclose(law.fn(p), closed)


def test_a_weight_tied_to_its_transpose_breaks_the_laws_of_both():
    class Auto(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc = nn.Linear(3, 5)

        def forward(self, x):
            return torch.relu(self.enc(x)) @ self.enc.weight

    laws = known_laws(Auto(), torch.randn(4, 3))
    assert laws == [] and "tied" in laws.not_covered[0].reason


def test_frozen_parameters_break_the_laws_they_are_in():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    model[0].weight.requires_grad_(False)
    laws = known_laws(model, torch.randn(4, 3))
    assert [set(law.parameters) for law in laws] == [{"4.weight", "2.weight", "2.bias"}]
    assert [n.module for n in laws.not_covered] == ["0"] and "frozen" in laws.not_covered[0].reason


def test_a_padding_row_that_is_not_zero_has_no_gradient_to_scale_with():
    def build():
        return nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.ReLU(), nn.Linear(3, 2))

    ids = torch.tensor([[0, 1, 2], [3, 4, 0]])
    model = build()
    assert [law.verified for law in known_laws(model, ids)] == [True]
    with torch.no_grad():
        model[0].weight[0] = 1.0
    assert known_laws(model, ids) == [] == known_laws(model)


def test_what_is_not_recognised_is_listed():
    laws = known_laws(nn.LSTM(3, 4), torch.randn(5, 3))
    reason = "operation 'lstm' is not known, so nothing is claimed across it"
    assert laws == [] and laws.not_covered == (NotCovered("", reason),)
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)), nn.ReLU(),
                           nn.Linear(5, 2))  # fmt: skip
    laws = known_laws(normed, torch.randn(5, 3))
    assert laws == [] and any("_weight_norm" in n.reason for n in laws.not_covered)


class Layers(nn.Module):
    """Three square layers and a forward of one's own."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def _in_place_through_a_view(m, x):
    y = m.a(x)
    y.view(-1).add_(1.0)
    return m.b(torch.relu(y))


def _written_by_index(m, x):
    y = torch.zeros(len(x), 4, dtype=x.dtype)
    y[:, :2] = m.a(x)[:, :2]
    return m.b(torch.relu(y))


FORWARDS = {
    "a gated unit keeps the half that is multiplied": (
        lambda m, x: nn.functional.linear(nn.functional.glu(m.a(x)), m.b.weight[:, :2]), 0
    ),
    "what the output does not read is left out": (lambda m, x: (m.c(x), m.b(m.a(x)))[1], 1),
    "a constant written through a view": (_in_place_through_a_view, 0),
    "written by index": (_written_by_index, 0),
    "detached": (lambda m, x: m.b(torch.relu(m.a(x))) + m.c(torch.relu(m.a(x)).detach()), 0),
    "joined by cat": (
        lambda m, x: torch.cat([torch.relu(m.a(x)), m.b(x)], 1) @ torch.cat(
            [m.c.weight, m.c.weight]
        ), 1
    ),
    "units folded onto each other": (
        lambda m, x: m.b(torch.relu(m.a(x)) + torch.relu(m.a(x)).flip(1)), 1
    ),
    "two layers added": (lambda m, x: m.c(torch.relu(m.a(x) + m.b(x))), 1),
    "a constant added": (lambda m, x: m.c(torch.relu(m.a(x) + 1.0)), 0),
    "a constant factor": (lambda m, x: m.c(torch.relu(2 * m.a(x) / 3)), 1),
    "recurrent": (lambda m, x: m.c(torch.relu(m.b(torch.relu(m.b(torch.relu(m.a(x))))))), 1),
    "the same weight from both sides": (lambda m, x: m.c(torch.relu(m.a(x))) @ m.c.weight, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FORWARDS)
def test_unusual_forwards_claim_nothing_that_fails(name):
    forward, expected = FORWARDS[name]
    laws = known_laws(Layers(forward), torch.randn(5, 4))
    assert len(laws) == expected and all(law.verified for law in laws)
    assert not [n for n in laws.not_covered if "failed its check" in n.reason]
    assert _everything(known_laws(Layers(forward))) == _everything(laws)


# Properties


@given(st.integers(0, 10_000))
def test_laws_do_not_depend_on_the_sample_or_on_there_being_one(seed):
    torch.manual_seed(seed)
    gen = torch.Generator().manual_seed(seed)
    # Not two features: their LayerNorm is ±1 but for its eps, gradients before it are round-off.
    widths = torch.randint(3, 7, (5,), generator=gen).tolist()
    layers = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        kind = int(torch.randint(4, (1,), generator=gen))
        inner = [nn.ReLU(), nn.Identity(), nn.Tanh(), nn.LayerNorm(b)][kind]
        layers += [nn.Linear(a, b, bias=bool(i % 2)), inner]
    model = nn.Sequential(*layers, nn.Linear(widths[-1], 2))
    sample = torch.randn(6, widths[0], generator=gen)
    with_sample, without = known_laws(model, sample), known_laws(model)
    assert _everything(with_sample) == _everything(without)
    assert all(law.verified and law.defect < 1e-9 for law in with_sample)
    assert all(law.verified is None and law.defect is None for law in without)


def test_every_kind_of_sample_is_taken():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    drawn = known_laws(model, lambda g: (torch.randn(4, 3, generator=g), y))
    for sample in (x, (x, y), (x,), [x, y], {"input": x}):
        assert _everything(known_laws(model, sample)) == _everything(drawn)
    assert isinstance(drawn, KnownLaws) and isinstance(drawn, list)


def test_the_module_is_left_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state = torch.get_rng_state()
    known_laws(model, torch.randn(3, 1, 4, 4))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model.training and model[1].track_running_stats and model[0].weight.grad is None
    torch.set_rng_state(state)


# Errors


def test_a_random_forward_is_refused_and_named():
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    model = nn.Sequential(nn.Linear(3, 5), Noise(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"output of '1' differed"):
        known_laws(model, torch.randn(4, 3))


def test_side_effects_are_refused_and_named():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x

    model = nn.Sequential(nn.Linear(3, 5), Counter(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"'1' changed '1\.calls'"):
        known_laws(model, torch.randn(4, 3))


def test_wrong_arguments_say_what_to_do():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(TypeError, match=r"must be an nn\.Module, got builtin"):
        known_laws(torch.relu)
    with pytest.raises(ValueError, match="'any' or 'cross-entropy', got 'mse'"):
        known_laws(model, loss="mse")
    with pytest.raises(TypeError, match="got str"):
        known_laws(model, "x")
    with pytest.raises(ValueError, match="Sequential fails on the sample"):
        known_laws(model, torch.randn(4, 7))
    with pytest.raises(ValueError, match="no trainable parameters"):
        known_laws(model.requires_grad_(False))


def test_a_forward_that_no_made_up_input_fits_is_not_covered():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            assert x.shape == (17, 3)
            return self.layer(x)

    laws = known_laws(Picky())
    assert laws == [] and "pass sample=" in laws.not_covered[0].reason
