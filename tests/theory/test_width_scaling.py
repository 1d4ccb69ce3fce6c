"""theory/width_scaling.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numerics import fit_exponent
from thalweg.theory import predicted_exponents, predicted_slopes, width_regime


@pytest.mark.parametrize(
    ("arguments", "exponent"),
    [
        (("sp", "sgd", "mse", 8), -1.0),
        (("sp", "sgd", "mse", 1), -1.0),
        (("sp", "sgd", "ce", 8), -0.5),
        (("sp", "sgd", "ce", 2), -0.5),
        (("sp", "sgd", "ce", 1), 0.0),
        (("sp", "adam", "ce", 4), -1.0),
        (("sp", "adam", "mse", 4), -1.0),
        (("mup", "sgd", "mse", 8), 0.0),
        (("mup", "adam", "ce", 8), 0.0),
        (("sp_full_align", "adam", "ce", 8), 0.0),
    ],
)
def test_the_table(arguments, exponent):
    assert predicted_exponents(*arguments) == exponent


@pytest.mark.parametrize(
    ("exponent", "ce", "mse"),
    [
        (-1.5, "stable", "stable"),
        (-1, "stable", "stable"),
        (-0.99, "controlled divergence", "catastrophic"),
        (-0.5, "controlled divergence", "catastrophic"),
        (-0.49, "catastrophic", "catastrophic"),
        (0.5, "catastrophic", "catastrophic"),
    ],
)
def test_the_regimes(exponent, ce, mse):
    assert width_regime(exponent, "ce") == ce and width_regime(exponent, "mse") == mse


def test_the_largest_stable_rate_is_the_largest_that_is_not_catastrophic():
    for loss in ("ce", "mse"):
        limit = predicted_exponents("sp", "sgd", loss)
        assert width_regime(limit, loss) != "catastrophic"
        assert width_regime(limit + 1e-9, loss) == "catastrophic"


@given(exponent=st.floats(-3, 1))
def test_regimes_and_slopes_agree(exponent):
    slopes = predicted_slopes(exponent)
    regime = width_regime(exponent, "ce")
    assert (slopes["output"] > 0) == (regime != "stable") or math.isclose(exponent, -1)
    assert (slopes["hidden"] > 0) == (regime == "catastrophic") or math.isclose(exponent, -0.5)


def test_slopes_of_a_step_by_hand():
    """One step on fresh Gaussian layers: the scales that the table rests on."""
    g = torch.Generator().manual_seed(0)
    widths, moved = [64, 256, 1024], {"hidden": [], "output": []}
    for n in widths:
        x = torch.randn(n, generator=g)  # entries Θ(1)
        back = torch.randn(n, generator=g) / n**0.5  # gradient at a hidden layer: W_out^T χ
        moved["output"].append(float(x @ x))  # η = 1: change χ ⟨x, x⟩
        moved["hidden"].append(float((back * (x @ x)).square().mean().sqrt()))
    for kind, values in moved.items():
        assert abs(fit_exponent(widths, values).exponent - predicted_slopes(0)[kind]) < 0.1


def test_the_gradient_of_the_logits_is_bounded_under_cross_entropy_only():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 3.0], [0.0, 0.0, 0.0]])
    logits.requires_grad_()
    torch.nn.functional.cross_entropy(logits, torch.tensor([1, 1, 0]), reduction="sum").backward()
    assert logits.grad.norm(dim=1).max() <= 2**0.5 + 1e-6
    assert (logits - torch.eye(3)[[1, 1, 0]]).norm(dim=1).max() > 1e4


def test_errors():
    with pytest.raises(ValueError, match="parametrization"):
        predicted_exponents("ntk")
    with pytest.raises(ValueError, match="optimizer"):
        predicted_exponents(optimizer="adagrad")
    with pytest.raises(ValueError, match="loss"):
        width_regime(-1, "hinge")
    with pytest.raises(ValueError, match="at least 1"):
        predicted_exponents(depth=0)
    with pytest.raises(ValueError, match="nan"):
        width_regime(math.nan)
