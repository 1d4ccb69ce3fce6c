"""GrokAlign: the norm of the input Jacobian as a penalty, to generalise sooner.

At a fixed output f(x) = J_x x the Jacobian of least norm is f(x)xᵀ/‖x‖², whose rows lie along the
input; a net that groks ends there, and the penalty leads there at once.

Source: Walker, Humayun, Balestriero, Baraniuk 2025, arXiv 2506.12284; the projections from Hoffman,
Roberts, Yaida 2019, arXiv 1908.02729. Departures: the input of the caller is not marked as
requiring grad, random state and buffers stay as they were, and what is not finite is refused.

Axes: `B` samples, `C` outputs, `d` entries of one input.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.numerics.untouched import untouched

__all__ = ["GrokAlign", "jacobian_norm"]

FLOOR = 1e-8
"""Of the square under the root, as in the authors' code: the root has no slope at a dead net."""


def jacobian_norm(
    model: Callable[..., Any],
    x: Tensor,
    *,
    out: Tensor | None = None,
    projections: int = 1,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Frobenius norm of the input Jacobian of each sample, differentiable in the weights.

        ‖J_x‖_F ≈ sqrt(C/n Σ_i ‖v_iᵀ J_x‖²),   v_i uniform on the unit sphere

    The square has the right mean; the root is a little low on average, except with one output,
    where each projection is exact.

    Args:
        model: module or callable, (B, ...) -> (B, C), outputs before any softmax. Samples must not
            mix: BatchNorm belongs in eval mode. It is called once, outside autocast.
        x: (B, ...), floating. Tokens have no derivative: give embedded ones and the rest of the
            model. If x requires grad, the norm is differentiable in it, too.
        out: the model's outputs at x, (B, C), where the step has them already: saves a forward
            pass and its backward. x must have required grad then, and attention have used a kernel
            that can be differentiated twice.
        projections: n, random directions per sample.
        exact: all C directions in place of random ones.
        generator: of the directions, on the device of x.

    Returns:
        (B,), at least 1e-4; float32 at least.

    Raises:
        ValueError: if x is not floating or has no sample, the output is not (B, C) or does not come
            from x, or ``projections`` is below 1.

    Cost: one forward, and a backward with a graph per direction: two to three times the memory of
        the forward.

    Source: arXiv 2506.12284; entry grokalign.

    Example:
        The Jacobian of a linear map is its matrix.

        >>> W = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> jacobian_norm(lambda x: x @ W, torch.ones(1, 2), exact=True)
        tensor([5.])
    """
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"jacobian_norm: inputs must be a floating tensor, got {kind}; of tokens, give the "
            "embedded ones and the model from there on"
        )
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(f"jacobian_norm: x must be (B, ...), B ≥ 1, got {tuple(x.shape)}")
    source = x
    if out is None:
        params = list(model.parameters()) if isinstance(model, nn.Module) else []
        wide = _at_least_float32(x) if _autocast(x) else x
        with _full_precision(x), untouched([*params, x]):
            source = wide if wide.requires_grad else wide.detach().requires_grad_()
            out = model(source)
    elif not x.requires_grad:
        raise ValueError(
            "jacobian_norm: with outputs given, x must have required grad before the model was "
            "called: x = x.detach().requires_grad_()"
        )
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(x):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"jacobian_norm: the model must give ({len(x)}, C), got {got}; pick or flatten the "
            "outputs in a function around it"
        )
    if not out.requires_grad:
        raise ValueError("jacobian_norm: the output does not depend on x by autograd")
    # after the random state was put back, or each call would draw the same directions
    directions = (
        list(torch.eye(out.shape[1], dtype=out.dtype, device=out.device).unsqueeze(1))
        if exact
        else [_direction(out, generator) for _ in range(projections)]
    )
    scale = 1.0 if exact else out.shape[1] / projections
    with torch.enable_grad(), _full_precision(x):
        total = torch.zeros((), device=x.device)
        for v in directions:
            (row,) = torch.autograd.grad(
                (out * v).sum(), source, create_graph=True, materialize_grads=True
            )
            total = total + _at_least_float32(row).square().flatten(1).sum(1)
        norm = (scale * total).clamp(min=FLOOR).sqrt()
    return norm if torch.is_grad_enabled() else norm.detach()


class GrokAlign:
    """Penalty on the mean norm of the input Jacobian; add it to the loss of the task.

        λ mean_x ‖J_x‖_F,   or with a target ℓ:   λ |ℓ − mean_x ‖J_x‖_F|

    The effect of λ is not in proportion to λ under an optimizer that rescales gradients: once the
    task's loss is near 0, the penalty is all that Adam sees. Under DDP give the unwrapped module.

    Args:
        model: as in ``jacobian_norm``.
        weight: λ.
        projections: random directions per sample.
        target: ℓ; None for the plain penalty.
        exact: all C directions.
        max_samples: the first so many samples of a batch only; None for all.
        generator: of the directions.

    Raises:
        ValueError: if a setting is out of range; when called, as ``jacobian_norm``, and if x or the
            penalty is not finite.

    Source: Walker et al. 2025, arXiv 2506.12284; entry grokalign.

    Example:
        >>> model = lambda x: x @ torch.tensor([[3.0], [4.0]])
        >>> GrokAlign(model, weight=0.1)(torch.ones(2, 2))
        tensor(0.5000)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        weight: float = 1e-3,
        projections: int = 1,
        target: float | None = None,
        exact: bool = False,
        max_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight must be finite and not negative, got {weight}")
        if projections < 1:
            raise ValueError(f"projections must be at least 1, got {projections}")
        if target is not None and not 0 <= target < float("inf"):
            raise ValueError(f"target must be a norm, finite and not negative, got {target}")
        if max_samples is not None and max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, got {max_samples}")
        self.model, self.weight, self.target = model, weight, target
        self.projections, self.exact, self.max_samples = projections, exact, max_samples
        self.generator = generator

    def __call__(self, x: Tensor, *, out: Tensor | None = None) -> Tensor:
        """The penalty at a batch, 0-d, λ included; ``out`` as in ``jacobian_norm``."""
        if out is not None and self.max_samples is not None:
            raise ValueError(
                "GrokAlign: max_samples needs a forward pass of its own; leave out out"
            )
        norms = jacobian_norm(
            self.model,
            x if self.max_samples is None else x[: self.max_samples],
            out=out,
            projections=self.projections,
            exact=self.exact,
            generator=self.generator,
        )
        mean = norms.mean()
        if not torch.isfinite(mean):
            raise ValueError(
                f"GrokAlign: the mean Jacobian norm is {mean.item()}: the inputs or the weights "
                "are not finite"
            )
        return self.weight * (mean if self.target is None else (self.target - mean).abs())

    def __repr__(self) -> str:
        how = "exact=True" if self.exact else f"projections={self.projections}"
        return f"GrokAlign(weight={self.weight}, {how}, target={self.target})"


def _direction(out: Tensor, generator: torch.Generator | None) -> Tensor:
    v = torch.randn(out.shape, generator=generator, dtype=torch.float32, device=out.device)
    return nn.functional.normalize(v, dim=1).to(out.dtype)


def _at_least_float32(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def _full_precision(x: Tensor) -> Any:
    return torch.autocast(x.device.type, enabled=False) if _autocast(x) else nullcontext()
