"""Gradient accumulation that is exact: sums divided by the count of the whole step.

The mean over a batch is ΣS/N with S the sum of losses of a micro-batch and N the counted items
(tokens, or class weights) of all micro-batches on all ranks. The mean of the micro-batches' means
is something else unless all counts are equal: off by the covariance of mean and count.

Source: "Fixing Gradient Accumulation", Debut, Zucker, Mueller, Shieh, Bossan 2024
(huggingface.co/blog/gradient_accumulation); "Bugs in LLM Training", D. Han, M. Han 2024. Both need
N before the first backward pass; here sums are accumulated and divided at the end, which is the
same because accumulation is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import Optimizer

__all__ = ["AccumulationContext", "count_tokens", "normalized_backward"]


def count_tokens(labels: Tensor, *, ignore_index: int = -100, shift: bool = True) -> Tensor:
    """How many labels a causal language model is trained on.

    Args:
        labels: (..., T) integers.
        ignore_index: labels that do not count.
        shift: whether the model predicts label t + 1 from position t, so that the first label of
            each sequence is never counted, as in Transformers.

    Returns:
        0-d int64.

    Raises:
        ValueError: if ``labels`` has no dimension.

    Example:
        >>> count_tokens(torch.tensor([[5, 6, -100], [7, -100, -100]])).item()
        1
    """
    if labels.ndim == 0:
        raise ValueError("labels must be (..., T), got a single number")
    counted = labels[..., 1:] if shift else labels
    return (counted != ignore_index).sum()


def normalized_backward(
    loss_sum: Tensor,
    count: Tensor | float,
    total_count: Tensor | float,
    world_size: int = 1,
) -> Tensor:
    """Backward pass of a micro-batch whose step's total count is known beforehand.

    Do not divide by the number of micro-batches as well.

    Args:
        loss_sum: scalar, the sum of the losses of the micro-batch's counted items.
        count: its counted items, at most ``total_count``.
        total_count: N, over all micro-batches of the step and all ranks.
        world_size: ranks over which gradients are averaged (DDP, FSDP).

    Returns:
        The micro-batch's part of the step's mean loss, detached: over micro-batches and ranks they
        add up to it.

    Raises:
        ValueError: if ``total_count`` is not positive or below ``count``, or ``loss_sum`` is no
            scalar.

    Example:
        >>> theta = torch.ones((), requires_grad=True)
        >>> for count, x in ((1, 4.0), (3, 6.0)):
        ...     part = normalized_backward(theta * x, count, 4)
        >>> theta.grad  # (4 + 6)/4; the mean of means would be 3
        tensor(2.5000)
    """
    _require_scalar(loss_sum)
    if not (total_count > 0 and count <= total_count and count >= 0):
        raise ValueError(
            f"expected 0 ≤ count ≤ total_count and total_count > 0, got {count} and {total_count}: "
            "the total is that of the whole step over all ranks"
        )
    (loss_sum * world_size / total_count).backward()
    return loss_sum.detach() / total_count


class AccumulationContext:
    """One optimizer step's worth of micro-batches, accumulated exactly.

        with AccumulationContext(model, optimizer, steps=4) as scale:
            for batch in micro_batches:
                loss_sum, count = ...
                scale(loss_sum, count).backward()
        clip_grad_norm_(...); optimizer.step()

    Clears gradients when entered. When left, it divides them by the count of all that was seen,
    over all ranks of a ``DistributedDataParallel`` model: clip and step after that, and unscale a
    gradient scaler after that too. Fewer micro-batches than ``steps`` (the last, ragged window) are
    as right as ``steps``. ``model.no_sync()`` around all but the last of them saves communication.

    Args:
        model: whose gradients are accumulated.
        optimizer: its optimizer.
        steps: the most micro-batches in a step.
        count_fn: turns the second argument of ``scale`` into a count, as ``count_tokens`` does
            labels; by default that argument is the count.
        process_group: ranks over which gradients are averaged; by default those of a
            ``DistributedDataParallel`` model, else none.

    Attributes:
        loss: after it was left, the mean loss over all counted items of all ranks, 0-d float64.
        total: after it was left, their number.

    Raises:
        ValueError: if ``steps`` is below 1; when left, if nothing was counted; from ``scale``, for
            a loss that is no scalar or more than ``steps`` calls.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(layer.parameters(), 0.1)
        >>> with AccumulationContext(layer, optimizer, steps=2) as scale:
        ...     for rows in (torch.tensor([[4.0]]), torch.tensor([[1.0], [2.0], [3.0]])):
        ...         scale(layer(rows).sum(), len(rows)).backward()
        >>> layer.weight.grad
        tensor([[2.5000]])
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        steps: int,
        *,
        count_fn: Callable[[Any], Tensor | float] | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if process_group is None and isinstance(model, DistributedDataParallel):
            process_group = model.process_group
        self._model, self._optimizer = model, optimizer
        self._steps, self._count_fn, self._group = steps, count_fn, process_group
        self._seen = 0
        self._guess: Tensor | None = None
        self._sums: Tensor | None = None
        self.loss: Tensor | None = None
        self.total: Tensor | None = None

    def __enter__(self) -> Callable[[Tensor, Any], Tensor]:
        for p in self._params():
            p.grad = None
        self._seen, self._sums, self._guess, self.loss, self.total = 0, None, None, None, None
        return self._scale

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        if self._sums is None or self._guess is None:
            raise ValueError("no micro-batch was accumulated: call scale(loss_sum, count)")
        loss, count = self._reduced(self._sums)
        # One look at the device per step: dividing by nothing would make every weight nan.
        if not bool(count > 0):
            raise ValueError(
                "no counted item in the whole step (are all labels ignored?); leave this step out"
            )
        ranks = 1 if self._group is None else dist.get_world_size(self._group)
        factor = ranks * self._guess / count
        for p in self._params():
            if p.grad is not None:
                p.grad.mul_(factor.to(p.grad.device))
        self.loss, self.total = loss / count, count

    def _scale(self, loss_sum: Tensor, count: Any) -> Tensor:
        """The sum of a micro-batch's losses, scaled so that ``backward`` can be called on it."""
        _require_scalar(loss_sum)
        if self._seen >= self._steps:
            raise ValueError(f"more than steps={self._steps} micro-batches in one step")
        self._seen += 1
        counted = self._count_fn(count) if self._count_fn else count
        # float64 counts exactly to 2⁵³; bfloat16 would stop at 256.
        here = torch.as_tensor(counted, dtype=torch.float64, device=loss_sum.device)
        pair = torch.stack([loss_sum.detach().double(), here.detach()])
        self._sums = pair if self._sums is None else self._sums + pair
        if self._guess is None:
            # About N, so that gradients have their final magnitude in half precision. A power of
            # two rounds nothing; all ranks must agree on it, for their gradients are averaged.
            about = self._reduced(pair)[1].clamp(min=1) * self._steps
            self._guess = torch.exp2(about.log2().round())
        return loss_sum / self._guess.to(loss_sum.dtype)

    def _reduced(self, pair: Tensor) -> Tensor:
        if self._group is not None:
            pair = pair.clone()
            dist.all_reduce(pair, group=self._group)
        return pair

    def _params(self) -> list[Tensor]:
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        return list(dict.fromkeys([*self._model.parameters(), *held]))


def _require_scalar(loss_sum: Tensor) -> None:
    if loss_sum.numel() != 1:
        raise ValueError(
            f"loss_sum must be a scalar, got shape {tuple(loss_sum.shape)}; use reduction='sum'"
        )
