"""Is accumulating over micro-batches the same as the whole batch, and if not, why?

Compares the accumulated gradient with that of the whole batch, then asks what explains the
difference: gradients of the micro-batches that add up with other weights (a matter of counting),
layers that look at the whole batch, random numbers drawn in another order, kernels that do not
repeat themselves.

Source: "Fixing Gradient Accumulation", Debut, Zucker, Mueller, Shieh, Bossan 2024
(huggingface.co/blog/gradient_accumulation); the search for the cause is this package's own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.instruments.accumulation_probe import (
    Accumulate,
    Cause,
    LossFn,
    Probe,
    relative_error,
)
from thalweg.numerics.untouched import set_random_state, untouched

__all__ = ["AccumulationReport", "check_accumulation", "simulate_ddp"]

# Relative errors that rounding explains, times √k for k micro-batches.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 5e-2}
# A fit of a few coefficients divides by how different the micro-batches are.
FIT_SLACK = 100.0


@dataclass(frozen=True)
class AccumulationReport:
    """What ``check_accumulation`` found.

    Attributes:
        ok: whether every split gives the gradient of the whole batch, to rounding.
        error: ‖g_acc − g_full‖/‖g_full‖ of the worst split.
        per_param: parameter to its own relative error in the worst split.
        expected_bias: accumulated less true loss in the worst split, as the counts explain it;
            nan if they do not.
        cause: of the worst split's error.
        errors: split to its error.
        weights: share of each micro-batch of the worst split in the true gradient, where the
            gradients tell; empty otherwise. Proportional to what should be counted.
    """

    ok: bool
    error: float
    per_param: dict[str, float]
    expected_bias: float
    cause: Cause
    errors: dict[str, float]
    weights: tuple[float, ...] = ()


def check_accumulation(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Any,
    splits: Sequence[int | str] = (2, 4, "ragged"),
    *,
    reduction: Literal["auto", "mean", "sum"] = "auto",
    rtol: float | None = None,
    accumulate: Accumulate | None = None,
) -> AccumulationReport:
    """Compares accumulated gradients with those of the whole batch and names the cause.

    Weights, buffers, gradients, mode and random state are left as they were; nothing steps.

    Args:
        model: in the mode in which it trains.
        loss_fn: ``(model, batch) -> scalar``, or the pair (sum of losses, count) of a loss that
            knows how to normalise.
        batch: tensors with samples along their first dimension, in tuples, lists or mappings.
        splits: numbers of micro-batches, or ``ragged`` for equal ones and a smaller last.
        reduction: whether micro-batches' losses are averaged (``mean``: accumulation divides by
            their number) or added (``sum``); ``auto`` doubles the batch to see which.
        rtol: relative error that counts as equal; by default 1e-12 in float64, 1e-5 in float32,
            5e-2 in bfloat16, times √k; the
            coarsest dtype of weights and loss counts.
        accumulate: your own loop, ``(model, micro_batches) -> None``, from clearing gradients to
            just before the optimizer's step. By default the loop that ``reduction`` says.

    Returns:
        The report.

    Raises:
        ValueError: for a batch of fewer than two samples, tensors of different lengths, an unknown
            split, or a loss without gradient.

    Example:
        A mean over 3 rows is not the mean of a mean over 2 and one over 1:

        >>> model, x = nn.Linear(1, 1).double(), torch.tensor([[1.0], [2.0], [6.0]]).double()
        >>> report = check_accumulation(model, lambda m, b: m(b).square().mean(), x, splits=(2,))
        >>> report.cause, [round(w, 6) for w in report.weights]
        ('count-normalisation', [0.666667, 0.333333])
    """
    size = _size(batch)
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not params:
        raise ValueError("the model has no parameter that requires a gradient")
    with untouched(list(params.values())), _kept(model):
        probe = Probe(model, loss_fn, params)
        whole = probe.gradient(batch)
        # Some losses are taken in float32 whatever the weights are in.
        dtypes = {probe.dtype, *(p.dtype for p in params.values())}
        dtype = max(dtypes, key=lambda d: torch.finfo(d).eps)
        base = ROUNDING[dtype] if rtol is None else rtol
        slack = lambda k: base * (math.sqrt(k) if rtol is None else 1.0)  # noqa: E731
        if relative_error(probe.gradient(batch), whole) > base:
            return _report("nondeterministic kernel", {}, probe.gradient(batch), whole, params)
        if reduction == "auto" and not probe.counted:
            reduction = _reduction(probe, batch)
        worst: tuple[float, str, list[Any], Tensor] | None = None
        errors: dict[str, float] = {}
        for split in splits:
            parts = [_rows(batch, a, b) for a, b in _bounds(size, split)]
            if accumulate is None:
                mine = probe.accumulated(parts, reduction)
            else:
                mine = probe.run(accumulate, parts)
                if relative_error(probe.run(accumulate, parts, clear=False), 2 * mine) < slack(
                    len(parts)
                ):
                    return _report("missing zero_grad", {str(split): 1.0}, 2 * mine, mine, params)
            error = errors[str(split)] = relative_error(mine, whole)
            ratio = error / slack(len(parts))
            if worst is None or not ratio <= worst[0]:
                worst = (ratio, str(split), parts, mine)
        if worst is None:
            raise ValueError("splits must name at least one split")
        ratio, _, parts, mine = worst
        if ratio <= 1:
            return _report("ok", errors, mine, whole, params, 0.0)
        weights = probe.weights(parts, whole, FIT_SLACK * slack(len(parts)))
        if weights:
            bias = probe.bias(parts, weights, reduction) if accumulate is None else math.nan
            cause: Cause = "count-normalisation"
            return _report(cause, errors, mine, whole, params, bias, weights)
        cause = probe.cause(batch, parts, FIT_SLACK * slack(len(parts)))
        return _report(cause, errors, mine, whole, params)


def simulate_ddp(
    model: nn.Module, loss_fn: LossFn, batches_per_rank: Sequence[Any]
) -> dict[str, Tensor]:
    """What data-parallel training would step with: each rank's gradient, averaged over ranks.

    Args:
        model: left as it was.
        loss_fn: ``(model, batch) -> scalar``, what each rank calls backward on.
        batches_per_rank: one batch per rank.

    Returns:
        Name of each trainable parameter to its averaged gradient; zero where none reached it.

    Raises:
        ValueError: if there is no rank.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> ranks = [torch.tensor([[4.0]]), torch.tensor([[1.0], [2.0], [3.0]])]
        >>> simulate_ddp(model, lambda m, x: 2 * m(x).sum() / 4, ranks)  # ranks × sum / total
        {'weight': tensor([[2.5000]])}
    """
    if not batches_per_rank:
        raise ValueError("batches_per_rank must hold one batch for each rank, got none")
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with untouched(list(params.values())):
        probe = Probe(model, loss_fn, params)
        total = sum(probe.gradient(b, counted=False) for b in batches_per_rank)
    assert isinstance(total, Tensor)
    return _unflatten(total / len(batches_per_rank), params)


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Puts back the gradients and every module's mode."""
    modes = {m: m.training for m in model.modules()}
    grads = {p: p.grad for p in model.parameters()}
    try:
        for p in grads:
            p.grad = None
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
        for p, g in grads.items():
            p.grad = g


def _report(
    cause: Cause,
    errors: dict[str, float],
    mine: Tensor,
    whole: Tensor,
    params: dict[str, nn.Parameter],
    bias: float = math.nan,
    weights: tuple[float, ...] = (),
) -> AccumulationReport:
    a, b = _unflatten(mine, params), _unflatten(whole, params)
    # A parameter without gradient of its own (a key bias) is judged by the whole's rounding.
    least = 1e-3 * float(whole.norm())
    each = {n: float((a[n] - b[n]).norm()) / max(float(b[n].norm()), least, 1e-300) for n in params}
    return AccumulationReport(
        cause == "ok", relative_error(mine, whole), each, bias, cause, errors, weights
    )


def _reduction(probe: Probe, batch: Any) -> Literal["mean", "sum"]:
    """A sum doubles with the batch, a mean stays."""
    with torch.no_grad():
        losses = []
        for b in (batch, _map(batch, lambda t: torch.cat([t, t]))):
            set_random_state(probe.state)
            losses.append(float(probe.loss_fn(probe.model, b)))
    once, twice = losses
    return "sum" if abs(twice - 2 * once) < abs(twice - once) else "mean"


def _unflatten(flat: Tensor, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pieces = flat.split([p.numel() for p in params.values()])
    return {n: x.view(p.shape) for x, (n, p) in zip(pieces, params.items(), strict=True)}


def _map(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(batch, Tensor):
        return change(batch) if batch.ndim else batch
    if isinstance(batch, Mapping):
        return {k: _map(v, change) for k, v in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)([_map(v, change) for v in batch])
    return batch


def _rows(batch: Any, begin: int, end: int) -> Any:
    return _map(batch, lambda t: t[begin:end])


def _size(batch: Any) -> int:
    sizes: set[int] = set()
    _map(batch, lambda t: sizes.add(len(t)) or t)
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(
            "batch must hold tensors with the same number of samples, at least 2, along their "
            f"first dimension; got {sorted(sizes)}"
        )
    return sizes.pop()


def _bounds(size: int, split: int | str) -> list[tuple[int, int]]:
    """First and last row of each micro-batch."""
    if isinstance(split, int) and split >= 1:
        cuts = [round(i * size / min(split, size)) for i in range(min(split, size) + 1)]
    elif split == "ragged":
        step = max(1, -(-size // 3))
        step += size % step == 0 and size > 2
        cuts = [*range(0, size, step), size]
    else:
        raise ValueError(f"a split must be a number from 1 on, or 'ragged', got {split!r}")
    return list(itertools.pairwise(cuts))
