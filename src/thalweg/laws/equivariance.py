"""How far a model is from being equivariant: f(ρ_in(g) x) = ρ_out(g) f(x).

Over a finite group, element by element; for a continuous one, by its generators and one
Jacobian-vector product, which needs no interpolation. Source: N. Gruver, M. Finzi, M. Goldblum,
A. G. Wilson 2022, arXiv 2210.02984; the error over finite groups is the usual one. Departure: the
scale is taken from the mean over the samples, so that a sample with a small output does not rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from thalweg.numerics.action import Representation, as_action
from thalweg.numerics.group import Group
from thalweg.numerics.untouched import untouched

__all__ = ["EquivarianceMonitor", "equivariance_error", "lie_derivative_error"]

Reduce = Literal["ratio", "max", "centred"]
Tangent = Callable[[Tensor], Tensor]


def equivariance_error(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    group: Group,
    in_rep: Representation | None = None,
    out_rep: Representation | None = None,
    reduce: Reduce = "ratio",
) -> Tensor:
    """Mean change of the output under the group, relative to the output.

        e = mean_{x, g≠1} ‖f(ρ_in(g) x) − ρ_out(g) f(x)‖ / mean_x ‖f(x)‖

    Args:
        model: f, (B, …) to (B, …), deterministic (``model.eval()``). Left as it was.
        x: (B, …) samples.
        group: a group with at least two elements.
        in_rep: (g, n, n) on the last axis of x, or an action ``(i, x) -> x``: images turn by
            ``lambda i, x: torch.rot90(x, i, (-2, -1))``. Default: the group's own matrices.
        out_rep: the same for the output; by default the output is to be invariant.
        reduce: ``ratio`` as above; ``max`` for the largest change instead of the mean; ``centred``
            divides by mean ‖f(x) − mean f‖, so that a large constant does not hide a change.

    Returns:
        0-d, ≥ 0; 0 is equivariant, and √2 what unrelated outputs give (``centred``). nan if the
        output (``centred``: its spread) is zero.

    Raises:
        ValueError: if shapes or representations do not fit, or the model is not deterministic.
        TypeError: if the output is no floating tensor, as after an argmax.

    Cost:
        g + 1 forward passes, no gradient.

    Source:
        [geometric-deep-learning], definitions; Gruver et al. 2022, arXiv 2210.02984.

    Example:
        Nothing is less invariant under a change of sign than the identity:

        >>> sign = Group.from_generators([-torch.eye(3)])
        >>> equivariance_error(lambda x: x, torch.randn(8, 3), sign)
        tensor(2.)
        >>> equivariance_error(lambda x: x, torch.randn(8, 3), sign, out_rep=sign)
        tensor(0.)
    """
    _known(reduce)
    if group.order < 2:
        raise ValueError(f"{group.name} has only the identity: there is nothing to compare")
    act_in = as_action(group if in_rep is None else in_rep, group, "in_rep")
    act_out = as_action(out_rep, group, "out_rep")
    if not torch.equal(act_in(0, x), x):
        raise ValueError("in_rep changes x under element 0, which must be the identity")
    with untouched(_parameters(model)), torch.no_grad():
        y = _output(model, x)
        again = _output(model, x)
        scale = _scale(y, reduce)
        tolerance = 1e-3 * y.abs().max() if y.numel() else 0.0
        if (again - y).abs().gt(tolerance).any():
            raise ValueError(
                "the model gives two outputs for one input: call model.eval() to switch dropout "
                "off, or fix its random numbers"
            )
        changes = []
        for i in range(1, group.order):
            moved, wanted = _output(model, act_in(i, x)), act_out(i, y)
            if moved.shape != wanted.shape:
                raise ValueError(
                    f"element {i}: the output has shape {tuple(moved.shape)}, out_rep gives "
                    f"{tuple(wanted.shape)}"
                )
            changes.append(_norms(moved - wanted))
    change = torch.stack(changes)
    return (change.max() if reduce == "max" else change.mean()) / scale.mean()


def lie_derivative_error(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    generators: Tensor | Tangent | Sequence[Tangent],
    out_generators: Tensor | Tangent | Sequence[Tangent] | None = None,
    reduce: Reduce = "ratio",
) -> Tensor:
    """Squared Lie derivative of a model along generators, relative to its squared output.

        L f(x) = B f(x) − Df(x) A x,    e = mean ‖L f‖² / mean ‖f‖²

    Args:
        model: f, (B, …) to (B, …), one sample independent of the others. Left as it was.
        x: (B, …) floating samples.
        generators: A, (k, n, n) or (n, n) on the last axis, or functions x ↦ A x.
        out_generators: B, as many, in the same form; by default 0, an invariant output.
        reduce: ``ratio``; ``max`` over samples; ``centred``, by the output's variance.

    Returns:
        (k,), ≥ 0; nan if the output (``centred``: its spread) is zero.

    Raises:
        ValueError: if the generators do not fit x, the output or each other.
        TypeError: if the output is no floating tensor.

    Cost:
        k Jacobian-vector products.

    Source:
        Gruver et al. 2022, arXiv 2210.02984.

    Example:
        A norm is invariant under rotation; one coordinate changes by the other:

        >>> J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> x = torch.tensor([[3.0, 4.0], [-4.0, 3.0]])
        >>> lie_derivative_error(lambda x: x.square().sum(-1), x, J)
        tensor([0.])
        >>> lie_derivative_error(lambda x: x[:, 0], x, J)
        tensor([1.])
    """
    _known(reduce)
    tangents = _tangents(generators, "generators")
    outs: list[Tangent] = [torch.zeros_like] * len(tangents)
    if out_generators is not None:
        outs = _tangents(out_generators, "out_generators")
    if len(outs) != len(tangents):
        raise ValueError(f"{len(tangents)} generators, but {len(outs)} out_generators")
    errors = []
    with untouched(_parameters(model)), torch.no_grad():
        scale = _scale(_output(model, x), reduce).square().mean()
        for a, b in zip(tangents, outs, strict=True):
            y, change = torch.func.jvp(model, (x,), (a(x),))[:2]
            lie = _norms(b(y) - change).square()
            errors.append((lie.max() if reduce == "max" else lie.mean()) / scale)
    return torch.stack(errors)


class EquivarianceMonitor:
    """Follows the equivariance error of a model through its training.

    Call it with the step; it measures in evaluation mode on fixed samples and puts the mode back.

    Args:
        model: the model.
        x: (B, …) fixed samples.
        group: as the following ones, of ``equivariance_error``.
        in_rep: on samples.
        out_rep: on outputs.
        reduce: ``ratio``, ``max`` or ``centred``.
        every: measure at multiples of so many steps.

    Source:
        Gruver et al. 2022, arXiv 2210.02984.

    Example:
        >>> flip = Group.from_generators([torch.tensor([[0.0, 1.0], [1.0, 0.0]])])
        >>> monitor = EquivarianceMonitor(nn.Linear(2, 1), torch.randn(8, 2), flip, every=10)
        >>> for step in range(30):
        ...     monitor(step)
        >>> monitor.steps, len(monitor.errors)
        ([0, 10, 20], 3)
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        group: Group,
        in_rep: Representation | None = None,
        out_rep: Representation | None = None,
        reduce: Reduce = "ratio",
        *,
        every: int = 1,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.model, self.every = model, every
        self.steps: list[int] = []
        self.errors: list[float] = []
        self._measured = (x, group, in_rep, out_rep, reduce)

    def __call__(self, step: int) -> None:
        """Measure, if it is time."""
        if step % self.every:
            return
        x, group, in_rep, out_rep, reduce = self._measured
        modes = [(m, m.training) for m in self.model.modules()]
        self.model.eval()
        try:
            error = equivariance_error(self.model, x, group, in_rep, out_rep, reduce)
        finally:
            for module, training in modes:
                module.training = training
        self.steps.append(step)
        self.errors.append(float(error))


def _known(reduce: str) -> None:
    if reduce not in ("ratio", "max", "centred"):
        raise ValueError(f"reduce must be 'ratio', 'max' or 'centred', got {reduce!r}")


def _parameters(model: object) -> list[Tensor]:
    return list(model.parameters()) if isinstance(model, nn.Module) else []


def _output(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y = model(x)
    if not isinstance(y, Tensor):
        raise TypeError(f"the model must return one tensor, got {type(y).__name__}")
    if not y.is_floating_point():
        raise TypeError(
            f"the model returned {y.dtype}: class indices have no size. Measure the scores before "
            "the argmax, and give out_rep if the group permutes the classes"
        )
    if len(y) != len(x):
        raise ValueError(f"{len(x)} samples gave an output of shape {tuple(y.shape)}")
    return y


def _norms(y: Tensor) -> Tensor:
    """(B,) norm of each sample, low precision in float32."""
    wide = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
    return wide.reshape(len(y), -1).norm(dim=1)


def _scale(y: Tensor, reduce: str) -> Tensor:
    # Only the scale is centred: a mean that moves with the group belongs to the change.
    return _norms(y - y.mean(0) if reduce == "centred" else y)


def _tangents(generators: Tensor | Tangent | Sequence[Tangent], what: str) -> list[Tangent]:
    if not isinstance(generators, Tensor):
        return [generators] if callable(generators) else list(generators)
    stack = generators[None] if generators.ndim == 2 else generators
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2]:
        raise ValueError(f"{what} must be (k, n, n), got shape {tuple(generators.shape)}")
    dim = stack.shape[-1]

    def act(matrix: Tensor) -> Tangent:
        def along(x: Tensor) -> Tensor:
            if x.shape[-1:] != (dim,):
                raise ValueError(
                    f"{what} act on {dim} coordinates, the last axis of shape {tuple(x.shape)} has "
                    "another length"
                )
            return x @ matrix.T.to(x)

        return along

    return [act(matrix) for matrix in stack]
