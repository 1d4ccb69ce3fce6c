"""AdamO: Adam, with the singular values of the weights held near one outside of its moments.

As AdamW does with weight decay, the isometry penalty acts on the weights directly: its gradient is
neither averaged nor divided by the second moment, so its strength is the same for all weights, and
it also moves the weights of units that get no task gradient.

Source: A. Rosseau, R. Müller, A. Nowé 2026, arXiv 2606.09762. There is no official code. Beyond it:
a target other than one, and ``limit``, which keeps a large singular value from overshooting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from thalweg.losses.isometry import gram_deviation
from thalweg.optim.muon import stacks

__all__ = ["AdamO"]

# Numbers of a matrix from which on it is pulled by itself on a CPU: its products keep a core busy,
# and stacking would only copy it.
ALONE = 2**14


class AdamO(Optimizer):
    """Adam's step, and a step against the isometry penalty R of the weights as they were before it.

        m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²
        θ ← (1 − ηw)θ − η m̂/(√v̂ + ε) − η_iso λ ∇R(θ),   ∇R(W) = 4 W(WᵀW − s²I)

    All parameters of at least two dimensions are pulled, kernels flattened to (out, rest). Put
    embeddings, and heads whose logits must grow, in a group with ``isometry=0``: with λ = 0 it is
    Adam to the bit. A parameter without a gradient is not touched at all.

    Args:
        params: parameters or groups.
        lr: η.
        betas: β₁, β₂.
        eps: ε.
        isometry: λ. The pull on σ is 4 η_iso λ σ(σ² − s²) a step.
        isometry_lr: η_iso; that of the group if None.
        weight_decay: w, decoupled.
        target: s; √2 suits layers followed by ReLU.
        maximize: go up the task gradient.
        limit: shorten the pull of a matrix where 4 η_iso λ ‖WᵀW − s²I‖_F > 1, so that it cannot
            overshoot whatever the weights are.
        foreach: False for one tensor at a time; by default those alike go together.

    Raises:
        ValueError: for settings out of range. A step raises it if the penalty of a matrix on the
            CPU is not finite, as after a pull that was too strong for σ² > 1/(2 η_iso λ).
        TypeError: for complex parameters, or sharded ones unless ``isometry=0``: WᵀW needs whole
            matrices.
        RuntimeError: in a step, for sparse gradients.

    Source:
        Rosseau et al. 2026, arXiv 2606.09762, Eq. 16, 19, 20; entry adamo-isometry.

    Example:
        Without a task gradient σ = 2 moves by −η λ · 4σ(σ² − 1) = −0.01 · 24.

        >>> W = torch.nn.Parameter(2 * torch.eye(2))
        >>> W.grad = torch.zeros(2, 2)
        >>> AdamO([W], lr=0.1, isometry=0.1).step()
        >>> W.detach()
        tensor([[1.7600, 0.0000],
                [0.0000, 1.7600]])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        isometry: float = 1e-3,
        isometry_lr: float | None = None,
        weight_decay: float = 0.0,
        target: float = 1.0,
        *,
        maximize: bool = False,
        limit: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "isometry": isometry,
            "isometry_lr": isometry_lr,
            "weight_decay": weight_decay,
            "target": target,
            "maximize": maximize,
            "limit": limit,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see the class for its settings."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except (ValueError, TypeError):
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # a state of torch's Adam lacks what is ours
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step.

        Args:
            closure: evaluates the loss with its gradients, and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            buckets: dict[Any, list[Tensor]] = {}
            for i, p in enumerate(group["params"]):
                if p.grad is None:
                    continue
                if p.grad.layout != torch.strided:
                    raise RuntimeError(f"AdamO takes dense gradients, got {p.grad.layout}")
                s = self.state[p]
                if not s:
                    # As in torch: a tensor, so that a compiled step is compiled once, on the host,
                    # so that reading it waits for nothing.
                    s["step"] = torch.tensor(0.0)
                    s["exp_avg"], s["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                s["step"] += 1
                past = -1 if torch.compiler.is_compiling() else int(s["step"])
                alone = i if group["foreach"] is False else -1
                buckets.setdefault((p.dtype, p.device, past, alone), []).append(p)
            for bucket in buckets.values():
                # The pull first: it needs the weights as they are, Adam's step does not.
                _pull(bucket, group)
                _adam(bucket, [self.state[p] for p in bucket], group)
        return loss


def _pull(params: list[Tensor], group: dict[str, Any]) -> None:
    """W ← (1 − ηw)W − η_iso λ ∇R(W), matrices of one shape together; vectors only decay."""
    decay = 1 - group["lr"] * group["weight_decay"]
    isometry_lr = group["lr"] if group["isometry_lr"] is None else group["isometry_lr"]
    strength = 4 * isometry_lr * group["isometry"]
    pulled = [p for p in params if strength and p.ndim >= 2 and p.numel()]
    large = [p for p in pulled if p.device.type == "cpu" and p.numel() > ALONE]
    small = [p for p in pulled if p.device.type != "cpu" or p.numel() <= ALONE]
    stacked = [[small[i] for i in some] for some in stacks(small, foreach=group["foreach"])]
    for alike in [*stacked, *([p] for p in large)]:
        flat = [p.flatten(1) for p in alike]
        W = torch.stack(flat) if len(flat) > 1 else flat[0].unsqueeze(0)
        W = W.to(torch.promote_types(W.dtype, torch.float32))
        G = gram_deviation(W, group["target"])
        if group["limit"]:
            size = strength * torch.linalg.matrix_norm(G)
            G *= (1 / size.clamp_min(1.0))[:, None, None]
        _require_finite(G, alike[0])
        left, right = (W, G) if W.shape[1] >= W.shape[2] else (G, W)
        moved = torch.baddbmm(W, left, right, beta=decay, alpha=-strength)
        torch._foreach_copy_(alike, [m.view_as(p) for m, p in zip(moved, alike, strict=True)])
    if group["weight_decay"]:
        ids = {id(p) for p in pulled}
        rest = [p for p in params if id(p) not in ids]
        if rest:
            torch._foreach_mul_(rest, decay)


def _adam(params: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
    """θ ← θ − η m̂/(√v̂ + ε), in the order of torch's Adam, to agree to the bit."""
    (beta1, beta2), lr = group["betas"], group["lr"]
    grads = [p.grad for p in params if p.grad is not None]
    if group["maximize"]:
        grads = torch._foreach_neg(grads)
    first, second = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
    torch._foreach_lerp_(first, grads, 1 - beta1)
    torch._foreach_mul_(second, beta2)
    torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
    denominators = torch._foreach_sqrt(second)
    if torch.compiler.is_compiling():  # the number of a step must not become a constant
        steps = [s["step"] for s in states]
        torch._foreach_div_(denominators, [(1 - beta2**t).sqrt() for t in steps])
        torch._foreach_add_(denominators, group["eps"])
        moves = torch._foreach_div(first, denominators)
        torch._foreach_mul_(moves, [-lr / (1 - beta1**t) for t in steps])
        torch._foreach_add_(params, moves)
        return
    t = int(states[0]["step"])
    torch._foreach_div_(denominators, (1 - beta2**t) ** 0.5)
    torch._foreach_add_(denominators, group["eps"])
    torch._foreach_addcdiv_(params, first, denominators, -lr / (1 - beta1**t))


def _require_finite(G: Tensor, p: Tensor) -> None:
    """Looks where looking is free: on the CPU, outside of a compiled step."""
    if G.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if not bool(torch.linalg.vector_norm(G).isfinite()):
        raise ValueError(
            f"AdamO: the isometry penalty of a parameter of shape {tuple(p.shape)} is not finite: "
            "its weights are not, or a pull overshot. Lower isometry, or set limit=True"
        )


def _check(group: dict[str, Any]) -> None:
    names = ["lr", "eps", "isometry", "weight_decay"]
    for name in names if group["isometry_lr"] is None else [*names, "isometry_lr"]:
        value = group[name]
        if isinstance(value, Tensor):
            raise TypeError(f"{name} must be a plain number, got a tensor")
        if not value >= 0:
            raise ValueError(f"{name} must be ≥ 0, got {value}")
    for i, beta in enumerate(group["betas"]):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}] must be in [0, 1), got {beta}")
    if not 0 < group["target"] < float("inf"):
        raise ValueError(f"target must be positive, got {group['target']}")
    for p in group["params"]:
        if p.is_complex():
            raise TypeError(f"AdamO: a parameter is {p.dtype}; it must be real")
        if group["isometry"] and hasattr(p, "device_mesh"):
            raise TypeError(
                f"AdamO: a parameter of shape {tuple(p.shape)} is sharded, and the isometry pull "
                "needs the whole matrix. Use a group with isometry=0, or replicate instead (DDP)"
            )
