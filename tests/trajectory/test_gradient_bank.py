from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.trajectory import GradientBank, task_gradients

VECTORS = np.load(
    Path(__file__).parent.parent / "vectors" / "local-linear-structure.npz", allow_pickle=False
)


def bank_of(rows):
    return task_gradients(
        nn.Linear(rows.shape[1], 1, bias=False).to(rows.dtype),
        lambda model, x: model(x[None]).sum(),
        list(rows),
    )


def svd_energy(rows):
    squares = torch.linalg.svdvals(rows.double()).square()
    return (squares / squares.sum()).cumsum(0)


def test_vectors():
    # Squares of float64 singular values: 1e-12 of the sum.
    bank = bank_of(torch.from_numpy(VECTORS["grads"]))
    want = VECTORS["grad_energy"]
    np.testing.assert_allclose(
        [bank.energy(r) for r in range(1, len(want) + 1)], want, rtol=0, atol=1e-12
    )


def test_the_gradients_are_those_of_the_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    batches = [(torch.randn(5, 3), torch.randint(2, (5,))) for _ in range(6)]
    loss_fn = lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1])  # noqa: E731
    bank = task_gradients(model, loss_fn, batches)
    assert isinstance(bank, GradientBank) and bank.size == 6 and bank.rows.dtype == torch.float32
    for row, batch in zip(bank.rows, batches, strict=True):
        model.zero_grad()
        loss_fn(model, batch).backward()
        torch.testing.assert_close(row, torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
    energy = svd_energy(bank.rows)
    assert bank.energy(2) == pytest.approx(float(energy[1]), abs=1e-9)
    assert bank.effective_rank(0.9) == int((energy < 0.9).sum()) + 1
    s = torch.linalg.svdvals(bank.rows.double())
    p = s / s.sum()
    assert bank.entropy_rank == pytest.approx(float((-(p * p.log()).sum()).exp()))
    V, naive = bank.basis(3), torch.linalg.svd(bank.rows.double()).Vh[:3].T
    torch.testing.assert_close(V.T @ V, torch.eye(3).double())
    torch.testing.assert_close(V @ V.T, naive @ naive.T, atol=1e-8, rtol=0)


def test_overlap_of_halves():
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(10, 30, generator=g, dtype=torch.float64)
    one, other = (torch.linalg.svd(half).Vh[:3] for half in (rows[:5], rows[5:]))
    want = float((one @ other.T).square().sum() / 3)
    assert bank_of(rows).noise_ceiling(3) == pytest.approx(want)
    twice = bank_of(torch.cat([rows[:5], rows[:5]]))
    assert twice.noise_ceiling(5) == pytest.approx(1)


def test_isotropic_gradients_give_the_null():
    rows = torch.randn(16, 20_000, generator=torch.Generator().manual_seed(0))
    bank = bank_of(rows)
    for r in (1, 4, 8, 16):
        # Squared singular values of (N, P) noise spread by 2√(N/P), here 6 %.
        assert bank.energy(r) == pytest.approx(bank.energy_null(r), rel=0.08)
    assert bank.energy_null(4) == 0.25


def test_adapters_at_their_start_pull_on_b_alone():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 5))
            self.lora_A = nn.Parameter(torch.randn(2, 5))
            self.lora_B = nn.Parameter(torch.zeros(3, 2))

        def forward(self, x):
            return x @ (self.weight + self.lora_B @ self.lora_A).T

    torch.manual_seed(0)
    batches = [torch.randn(4, 5) for _ in range(3)]
    bank = task_gradients(Adapted(), lambda m, x: m(x).square().mean(), batches, "lora")
    assert bank.names == ("lora_A", "lora_B") and bank.dim == 16
    assert not bank.rows[:, :10].any() and bool(bank.rows[:, 10:].any())
    only = task_gradients(
        Adapted(), lambda m, x: m(x).square().mean(), batches, lambda name, p: p.shape == (3, 5)
    )
    assert only.names == ("weight",)


def test_sketches_keep_the_shares():
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 3, generator=g) @ torch.randn(3, 30_000, generator=g)
    model, loss = nn.Linear(30_000, 1, bias=False), lambda m, x: m(x[None]).sum()
    sketched = task_gradients(model, loss, list(rows), sketch=4096)
    assert sketched.rows.shape == (6, 4096) and sketched.dim == 30_000
    assert sketched.energy(1) == pytest.approx(bank_of(rows).energy(1), abs=0.05)
    assert sketched.energy(3) == pytest.approx(1)
    with pytest.raises(ValueError, match="leave sketch= out"):
        sketched.basis(1)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 8), dim=st.integers(1, 12))
def test_shares_grow_and_ignore_scale_rotation_and_order(seed, n, dim):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, dim, generator=g, dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(dim, dim, generator=g, dtype=torch.float64)).Q
    energies = [bank_of(rows).energy(r) for r in range(1, n + 1)]
    assert energies == sorted(energies) and energies[-1] == pytest.approx(1)
    other = bank_of(3 * rows[torch.randperm(n, generator=g)] @ Q)
    np.testing.assert_allclose([other.energy(r) for r in range(1, n + 1)], energies, atol=1e-10)


def test_the_model_is_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    model(torch.randn(5, 3)).sum().backward()
    before = [(t._version, t.clone()) for t in model.state_dict().values()]
    grads, state = [p.grad.clone() for p in model.parameters()], torch.get_rng_state()
    task_gradients(model, lambda m, x: m(x).sum(), [torch.randn(5, 3), torch.randn(5, 3)][:2])
    torch.set_rng_state(state)
    task_gradients(model, lambda m, x: m(x).sum(), [torch.ones(5, 3), torch.ones(5, 3)])
    assert torch.equal(torch.get_rng_state(), state)
    for t, (version, value) in zip(model.state_dict().values(), before, strict=True):
        assert t._version == version and torch.equal(t, value)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert all(m.training for m in model.modules())


def test_bad_input():
    model, loss = nn.Linear(3, 1, bias=False), lambda m, x: m(x).sum()
    x = torch.ones(1, 3)
    with pytest.raises(ValueError, match="at least 2 batches, got 1"):
        task_gradients(model, loss, [x])
    with pytest.raises(ValueError, match=r"no trainable parameter is selected of \['weight'\]"):
        task_gradients(model, loss, [x, x], "lora")
    with pytest.raises(ValueError, match="params must be 'all', 'lora' or a function"):
        task_gradients(model, loss, [x, x], "everything")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the loss of batch 1 is nan"):
        task_gradients(model, loss, [x, x * torch.nan])
    with pytest.raises(ValueError, match="the gradients are 0"):
        task_gradients(model, loss, [0 * x, 0 * x])
    bank = task_gradients(model, loss, [x, 2 * x])
    with pytest.raises(ValueError, match="span only 1 < m=2"):
        bank.basis(2)
    with pytest.raises(ValueError, match="1 <= r <= 2 gradients, got 3"):
        bank.energy(3)
    with pytest.raises(ValueError, match=r"q must be in \(0, 1\]"):
        bank.effective_rank(0)
    with pytest.raises(ValueError, match="half the gradients, got 2"):
        bank.noise_ceiling(2)
