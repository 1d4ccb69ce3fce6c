"""Bilevel methods to compare with: stocBiO, SOBA, SABA and TTSA.

All take plain steps along an estimate of the hypergradient; they differ in how the lower variable y
and the adjoint z follow. For MAML's way, give ``stocbio(..., hypergrad="unroll")``.

Source: stocBiO: K. Ji, J. Yang, Y. Liang 2021, arXiv 2010.07962; SOBA and SABA: M. Dagréou,
P. Ablin, S. Vaiter, T. Moreau 2022, arXiv 2201.13409; TTSA: M. Hong, H.-T. Wai, Z. Wang, Z. Yang
2020, arXiv 2007.05170. Written from the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.optim.adjoint import LowerHessian, Method, check_settings, cross_term, lower_products
from thalweg.optim.bilevel_problem import BilevelProblem, as_draw, evaluated
from thalweg.optim.bilevel_solver import BilevelSolver
from thalweg.optim.leaves import flat, scalar

__all__ = ["saba", "soba", "stocbio", "ttsa"]


def stocbio(
    problem: BilevelProblem,
    x: Any,
    y: Any,
    *,
    lr: float = 1e-2,
    lower_lr: float,
    lower_steps: int = 10,
    hypergrad: Method = "neumann",
    num_terms: int = 20,
) -> BilevelSolver:
    """StocBiO: several steps on y from the last one, then one on x along the hypergradient.

    Args:
        problem: the two losses.
        x: upper variable to start from, copied.
        y: lower variable to start from, copied.
        lr: step size of x.
        lower_lr: step size of y and of the Neumann series.
        lower_steps: steps on y before each on x.
        hypergrad: how the hypergradient is found; stocBiO proper has ``neumann``.
        num_terms: of the series.

    Returns:
        A method with ``step``, ``x``, ``y``, ``state_dict``, as ``BOREP`` has them.

    Raises:
        ValueError: for settings out of range.

    Source: Ji, Yang, Liang 2021, arXiv 2010.07962.

    Example:
        >>> problem = BilevelProblem(
        ...     lambda x, y, batch: 0.5 * y**2, lambda x, y, batch: 0.5 * (y - x) ** 2
        ... )
        >>> method = stocbio(problem, torch.tensor(4.0), torch.tensor(0.0), lr=0.5, lower_lr=1.0)
        >>> _ = method.step()
        >>> method.x
        tensor(2.)
    """
    check_settings(hypergrad, num_terms, lower_lr, 0.0)
    if lower_steps < 1:
        raise ValueError(f"lower_steps must be at least 1, got {lower_steps}")
    return _StocBiO(lower_steps, hypergrad, num_terms, problem, x, y, lr=lr, lower_lr=lower_lr)


def ttsa(
    problem: BilevelProblem,
    x: Any,
    y: Any,
    *,
    lr: float = 1e-2,
    lower_lr: float,
    num_terms: int = 20,
    generator: torch.Generator | None = None,
) -> BilevelSolver:
    """TTSA: one step each on y and x, whose sizes fall as k^(−2/5) and k^(−3/5).

    The series for the adjoint is not summed: one of its terms, drawn at random and multiplied by
    their number, stands for it.

    Args:
        problem: the two losses.
        x: upper variable to start from, copied.
        y: lower variable to start from, copied.
        lr: first step size of x.
        lower_lr: first step size of y; that of the series, where it does not fall.
        num_terms: of the series.
        generator: of the random terms, default one with seed 0.

    Returns:
        A method with ``step``, ``x``, ``y``, ``state_dict``, as ``BOREP`` has them.

    Raises:
        ValueError: for settings out of range.

    Source: Hong, Wai, Wang, Yang 2020, arXiv 2007.05170.

    Example:
        >>> problem = BilevelProblem(
        ...     lambda x, y, batch: 0.5 * y**2, lambda x, y, batch: 0.5 * (y - x) ** 2
        ... )
        >>> x = torch.tensor(4.0)
        >>> method = ttsa(problem, x, torch.tensor(0.0), lr=0.5, lower_lr=1.0, num_terms=1)
        >>> _ = method.step()
        >>> method.x
        tensor(2.)
    """
    check_settings("neumann", num_terms, lower_lr, 0.0)
    generator = generator or torch.Generator().manual_seed(0)
    return _TTSA(num_terms, problem, x, y, lr=lr, lower_lr=lower_lr, generator=generator)


def soba(
    problem: BilevelProblem, x: Any, y: Any, *, lr: float = 1e-2, lower_lr: float
) -> BilevelSolver:
    """SOBA: y, the adjoint z and x take one step each, all from the same point.

        y ← y − ρ ∇_y g,   z ← z − ρ (Hz − ∇_y f),   x ← x − γ (∇_x f − ∂_x ⟨∇_y g, z⟩)

    Args:
        problem: the two losses.
        x: upper variable to start from, copied.
        y: lower variable to start from, copied.
        lr: γ.
        lower_lr: ρ.

    Returns:
        A method with ``step``, ``x``, ``y``, ``state_dict``, as ``BOREP`` has them; z starts at 0.

    Raises:
        ValueError: for settings out of range.

    Source: Dagréou et al. 2022, arXiv 2201.13409.

    Example:
        >>> problem = BilevelProblem(
        ...     lambda x, y, batch: 0.5 * y**2, lambda x, y, batch: 0.5 * (y - x) ** 2
        ... )
        >>> method = soba(problem, torch.tensor(4.0), torch.tensor(4.0), lr=0.5, lower_lr=1.0)
        >>> for _ in range(2):
        ...     _ = method.step()  # the first finds z = 4
        >>> method.x
        tensor(2.)
    """
    return _SOBA(problem, x, y, lr=lr, lower_lr=lower_lr)


def saba(
    problem: BilevelProblem,
    x: Any,
    y: Any,
    *,
    lr: float = 1e-2,
    lower_lr: float,
    batches: Sequence[Any],
    generator: torch.Generator | None = None,
) -> BilevelSolver:
    """SABA: SOBA with the noise of its batches reduced as in SAGA.

    The losses must be means over ``batches``. The last direction of each is kept, which takes as
    many copies of x and two of y as there are batches; the first step sees all of them.

    Args:
        problem: the two losses.
        x: upper variable to start from, copied.
        y: lower variable to start from, copied.
        lr: γ of SOBA.
        lower_lr: ρ of SOBA.
        batches: all batches, at least one; ``step`` takes none, and draws from them.
        generator: of the draws, default one with seed 0.

    Returns:
        A method with ``step``, ``x``, ``y``, ``state_dict``, as ``BOREP`` has them.

    Raises:
        ValueError: for settings out of range, or no batches.

    Source: Dagréou et al. 2022, arXiv 2201.13409.

    Example:
        >>> problem = BilevelProblem(
        ...     lambda x, y, b: 0.5 * (y - b) ** 2, lambda x, y, b: 0.5 * (y - x) ** 2
        ... )
        >>> start = torch.tensor(0.0)
        >>> method = saba(problem, start, start, lr=0.2, lower_lr=0.5, batches=[1.0, 3.0])
        >>> for _ in range(200):
        ...     _ = method.step()
        >>> round(float(method.x), 4)  # the mean of the batches, without noise
        2.0
    """
    if not batches:
        raise ValueError("saba needs all batches beforehand, got none")
    generator = generator or torch.Generator().manual_seed(0)
    return _SABA(list(batches), problem, x, y, lr=lr, lower_lr=lower_lr, generator=generator)


class _StocBiO(BilevelSolver):
    def __init__(self, lower_steps: int, hypergrad: Method, num_terms: int, *args: Any, **kw: Any):
        super().__init__(*args, **kw)
        self.lower_steps, self.num_terms = lower_steps, num_terms
        self.hypergrad: Method = hypergrad

    def _step(self, batch: Any, draw: Callable[[], Any]) -> Tensor:
        for _ in range(self.lower_steps):
            self._lower_step(draw, self.lower_lr)
        found = evaluated(
            *(self.problem, self._x, self._y, batch, self.hypergrad, self.num_terms),
            *(self.lower_lr, 0.0),
        )
        torch._foreach_add_(self._x.tensors, found.grads, alpha=-self.lr)
        return found.loss


class _TTSA(BilevelSolver):
    def __init__(self, num_terms: int, *args: Any, **kw: Any):
        super().__init__(*args, **kw)
        self.num_terms = num_terms

    def _step(self, batch: Any, draw: Callable[[], Any]) -> Tensor:
        k = self.num_steps + 1
        self._lower_step(draw, self.lower_lr * k**-0.4)
        draw = as_draw(batch)
        loss, direct, term = _upper_slopes(self, draw())
        power = int(torch.randint(self.num_terms, (), generator=self._generator))
        fresh = callable(batch)
        with LowerHessian(self.problem.lower_loss, self._x, self._y, draw, fresh=fresh) as hessian:
            for _ in range(power):
                term = term - self.lower_lr * hessian.next_product(term)
        z = self.num_terms * self.lower_lr * term
        cross = cross_term(self.problem.lower_loss, self._x, self._y, draw(), z)
        grads = torch._foreach_sub(direct, cross)
        torch._foreach_add_(self._x.tensors, grads, alpha=-self.lr * k**-0.6)
        return loss


class _SOBA(BilevelSolver):
    def _step(self, batch: Any, draw: Callable[[], Any]) -> Tensor:
        loss, directions = self._directions(as_draw(batch)(), draw())
        self._move(directions)
        return loss

    def _directions(self, batch: Any, lower_batch: Any) -> tuple[Tensor, list[Tensor]]:
        """Loss, and the directions of x, of y and of z, in one list."""
        loss, direct, into_y = _upper_slopes(self, batch)
        z = self._state.setdefault("z", [torch.zeros_like(into_y)])[0]
        lower = lower_products(self.problem.lower_loss, self._x, self._y, lower_batch, z)
        in_x = torch._foreach_sub(direct, lower.cross)
        return loss, [*in_x, *lower.slopes, lower.curved - into_y]

    def _move(self, directions: list[Tensor]) -> None:
        n = len(self._x.tensors)
        torch._foreach_add_(self._x.tensors, directions[:n], alpha=-self.lr)
        lower = [*self._y.tensors, *self._state["z"]]
        torch._foreach_add_(lower, directions[n:], alpha=-self.lower_lr)


class _SABA(_SOBA):
    def __init__(self, batches: list[Any], *args: Any, **kw: Any):
        super().__init__(*args, **kw)
        self._batches = batches

    def step(self, batch: Any = None, lower_batch: Any = None) -> Tensor:
        """One step on a batch drawn from those given at the start."""
        if batch is not None or lower_batch is not None:
            raise ValueError("saba draws from batches=; call step() without any")
        return super().step()

    def _step(self, batch: Any, draw: Callable[[], Any]) -> Tensor:
        n = len(self._batches)
        if "mean" not in self._state:
            seen = [self._directions(b, b)[1] for b in self._batches]
            self._state |= {f"batch {i}": directions for i, directions in enumerate(seen)}
            self._state["mean"] = [torch.stack(ts).mean(0) for ts in zip(*seen, strict=True)]
        i = int(torch.randint(n, (), generator=self._generator))
        loss, new = self._directions(self._batches[i], self._batches[i])
        change = torch._foreach_sub(new, self._state[f"batch {i}"])
        self._move(list(torch._foreach_add(self._state["mean"], change)))
        torch._foreach_add_(self._state["mean"], change, alpha=1 / n)
        self._state[f"batch {i}"] = new
        return loss


def _upper_slopes(solver: BilevelSolver, batch: Any) -> tuple[Tensor, list[Tensor], Tensor]:
    """Upper loss, ∇_x f as a list, ∇_y f (D,)."""
    xs, ys = solver._x.tracked(), solver._y.tracked()
    with torch.enable_grad():
        loss = solver.problem.upper_loss(solver._x.build(xs), solver._y.build(ys), batch)
        loss = scalar(loss, "upper_loss")
    slopes = torch.autograd.grad(loss, [*xs, *ys], allow_unused=True, materialize_grads=True)
    wide = torch.float64 if any(t.dtype == torch.float64 for t in ys) else torch.float32
    return loss.detach(), list(slopes[: len(xs)]), flat(slopes[len(xs) :], wide)
