"""Bilevel methods beside BO-REP at equal cost, counted in oracle calls.

A call is a gradient of either loss, or a product with the lower Hessian or the cross term. Many
step sizes run at once: in u = x/√lr a step of size 1 is one of size lr in x.

Source: the methods' papers, see ``thalweg.optim.stocbio`` and its kin; J. Hao et al. 2024, arXiv
2401.09587.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from thalweg.optim import BilevelProblem, saba, soba, stocbio, ttsa
from thalweg.optim.bilevel_solver import BilevelSolver

__all__ = ["calls_of_borep", "peers", "scaled"]


def scaled(problem: BilevelProblem, scale: Tensor) -> BilevelProblem:
    """The problem in u = x/scale: a step of length 1 is one of scale² in x."""
    return BilevelProblem(
        lambda u, y, batch: problem.upper_loss(scale * u, y, batch),
        lambda u, y, batch: problem.lower_loss(scale * u, y, batch),
    )


def peers(
    num_terms: int, lower_steps: int, batches: list[Any], lower_lr: float
) -> dict[str, tuple[Callable[..., BilevelSolver], float]]:
    """Name to how the method is made, at step size 1, and its oracle calls a step."""
    same = {"lr": 1.0, "lower_lr": lower_lr}
    return {
        "stocBiO": (
            lambda *a: stocbio(*a, **same, lower_steps=lower_steps, num_terms=num_terms),
            1 + lower_steps + num_terms,
        ),
        "SOBA": (lambda *a: soba(*a, **same), 4.0),
        "SABA": (lambda *a: saba(*a, **same, batches=batches), 4.0),
        "TTSA": (lambda *a: ttsa(*a, **same, num_terms=num_terms), 3 + (num_terms - 1) / 2),
    }


def calls_of_borep(num_terms: int, lower_steps: int) -> float:
    """Upper gradient, products of the series, cross term, lower gradients at period 2."""
    return 1 + (num_terms - 1) + 1 + lower_steps / 2
