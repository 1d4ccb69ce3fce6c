"""Training within a few directions: gradients projected on given subspaces before the step.

Source: Shen et al. 2026, arXiv 2606.07082: rank-16 projection on the right singular directions of
an early update. An optimizer that rescales coordinates, as Adam does, leaves the subspace again;
the published runs use Adam, and so it is said here rather than hindered.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor, nn

__all__ = ["ProjectGradients"]


class ProjectGradients:
    """Projects the gradients of some matrices on subspaces.

        g ← g V Vᵀ   (right),   g ← U Uᵀ g   (left)

    As a context manager it does so in every backward pass; or call ``apply()`` between backward and
    step. Parameters without a basis are left alone.

    Args:
        model: whose parameters are named.
        bases: name → frame: V of (n, r) for "right", U of (m, r) for "left", with orthonormal
            columns, for a parameter of (m, n), or (m, …) with n entries a row; as
            ``SubspaceLock.bases`` holds.
        side: "right" or "left".

    Raises:
        ValueError: if a name is not of the model, a frame does not fit or is not orthonormal.

    Cost: 4mnr operations per matrix and step.

    Source: arXiv 2606.07082; entry opd-geometry.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with ProjectGradients(model, {"weight": torch.tensor([[1.0], [0.0]])}):
        ...     model(torch.tensor([[3.0, 4.0]])).sum().backward()
        >>> model.weight.grad
        tensor([[3., 0.]])
    """

    def __init__(
        self,
        model: nn.Module,
        bases: Mapping[str, Tensor],
        *,
        side: Literal["right", "left"] = "right",
    ) -> None:
        if side not in ("right", "left"):
            raise ValueError(f"ProjectGradients: expected side right or left, got {side!r}")
        self._side = side
        self._frames: list[tuple[nn.Parameter, Tensor]] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        params = dict(model.named_parameters())
        for name, frame in bases.items():
            if name not in params:
                raise ValueError(
                    f"ProjectGradients: the model has no parameter {name!r}; it has, e.g., "
                    f"{', '.join(list(params)[:3])}"
                )
            self._frames.append((params[name], _fitting(name, params[name], frame, side)))

    @torch.no_grad()
    def apply(self) -> None:
        """Project the present gradients, in place."""
        for p, frame in self._frames:
            self._project(p, frame)

    def __enter__(self) -> Self:
        """Project in every backward pass from here on."""
        for p, frame in self._frames:

            def hook(p: Tensor, frame: Tensor = frame) -> None:
                with torch.no_grad():
                    self._project(p, frame)

            self._hooks.append(p.register_post_accumulate_grad_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the gradients alone again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _project(self, p: Tensor, frame: Tensor) -> None:
        if p.grad is None:
            return
        rows = p.grad.flatten(1).to(frame.dtype)
        inside = rows @ frame @ frame.T if self._side == "right" else frame @ (frame.T @ rows)
        p.grad.copy_(inside.reshape(p.grad.shape))


def _fitting(name: str, p: Tensor, frame: Tensor, side: str) -> Tensor:
    """The frame in the parameter's precision, float32 at least."""
    size = p.shape[0] if side == "left" else p.shape[1:].numel()
    if p.ndim < 2 or frame.ndim != 2 or frame.shape[0] != size:
        raise ValueError(
            f"ProjectGradients: {name!r} has shape {tuple(p.shape)}; its {side} frame must be "
            f"({size}, r) and it must be a matrix, got {tuple(frame.shape)}"
        )
    wide = torch.float64 if p.dtype == torch.float64 else torch.float32
    frame = frame.detach().to(p.device, wide)
    one = torch.eye(frame.shape[1], dtype=wide, device=p.device)
    if not bool(((frame.T @ frame - one).abs() < 1e-3).all()):
        raise ValueError(
            f"ProjectGradients: the columns of the frame of {name!r} are not orthonormal; take "
            "torch.linalg.qr(frame).Q"
        )
    return frame
