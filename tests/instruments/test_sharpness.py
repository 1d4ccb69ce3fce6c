import math

import pytest
import torch
from torch import nn

from thalweg.instruments import Reading, hessian_density, hessian_trace, sharpness


def quadratic(spectrum, dtype=torch.float64):
    h = torch.tensor(spectrum, dtype=dtype)
    w = torch.ones(len(h), dtype=dtype, requires_grad=True)
    return (lambda: 0.5 * (h * w**2).sum()), [w]


def test_a_quadratic():
    closure, params = quadratic([1.0, 7.84, 2.89, -20.0])
    top = sharpness(closure, params)
    assert isinstance(top, Reading) and top.status == "ok"
    assert top.value == pytest.approx(7.84, rel=1e-3)
    assert top.uncertainty <= 1e-3 * top.value and top.probability >= 0.99
    total = hessian_trace(closure, params)
    assert (total.value, total.status) == (pytest.approx(-8.27), "ok")
    density = hessian_density(closure, params, lanczos_steps=4).density
    assert density is not None and density.nodes[0].tolist() == pytest.approx([-20, 1, 2.89, 7.84])


def test_two_layers_at_interpolation():
    u, v = (torch.tensor(a, requires_grad=True) for a in (3.0, 1 / 3))
    top = sharpness(lambda: 0.5 * (u * v - 1) ** 2, [u, v])
    assert top.value == pytest.approx(9 + 1 / 9, rel=1e-3)


def test_a_guess_never_replaces_the_random_start():
    closure, params = quadratic([2.89] * 99 + [7.84])
    guess = torch.zeros(100).double()
    guess[0] = 1.0
    assert sharpness(closure, params, v0=guess).value == pytest.approx(7.84, rel=1e-3)


def test_the_last_vector_is_a_good_guess():
    closure, params = quadratic([*torch.linspace(0, 1, 400).tolist(), 1.02])
    first = sharpness(closure, params)
    again = sharpness(closure, params, v0=first.vector)
    assert first.status == again.status == "ok"
    assert again.num_matvecs <= first.num_matvecs


def test_a_preconditioner_scales_both_sides():
    closure, params = quadratic([1.0, 4.0, 9.0])
    D = [torch.tensor([0.1, 4.0, 9.0], dtype=torch.float64)]
    assert sharpness(closure, params, preconditioner=D).value == pytest.approx(10.0)
    for bad in ([torch.ones(2)], [torch.zeros(3)]):
        with pytest.raises(ValueError, match="preconditioner"):
            sharpness(closure, params, preconditioner=bad)


def test_what_did_not_converge_says_so_and_still_gives_a_bound():
    closure, params = quadratic(list(torch.linspace(-1, 1, 500)))
    top = sharpness(closure, params, max_matvecs=6)
    assert top.status.startswith("unsupported:not converged (residual")
    assert 0 < top.value <= 1 and top.probability < 0.99


@pytest.mark.parametrize("measure", [sharpness, hessian_trace, hessian_density])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_loss_is_a_status(measure, bad):
    w = torch.ones(20, requires_grad=True)
    found = measure(lambda: (w * bad).sum(), [w])
    assert found.status == "nonfinite"
    # a finite loss whose curvature is not: |x|^1.5 at 0
    z = torch.zeros(20, requires_grad=True)
    assert measure(lambda: z.abs().pow(1.5).sum(), [z]).status == "nonfinite"


@pytest.mark.parametrize("measure", [sharpness, hessian_trace, hessian_density])
def test_a_loss_without_second_derivative_is_a_status(measure):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    w = torch.ones(20, requires_grad=True)
    found = measure(lambda: Once.apply(w).sum(), [w])
    assert found.status.startswith("unsupported:no second derivative")


def test_frozen_parameters_are_left_out_and_wrong_use_raises():
    w, fixed = torch.ones(2, requires_grad=True), torch.ones(2)
    assert sharpness(lambda: (w**2).sum(), [w, fixed]).value == pytest.approx(2.0)
    with pytest.raises(ValueError, match="no parameters"):
        sharpness(lambda: (w**2).sum(), [fixed])
    with pytest.raises(ValueError, match="differentiable scalar"):
        sharpness(lambda: w**2, [w])


def test_a_trained_network_against_its_dense_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x, y = torch.randn(40, 6).double(), torch.randint(3, (40,))
    params = list(model.parameters())

    def closure():
        return nn.functional.cross_entropy(model(x), y)

    g = torch.autograd.grad(closure(), params, create_graph=True)
    flat = torch.cat([t.reshape(-1) for t in g])
    rows = [torch.autograd.grad(t, params, retain_graph=True, materialize_grads=True) for t in flat]
    H = torch.stack([torch.cat([t.reshape(-1) for t in row]) for row in rows])
    top = sharpness(closure, params, tol=1e-5)
    assert top.value == pytest.approx(torch.linalg.eigvalsh(H)[-1].item(), rel=1e-5)
    total = hessian_trace(closure, params, rel_stderr=0.02, max_matvecs=70)
    assert abs(total.value - H.trace().item()) <= 5 * total.uncertainty


def test_a_compiled_network_is_measured_eagerly():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    compiled, x = torch.compile(model, backend="aot_eager"), torch.randn(6, 4)
    params = list(model.parameters())
    found = sharpness(lambda: compiled(x).square().mean(), params)
    plain = sharpness(lambda: model(x).square().mean(), params)
    assert (found.status, found.value) == ("ok", plain.value)
