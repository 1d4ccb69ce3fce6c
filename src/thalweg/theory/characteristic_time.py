"""How fast the layers of structured knowledge accumulation start: e-folding times at small weights.

Near z = 0 the update is linear, Ẇ = Pᵀ P W/(4 n ln 2): pre-activations grow like exp(t/τ) with
τ = 4 ln 2/λ, λ the top eigenvalue of the second moments of the layer's input P.

Source: derived for B. Mahi 2025, arXiv 2504.03214, which has one characteristic time for all: there
is none, τ goes with the norm of the data, with width and, weakly, with the initial weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["characteristic_time"]

#: Nodes of the average over normal pre-activations: exact to 1e-6 up to a spread of 2.
NODES = 40


def characteristic_time(
    X: Tensor, sizes: Sequence[int], init_std: float = 0.01, *, bias: bool = False
) -> Tensor:
    """Time in which the pre-activations of each layer grow by e, at the start of ``ska_fit``.

        τ_l = 4 ln 2/λ_l

    λ_1 is the top eigenvalue of XᵀX/n. The inputs of later layers are close to ½ in every entry, so
    that λ_l = d_{l−1}/4 + s², with s² the variance that initial weights give to an activation.

    Args:
        X: (n, d_0) the batch.
        sizes: of the input and of each layer.
        init_std: spread of the initial weights.
        bias: count the biases in, which are an input of ones: nearer to what ``ska_fit`` does.

    Returns:
        (L,) in units of learning rate times steps.

    Raises:
        ValueError: if X is empty, not finite or of another width than ``sizes`` says, for a size
            below 1 or a negative spread.

    Source:
        Derived for Mahi 2025, arXiv 2504.03214; entry ska.

    Example:
        One input that is always 2, so that λ_1 = 4, and 16 units before the second layer:

        >>> characteristic_time(torch.full((5, 1), 2.0), [1, 16, 1], 0.0) / math.log(2)
        tensor([1., 1.])
    """
    if len(sizes) < 2 or any(s < 1 for s in sizes):
        raise ValueError(f"sizes must be those of input and layers, at least 1, got {list(sizes)}")
    if X.ndim != 2 or X.shape[1] != sizes[0] or not len(X):
        raise ValueError(f"expected X (n, {sizes[0]}) with n > 0, got {tuple(X.shape)}")
    if not torch.isfinite(X).all():
        raise ValueError("X is not finite, so its second moments are not")
    if not init_std >= 0:
        raise ValueError(f"init_std must be at least 0, got {init_std}")
    data = X.double()
    if bias:
        data = torch.cat([data, data.new_ones(len(data), 1)], 1)
    rates = [torch.linalg.svdvals(data)[0].item() ** 2 / len(data)]
    second_moment = X.double().square().sum(1).mean().item()  # mean of ‖input‖²
    for width in sizes[1:-1]:
        variance = _variance(init_std**2 * second_moment)
        rates.append(width / 4 + variance + (1 if bias else 0))
        second_moment = width * (1 / 4 + variance)
    return 4 * math.log(2) / torch.tensor(rates, dtype=X.dtype, device=X.device)


def _variance(of_z: float) -> float:
    """Variance of σ(z) for z normal with mean 0."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    values = 1 / (1 + np.exp(-nodes * math.sqrt(of_z))) - 0.5
    return float((weights * values**2).sum() / weights.sum())
