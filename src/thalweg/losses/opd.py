"""On-policy distillation: a teacher grades every token that the student samples.

Source: Shen et al. 2026, arXiv 2606.07082; Yu et al. 2026, arXiv 2606.13657; the choice of
divergences is that of GKD, Agarwal et al. 2023, arXiv 2306.13649. Axes: `V` tokens.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["opd_loss"]

Kind = Literal["reverse_kl", "forward_kl", "jsd", "policy_gradient"]


def opd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    kind: Kind = "reverse_kl",
    temperature: float = 1.0,
    top_k: int | None = None,
    tokens: Tensor | None = None,
    generator: torch.Generator | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Divergence of the student from the teacher at the student's own prefixes.

        reverse_kl       Σ_v p log(p/q)
        forward_kl       Σ_v q log(q/p)
        jsd              half of either to their mean
        policy_gradient  −[log q(y) − log p(y)] log p(y), the bracket held fixed

    The gradient of the last has the mean of that of the first. None goes through the sampling.

    Args:
        student_logits: (..., V), of p.
        teacher_logits: (..., V), of q; no gradient is sent there.
        mask: (...) bool or 0/1, True where the student sampled a token; default: everywhere.
        kind: see above.
        temperature: both logits are divided by it.
        top_k: keep the likeliest tokens only, of the teacher's for forward_kl and jsd, of the
            student's otherwise, and renormalise both. Not for policy_gradient.
        tokens: (...) sampled tokens, for policy_gradient; default: one drawn from p.
        generator: of that draw.
        reduction: over the tokens in the mask.

    Returns:
        float32 at least; 0-d, or (...) for "none" with 0 outside the mask. 0 for an empty mask.

    Raises:
        ValueError: if the shapes do not fit (vocabularies of two tokenisers), or a setting is out
            of range.

    Source: arXiv 2606.07082; entry opd-geometry.

    Example:
        >>> import math, torch
        >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
        >>> round(opd_loss(p, q).item() / math.log(4 / 3), 4)  # ½ ln 2 + ½ ln ⅔ = ½ ln 4⁄3
        0.5
    """
    _checked(student_logits, teacher_logits, mask, kind, temperature, top_k, tokens, reduction)
    wide = torch.float64 if student_logits.dtype == torch.float64 else torch.float32
    kept = torch.ones_like(student_logits[..., 0], dtype=torch.bool) if mask is None else mask != 0
    # Padding may hold anything, nan included; tokens ruled out with −inf must give 0, not nan.
    least = torch.finfo(wide).min / 4

    def ready(logits: Tensor) -> Tensor:
        known = torch.where(kept[..., None], logits.to(wide) / temperature, 0.0)
        return known.clamp(min=least)

    student, teacher = ready(student_logits), ready(teacher_logits.detach())
    if top_k is not None and top_k < student.shape[-1]:
        judge = student if kind == "reverse_kl" else teacher
        likely = judge.detach().topk(top_k, dim=-1).indices
        student, teacher = student.gather(-1, likely), teacher.gather(-1, likely)
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    each = torch.where(kept, _divergence(kind, log_p, log_q, tokens, generator), 0.0)
    if reduction == "none":
        return each
    return each.sum() if reduction == "sum" else each.sum() / kept.sum().clamp(min=1)


def _divergence(
    kind: Kind,
    log_p: Tensor,
    log_q: Tensor,
    tokens: Tensor | None,
    generator: torch.Generator | None,
) -> Tensor:
    if kind == "reverse_kl":
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    if kind == "forward_kl":
        return (log_q.exp() * (log_q - log_p)).sum(-1)
    if kind == "jsd":
        middle = torch.logaddexp(log_p, log_q) - math.log(2)
        sides = log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle)
        return sides.sum(-1) / 2
    if tokens is None:
        flat = log_p.detach().exp().flatten(0, -2)
        tokens = torch.multinomial(flat, 1, generator=generator).reshape(log_p.shape[:-1])
    inside = tokens.clamp(0, log_p.shape[-1] - 1)[..., None]  # padding may be −100
    chosen = log_p.gather(-1, inside)[..., 0]
    advantage = log_q.gather(-1, inside)[..., 0] - chosen.detach()
    return -advantage * chosen


def _checked(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None,
    kind: str,
    temperature: float,
    top_k: int | None,
    tokens: Tensor | None,
    reduction: str,
) -> None:
    if student.shape[-1:] != teacher.shape[-1:]:
        raise ValueError(
            f"opd_loss: the student has {student.shape[-1]} tokens and the teacher "
            f"{teacher.shape[-1]}; both need one tokeniser"
        )
    if student.shape != teacher.shape or student.ndim < 2 or not student.is_floating_point():
        raise ValueError(
            "opd_loss: expected floating logits of one shape (..., V), got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    for name, given in (("mask", mask), ("tokens", tokens)):
        if given is not None and given.shape != student.shape[:-1]:
            raise ValueError(
                f"opd_loss: {name} must be {tuple(student.shape[:-1])}, got {tuple(given.shape)}"
            )
    kinds = ("reverse_kl", "forward_kl", "jsd", "policy_gradient")
    if kind not in kinds or reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f"opd_loss: expected kind of {', '.join(kinds)} and reduction mean, sum or none; got "
            f"{kind!r}, {reduction!r}"
        )
    if not temperature > 0 or (top_k is not None and (top_k < 1 or kind == "policy_gradient")):
        raise ValueError(
            "opd_loss: expected temperature > 0 and top_k >= 1 (none for policy_gradient), got "
            f"{temperature}, {top_k}"
        )
