import math

import pytest
import torch
from torch import optim

from thalweg.instruments import sharpness, stability_threshold


def diverges(make, curvature, steps=4000):
    """The slow reference: run the optimizer on ½λθ² and look."""
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = make([w])
    for _ in range(steps):
        w.grad = curvature * w.detach()
        optimizer.step()
        if abs(w.item()) > 1e6:
            return True
    return False


SGDS = {
    "gd": dict(lr=0.1),
    "momentum": dict(lr=0.1, momentum=0.9),
    "dampened": dict(lr=0.1, momentum=0.9, dampening=0.5),
    "nesterov": dict(lr=0.1, momentum=0.9, nesterov=True),
    "decayed": dict(lr=0.1, weight_decay=0.5),
    "decayed momentum": dict(lr=0.1, momentum=0.8, weight_decay=0.5),
}
FORMULAS = {"gd": 20.0, "momentum": 38.0, "dampened": 76.0, "nesterov": 20 * 1.9 / 2.8}


@pytest.mark.parametrize("kind", SGDS)
def test_sgd_diverges_just_beyond_it(kind):
    def make(params):
        return optim.SGD(params, **SGDS[kind])

    at = stability_threshold(make([torch.nn.Parameter(torch.ones(1))]))
    assert at.status == "ok" and at.preconditioner is None
    if kind in FORMULAS:
        assert at.threshold == pytest.approx(FORMULAS[kind])
    assert diverges(make, 1.01 * at.threshold)
    assert not diverges(make, 0.99 * at.threshold)


@pytest.mark.parametrize(("beta", "decay"), [(0.9, 0.0), (0.8, 5.0), (0.0, 5.0)])
def test_adam_with_its_preconditioner_held_diverges_just_beyond_it(beta, decay):
    w, lr, D = torch.nn.Parameter(torch.ones(1)), 0.01, 2.0
    optimizer = optim.AdamW([w], lr=lr, betas=(beta, 0.999), weight_decay=decay)
    w.grad = torch.full_like(w, D)
    optimizer.step()
    at = stability_threshold(optimizer)
    assert at.preconditioner is not None and at.preconditioner[0].item() == pytest.approx(D)
    for factor in (1.02, 0.98):
        theta, m = 1e-3, 0.0
        for _ in range(3000):
            m = beta * m + (1 - beta) * factor * at.threshold * D * theta
            # bias correction left out: it makes the first steps large, not unstable
            theta -= lr * decay * theta + lr * m / D
            if abs(theta) > 1e6:
                break
        assert (abs(theta) > 1.0) == (factor > 1)


def test_adam_and_its_preconditioner():
    w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = optim.Adam([w], lr=0.01)
    assert stability_threshold(optimizer).status == "unsupported:the optimizer has not taken a step"
    w.grad = torch.tensor([4.0, 1.0])
    optimizer.step()
    at = stability_threshold(optimizer)
    assert at.threshold == pytest.approx(38 / 0.01) and at.kind == "adam"
    assert at.preconditioner is not None
    torch.testing.assert_close(at.preconditioner[0], torch.tensor([4.0, 1.0]))
    top = sharpness(lambda: w[0] ** 2 + w[1] ** 2, [w], preconditioner=at.preconditioner)
    assert top.value == pytest.approx(2.0, rel=1e-3)


def test_rmsprop():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = optim.RMSprop([w], lr=0.1, momentum=0.5, alpha=0.0)
    w.grad = torch.tensor([3.0, 1.0])
    optimizer.step()
    at = stability_threshold(optimizer)
    assert at.threshold == pytest.approx(30.0) and at.preconditioner is not None
    torch.testing.assert_close(at.preconditioner[0], torch.tensor([3.0, 1.0]))


def test_unequal_learning_rates_become_a_preconditioner():
    a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.4}])
    at = stability_threshold(optimizer)
    assert at.threshold == 20.0 and at.preconditioner is not None
    top = sharpness(lambda: 3 * (a**2 + b**2).sum(), [a, b], preconditioner=at.preconditioner)
    assert top.value == pytest.approx(24.0)  # b's own threshold is 5, its curvature 6


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: optim.SGD(p, lr=0.0), "learning rate"),
        (lambda p: optim.SGD(p, lr=0.1, maximize=True), "maximize"),
        (lambda p: optim.Adagrad(p, lr=0.1), "Adagrad"),
        (lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1), "coupled"),
    ],
)
def test_what_has_no_formula_says_so(make, why):
    at = stability_threshold(make([torch.nn.Parameter(torch.ones(1))]))
    assert math.isnan(at.threshold) and at.status.startswith("unsupported:") and why in at.status
