import pytest
import torch
from torch import nn

from thalweg.losses import SpectralRegularizer


def net():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Conv1d(2, 3, 2)).double()


def slow(model, power):
    total = 0.0
    for layer in (model[0], model[2]):
        top = torch.linalg.svdvals(layer.weight.flatten(1))[0]
        total = total + (top**power - 1) ** 2 + (layer.bias.norm() ** power) ** 2
    return total


@pytest.mark.parametrize("power", [1, 2, 3])
def test_with_enough_iterations_it_is_the_largest_singular_value(power):
    model = net()
    found = SpectralRegularizer(model, weight=0.1, power=power, iterations=500)
    found.penalty()
    got, want = found.penalty(), 0.1 * slow(model, power)
    assert torch.allclose(got, want, rtol=1e-8)
    ours = torch.autograd.grad(got, list(model.parameters()))
    theirs = torch.autograd.grad(want, list(model.parameters()))
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(ours, theirs, strict=True)
    )


def test_one_iteration_a_call_follows_slowly_moving_weights():
    model = nn.Linear(8, 8, bias=False).double()
    direction = torch.randn(8, 8, dtype=torch.float64)
    regularizer = SpectralRegularizer(model, weight=1.0, generator=torch.Generator().manual_seed(0))
    for _ in range(100):
        with torch.no_grad():
            model.weight.add_(direction, alpha=0.01)
        found = regularizer.penalty()
    top = torch.linalg.svdvals(model.weight)[0]
    assert found.item() == pytest.approx(((top**2 - 1) ** 2).item(), rel=1e-3)


def test_descent_brings_the_spectral_norm_to_one_and_leaves_the_rest_free():
    model = nn.Linear(5, 5, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([3.0, 0.5, 0.2, 0.1, 0.01])))
    regularizer = SpectralRegularizer(model, weight=1.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(300):
        optimizer.zero_grad()
        regularizer.penalty().backward()
        optimizer.step()
    s = torch.linalg.svdvals(model.weight)
    assert s[0].item() == pytest.approx(1, abs=1e-3)
    assert torch.allclose(
        s[1:], torch.tensor([0.5, 0.2, 0.1, 0.01], dtype=torch.float64), atol=1e-2
    )


def test_zero_biases_have_a_finite_gradient_and_zero_matrices_too():
    model = nn.Linear(3, 3)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    SpectralRegularizer(model, power=1.0).penalty().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_generator_makes_it_repeatable_and_norm_gains_are_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    first, second = (
        SpectralRegularizer(model, generator=torch.Generator().manual_seed(3)).penalty()
        for _ in range(2)
    )
    assert torch.equal(first, second)
    first.backward()
    assert model[1].weight.grad is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": -1.0}, "weight must be"),
        ({"power": 0.5}, "power must be"),
        ({"iterations": 0}, "iterations must be"),
        ({"skip": ("x",)}, "skip names"),
    ],
)
def test_settings_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        SpectralRegularizer(net(), **options)
