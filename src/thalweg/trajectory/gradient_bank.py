"""Which directions does a task pull in: gradients of its minibatches at one point, and their share.

With σ_i the singular values of the N gradients as rows, not centred, the first r directions hold
E_r = Σ_{i≤r}σ_i²/Σσ_i² of them. Independent isotropic gradients in P ≫ N dimensions give r/N, so
that only what lies above is structure. Everything but the directions themselves is read from the
N × N matrix of inner products.

Source: I. Piontkovskaia, S. Nikolenko 2026, arXiv 2606.10929; definitions reconstructed from its
abstract. Axes: `N` gradients, `P` weights, `m` directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.numerics import BlockSketch
from thalweg.numerics.untouched import untouched

__all__ = ["GradientBank", "overlap_of_rows", "task_gradients"]

LossFn = Callable[[nn.Module, Any], Tensor]
NEGLIGIBLE = 1e-10  # eigenvalue of a Gram matrix over the largest below which it is round-off


@dataclass(frozen=True)
class GradientBank:
    """Gradients of a task on several batches at the same weights.

    Attributes:
        rows: (N, P) gradients, or (N, dim) sketches of them.
        gram: (N, N) float64 inner products.
        dim: P.
        names: of the parameters, in the order of the columns.
        sketched: whether rows are sketches: shares are then off by about 1/√dim of the sketch.
    """

    rows: Tensor
    gram: Tensor
    dim: int
    names: tuple[str, ...]
    sketched: bool = False

    @property
    def size(self) -> int:
        """N."""
        return len(self.gram)

    def energy(self, r: int) -> float:
        """E_r, the share of the squared lengths in the first r singular directions.

        Raises:
            ValueError: if r is not in 1 … N.
        """
        return float(self._explained()[: self._within(r, "r")].sum())

    def energy_null(self, r: int) -> float:
        """The same of isotropic gradients: r/N in P ≫ N dimensions, r/P in P ≪ N.

        Between the two the first directions hold more, up to (1 + √(N/P))² times: 1.27 times at
        N = 32 and P = 2048.
        """
        return min(self._within(r, "r") / min(self.size, self.dim), 1.0)

    def effective_rank(self, q: float = 0.9) -> int:
        """The least r with E_r ≥ q.

        Raises:
            ValueError: if q is not in (0, 1].
        """
        if not 0 < q <= 1:
            raise ValueError(f"GradientBank: q must be in (0, 1], got {q}")
        # A share of all but round-off counts as all.
        return int((self._explained().cumsum(0) < q * (1 - 1e-12)).sum()) + 1

    @property
    def entropy_rank(self) -> float:
        """exp(−Σ p log p), p = σ/Σσ: of singular values, not of their squares."""
        s = self._explained().sqrt()
        return float(torch.special.entr(s / s.sum()).sum().exp())

    def basis(self, m: int) -> Tensor:
        """The first m right singular directions, (P, m) float64, orthonormal.

        Raises:
            ValueError: if the gradients span fewer, or only sketches were kept.
        """
        if self.sketched:
            raise ValueError("GradientBank: sketches hold no directions; leave sketch= out")
        lift = _lift(self.gram, self._within(m, "m"))
        if lift.shape[1] < m:
            raise ValueError(f"GradientBank: the gradients span only {lift.shape[1]} < m={m}")
        V = torch.empty(self.dim, m, dtype=torch.float64, device=self.rows.device)
        for start in range(0, self.dim, 1 << 17):  # float64 copies of a stretch, not of all
            block = self.rows[:, start : start + (1 << 17)]
            V[start : start + (1 << 17)] = block.double().T @ lift.to(block.device)
        return V

    def noise_ceiling(self, m: int) -> float:
        """Overlap of the first m directions of one half of the gradients with those of the other.

        Nothing has moved between them, so that a basis has drifted only as far as it overlaps less
        than this. To compare with windows of w gradients, take 2w.

        Raises:
            ValueError: if a half has fewer than m gradients.
        """
        half = self.size // 2
        if not 1 <= m <= half:
            raise ValueError(
                f"GradientBank: need 1 <= m <= {half}, half the gradients, got {m}; take more"
            )
        return overlap_of_rows(self.gram, range(half), range(half, 2 * half), m)

    def _explained(self) -> Tensor:
        values = torch.linalg.eigvalsh(self.gram).flip(0).clamp(min=0)
        return values / values.sum()

    def _within(self, r: int, name: str) -> int:
        if not 1 <= r <= self.size:
            raise ValueError(f"GradientBank: need 1 <= {name} <= {self.size} gradients, got {r}")
        return r


def task_gradients(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    params: Literal["all", "lora"] | Callable[[str, Tensor], bool] = "all",
    *,
    sketch: int | None = None,
) -> GradientBank:
    """Gradients of a loss on several batches, at the model's present weights.

    Weights, their gradients, buffers, modes and random state are as before afterwards; dropout is
    off.

    Args:
        model: any module.
        loss_fn: (model, batch) → scalar, the mean over the batch.
        batches: N ≥ 2 of the task.
        params: ``all`` trainable parameters, those of ``lora`` adapters (with ``lora`` in their
            name), or a function of name and parameter that says which.
        sketch: keep this many random projections of each gradient instead of P numbers: enough for
            energies, ranks and overlaps.

    Raises:
        ValueError: if no parameter is selected, there are fewer than 2 batches, a loss is not
            finite, or all gradients are 0.

    Cost: N forward and backward passes, N P numbers (N × sketch).

    Example:
        >>> model = torch.nn.Linear(3, 1, bias=False)
        >>> loss_fn = lambda model, x: model(x).sum()
        >>> bank = task_gradients(model, loss_fn, [torch.eye(3)[:1], 2 * torch.eye(3)[1:2]])
        >>> round(bank.energy(1), 6), bank.energy_null(1), bank.effective_rank(0.9)
        (0.8, 0.5, 2)
    """
    chosen = _chosen(model, params)
    tensors, dim = list(chosen.values()), sum(p.numel() for p in chosen.values())
    project = BlockSketch(0, sketch) if sketch is not None and sketch < dim else None
    training = [(module, module.training) for module in model.modules()]
    rows = list[Tensor]()
    try:
        model.eval()
        for batch in batches:
            with untouched(tensors):
                loss = loss_fn(model, batch)
                if not bool(torch.isfinite(loss)):
                    raise ValueError(
                        f"task_gradients: the loss of batch {len(rows)} is {float(loss.detach())}"
                    )
                found = torch.autograd.grad(loss, tensors, allow_unused=True)
            grads = [
                torch.zeros_like(p) if g is None else g.detach()
                for p, g in zip(tensors, found, strict=True)
            ]
            rows.append(project(grads) if project else torch.cat([g.reshape(-1) for g in grads]))
    finally:
        for module, mode in training:
            module.training = mode
    if len(rows) < 2:
        raise ValueError(f"task_gradients: expected at least 2 batches, got {len(rows)}")
    matrix = torch.stack(rows)
    gram = gram_of(matrix)
    if not bool(torch.isfinite(gram).all()) or not float(gram.trace()) > 0:
        raise ValueError(
            "task_gradients: the gradients are 0 or not finite; does the loss depend on "
            f"{next(iter(chosen))!r}?"
        )
    return GradientBank(matrix, gram, dim, tuple(chosen), project is not None)


def gram_of(rows: Tensor) -> Tensor:
    """Inner products of rows, float64, summed over stretches of columns."""
    G = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[1], 1 << 17):
        block = rows[:, start : start + (1 << 17)].double()
        G.addmm_(block, block.T)
    return G.cpu()


def overlap_of_rows(gram: Tensor, one: Sequence[int], other: Sequence[int], m: int) -> float:
    """‖V'ᵀV‖²_F/m of the first m right singular directions of two sets of rows.

    Args:
        gram: inner products of all rows.
        one: rows of the first set.
        other: rows of the second.
        m: directions; where both sets span fewer, as many as the larger span.

    Returns:
        In [0, 1]; nan if a set spans nothing.
    """
    i, j = torch.tensor(list(one)), torch.tensor(list(other))
    A, B = _lift(gram[i][:, i], m), _lift(gram[j][:, j], m)
    if not A.shape[1] or not B.shape[1]:
        return float("nan")
    inner = A.T @ gram[i][:, j] @ B
    return min(float(inner.square().sum()) / max(A.shape[1], B.shape[1]), 1.0)


def _lift(gram: Tensor, m: int) -> Tensor:
    """U/S, (N, ≤ m): rowsᵀ times it are the first right singular directions."""
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:m], vectors.flip(1)[:, :m]
    kept = (values > NEGLIGIBLE * values[0]) & (values > 0)
    return vectors[:, kept] / values[kept].sqrt()


def _chosen(model: nn.Module, params: Any) -> dict[str, Tensor]:
    if params not in ("all", "lora") and not callable(params):
        raise ValueError(
            f"task_gradients: params must be 'all', 'lora' or a function, got {params!r}"
        )
    named: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if callable(params):
        found = {name: p for name, p in named.items() if params(name, p)}
    else:
        found = {n: p for n, p in named.items() if params == "all" or "lora" in n.lower()}
    if not found:
        raise ValueError(
            f"task_gradients: no trainable parameter is selected of {list(named)[:8]}; "
            "give params=lambda name, p: …"
        )
    return found
