"""The energy of a training by Muon, and how well it keeps to the flow that it discretises.

Along W' = O_ε(P), P' = −∇J(W) − γP the energy E = J(W) + K_ε(P) obeys

    dE/dt = −γ ⟨P, O_ε(P)⟩ = −γ Σ σ_i² / √(σ_i² + ε²) ≤ 0

exactly, although J may rise. Steps break the balance by an amount that vanishes with the step size:
energy that rises says that steps are too large, a loss that rises while energy falls does not.

Source: Mustafi, Mukherjee, Sriperumbudur 2026, arXiv 2605.23871.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from thalweg.optim import Muon, RegularizedMuon, smoothed_nuclear
from thalweg.optim.muon import adjustment

__all__ = ["MuonEnergyMonitor", "dissipation"]

# Torch has had a Muon since 2.9.
MUONS = (Muon, getattr(torch.optim, "Muon", Muon))


def dissipation(P: Tensor, eps: float) -> Tensor:
    """⟨P, O_ε(P)⟩ = Σ σ²/√(σ² + ε²): what unit friction takes from the energy per unit of time.

    Args:
        P: (..., m, n) momentum.
        eps: ε ≥ 0; 0 gives the nuclear norm.

    Returns:
        (...) of the dtype of ``P``.

    Example:
        >>> dissipation(torch.diag(torch.tensor([3.0, 0.0])), 4.0)
        tensor(1.8000)
    """
    sigma = torch.linalg.svdvals(P)
    return (sigma * torch.nan_to_num(sigma / torch.hypot(sigma, sigma.new_tensor(eps)))).sum(-1)


class MuonEnergyMonitor:
    """Follows the energy of a training by ``RegularizedMuon`` or Muon.

    Hooks the optimizer when made; leave it as a context manager, or call ``close``. A step costs
    one set of singular values per matrix; the loss is only evaluated when asked for.

    For Muon (this package's or torch's) the momentum average M stands for P = −M/γ, each matrix
    moves with its own h = η · scale and γ = (1 − μ)/h, and ε is 0; a polynomial backend and
    Nesterov momentum then add their own part to the residual, and η must stay as it is.

    Args:
        optimizer: the one that trains; its weight decay must be 0, for the balance does not count
            the work that decay does.
        loss_fn: takes nothing and returns the loss J at the present weights, over data that stay
            the same.

    Raises:
        TypeError: for another optimizer.
        ValueError: if there is weight decay, or a Muon without momentum or with η = 0.

    Example:
        J = w²/2 by steps of 0.001: energy is lost as the flow loses it, and nearly nothing is left.

        >>> w = torch.nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
        >>> optimizer = RegularizedMuon([w], lr=1e-3, friction=1.0, eps=0.1)
        >>> with MuonEnergyMonitor(optimizer, lambda: w.square().sum() / 2) as monitor:
        ...     for _ in range(1000):
        ...         optimizer.zero_grad()
        ...         (w.square().sum() / 2).backward()
        ...         optimizer.step()
        >>> monitor.energy() < 0.5, abs(monitor.dissipation_residual()) < 1e-3
        (True, True)
    """

    def __init__(self, optimizer: Optimizer, loss_fn: Callable[[], Tensor]) -> None:
        if not isinstance(optimizer, (RegularizedMuon, *MUONS)):
            raise TypeError(
                f"expected RegularizedMuon or Muon, got {type(optimizer).__name__}; other "
                "optimizers have no such energy"
            )
        self._optimizer = optimizer
        self._loss_fn = loss_fn
        for group in optimizer.param_groups:
            if group["weight_decay"]:
                raise ValueError(
                    f"weight_decay must be 0, got {group['weight_decay']}: decay does work that "
                    "the energy balance does not count"
                )
            if "momentum" in group and not (0 < group["momentum"] < 1 and float(group["lr"]) > 0):
                raise ValueError("Muon needs momentum > 0 and lr > 0: without, there is no flow")
        self._dissipated = 0.0
        self._rate = self._power()
        self._first = self.energy()
        self._hooks = [optimizer.register_step_post_hook(self._after)]

    def __enter__(self) -> MuonEnergyMonitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the hook away; what was measured stays."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @torch.no_grad()
    def energy(self) -> float:
        """E = J + Σ K_ε(P) over all matrices, now."""
        kinetic = sum(float(smoothed_nuclear(P, eps)) for P, eps, _ in self._momenta())
        return float(self._loss_fn()) + kinetic

    def dissipated(self) -> float:
        """The energy that friction took since the start, by the trapezoidal rule."""
        return self._dissipated

    def dissipation_residual(self) -> float:
        """Energy now, less that at the start, plus what friction took: 0 along the flow.

        It vanishes with the step size; if it is as large as the energy lost, the steps are
        too large for the picture of a flow.
        """
        return self.energy() - self._first + self._dissipated

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        before, self._rate = self._rate, self._power()
        self._dissipated += (before + self._rate) / 2

    @torch.no_grad()
    def _power(self) -> float:
        """Energy that friction takes in one step at the present momenta."""
        return sum(share * float(dissipation(P, eps)) for P, eps, share in self._momenta())

    def _momenta(self) -> Iterator[tuple[Tensor, float, float]]:
        """(P, ε, hγ) of every matrix that has moved, in float64."""
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                state = self._optimizer.state.get(p, {})
                if isinstance(self._optimizer, RegularizedMuon):
                    if "momentum" in state:
                        P = state["momentum"].double().flatten(1)
                        yield P, group["eps"], group["lr"] * group["friction"]
                elif "momentum_buffer" in state:
                    M = state["momentum_buffer"].double().flatten(1)
                    share = 1 - group["momentum"]
                    h = float(group["lr"]) * adjustment(group["adjust_lr_fn"], *M.shape)
                    yield M * (h / share), 0.0, share
