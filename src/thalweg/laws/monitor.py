"""Follow laws through a training: how far each drifts, how far it should, and what is left.

For SGD (momentum, Nesterov, dampening, weight decay) the drift is predicted step by step from the
optimizer's own state; what the prediction leaves is round-off, or a training loop that does
something else than it says. Column sums are predicted under Muon too, where its arithmetic keeps
them. Adam and its kin break all laws: there only the drift is reported, and nothing is predicted.

Source: D. Kunin et al. 2020, arXiv 2012.04728; derivation in ``docs/mathematics.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from thalweg.laws.broken import Hyper, LawState, advance
from thalweg.laws.law import Law
from thalweg.laws.sgd_step import SGDStep, velocities
from thalweg.optim import Muon, RegularizedMuon

__all__ = ["LawMonitor", "LawReading"]


@dataclass(frozen=True)
class LawReading:
    """Where one law stands.

    Attributes:
        law: the law.
        drift: (K,) its values now less those at the start.
        predicted: (K,) the drift that the recursion gives; nan where nothing is predicted.
        scale: (K,) the largest Σ|A_ij θ_i θ_j| so far: what errors are relative to.
        roundoff: (K,) one standard deviation of what rounding the weights at every step adds up to.
        status: ``ok``, ``skipped:why`` or ``unsupported:why``.
    """

    law: Law
    drift: np.ndarray
    predicted: np.ndarray
    scale: np.ndarray
    roundoff: np.ndarray
    status: str

    @property
    def residual(self) -> np.ndarray:
        """(K,) drift − predicted."""
        return self.drift - self.predicted


class _Followed:
    """One law on its way."""

    def __init__(self, law: Law, values: Tensor, c: Tensor | None, status: str) -> None:
        self.law, self.first, self.status = law, values, status
        self.fresh = c is None  # no velocity yet
        self.state = LawState(values, torch.zeros_like(values) if c is None else c)
        self.scale = self.rounding = torch.zeros_like(values)
        self.steps = 0


class LawMonitor:
    """Follows laws of a model while an optimizer trains it.

    Hooks the optimizer when made; leave it as a context manager, or call ``close``, to take the
    hooks away. For loops whose optimizer has no hooks, make it with ``hooks=False`` and call
    ``step`` after every step.

    Args:
        model: the laws name its parameters.
        laws: from ``known_laws``, or made by hand.
        optimizer: the one that trains them.
        hooks: whether to hook the optimizer.

    Raises:
        ValueError: if a law names a parameter that the model does not have, or there is no law.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
        >>> from thalweg.laws import Law, Piece
        >>> law = Law("0 → 2", "", (Piece("2.weight", axis=1), Piece("0.weight", -1.0),
        ...                         Piece("0.bias", -1.0)))
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        >>> with LawMonitor(model, [law], optimizer) as monitor:
        ...     for _ in range(20):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(4, 2).double()).square().mean().backward()
        ...         optimizer.step()
        >>> bool(abs(monitor.residual()).max() < 1e-14)
        True
    """

    def __init__(
        self, model: nn.Module, laws: Sequence[Law], optimizer: Optimizer, *, hooks: bool = True
    ) -> None:
        self._params = dict(model.named_parameters())
        if not laws:
            raise ValueError("there is no law to follow: known_laws(model) found none")
        for law in laws:
            for name in law.parameters:
                if name not in self._params:
                    raise ValueError(f"law {law.name!r} names {name!r}, which the model lacks")
        self._optimizer = optimizer
        self._laws = tuple(laws)
        self._followed: list[_Followed] = []
        self.reset()
        self._hooks = [optimizer.register_step_post_hook(self._after)] if hooks else []

    def __enter__(self) -> LawMonitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks away; what was measured stays."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def reset(self) -> None:
        """Start anew from the present weights, as after steps that were not seen."""
        self._followed = []
        velocity = velocities(self._optimizer, self._params)
        for law in self._laws:
            status = self._unpredictable(law)
            values = law.fn(self._params)
            c = None
            if velocity.keys() >= set(law.parameters) and not status:
                c = law.bilinear(self._params if law.order == 2 else velocity, velocity)
            self._followed.append(_Followed(law, values, c, status))

    def missed(self, why: str) -> None:
        """Steps were taken that were not seen: nothing is predicted from here on until ``reset``.

        Args:
            why: said in the status.
        """
        for followed in self._followed:
            if not followed.status:
                followed.status = f"skipped:{why}"

    def step(self) -> None:
        """Hear of a step that the optimizer has just taken."""
        step = SGDStep(self._optimizer, self._params)
        for followed in self._followed:
            if not followed.status:
                self._advance(followed, step)

    def readings(self) -> list[LawReading]:
        """Where every law stands now."""
        return [self._read(followed) for followed in self._followed]

    def drift(self) -> np.ndarray:
        """(number of scalar laws,) values now less those at the start."""
        return np.concatenate([r.drift for r in self.readings()])

    def predicted(self) -> np.ndarray:
        """(number of scalar laws,) the drift that the recursion gives; nan where there is none."""
        return np.concatenate([r.predicted for r in self.readings()])

    def residual(self) -> np.ndarray:
        """(number of scalar laws,) drift − predicted."""
        return np.concatenate([r.residual for r in self.readings()])

    def scale(self) -> np.ndarray:
        """(number of scalar laws,) the largest Σ|A_ij θ_i θ_j| so far."""
        return np.concatenate([r.scale for r in self.readings()])

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.step()

    def _unpredictable(self, law: Law) -> str:
        """Why nothing can be predicted for a law; empty if it can."""
        kind = type(self._optimizer).__name__
        groups = {id(p): g for g in self._optimizer.param_groups for p in g["params"]}
        if not any(self._params[n].requires_grad for n in law.parameters):
            return ""  # frozen: nothing moves
        mine = [groups.get(id(self._params[n])) for n in law.parameters]
        for name, group in zip(law.parameters, mine, strict=True):
            if group is None:
                return f"unsupported:{name} is not in this optimizer"
        if law.order == 1 and kind in ("Muon", "RegularizedMuon"):
            return self._inexact_muon(law, [g for g in mine if g is not None])
        if type(self._optimizer) is not torch.optim.SGD:
            return f"unsupported:{kind} breaks this law in a way that is not predicted"
        for key in ("lr", "momentum", "dampening", "nesterov", "maximize"):
            if len({float(g[key]) for g in mine if g is not None}) > 1:
                return f"unsupported:its parameters have different {key}"
        return ""

    def _inexact_muon(self, law: Law, groups: list[dict[str, Any]]) -> str:
        """Why a Muon does not keep column sums; empty if it does.

        Every odd function of a matrix keeps its left null space, so any backend does, up to
        round-off: in float32 the polynomials amplify that to several hundred times the rounding of
        the weights, decompositions to twenty times.
        """
        if not isinstance(self._optimizer, Muon | RegularizedMuon):
            return "unsupported:only this package's Muon is known to keep column sums"
        whole = all(p.index is None and self._params[p.parameter].ndim == 2 for p in law.pieces)
        if not whole or len(law.pieces) > 1:
            return "unsupported:Muon keeps sums along all of a matrix, not along parts of it"
        exact = isinstance(self._optimizer, RegularizedMuon) or all(
            g["backend"] == "svd" for g in groups
        )
        dtypes = {self._params[n].dtype for n in law.parameters}
        dtypes |= {g["dtype"] for g in groups if g.get("dtype") is not None}
        needed = {torch.float32, torch.float64} if exact else {torch.float64}
        if not dtypes <= needed:
            found = ", ".join(sorted(str(d) for d in dtypes - needed))
            return f"unsupported:round-off of Muon in {found} breaks column sums"
        return ""

    def _advance(self, followed: _Followed, step: SGDStep) -> None:
        law, params = followed.law, self._params
        if not any(params[n].requires_grad for n in law.parameters):
            return
        mine = {n: step.groups[n] for n in law.parameters}
        first = mine[law.parameters[0]]
        lr = float(first["lr"])
        missing = [n for n in law.parameters if params[n].grad is None]
        if missing:
            if len(missing) < len(mine):
                followed.status = f"skipped:{missing[0]} had no gradient while others had"
            return  # none moved
        if isinstance(self._optimizer, Muon | RegularizedMuon):  # column sums
            hyper = Hyper(lr, weight_decay=float(first["weight_decay"]), decoupled=True)
            followed.state = advance(followed.state, hyper, 0.0, 0.0, order=1)
            followed.steps += 1
            return
        decays = {n: float(g["weight_decay"]) for n, g in mine.items()}
        decay = decays[law.pieces[0].parameter]
        extra: Tensor | float = 0.0
        for piece in law.pieces:
            more = decays[piece.parameter] - decay
            if more:
                before = {piece.parameter: step.before(piece.parameter)}
                extra = extra + more * law.part(piece, before, before)
        hyper = Hyper(
            lr=lr,
            momentum=float(first["momentum"]),
            dampening=float(first["dampening"]),
            weight_decay=decay,
            nesterov=bool(first["nesterov"]),
        )
        uu: Tensor | float = 0.0
        uv: Tensor | float = 0.0
        if law.order == 2 and hyper.momentum and not hyper.nesterov:
            uu = uv = step.velocity_squares.of(law)
        elif law.order == 2:
            uu = uv = step.direction_squares.of(law)
            if hyper.momentum:
                u = {n: step.directions[n] for n in law.parameters}
                uv = law.bilinear(u, step.velocities)
        if followed.fresh:  # the first velocity is d itself, undampened
            hyper = replace(hyper, dampening=0.0)
            followed.fresh = False
        followed.state = advance(followed.state, hyper, uu, uv, order=law.order, extra=extra)
        followed.steps += 1

    def _rounding(self, law: Law) -> Tensor:
        """(K,) variance that rounding every weight once adds to the law.

        Each weight is off by up to u|θ|, uniformly, so by u|θ|/√3 in standard deviation: a square
        by 2uθ²/√3, a product of two by √2 u|θ θ'|/√3.
        """
        dtype = self._params[law.parameters[0]].dtype
        unit = torch.finfo(dtype).eps / 2
        absolute = {n: self._params[n].detach().abs() for n in law.parameters}
        if law.form != "sum":
            absolute = {n: x.square() for n, x in absolute.items()}
        pieces = tuple(replace(p, weight=p.weight**2) for p in law.pieces)
        if law.form == "sum":
            squares = {n: x.square() for n, x in absolute.items()}
            return unit**2 / 3 * Law("", "", pieces, "sum").fn(squares)
        products = Law("", "", pieces, law.form).fn(absolute)
        if law.form == "rows":
            return 4 * unit**2 / 3 * products
        units = len(law.pieces[0].rows(self._params))
        rows, columns = torch.triu_indices(units, units, device=products.device)
        return torch.where(rows == columns, 4.0, 2.0) * unit**2 / 3 * products

    def _read(self, followed: _Followed) -> LawReading:
        law = followed.law
        values = law.fn(self._params)
        followed.scale = torch.maximum(followed.scale, law.magnitude(self._params))
        followed.rounding = torch.maximum(followed.rounding, self._rounding(law))
        noise = (followed.steps * followed.rounding).sqrt()
        predicted = followed.state.h - followed.first
        if followed.status:
            predicted = torch.full_like(predicted, float("nan"))
        return LawReading(
            law,
            (values - followed.first).cpu().numpy(),
            predicted.cpu().numpy(),
            followed.scale.cpu().numpy(),
            noise.cpu().numpy(),
            followed.status or "ok",
        )
