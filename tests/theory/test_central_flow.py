"""The central flow against closed forms and against the time average of gradient descent."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.theory import CentralFlow, central_flow
from thalweg.theory.central_flow import oscillation_covariance

CI = settings(max_examples=25, deadline=None, derandomize=True)


def valley(w):
    """Curvature y across, a constant push along: it climbs until the oscillation holds it."""
    return 0.5 * w[1] * w[0] ** 2 - w[1]


def two_valleys(w):
    """Two curvatures that climb with pushes 1 and 3."""
    return 0.5 * (w[2] * w[0] ** 2 + w[3] * w[1] ** 2) - w[2] - 3 * w[3]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_below_the_edge_it_is_gradient_flow():
    flow = central_flow(lambda w: 0.5 * w.square().sum(), tensor(1.0, 2.0), 0.01, 100, substeps=20)
    assert flow.params.tolist() == pytest.approx([0.3679, 2 * 0.3679], abs=1e-3)  # e^{-1}
    assert flow.variance.max() == 0 and torch.equal(flow.loss, flow.predicted_loss)
    assert flow.loss.shape == (101,) and flow.eigenvalues.shape == (101, 1)


def test_held_at_the_edge_by_the_variance_that_the_push_needs():
    flow = central_flow(valley, tensor(0.0, 15.0), 0.1, 100)
    assert flow.eigenvalues[40].item() == pytest.approx(19.0)  # y climbs by η a step
    assert flow.eigenvalues[-1].item() == pytest.approx(20.0, abs=1e-6)
    # dy/dt = η(1 − σ²/2) = 0; predicted loss −y + ½yσ² = 0 at y = 20, σ² = 2
    assert flow.variance[-1].item() == pytest.approx(2.0, abs=1e-6)
    assert flow.predicted_loss[-1].item() == pytest.approx(0.0, abs=1e-5)


def test_two_directions_at_once():
    flow = central_flow(two_valleys, tensor(0.0, 0.0, 15.0, 14.0), 0.1, 100, k=2)
    assert flow.eigenvalues[-1].tolist() == pytest.approx([20.0, 20.0], abs=1e-4)
    assert flow.variance[-1].item() == pytest.approx(2.0 + 6.0, rel=1e-4)


def test_gradient_descent_goes_where_the_flow_says():
    """Its own average over the last 500 of 1000 steps, under a gentle push along the valley."""

    def gentle(w):
        return 0.5 * w[1] * w[0] ** 2 - 0.01 * w[1]

    w, lr = tensor(0.15, 20.0), 0.1
    path = []
    for _ in range(1000):
        w = w.detach().requires_grad_()
        w = w - lr * torch.autograd.grad(gentle(w), w)[0]
        path.append(w.detach())
    late = torch.stack(path[-500:])
    flow = central_flow(gentle, tensor(0.0, 19.99), lr, 100)
    assert late[:, 1].mean().item() == pytest.approx(flow.params[1].item(), rel=0.01)
    assert late[:, 0].square().mean().item() == pytest.approx(flow.variance[-1].item(), rel=0.1)


@CI
@given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
def test_the_complementarity_problem_is_solved(seed, k):
    g = torch.Generator().manual_seed(seed)
    sketch = torch.randn(k, k, 12, generator=g, dtype=torch.float64)
    sketch = (sketch + sketch.transpose(0, 1)).reshape(k * k, 12)
    B = (sketch @ sketch.T).reshape(k, k, k, k)
    A = torch.randn(k, k, generator=g, dtype=torch.float64)
    A = A + A.T
    slack = torch.diag(torch.rand(k, generator=g, dtype=torch.float64))
    X = oscillation_covariance(A, B, slack, num_steps=5000, tol=1e-14)
    S = torch.einsum("ijab,ab->ij", B, X) - A + slack
    scale = max(1.0, float(B.abs().max()))
    assert torch.linalg.eigvalsh(X)[0] >= -1e-9
    assert torch.linalg.eigvalsh((S + S.T) / 2)[0] >= -1e-3 * scale
    assert abs(float((X * S).sum())) <= 1e-3 * scale


def test_types_and_errors():
    flow = central_flow(valley, tensor(0.0, 1.0), 0.1, 1)
    assert type(flow) is CentralFlow
    with pytest.raises(dataclasses.FrozenInstanceError):
        flow.loss = None
    for kwargs in ({"lr": 0.0}, {"num_steps": 0}, {"k": 3}, {"substeps": 0}):
        with pytest.raises(ValueError, match="central_flow"):
            central_flow(**{"loss_fn": valley, "params": tensor(0.0, 1.0), "lr": 0.1,
                            "num_steps": 1} | kwargs)  # fmt: skip
    with pytest.raises(ValueError, match="floating"):
        central_flow(valley, torch.ones(2, dtype=torch.long), 0.1, 1)
    with pytest.raises(FloatingPointError, match="no longer finite"):
        central_flow(lambda w: w[0].log(), tensor(-1.0, 1.0), 0.1, 1)
