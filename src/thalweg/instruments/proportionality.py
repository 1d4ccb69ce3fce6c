"""Do predicted weights grow with the input of the network that predicts them?

Source: J. J. Gonzalez Ortiz, J. Guttag, A. V. Dalca 2023, arXiv 2304.07645. Axes: `B` inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ProportionalityReport", "proportionality"]


@dataclass(frozen=True)
class ProportionalityReport:
    """Norms of inputs and of what is predicted.

    Attributes:
        input_norms: (B,) ‖γ‖ of all inputs together.
        output_norms: (B,) ‖θ‖ of all predicted tensors together.
        correlation: of the two; 1 for a proportional network, nan if one does not vary. Means
            little where ``ratio`` is near 1.
        ratio: ‖θ‖ at the largest ‖γ‖ over ‖θ‖ at the smallest.
        exponent: slope of log ‖θ‖ over log ‖γ‖; 1 for a proportional network, 0 for none.
        spread: name to standard deviation of a predicted tensor's entries across inputs, over their
            root mean square.
    """

    input_norms: Tensor
    output_norms: Tensor
    correlation: float
    ratio: float
    exponent: float
    spread: dict[str, float]


@torch.no_grad()
def proportionality(
    hypernet: Callable[..., Mapping[str, Tensor]], inputs: Mapping[str, Tensor]
) -> ProportionalityReport:
    """Compares a hypernetwork's outputs over inputs of different size.

    Logged in a recording, the doctor reads its exponent:

        recording.log({"proportionality_exponent": proportionality(net, inputs).exponent})

    Args:
        hypernet: called as ``hypernet(**inputs)``, gives name to tensor (B, …).
        inputs: name to (B, …); two or more, of different norms.

    Returns:
        Report in float64; nan where logarithms or correlations do not exist.

    Raises:
        ValueError: if there are fewer than two inputs, outputs lack their batch axis, or all inputs
            have one norm.

    Source:
        Gonzalez Ortiz et al. 2023, arXiv 2304.07645; entry hypernetwork-mip.

    Example:
        >>> report = proportionality(lambda z: {"w": 3 * z}, {"z": torch.tensor([[0.1], [1.0]])})
        >>> round(report.ratio, 4), round(report.exponent, 4)
        (10.0, 1.0)
    """
    size = len(next(iter(inputs.values()))) if inputs else 0
    given = [x.double().reshape(size, -1) for x in inputs.values() if len(x) == size]
    if size < 2 or len(given) != len(inputs):
        raise ValueError(
            "need two inputs or more, each (B, …), got "
            f"{ {n: tuple(x.shape) for n, x in inputs.items()} }"
        )
    predicted = {n: t.double() for n, t in hypernet(**inputs).items()}
    for name, t in predicted.items():
        if t.ndim == 0 or len(t) != size:
            raise ValueError(f"{name!r} must be ({size}, …), got {tuple(t.shape)}")
    flat = {n: t.reshape(size, -1) for n, t in predicted.items()}
    norms = torch.cat(given, 1).norm(dim=1)
    outputs = torch.cat([*flat.values()], 1).norm(dim=1)
    if norms.max() == norms.min():
        raise ValueError(f"all inputs have norm {norms[0]:.4g}: give some of different size")
    x, y = norms.log(), outputs.log()
    slope = _covariance(x, y) / _covariance(x, x)
    spread = {
        n: float(t.var(0, correction=0).mean().sqrt() / t.square().mean().sqrt())
        for n, t in flat.items()
    }
    deviations = _covariance(norms, norms) * _covariance(outputs, outputs)
    return ProportionalityReport(
        norms,
        outputs,
        float(_covariance(norms, outputs) / deviations.sqrt()),
        float(outputs[norms.argmax()] / outputs[norms.argmin()]),
        float(slope),
        spread,
    )


def _covariance(a: Tensor, b: Tensor) -> Tensor:
    return ((a - a.mean()) * (b - b.mean())).mean()
