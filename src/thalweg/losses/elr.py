"""Early-learning regularisation: cross-entropy that does not go on to memorise wrong labels.

    p = softmax(z),  p̃ = clamp(p, ε, 1 − ε),  t_i ← β t_i + (1 − β) p̃/Σp̃   (no gradient)
    loss = mean CE(z, y) + λ mean log(1 − ⟨t_i, p̃⟩)

The target t_i of each example is a running average of its own predictions, kept in a table. The
added term pulls predictions towards it: where a label is wrong this cancels the gradient of
cross-entropy as soon as early predictions are right. As t starts at 0, the term starts weak.

Source: S. Liu, J. Niles-Weed, N. Razavian, C. Fernandez-Granda 2020, arXiv 2007.00151; checked
against the authors' code. Departures: the table is a buffer, saved with the loss; an example that
stands twice in a batch is compared with its own new target each time, and the last one is kept.
Not here: ELR+ (two networks, mixup) and labels that are distributions.

Axes: `N` examples, `C` classes, `B` batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["ELRLoss", "elr_regularizer"]


def elr_regularizer(probs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
    """Log of the room between predictions and their targets, log(1 − ⟨t, p⟩).

    Args:
        probs: p, (..., C) probabilities; clamp them below 1, or the value can be −inf.
        targets: t, (..., C), non-negative with sum at most 1; usually detached.
        reduction: ``mean``, ``sum`` or ``none`` over all but the last axis.

    Returns:
        0-d, or (...,) for ``none``; at most 0; float32 for half precision.

    Raises:
        ValueError: if the shapes differ, or the reduction is unknown.

    Source:
        Liu et al. 2020, arXiv 2007.00151, eq. 6; entry early-learning-regularization.

    Example:
        >>> elr_regularizer(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]))
        tensor(-0.6931)
    """
    if probs.shape != targets.shape:
        raise ValueError(
            f"probs and targets must have one shape, got {tuple(probs.shape)} and "
            f"{tuple(targets.shape)}"
        )
    dtype = torch.promote_types(probs.dtype, torch.float32)
    inner = (probs.to(dtype) * targets.to(dtype)).sum(-1)
    return _reduced(torch.log1p(-inner), reduction)


class ELRLoss(nn.Module):
    """Cross-entropy with early-learning regularisation.

    Needs, with each batch, where its examples stand in the training set: wrap the data set in
    ``thalweg.data.IndexedDataset``. An index that changes its meaning between epochs destroys the
    method without a sign. In ``eval()`` mode the table is read and not changed. The value becomes
    negative; select models by accuracy on held-out data, not by it.

    λ must be tuned (1 to 7 in the paper); β hardly matters. Under data parallelism keep the loss
    outside the wrapped model, and let every process always see the same examples.

    Args:
        num_examples: N, rows of the table.
        num_classes: C.
        lam: λ.
        beta: β, how much of the target stays.
        clamp: ε; predictions outside are not pulled.
        reduction: ``mean``, ``sum`` or ``none``.
        dtype: of the table; half precision halves its N·C numbers, arithmetic stays in float32.
        device: of the table; rows travel to the logits' device and back.

    Attributes:
        targets: t, (N, C) buffer; rows are 0 until their example is seen.

    Raises:
        ValueError: if a setting is out of range.

    Source:
        Liu et al. 2020, arXiv 2007.00151; entry early-learning-regularization.

    Example:
        First visit, two classes, even prediction: t = (0.15, 0.15), log 2 + 3 log(1 − 0.15).

        >>> loss_fn = ELRLoss(num_examples=5, num_classes=2)
        >>> loss_fn(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([4]))
        tensor(0.2056)
    """

    targets: Tensor

    def __init__(
        self,
        num_examples: int,
        num_classes: int,
        lam: float = 3.0,
        beta: float = 0.7,
        clamp: float = 1e-4,
        *,
        reduction: str = "mean",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if num_examples < 1 or num_classes < 2:
            raise ValueError(
                "need at least 1 example and 2 classes, got "
                f"num_examples={num_examples}, num_classes={num_classes}"
            )
        if not (0 <= lam < math.inf and 0 <= beta < 1 and 0 < clamp < 0.5):
            raise ValueError(
                "lam must be finite and at least 0, beta in [0, 1), clamp in (0, 0.5), got "
                f"lam={lam}, beta={beta}, clamp={clamp}"
            )
        _reduced(torch.zeros(1), reduction)
        self.lam, self.beta, self.clamp, self.reduction = lam, beta, clamp, reduction
        table = torch.zeros(num_examples, num_classes, dtype=dtype, device=device)
        self.register_buffer("targets", table)

    def forward(self, logits: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """The loss of a batch; updates the targets of its examples first.

        Args:
            logits: z, (B, C).
            labels: y, (B,) class numbers.
            index: (B,) integers in 0 … N−1, which examples these are, the same in every epoch.

        Returns:
            0-d, or (B,) for ``reduction="none"``; float32 for half precision.

        Raises:
            TypeError: if labels or index are no integers.
            ValueError: if shapes do not fit.
            IndexError: if an index or a label is out of range (on a GPU torch's own assertion).
        """
        self._check(logits, labels, index)
        index = index.to(self.targets.device)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        try:
            with torch.no_grad():
                rows = self.targets.index_select(0, index).to(logits.device, dtype)
            losses, t = _elr(logits, labels, rows, self.lam, self.beta, self.clamp)
        except (IndexError, RuntimeError) as error:
            raise self._explained(error, labels, index) from None
        if self.training:
            with torch.no_grad():
                self.targets.index_copy_(0, index, t.to(self.targets))
        return _reduced(losses, self.reduction)

    def noisy_label_scores(self, labels: Tensor) -> Tensor:
        """How little the target of each example believes in its label, 1 − t_{i, y_i}.

        Args:
            labels: y, (N,), those that were trained on.

        Returns:
            (N,) in [0, 1]; nan for examples that were never seen.
        """
        t = self._table_for(labels)
        believed = t.gather(1, labels.to(t.device)[:, None]).squeeze(1)
        return torch.where(t.sum(1) > 0, 1 - believed, torch.nan)

    def detect(self, labels: Tensor) -> Tensor:
        """Whether each label is suspect: the largest entry of the target is another class.

        Args:
            labels: y, (N,), those that were trained on.

        Returns:
            (N,) bool; False for examples that were never seen.
        """
        t = self._table_for(labels)
        return (t.argmax(1) != labels.to(t.device)) & (t.sum(1) > 0)

    def extra_repr(self) -> str:
        """Size of the table and the settings."""
        n, c = self.targets.shape
        return f"{n}, {c}, lam={self.lam}, beta={self.beta}, clamp={self.clamp}"

    def _table_for(self, labels: Tensor) -> Tensor:
        if labels.shape != self.targets.shape[:1]:
            raise ValueError(
                f"labels must be those of all {len(self.targets)} examples, in the order of the "
                f"index; got shape {tuple(labels.shape)}"
            )
        return self.targets.to(torch.promote_types(self.targets.dtype, torch.float32))

    def _check(self, logits: Tensor, labels: Tensor, index: Tensor) -> None:
        classes = self.targets.shape[1]
        if logits.ndim != 2 or logits.shape[1] != classes or not logits.is_floating_point():
            raise ValueError(
                f"logits must be floating and (B, {classes}), got {logits.dtype} "
                f"{tuple(logits.shape)}"
            )
        for name, given in (("labels", labels), ("index", index)):
            if given.dtype not in (torch.int64, torch.int32):
                raise TypeError(f"{name} must be int64 or int32, got {given.dtype}")
            if given.shape != logits.shape[:1]:
                raise ValueError(
                    f"{name} must have one entry for each of the {len(logits)} rows of logits, got "
                    f"shape {tuple(given.shape)}"
                )

    def _explained(self, error: Exception, labels: Tensor, index: Tensor) -> Exception:
        """What of the input is out of range; the error itself if nothing is."""
        if index.device.type != "cpu" or labels.device.type != "cpu" or not len(index):
            return error  # after an assertion on a device nothing can be read any more
        for name, given, size, hint in (
            (
                *("index", index, self.targets.shape[0]),
                "number the examples of the training part from 0, e.g. "
                "IndexedDataset(Subset(data, part))",
            ),
            (
                *("labels", labels, self.targets.shape[1]),
                "a value that stands for 'ignore' is not taken",
            ),
        ):
            low, high = int(given.min()), int(given.max())
            if low < 0 or high >= size:
                return IndexError(f"{name} must be in 0 … {size - 1}, got {low} … {high}: {hint}")
        return error


def _elr(
    logits: Tensor,
    labels: Tensor,
    rows: Tensor,
    lam: float,
    beta: float,
    clamp: float,
    watched: bool = False,
) -> tuple[Tensor, Tensor]:
    """Loss of each example (B,), and the new targets (B, C), in place of ``rows``.

    One call to whoever watches torch functions: a recording can evaluate it again, with the targets
    that it had, which then must stay what they are.
    """
    if has_torch_function((logits, labels, rows)):
        given = (logits, labels, rows)
        return handle_torch_function(_elr, given, *given, lam, beta, clamp, watched=True)
    rows = rows.clone() if watched else rows
    losses, t = _ELR.apply(logits, labels.long(), rows, lam, beta, clamp)  # pyright: ignore
    return losses, t


class _ELR(torch.autograd.Function):
    """Value and gradient in one pass over the batch, in the closed form.

    ∂loss/∂z_k = p_k − [k = y] − λ (s_k − p_k Σ_j s_j)/(1 − ⟨t, p̃⟩), s = t p where p is not clamped.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        rows: Tensor,
        lam: float,
        beta: float,
        clamp: float,
    ) -> tuple[Tensor, Tensor]:
        y = labels[:, None]
        # In place where it can be: what takes time are passes over memory, and fresh memory most.
        # One exponential serves all: the largest probability is 1/Σ exp(z − max z).
        z = logits.to(rows.dtype)
        p = z.softmax(1)
        top = p.amax(1, keepdim=True)
        cross_entropy = z.amax(1, keepdim=True) - top.log() - z.gather(1, y)
        kept = p.clamp(clamp, 1 - clamp)
        t = rows.mul_(beta).addcmul_(kept, (1 - beta) / kept.sum(1, keepdim=True))
        # Above 1 − ε is at most one entry of a row, and then all others are below ε: none is free.
        free = top < 1 - clamp
        room = 1 - kept.mul_(t).sum(1, keepdim=True)
        losses = (cross_entropy + lam * room.log()).squeeze(1)
        ctx.mark_dirty(rows)
        ctx.mark_non_differentiable(rows)
        if ctx.needs_input_grad[0]:
            s = nn.functional.threshold(kept.copy_(p), clamp, 0.0, inplace=True)
            s.mul_(t)
            pull = free * (-lam / room)
            grad = p.mul_(1 - pull * s.sum(1, keepdim=True)).addcmul_(s, pull)
            grad.scatter_add_(1, y, torch.full_like(room, -1))
            ctx.save_for_backward(logits, y, t, grad)
            ctx.lam, ctx.clamp = lam, clamp
        return losses, t

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        logits, y, t, grad = ctx.saved_tensors
        given = upstream[0]
        if not torch.is_grad_enabled():
            return (grad * given[:, None]).to(logits.dtype), *(None,) * 5
        # A graph of the gradient is wanted, for second derivatives: by autograd, t being constant.
        log_p = logits.to(t.dtype).log_softmax(1)
        kept = log_p.exp().clamp(ctx.clamp, 1 - ctx.clamp)
        room = elr_regularizer(kept, t, reduction="none")
        losses = ctx.lam * room - log_p.gather(1, y).squeeze(1)
        (grad,) = torch.autograd.grad(losses, logits, given, create_graph=True)
        return grad, *(None,) * 5


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction in ("mean", "sum"):
        return losses.mean() if reduction == "mean" else losses.sum()
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
