"""Structured knowledge accumulation: forward passes alone change the weights, without labels.

The same batch goes forward again and again; every layer lowers an entropy made of its own
pre-activations Z and the change ΔD of its activations D = σ(Z):

    H = −(1/ln 2) Σ Z ⊙ ΔD,   W ← W − (η/n) Pᵀ g,   g = −(1/ln 2)(Z ⊙ D(1 − D) + ΔD)

with P the layer's input: the batch, or the activations of the step before.

Source: B. Mahi 2025, arXiv 2504.03214, and its code. Paper and code differ in a sign of the "Tensor
Net"; both are offered. What holds of the paper's reading and what does not: ``docs/ska.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.nn.ska_network import SKANetwork

__all__ = ["SKAHistory", "Sign", "ska_fit", "step_figures"]

Sign = Literal["code", "paper"]


@dataclass(frozen=True)
class SKAHistory:
    """What a run measured, (K − 1, L) each: row k − 1 is step k, column l − 1 is layer l.

    Attributes:
        entropy: H in bits, summed over batch and units; the first row is exactly 0.
        cosine: of the angle between Z and ΔD, 0 where one of them vanishes.
        flow: ‖ΔZ‖_F/η, the "knowledge flow".
        z_norm: ‖Z‖_F.
        tensor_net: Σ (D ∓ Z ⊙ D(1 − D)/ln 2) ⊙ ΔZ; − for ``code``, + for ``paper``.
        tensor_net_total: its running sum.
        lagrangian: −Σ Z ⊙ D(1 − D) ⊙ ΔZ/η. A total derivative: see ``is_null_lagrangian``.
        weight_norm: ‖W‖_F after the step's update.
    """

    entropy: Tensor
    cosine: Tensor
    flow: Tensor
    z_norm: Tensor
    tensor_net: Tensor
    tensor_net_total: Tensor
    lagrangian: Tensor
    weight_norm: Tensor


def step_figures(z: Tensor, z_before: Tensor, lr: float, sign: Sign) -> dict[str, Tensor]:
    """The figures of one layer and one step, by the names of ``SKAHistory``.

    Args:
        z: (n, d) pre-activations.
        z_before: (n, d) those of the step before.
        lr: η, time between the two.
        sign: of the entropy gradient in the Tensor Net.

    Returns:
        Name to a 0-d tensor; without the running sum and the norm of the weights.
    """
    d, d_before = torch.sigmoid(z), torch.sigmoid(z_before)
    slope = d * (1 - d)
    dd, dz = d - d_before, z - z_before
    norms = z.norm() * dd.norm()
    product = (z * dd).sum()
    bend = z * slope / math.log(2)
    towards = d - bend if sign == "code" else d + bend
    return {
        "entropy": -product / math.log(2),
        "cosine": torch.where(norms > 0, product / norms, torch.zeros_like(norms)),
        "flow": dz.norm() / lr,
        "z_norm": z.norm(),
        "tensor_net": (towards * dz).sum(),
        "lagrangian": -(z * slope * dz).sum() / lr,
    }


@torch.no_grad()
def ska_fit(
    net: SKANetwork,
    X: Tensor,
    *,
    lr: float = 0.01,
    steps: int = 50,
    sign: Sign = "code",
    callback: Callable[[int, list[Tensor]], None] | None = None,
) -> SKAHistory:
    """Change the weights of a network in place by forward passes on one batch.

    All layers are evaluated first and then changed. Step 0 is a forward pass only and step 1 one
    with the same weights, so that nothing has changed yet. Weights grow until units saturate; there
    is no other end. Output units are not tied to labels: this trains no classifier.

    Args:
        net: the network, in any dtype; float64 keeps the figures of saturated units.
        X: (n, d_0) the batch.
        lr: η, which is also the step of time: a run takes ``lr * steps``.
        steps: K, forward passes.
        sign: of the Tensor Net, as in the published code (and figures) or the paper's formula.
        callback: called as ``callback(k, [Z_1, …, Z_L])`` after each forward pass.

    Returns:
        The history, in the dtype and on the device of the network.

    Raises:
        ValueError: if X is empty, not finite or of the wrong width, ``lr`` is not positive,
            ``steps`` is below 3 or the sign is unknown.

    Source:
        Mahi 2025, arXiv 2504.03214; entry ska.

    Example:
        Where all is zero nothing ever moves:

        >>> net = SKANetwork([2, 3], init_std=0.0)
        >>> history = ska_fit(net, torch.ones(4, 2), steps=5)
        >>> history.entropy.shape, float(history.weight_norm.sum())
        (torch.Size([4, 1]), 0.0)
    """
    _check(net, X, lr, steps, sign)
    layers = net.linear_maps()
    before: list[Tensor] = []
    rows: list[list[dict[str, Tensor]]] = []
    for k in range(steps):
        knowledge = net.pre_activations(X)
        if callback is not None:
            callback(k, [z.clone() for z in knowledge])
        if k > 0:
            found = []
            decided = [torch.sigmoid(z) for z in before]
            for i, layer in enumerate(layers):
                z, d = knowledge[i], torch.sigmoid(knowledge[i])
                figures = step_figures(z, before[i], lr, sign)
                g = -(z * d * (1 - d) + d - decided[i]) / math.log(2)
                into = X if i == 0 else decided[i - 1]
                layer.weight.sub_(g.T @ into, alpha=lr / len(X))
                layer.bias.sub_(g.mean(0), alpha=lr)
                found.append({**figures, "weight_norm": layer.weight.norm()})
            rows.append(found)
        before = knowledge
    return history_of(rows)


def history_of(rows: list[list[dict[str, Tensor]]]) -> SKAHistory:
    """A history from the figures of each step and layer."""
    columns = {
        name: torch.stack([torch.stack([layer[name] for layer in row]) for row in rows])
        for name in rows[0][0]
    }
    return SKAHistory(**columns, tensor_net_total=columns["tensor_net"].cumsum(0))


def _check(net: SKANetwork, X: Tensor, lr: float, steps: int, sign: str) -> None:
    if X.ndim != 2 or X.shape[1] != net.sizes[0] or not len(X):
        raise ValueError(f"expected X (n, {net.sizes[0]}) with n > 0, got {tuple(X.shape)}")
    if not torch.isfinite(X).all():
        raise ValueError("X is not finite: entropies would be nan from the first step on")
    if not lr > 0:
        raise ValueError(f"lr must be positive, got {lr}: it is the step of time")
    if steps < 3:
        raise ValueError(f"steps must be at least 3, got {steps}: the first two change nothing")
    if sign not in ("code", "paper"):
        raise ValueError(f"sign must be 'code' or 'paper', got {sign!r}")
