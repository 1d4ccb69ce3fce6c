"""Training and test error over time of a linear student of a noisy linear teacher, in closed form.

Inputs x have N independent entries of variance 1/N, labels are y = w̄·x + ε with w̄_k ~ N(0, σ_w²)
and ε ~ N(0, σ_ε²). The student starts at w_k ~ N(0, σ_0²) and follows τẇ = X(y − Xᵀw), the loss ½Σ
over P samples. In the direction of an eigenvalue λ of X Xᵀ, w̄ − w has mean square

    m(λ, t) = (σ_w² + σ_0²) e^(−2λt/τ) + (σ_ε²/λ)(1 − e^(−λt/τ))²

and σ_w² + σ_0² for ever where λ = 0. Averaged over the spectrum it is the excess test error: over
the Marchenko–Pastur law as N, P → ∞, and exactly over the N actual eigenvalues of any X.

Source: M. S. Advani, A. M. Saxe, H. Sompolinsky 2017, arXiv 1710.03667. Discrete steps, inputs of
any variance and test inputs of another covariance are ours.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from thalweg.theory.linear_modes import drawn_modes, limit_modes

__all__ = ["LinearDynamics", "Stopping"]


class Stopping(NamedTuple):
    """The best moment to stop.

    Attributes:
        time: in the units of ``t``: time, or steps where ``lr`` is given; inf if stopping never
            helps, as without label noise.
        error: the test error then, label noise included.
    """

    time: float
    error: float


class LinearDynamics:
    """Exact average errors over time, for a spectrum that is drawn or that of the limit.

        E_g(t) = σ_ε² + N v ⟨m(λ, t)⟩
        E_t(t) = ⟨[(σ_w² + σ_0²)λ + σ_ε²]e^(−2λt/τ)⟩/α + max(0, 1 − 1/α) σ_ε²

    Args:
        alpha: P/N, samples per dimension; alone it stands for the limit N, P → ∞.
        eigenvalues: (N,) all of X Xᵀ, zeros included, in place of the limit. With full rank
            ``alpha`` is needed too for the training error; else P is taken to be the rank.
        snr: σ_w²/σ_ε²; gives σ_ε from σ_w (default 1), or σ_w from σ_ε.
        sigma_w: standard deviation of the teacher's weights, default 1.
        sigma_eps: of the label noise, default 0.
        sigma_0: of the initial weights.
        tau: time constant of gradient flow, default 1.
        lr: for gradient descent with this step instead: t counts steps, e^(−λt/τ) is (1 − lr·λ)^t.
        dim: N, only needed with ``alpha`` alone and one of the two below.
        input_var: v, variance of an entry of the inputs, default 1/N. With ``eigenvalues`` that of
            test inputs, and (N,) if it differs by eigenvector.
        reduction: ``sum`` for the loss ½Σ over samples, ``mean`` for ½Σ/P: rates divided by P.

    Raises:
        ValueError: for alpha ≤ 0, negative deviations or eigenvalues, neither or contradictory
            arguments.

    Source: Advani, Saxe, Sompolinsky 2017, arXiv 1710.03667.

    Example:
        Two samples per dimension: at the end σ_ε² α/(α − 1) is left.

        >>> theory = LinearDynamics(2.0, sigma_eps=math.sqrt(0.5))
        >>> round(theory.asymptote(), 12)
        1.0
        >>> round(theory.test_error(0.0).item(), 12)  # σ_w² + σ_0² + σ_ε²
        1.5
    """

    def __init__(
        self,
        alpha: float | None = None,
        *,
        eigenvalues: Tensor | None = None,
        snr: float | None = None,
        sigma_w: float | None = None,
        sigma_eps: float | None = None,
        sigma_0: float = 0.0,
        tau: float | None = None,
        lr: float | None = None,
        dim: int | None = None,
        input_var: float | Tensor | None = None,
        reduction: Literal["sum", "mean"] = "sum",
    ) -> None:
        if alpha is None and eigenvalues is None:
            raise ValueError("LinearDynamics needs alpha = P/N, eigenvalues of X Xᵀ, or both")
        if tau is not None and lr is not None:
            raise ValueError("give tau (gradient flow) or lr (steps of descent), not both")
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
        self.sigma_w, self.sigma_eps = _deviations(snr, sigma_w, sigma_eps)
        self.sigma_0 = _positive("sigma_0", sigma_0, zero=True)
        self.tau = 1.0 if tau is None else _positive("tau", tau)
        self.lr = None if lr is None else _positive("lr", lr)
        if eigenvalues is not None:
            self.modes = drawn_modes(eigenvalues, alpha, dim, input_var)
        else:
            assert alpha is not None
            self.modes = limit_modes(alpha, dim, input_var)  # pyright: ignore[reportArgumentType]
        #: By what eigenvalues are divided: P for the mean over samples.
        self.per_rate = 1.0
        if reduction == "mean":
            if self.modes.dim is None or math.isnan(self.modes.alpha):
                raise ValueError(
                    "reduction='mean' divides rates by P: pass dim = N in the limit, alpha = P/N "
                    "beside eigenvalues of full rank"
                )
            self.per_rate = self.modes.dim * self.modes.alpha
        #: Mean square of an error of the weights at t = 0, and of the label noise.
        self.signal = self.sigma_w**2 + self.sigma_0**2
        self.noise = self.sigma_eps**2

    @property
    def max_lr(self) -> float:
        """The step above which gradient descent diverges, 2/λ_max (times P for the mean loss)."""
        largest = self.modes.largest
        return math.inf if largest <= 0 else 2 * self.per_rate / largest

    def decay(self, t: Tensor, lam: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is left of an error along each eigenvector, and 1 minus that, to full precision.

        Args:
            t: (...) float64.
            lam: (M,) eigenvalues, default those of the theory.

        Returns:
            e^(−λt/τ), or (1 − lr·λ)^t, and its difference from 1, each (..., M).
        """
        rate = (self.modes.lam if lam is None else lam) / self.per_rate
        if self.lr is None:
            exponent = -rate / self.tau * t[..., None]
            return exponent.exp(), -exponent.expm1()
        shrink = self.lr * rate
        decay = (1 - shrink) ** t[..., None]
        # 1 − (1 − x)^t loses all digits for small x, so it goes through log1p and expm1.
        small = -torch.expm1(t[..., None] * torch.log1p(-shrink.clamp(max=0.5)))
        return decay, torch.where(shrink < 0.5, small, 1 - decay)

    def test_error(self, t: Tensor | float) -> Tensor:
        """E_g(t), mean squared error on new inputs, label noise σ_ε² included.

        Args:
            t: any shape, at least 0, inf allowed; whole numbers of steps if ``lr`` is given.

        Returns:
            Like ``t``; float64 for a number.
        """
        times, back = self._times(t)
        decay, grown = self.decay(times)
        modes = self.signal * decay**2 + self.noise * grown**2 / self.modes.lam
        error = (self.modes.gain * modes).sum(-1) + self.modes.frozen_gain * self.signal
        at_end = torch.full_like(error, self.asymptote())
        return torch.where(times.isinf(), at_end, error + self.noise).to(back)

    def train_error(self, t: Tensor | float) -> Tensor:
        """E_t(t), mean squared error over the P samples; never rises.

        Args:
            t: as for ``test_error``.

        Raises:
            ValueError: if P is unknown: eigenvalues of full rank without ``alpha``.
        """
        modes = self.modes
        if math.isnan(modes.alpha):
            raise ValueError("eigenvalues of full rank do not tell P: pass alpha = P/N too")
        times, back = self._times(t)
        decay, _ = self.decay(times)
        fitted = (modes.share * (self.signal * modes.lam + self.noise) * decay**2).sum(-1)
        unfitted = max(0.0, 1 - (1 - modes.frozen) / modes.alpha) * self.noise
        return (fitted / modes.alpha + unfitted).to(back)

    def asymptote(self) -> float:
        """The test error at t = ∞; inf at α = 1 with noise in the limit, or for an unstable lr."""
        if self.lr is not None and self.lr >= self.max_lr:
            return math.inf
        return self._after(self.signal)

    def ridge(self, gamma: float | None = None) -> float:
        """Test error of ridge regression, (X Xᵀ + γ)⁻¹X y; initial weights play no part.

        Args:
            gamma: γ; default the best one, σ_ε²/σ_w².

        Raises:
            ValueError: if gamma is negative.
        """
        signal, noise, modes = self.sigma_w**2, self.noise, self.modes
        if gamma is None:
            gamma = noise / signal if signal else math.inf
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        if gamma == 0:
            return self._after(signal)
        shrunk = 1 / (1 + modes.lam / gamma)  # γ/(λ + γ), and 1 for γ = ∞
        error = signal * shrunk**2 + noise * modes.lam * (shrunk / gamma) ** 2
        return (modes.gain * error).sum().item() + modes.frozen_gain * signal + noise

    def optimal_stopping(self) -> Stopping:
        """When the test error is least, and how large it is then.

        Raises:
            ValueError: for an lr at which descent diverges.
        """
        if self.lr is not None and self.lr >= self.max_lr:
            raise ValueError(f"lr {self.lr:g} diverges: it must be below {self.max_lr:g} (max_lr)")
        if self.signal == 0 or not len(self.modes.lam):
            return Stopping(0.0, self.test_error(0.0).item())
        if self.noise == 0:
            return Stopping(math.inf, self.asymptote())
        # A mode alone is least at e^(−λt/τ) = σ_ε²/(σ_ε² + signal·λ); all lie between these ends.
        best = torch.log1p(self.modes.lam * (self.signal / self.noise)) / self._rates()
        low, high = best.min().item(), best.max().item()
        if self.lr is None:
            return self._least(low, high)
        # Modes with lr·λ > 1 change sign at each step, so that their best is no lower end.
        overshoots = bool((self.modes.lam * self.lr / self.per_rate >= 1).any())
        return self._least_step(0 if overshoots else math.floor(low), math.ceil(high) + 1)

    def _least(self, low: float, high: float) -> Stopping:
        times = torch.logspace(math.log10(low), math.log10(high), 400, dtype=torch.float64)
        i = int(self.test_error(times).argmin())
        low, high = times[max(i - 1, 0)].item(), times[min(i + 1, 399)].item()
        for _ in range(60):  # halving to round-off: the slope is exact, the error flat here
            middle = (low + high) / 2
            low, high = (middle, high) if self._slope(middle) < 0 else (low, middle)
        return Stopping(high, self.test_error(high).item())

    def _least_step(self, low: int, high: int) -> Stopping:
        while True:
            if high - low <= 4000:
                grid = torch.arange(low, high + 1, dtype=torch.float64)
            else:
                ends = math.log10(low + 1), math.log10(high + 1)
                grid = (torch.logspace(*ends, 1000, dtype=torch.float64) - 1).round().unique()
            errors = self.test_error(grid)
            i = int(errors.argmin())
            if high - low <= 4000:
                return Stopping(grid[i].item(), errors[i].item())
            low, high = int(grid[max(i - 1, 0)]), int(grid[min(i + 1, len(grid) - 1)])

    def _slope(self, t: float) -> float:
        """Half of τ dE_g/dt, for gradient flow."""
        decay, grown = self.decay(torch.tensor(t, dtype=torch.float64))
        slopes = self.noise * grown * decay - self.signal * self.modes.lam * decay**2
        return (self.modes.gain * slopes).sum().item()

    def _after(self, signal: float) -> float:
        """Test error when all data are fitted, from this mean square of the weights' errors."""
        fitted = self.noise * self.modes.inverse if self.noise else 0.0
        return self.noise + self.modes.frozen_gain * signal + fitted

    def _rates(self) -> Tensor:
        """Rate of decay of each mode per unit of t; inf where one step ends it."""
        rate = self.modes.lam / self.per_rate
        return rate / self.tau if self.lr is None else -(1 - self.lr * rate).abs().log()

    def _times(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """The times in float64 on the CPU, and what the answer should be like."""
        like = t.detach() if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64)
        times = like.double().cpu()
        if not (times >= 0).all():
            raise ValueError("t must be at least 0")
        if self.lr is not None and (times.isfinite() & (times != times.round())).any():
            raise ValueError("with lr, t counts steps: whole numbers (give tau for gradient flow)")
        return times, like if like.is_floating_point() else like.double()


def _deviations(
    snr: float | None, sigma_w: float | None, sigma_eps: float | None
) -> tuple[float, float]:
    """σ_w and σ_ε from any two of them and their ratio's square."""
    if snr is not None:
        root = math.sqrt(_positive("snr", snr))
        if sigma_eps is not None:
            if sigma_w is not None:
                raise ValueError("two of snr, sigma_w and sigma_eps give the third: leave one out")
            return root * _positive("sigma_eps", sigma_eps, zero=True), sigma_eps
        sigma_eps = (1.0 if sigma_w is None else sigma_w) / root
    return (
        1.0 if sigma_w is None else _positive("sigma_w", sigma_w, zero=True),
        0.0 if sigma_eps is None else _positive("sigma_eps", sigma_eps, zero=True),
    )


def _positive(name: str, value: float, zero: bool = False) -> float:
    if not (0 <= value if zero else 0 < value) or not value < math.inf:
        raise ValueError(f"{name} must be {'at least' if zero else 'above'} 0, got {value}")
    return float(value)
