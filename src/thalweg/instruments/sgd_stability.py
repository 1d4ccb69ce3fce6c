"""Is the present minimum stable under SGD at this learning rate, and by what margin?

Every threshold of Wu & Su from one Gram matrix of the gradients of the outputs: 2/λ_max for full
batches, the trace bound, the bound of the test matrix I, and the exact mean-square threshold.

Source: Wu & Su 2023, arXiv 2305.17490. Axes: `n` samples, `k` outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.instruments.mean_square import ms_threshold, noise_share
from thalweg.numerics import entk_gram, untouched

__all__ = ["StabilityReport", "alignment", "sgd_stability"]

PlainLoss = Callable[[Tensor, Tensor], Tensor]
# n·k·r² of one product of the exact method that is still a matter of seconds in all.
AFFORDABLE = 1e9
# Share of the targets' variance above which the samples are not fitted, and SGD goes on moving.
FITTED = 1e-2


@dataclass(frozen=True)
class StabilityReport:
    """Thresholds of the step size at the present weights, and what they say of ``lr``.

    Attributes:
        trace: tr H of the Gauss–Newton matrix H.
        lambda_max: its largest eigenvalue.
        fro: its Frobenius norm.
        eta_gd: 2/λ_max, necessary for every batch size.
        eta_trace: 2k/(p tr H), necessary; for single samples and one output 2/tr H. A sample of k
            outputs has a matrix A_i of rank k, so that tr A_i² may be as small as (tr A_i)²/k: the
            bound 2/tr H would not be necessary.
        eta_vecI: 2 tr H / [(1 − p) tr H² + (p/n) Σ tr A_i²], necessary.
        eta_exact: necessary and sufficient in mean square; None if it was not computed.
        margin: the smallest of these over lr: below 1 unstable.
        stable: True or False, or None where nothing can be said.
        reason: why not, or ``""``.
        loss: mean loss over the samples.
    """

    trace: float
    lambda_max: float
    fro: float
    eta_gd: float
    eta_trace: float
    eta_vecI: float
    eta_exact: float | None
    margin: float
    stable: bool | None
    reason: str
    loss: float


def sgd_stability(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    lr: float,
    loss_fn: PlainLoss | None = None,
    batch_size: int = 1,
    exact: bool | str = "auto",
) -> StabilityReport:
    """Stability of the minimum at the present weights under SGD of this step and batch size.

    Args:
        model: module in a mode in which samples don't mix and nothing is random.
        x: all training samples, (n, ...).
        y: their targets.
        lr: η, as the optimizer has it, for the loss that it descends.
        loss_fn: ``(prediction, target) -> scalar``, a mean over samples; default half the squared
            error, summed over outputs, ½‖f − y‖². ``MSELoss`` is 2/k times that and moves every
            threshold by k/2: give the loss that you train with.
        batch_size: of SGD, 1 ≤ B ≤ n, drawn without replacement.
        exact: whether to compute the exact threshold; ``auto``: if it takes seconds.

    Returns:
        StabilityReport. Nothing is said (``stable`` None) where the theory does not reach: for a
        loss that is not quadratic in the outputs, whose curvature vanishes with it, and where the
        samples are not fitted. The necessary conditions alone can still say unstable.

    Raises:
        ValueError: if an argument is out of range or the loss is not finite.

    Cost: a Gram matrix of n·k gradients and its eigenvalues; exact some 30 n k r² more.

    Example:
        One weight, one sample of slope 2: H = 4, stable up to 2/4.

        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> x, y = torch.tensor([[2.0]]), torch.tensor([[2.0]])
        >>> found = sgd_stability(model, x, y, lr=0.4)
        >>> round(found.eta_exact, 4), found.stable
        (0.5, True)
    """
    if not 0 < lr < float("inf"):
        raise ValueError(f"sgd_stability: lr must be positive and finite, got {lr}")
    n = len(x)
    if batch_size != int(batch_size) or not 1 <= batch_size <= n:
        raise ValueError(f"sgd_stability: batch_size must be in [1, {n}], got {batch_size}")
    if exact not in (True, False, "auto"):
        raise ValueError(f"sgd_stability: exact must be True, False or 'auto', got {exact!r}")
    at = _Linearised.of(model, x, y, loss_fn or half_squared_error, "sgd_stability")
    K, k = at.gram / n, at.gram.shape[0] // n
    values = torch.linalg.eigvalsh(K).clamp(min=0)
    trace, top, fro = float(values.sum()), float(values[-1]), float(values.norm())
    p = noise_share(n, int(batch_size))
    blocks = at.gram.reshape(n, k, n, k).diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # G_i G_iᵀ
    each = float(blocks.square().sum((1, 2)).mean())  # mean tr A_i²
    eta_gd = _ratio(2.0, top)
    eta_trace = _ratio(2.0 * k, p * trace)
    eta_vec = _ratio(2.0 * trace, (1 - p) * fro**2 + p * each)
    rank = int((values > len(values) * torch.finfo(values.dtype).eps * top).sum())
    eta_exact = None
    if exact is True or (exact == "auto" and n * k * rank**2 <= AFFORDABLE):
        # any G with this Gram matrix will do: its rows in the coordinates of their own span
        s, U = torch.linalg.eigh(at.gram)
        rows = (U * s.clamp(min=0).sqrt())[:, -max(rank, 1) :].reshape(n, k, -1)
        eta_exact = ms_threshold(rows, int(batch_size))
    margin = min(eta_gd, eta_trace, eta_vec, *([] if eta_exact is None else [eta_exact])) / lr
    stable, reason = _judged(at, margin, eta_exact)
    return StabilityReport(
        trace,
        top,
        fro,
        eta_gd,
        eta_trace,
        eta_vec,
        eta_exact,
        margin,
        stable,
        reason,
        float(at.losses.mean()),
    )


def alignment(model: nn.Module, x: Tensor, y: Tensor, *, loss_fn: PlainLoss | None = None) -> float:
    """How much of the gradient noise lies along the curvature, μ = tr(ΣG)/(2L‖G‖_F²).

    Σ = (1/n) Σ ∇ℓ_i ∇ℓ_iᵀ − ∇L∇Lᵀ is the noise of single samples, G the Gauss–Newton matrix. Where
    μ ≥ μ₀, loss stability under batches of B demands ‖G‖_F ≤ (1/η)√(B/μ₀), whatever the dimension.

    Args:
        model: as for ``sgd_stability``.
        x: as for ``sgd_stability``.
        y: as for ``sgd_stability``.
        loss_fn: as for ``sgd_stability``.

    Returns:
        μ ≥ 0; nan where the loss is 0.

    Raises:
        ValueError: if the loss is not finite.

    Source: Wu, Wang, Su 2022, arXiv 2207.02628; entry sgd-dynamical-stability.

    Example:
        Errors 1 and −1 at slopes 1 and −1 push the same way; there is no noise.

        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> alignment(model, torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [-1.0]]))
        0.0
    """
    at = _Linearised.of(model, x, y, loss_fn or half_squared_error, "alignment")
    loss, n = float(at.losses.mean()), len(x)
    if loss == 0:
        return float("nan")
    # columns: R ∇ℓ_i, R the rows of G = RᵀR/n; then tr(ΣG) is their variance over samples
    V = at.root @ at.kernel @ torch.block_diag(*at.slopes[:, :, None])
    noise = (V.square().sum() / n - V.mean(1).square().sum()) / n
    return float(noise.clamp(min=0) / (2 * loss * (at.gram / n).square().sum()))


def half_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over samples of ½‖prediction − target‖²."""
    return (prediction - target).square().sum() / (2 * len(prediction))


@dataclass(frozen=True)
class _Linearised:
    """A network and loss at the present weights, float64.

    Attributes:
        losses: (n,).
        slopes: ∂ℓ_i/∂f_i, (n, k).
        kernel: J Jᵀ, (n·k, n·k).
        root: block-diagonal root of ∂²ℓ_i/∂f_i², (n·k, n·k).
        gram: root · kernel · root, (n·k, n·k).
        quadratic: whether the loss is quadratic in the outputs.
        scale: loss of the best constant prediction; nan where there is none to compare with.
    """

    losses: Tensor
    slopes: Tensor
    kernel: Tensor
    root: Tensor
    gram: Tensor
    quadratic: bool
    scale: float

    @staticmethod
    def of(model: nn.Module, x: Tensor, y: Tensor, loss_fn: PlainLoss, who: str) -> _Linearised:
        if len(x) == 0 or len(y) != len(x):
            raise ValueError(f"{who}: expected as many targets as samples; got {len(x)}, {len(y)}")
        params = [p for p in model.parameters() if p.requires_grad]
        with untouched(params), torch.no_grad():
            f = model(x).detach()
        shape = f.shape[1:]
        f = f.reshape(len(x), -1).double()
        target = y.double() if y.is_floating_point() else y

        def one(out: Tensor, t: Tensor) -> Tensor:
            return loss_fn(out.reshape(1, *shape), t[None])

        # no vmap: the loss is the user's own
        losses, slopes, curvatures, moved = [], [], [], []
        for out, t in zip(f, target, strict=True):
            losses.append(one(out, t))
            slopes.append(torch.func.grad(one)(out, t))
            curvatures.append(torch.func.hessian(one)(out, t))
            # each output by another amount: softmax doesn't see what all share
            shift = torch.arange(1, len(out) + 1, dtype=out.dtype, device=out.device)
            moved.append(torch.func.hessian(one)(out + shift, t))
        B = torch.stack(curvatures)
        if not bool(torch.isfinite(B).all()) or not bool(torch.isfinite(torch.stack(losses)).all()):
            raise ValueError(f"{who}: the loss or its second derivative is not finite")
        s, U = torch.linalg.eigh((B + B.mT) / 2)
        root = torch.block_diag(*((U * s.clamp(min=0).sqrt()[:, None]) @ U.mT))
        kernel = entk_gram(model, x).double()
        quadratic = bool((B - torch.stack(moved)).abs().max() <= 1e-6 * B.abs().max())
        scale = float("nan")
        if quadratic and target.is_floating_point() and len(x) > 1:
            mean = target.reshape(len(x), -1).mean(0).reshape(target.shape[1:])
            best = mean.expand_as(target).reshape(len(x), *shape)
            constant = [one(b, t) for b, t in zip(best, target, strict=True)]
            scale = float(torch.stack(constant).mean()) or float("nan")
        return _Linearised(
            torch.stack(losses),
            torch.stack(slopes),
            kernel,
            root,
            root @ kernel @ root,
            quadratic,
            scale,
        )


def _judged(at: _Linearised, margin: float, eta_exact: float | None) -> tuple[bool | None, str]:
    if not at.quadratic:
        return None, (
            "the loss is not quadratic in the outputs: its curvature vanishes with it, so that no "
            "threshold of the step size says whether training stays here"
        )
    loss = float(at.losses.mean())
    if loss > FITTED * at.scale:
        return None, (
            f"the samples are not fitted (loss {loss:.2g}, {loss / at.scale:.0%} of that of a "
            f"constant): SGD goes on moving here, stable or not"
        )
    if margin < 1:
        return False, ""
    if eta_exact is None:
        return None, (
            "the necessary conditions hold, and the exact threshold was not computed: exact=True"
        )
    return True, ""


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else float("inf")
