"""Gradient spikes: entries that are far larger than what they were on average so far.

    spike:  g² > θ v,  v the average of earlier g²

A spike of that size passes through Adam almost unhindered, and its square stays in the second
moment for hundreds of steps.

Source: T. Huang et al. 2025, SPAM, arXiv 2501.06842 (the criterion; θ = 5000 there), and
Stable-SPAM, arXiv 2502.17055. Departure: the average is the monitor's own and holds earlier steps
only, for no entry can exceed 1/(1 − β₂) times Adam's own average after the step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["GradientSpikeMonitor", "SpikeHistory"]


@dataclass(frozen=True)
class SpikeHistory:
    """What a monitor saw; one row for each call but those before there was an average.

    Attributes:
        names: of the L parameters.
        numel: (L,) their numbers of entries.
        counts: (T, L) entries that spiked.
        largest: (T, L) largest g²/v; nan where a parameter had no gradient.
        norms: (T,) gradient norm of all.
    """

    names: tuple[str, ...]
    numel: Tensor
    counts: Tensor
    largest: Tensor
    norms: Tensor

    @property
    def share(self) -> Tensor:
        """(T,) share of all entries that spiked."""
        return self.counts.sum(1) / self.numel.sum()


class GradientSpikeMonitor:
    """Counts gradient spikes, whatever the optimizer.

    Call ``after_step()`` after each step and before gradients are cleared. Nothing of the training
    is changed and no value is read on the host; kept are one average of the size of the parameters,
    and a few numbers a step. In a recording its figures become series ``user/…``:

        with thalweg.record(model, optimizer) as recording:
            ...
            recording.log(monitor.after_step())

    Args:
        params: parameters, or a model for the names, too.
        theta: θ.
        beta: of the average of g².
        warmup: steps that only feed the average.

    Raises:
        ValueError: if there is no parameter, or a setting is out of range.

    Source:
        Huang et al. 2025, arXiv 2501.06842 and 2502.17055; entry stable-spam.

    Example:
        Sixteen steps of gradient 1, then one of 100 in one entry of two:

        >>> p = nn.Parameter(torch.zeros(2))
        >>> monitor = GradientSpikeMonitor([p])
        >>> for g in [1.0] * 16 + [100.0]:
        ...     p.grad = torch.tensor([1.0, g])
        ...     figures = monitor.after_step()
        >>> monitor.history().counts[-1].item(), round(figures["spike_ratio"].item())
        (1, 10000)
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Tensor],
        *,
        theta: float = 5000.0,
        beta: float = 0.99,
        warmup: int = 10,
    ) -> None:
        if isinstance(params, nn.Module):
            named = {n: p for n, p in params.named_parameters() if p.requires_grad}
        else:
            named = {str(i): p for i, p in enumerate(params)}
        if not named:
            raise ValueError("there is no parameter to watch: give a model or its parameters")
        if not theta > 0 or not 0 <= beta < 1 or warmup < 1:
            raise ValueError(
                "theta must be positive, beta in [0, 1), warmup at least 1, got "
                f"{theta}, {beta}, {warmup}"
            )
        self._names, self._params = tuple(named), list(named.values())
        self._theta, self._beta, self._warmup = theta, beta, warmup
        # Per parameter: average of g², and how many gradients are in it.
        self._averages: dict[int, tuple[Tensor, int]] = {}
        self._rows: list[tuple[list[Tensor], list[Tensor], Tensor]] = []

    @torch.no_grad()
    def after_step(self) -> dict[str, Tensor]:
        """Compare the present gradients with the average, then add them to it.

        Returns:
            0-d ``spike_share``, of all entries, and ``spike_ratio``, the largest g²/v; both 0 as
            long as there is no average. Gradients that are not finite count as spikes and are not
            added.

        Raises:
            ValueError: if no parameter has a gradient.
        """
        if all(p.grad is None for p in self._params):
            raise ValueError(
                "no parameter has a gradient: call after_step before gradients are cleared"
            )
        counts, largest, squares = [], [], []
        device = self._params[0].device
        for i, p in enumerate(self._params):
            count, ratio = torch.zeros((), dtype=torch.int64), torch.tensor(torch.nan)
            if p.grad is not None and p.grad.numel():
                square = p.grad.detach().to(torch.promote_types(p.dtype, torch.float32)).square()
                squares.append(square.sum().to(device))
                average, seen = self._averages.get(i, (torch.zeros_like(square), 0))
                if seen >= self._warmup:
                    usual = average / (1 - self._beta**seen)
                    # 0/0 is no spike, anything over 0 is one.
                    over = torch.where(square == 0, 0.0, square / usual)
                    over = over.nan_to_num(nan=torch.inf, posinf=torch.inf)
                    count, ratio = (over > self._theta).sum(), over.amax()
                # Spikes must not raise what the next ones are measured by.
                finite = torch.where(square.isfinite(), square, average)
                self._averages[i] = average.lerp(finite, 1 - self._beta), seen + 1
            counts.append(count.to(device))
            largest.append(ratio.to(device, torch.float32))
        if all(seen <= self._warmup for _, seen in self._averages.values()):
            zero = torch.zeros((), device=device)
            return {"spike_share": zero, "spike_ratio": zero}
        self._rows.append((counts, largest, torch.stack(squares).sum().sqrt()))
        total = sum(p.numel() for p in self._params)
        ratios = torch.stack(largest).nan_to_num(nan=0.0, posinf=torch.inf)
        return {"spike_share": torch.stack(counts).sum() / total, "spike_ratio": ratios.amax()}

    def history(self) -> SpikeHistory:
        """All so far.

        Raises:
            ValueError: before there was an average to compare with.
        """
        if not self._rows:
            raise ValueError(
                f"call after_step more than warmup={self._warmup} times: nothing is compared before"
            )
        return SpikeHistory(
            self._names,
            torch.tensor([p.numel() for p in self._params]),
            torch.stack([torch.stack(c) for c, _, _ in self._rows]).cpu(),
            torch.stack([torch.stack(r) for _, r, _ in self._rows]).cpu(),
            torch.stack([n for _, _, n in self._rows]).cpu(),
        )
