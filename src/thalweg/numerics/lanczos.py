"""Lanczos: a symmetric operator seen from one start vector, as a small tridiagonal matrix.

Source: Lanczos 1950, J. Res. Nat. Bur. Standards 45(4); full re-orthogonalisation, done twice where
once is not enough, from Daniel, Gragg, Kaufman, Stewart 1976, Math. Comput. 30(136), and Giraud,
Langou, Rozložník 2005, Comput. Math. Appl. 50. Axes: `p` rows of the operator, `m` Lanczos steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from thalweg.numerics.operators import LinearOperator, as_operator

__all__ = ["Krylov", "lanczos", "tail_mass"]

Operator = LinearOperator | Callable[[Tensor], Tensor] | Tensor


def tail_mass(alpha: Sequence[float], beta: Sequence[float], mu: float) -> float:
    """Most of a start vector that can lie in eigenspaces with eigenvalue ≥ mu.

        Σ_{λ_j ≥ mu} (q_1·u_j)² ≤ 1 / Σ_{i≤m} π_i(mu)²,   π_i orthonormal polynomials of T

    For a polynomial f of degree ≤ m, Σ_j (q_1·u_j)² f(λ_j)² = ‖f(A) q_1‖² is known exactly from T;
    the one that is largest at mu for its norm gives the bound.

    Args:
        alpha: diagonal of T, (m,).
        beta: off-diagonal of T, (m,) with the entry that leads out of it, or (m − 1,).
        mu: a number above the largest eigenvalue of T.

    Returns:
        In [0, 1]; 0 once the start's Krylov space is exhausted.

    Source: the Chebyshev–Markov–Stieltjes inequalities; Akhiezer 1965, The Classical Moment
        Problem, section 2.5.

    Example:
        >>> tail_mass([0.0, 0.0], [1.0], 2.0)  # 1 / (1 + 2²)
        0.2
    """
    previous, current, total = 0.0, 1.0, 1.0
    for i in range(min(len(alpha), len(beta))):
        if beta[i] == 0.0:
            return 0.0
        back = beta[i - 1] * previous if i else 0.0
        previous, current = current, ((mu - alpha[i]) * current - back) / beta[i]
        total += current * current
        if total > 1e60:  # far below any start's round-off
            return 0.0
    return 1.0 / total


class Krylov:
    """An orthonormal Krylov basis, grown step by step and re-orthogonalised in full.

    Args:
        operator: symmetric.
        start: (p,), any length but zero.
        locked: (l, p) orthonormal rows: the run stays in their complement.

    Attributes:
        alpha: diagonal of T so far; beta: its off-diagonal, the last entry leads out of the basis.
        defects: per step, what re-orthogonalisation took out, by row of the basis, locked rows
            first: round-off for a symmetric operator, else what T leaves out.
        locked: how many locked rows; eps: unit round-off of the basis.
        done: the space is invariant, there is nothing to add.
    """

    def __init__(
        self, operator: LinearOperator, start: Tensor, locked: Tensor | None = None
    ) -> None:
        self.operator = operator
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.defects: list[Tensor] = []
        self.locked = 0 if locked is None else len(locked)
        self.eps = torch.finfo(start.dtype).eps
        self._rows = start.new_empty((self.locked + 16, operator.dim))
        if locked is not None:
            self._rows[: self.locked] = locked
        v, _ = self._orthogonal(start, 0)
        norm = float(torch.linalg.vector_norm(v))
        self.done = not norm > 0
        if not self.done:
            self._rows[self.locked] = v / norm

    @property
    def basis(self) -> Tensor:
        """Orthonormal rows q_1, …, q_m, (m, p)."""
        return self._rows[self.locked : self.locked + len(self.alpha)]

    def step(self) -> None:
        """One product: A q_m = β_{m−1} q_{m−1} + α_m q_m + β_m q_{m+1}."""
        m = len(self.alpha)
        at = self.locked + m
        q = self._rows[at]
        w = self.operator.matvec(q).to(q)
        self.alpha.append(float(q @ w))
        # The three-term recurrence takes out nearly all: one pass over the basis then mostly does
        w = w.sub(q, alpha=self.alpha[-1])
        if m:
            w.sub_(self._rows[at - 1], alpha=self.beta[-1])
        w, defect = self._orthogonal(w, m + 1)
        self.defects.append(defect)
        beta = float(torch.linalg.vector_norm(w))
        if not math.isfinite(beta) or not math.isfinite(self.alpha[-1]):
            raise FloatingPointError("the operator returned a non-finite product")
        scale = max(abs(a) for a in self.alpha) + max(self.beta, default=0.0)
        if at + 1 >= self.operator.dim:
            self.done = True
            self.beta.append(0.0)
            return
        # What is left of w well above this is noise, but orthogonal to the basis: as good a
        # direction to go on in as any. Below it, it could not be made orthogonal.
        least = self.eps * scale / 16
        if beta <= least:
            self.done = True
            self.beta.append(least)
            return
        self.beta.append(beta)
        if at + 1 == len(self._rows):
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows)])
        self._rows[at + 1] = w / beta

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values (ascending), their coefficients in the basis (columns), their residuals."""
        m = len(self.alpha)
        T = np.diag(np.array(self.alpha))
        off = np.arange(m - 1)
        T[off, off + 1] = T[off + 1, off] = self.beta[: m - 1]
        values, vectors = np.linalg.eigh(T)
        return values, vectors, np.abs(vectors[-1]) * self.beta[m - 1]

    def residual(self, coefficients: np.ndarray) -> tuple[float, float]:
        """Rayleigh quotient of a vector of the basis and the norm of its residual.

        From the products of the run as they came, A Q = Q (T + E) + β_m q_{m+1} e_mᵀ with E the
        ``defects``: no further product is needed, and an operator that isn't symmetric shows.

        Args:
            coefficients: unit vector in the basis, (m,).
        """
        m = len(self.alpha)
        image = np.zeros(self.locked + m)
        inside = image[self.locked :]
        inside += np.array(self.alpha) * coefficients
        inside[1:] += np.array(self.beta[: m - 1]) * coefficients[:-1]
        inside[:-1] += np.array(self.beta[: m - 1]) * coefficients[1:]
        for defect, c in zip(self.defects, coefficients, strict=True):
            image[: len(defect)] += c * defect.double().cpu().numpy()
        value = float(inside @ coefficients)
        inside -= value * coefficients
        return value, math.hypot(float(np.linalg.norm(image)), self.beta[-1] * coefficients[-1])

    def _orthogonal(self, w: Tensor, used: int) -> tuple[Tensor, Tensor]:
        """W without its part in the first rows, and that part's coefficients."""
        rows = self._rows[: self.locked + used]
        taken = rows.new_zeros(len(rows))
        before = float(torch.linalg.vector_norm(w))
        for _ in range(2):  # twice is enough, and once if little was taken out
            part = rows @ w
            w, taken = torch.addmv(w, rows.T, part, alpha=-1), taken + part
            after = float(torch.linalg.vector_norm(w))
            if after > 0.7 * before:
                break
        return w, taken


def lanczos(
    A: Operator, v0: Tensor, num_steps: int, *, dim: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The tridiagonal matrix of A in the Krylov basis of v0.

        A Qᵀ = Qᵀ T + β_m q_{m+1} e_mᵀ

    Args:
        A: symmetric operator, callable with ``dim``, or dense (p, p) tensor.
        v0: start, (p,).
        num_steps: m, at most p.
        dim: p, for a callable.

    Returns:
        alpha (m,), beta (m − 1,) in float64, Q (m, p) with orthonormal rows; shorter where the
        Krylov space of v0 is.

    Raises:
        ValueError: if A is not symmetric, or v0 is zero, non-finite or of the wrong length.

    Cost: m products, m p floats.

    Example:
        >>> import torch
        >>> alpha, beta, Q = lanczos(torch.diag(torch.tensor([1.0, 3.0])), torch.ones(2), 2)
        >>> [round(a, 4) for a in alpha.tolist()], len(beta)
        ([2.0, 2.0], 1)
    """
    operator = _symmetric(A, dim, "lanczos")
    if num_steps < 1:
        raise ValueError(f"lanczos: num_steps must be at least 1, got {num_steps}")
    krylov = Krylov(operator, _start(operator, v0, "lanczos"))
    while not krylov.done and len(krylov.alpha) < num_steps:
        krylov.step()
    m = len(krylov.alpha)
    as_tensor = {"dtype": torch.float64, "device": operator.device}
    alpha, beta = torch.tensor(krylov.alpha, **as_tensor), torch.tensor(krylov.beta, **as_tensor)
    return alpha, beta[: m - 1], krylov.basis


def _symmetric(A: Operator, dim: int | None, who: str) -> LinearOperator:
    operator = as_operator(A, dim)
    if not operator.symmetric:
        raise ValueError(f"{who}: Lanczos needs a symmetric operator; symmetrise it, (A + Aᵀ)/2")
    return operator


def _start(operator: LinearOperator, v0: Tensor, who: str) -> Tensor:
    if v0.shape != (operator.dim,):
        raise ValueError(f"{who}: v0 must have shape ({operator.dim},), got {tuple(v0.shape)}")
    norm = float(torch.linalg.vector_norm(v0))
    if not 0 < norm < math.inf:
        raise ValueError(f"{who}: v0 must be finite and not zero, its norm is {norm}")
    return v0.detach().to(operator.device, operator.dtype) / norm
