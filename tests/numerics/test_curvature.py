from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.numerics import eigsh, ggnvp, hessian_operator, hvp, trace

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "sgd-dynamical-stability.npz"


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def small(seed=0, hidden=5):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3)).double()
    return model, (torch.randn(12, 4).double(), torch.randint(3, (12,)))


def dense_hessian(loss, params):
    """The slow reference: one row per entry of the gradient."""
    grads = torch.autograd.grad(loss, params, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])
    rows = [torch.autograd.grad(g, params, retain_graph=True, materialize_grads=True) for g in flat]
    return torch.stack([torch.cat([t.reshape(-1) for t in row]) for row in rows])


def test_least_squares_has_the_hessian_of_its_data():
    torch.manual_seed(0)
    x, y = torch.randn(6, 3).double(), torch.randn(6, 1).double()
    model = nn.Linear(3, 1, bias=False).double()
    H = hvp(model, lambda m, b: (m(b[0]) - b[1]).square().mean(), (x, y))
    torch.testing.assert_close(H.dense(), 2 * x.T @ x / 6)


def test_uv_at_interpolation():
    u, v = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (2.0, 0.5))
    with hessian_operator(lambda: 0.5 * (u * v - 1) ** 2, [u, v]) as H:
        eigenvalues = torch.linalg.eigvalsh(H.dense())
    torch.testing.assert_close(eigenvalues, torch.tensor([0.0, 4.25]).double())


@CI
@given(seed=st.integers(0, 10**6), hidden=st.integers(1, 6), retain=st.booleans())
def test_products_are_those_of_the_dense_hessian(seed, hidden, retain):
    model, batch = small(seed, hidden)
    H = hvp(model, cross_entropy, batch, retain=retain)
    expected = dense_hessian(cross_entropy(model, batch), list(model.parameters()))
    torch.testing.assert_close(H.dense(), expected)


def test_micro_batches_are_weighted_by_their_sizes():
    model, (x, y) = small()
    parts = [(x[:7], y[:7]), (x[7:], y[7:])]
    for product in (hvp, ggnvp):
        whole = product(model, cross_entropy, (x, y))
        pieces = product(model, cross_entropy, parts)
        torch.testing.assert_close(pieces.dense(), whole.dense())
        torch.testing.assert_close(pieces.loss, whole.loss)


def test_ggn_is_jacobian_loss_hessian_jacobian():
    model, batch = small()
    params = dict(model.named_parameters())
    J = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, batch[0]))(params)
    J = torch.cat([J[k].flatten(2) for k in params], 2).flatten(0, 1)
    z = model(batch[0]).detach()
    loss = torch.func.hessian(lambda z: nn.functional.cross_entropy(z, batch[1]))(z)
    expected = J.T @ loss.reshape(len(J), len(J)) @ J
    torch.testing.assert_close(ggnvp(model, cross_entropy, batch).dense(), expected)
    plain = ggnvp(lambda x: model(x), cross_entropy, batch, params=list(model.parameters()))
    torch.testing.assert_close(plain.dense(), expected)


def test_vectors():
    data = np.load(VECTORS, allow_pickle=False)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    keys = ["0.weight", "0.bias", "2.weight", "2.bias"]
    model.load_state_dict({k: torch.from_numpy(data[f"mlp__sd_{k}"]) for k in keys})
    batch = torch.from_numpy(data["mlp__X"]), torch.from_numpy(data["mlp__y"])
    H = hvp(model, cross_entropy, batch).dense()
    expected = np.sort(data["mlp__dense_hessian_eigs"])
    np.testing.assert_allclose(np.linalg.eigvalsh(H.numpy()), expected, atol=1e-12)
    np.testing.assert_allclose(H.trace().item(), data["mlp__dense_trace"], rtol=1e-12)
    top = eigsh(H, 3, "LM", tol=1e-9)
    # the peer divides by (norm + 1e-6): right to 2e-6
    np.testing.assert_allclose(top.values, data["mlp__pyhessian_top3_by_abs"], rtol=1e-5)


class ReluNet(nn.Module):
    """f = Σ_j a_j relu(w_j·x)."""

    def __init__(self, w, a):
        super().__init__()
        self.w, self.a = nn.Parameter(torch.from_numpy(w)), nn.Parameter(torch.from_numpy(a))

    def forward(self, x):
        return torch.relu(x @ self.w.T) @ self.a


class DiagonalNet(nn.Module):
    """f = ⟨a ⊙ b, x⟩."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.from_numpy(a)), nn.Parameter(torch.from_numpy(b))

    def forward(self, x):
        return x @ (self.a * self.b)


@pytest.mark.parametrize("kind", ["relu", "diag"])
def test_gauss_newton_vectors_of_two_layer_nets(kind):
    data = np.load(VECTORS, allow_pickle=False)
    x = torch.from_numpy(data["nets__x"])
    model = (
        ReluNet(data["nets__w"], data["nets__a"])
        if kind == "relu"
        else DiagonalNet(data["nets__dl_a"], data["nets__dl_b"])
    )
    G = ggnvp(model, lambda m, x: 0.5 * m(x).square().mean(), x)
    tr, largest, fro = data[f"nets__{kind}_tr_lmax_fro"]
    dense = G.dense()
    np.testing.assert_allclose([dense.trace(), dense.norm()], [tr, fro], rtol=1e-12)
    assert eigsh(G, tol=1e-10).values.item() == pytest.approx(largest, rel=1e-10)
    assert trace(G, num_matvecs=G.dim).value == pytest.approx(tr, rel=1e-12)
    if kind == "diag":  # tr G = Σ_k (a_k² + b_k²) mean(x_k²)
        sizes = model.a.detach() ** 2 + model.b.detach() ** 2
        assert tr == pytest.approx((sizes * (x**2).mean(0)).sum().item())


def test_losses_that_are_linear_or_ignore_a_parameter_have_zero_curvature():
    w, unused = torch.ones(2, requires_grad=True), torch.ones(1, requires_grad=True)
    assert hessian_operator(lambda: w.sum(), [w, unused]).dense().eq(0).all()
    H = hessian_operator(lambda: (w**2).sum(), [w, unused]).dense()
    torch.testing.assert_close(H, torch.diag(torch.tensor([2.0, 2.0, 0.0])))


def test_dropout_keeps_its_mask_between_products():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    x, v = torch.randn(6, 4), torch.randn(49)
    for retain in (True, False):
        H = hvp(model, lambda m, x: m(x).square().mean(), x, retain=retain)
        torch.testing.assert_close(H.matvec(v), H.matvec(v))


def test_attention_is_differentiated_twice():
    torch.manual_seed(0)
    q = torch.randn(1, 2, 8, 4, requires_grad=True)

    def loss():
        return nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).square().sum()

    with hessian_operator(loss, [q]) as H:
        u, v = torch.randn(64), torch.randn(64)
        torch.testing.assert_close(u @ H.matvec(v), v @ H.matvec(u), rtol=1e-3, atol=1e-3)


def test_a_closed_operator_holds_nothing_and_says_so():
    import gc
    import weakref

    model, batch = small()
    held = []
    model[1].register_forward_hook(lambda m, a, out: held.append(weakref.ref(out)))
    gc.disable()  # a reference cycle would keep the graph until the next collection
    try:
        with hvp(model, cross_entropy, batch) as H:
            H.matvec(torch.ones(H.dim, dtype=H.dtype))
            assert any(r() is not None for r in held)
        assert all(r() is None for r in held)
    finally:
        gc.enable()
    with pytest.raises(RuntimeError, match="closed"):
        H.matvec(torch.ones(H.dim, dtype=H.dtype))


def test_errors():
    model, batch = small()
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="differentiable scalar"):
        hessian_operator(lambda: w * 2, [w])
    with pytest.raises(ValueError, match="no parameters"):
        hessian_operator(lambda: w.sum(), [])
    with pytest.raises(ValueError, match="requires grad"):
        hessian_operator(lambda: w.sum(), [torch.ones(2)])
    with pytest.raises(ValueError, match="no batch"):
        hvp(model, cross_entropy, [])
    with pytest.raises(ValueError, match="never called"):
        ggnvp(model, lambda m, b: sum(p.sum() for p in m.parameters()), batch)
    with pytest.raises(ValueError, match="params="):
        hvp(lambda x: x, cross_entropy, batch)
