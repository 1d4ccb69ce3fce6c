"""SGD, Adam and AdamW with muP's learning rates, and the param groups for any other optimizer.

Each parameter's rate is multiplied by a factor of its base shape, m being size over base size:

    Adam-like   matrix-like (two infinite dimensions)  1 / m of the fan-in     others  1
    SGD-like    matrix-like  m of the fan-out / m of the fan-in    vector-like  m    finite  1

and its weight decay divided by it, so that rate × decay, by which torch shrinks weights, stays.

Source: Yang, Hu et al. 2022, arXiv 2203.03466, table 8, as in microsoft/mup. Departures: these are
optimizer classes, whose ``add_param_group`` scales too, and a group is split only where factors
differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor
from torch.optim import SGD, Adam, AdamW
from torch.optim.optimizer import ParamsT

from thalweg.errors import unknown_name
from thalweg.nn.mup import BaseShape, base_shape_of

__all__ = ["MuAdam", "MuAdamW", "MuSGD", "mup_factor", "mup_param_groups"]

Kind = Literal["adam", "sgd"]


def mup_factor(shape: BaseShape, kind: Kind) -> float:
    """What muP multiplies a parameter's learning rate with.

    Args:
        shape: base shape of the parameter, fan-out first and fan-in second.
        kind: ``adam`` for updates whose entries do not depend on the gradient's size, or ``sgd``.

    Raises:
        ValueError: for more than two infinite dimensions, or an unknown kind.

    Source:
        Yang, Hu et al. 2022, arXiv 2203.03466, table 8.

    Example:
        Eight times as wide as the base, inside and at the output:

        >>> hidden, out = BaseShape((8, 8), (64, 64)), BaseShape((None, 8), (10, 64))
        >>> [mup_factor(s, k) for s in (hidden, out) for k in ("adam", "sgd")]
        [0.125, 1.0, 1.0, 8.0]
    """
    if kind not in ("adam", "sgd"):
        raise ValueError(str(unknown_name("kind", kind, ("adam", "sgd"))))
    if shape.num_infinite > 2:
        raise ValueError(
            f"muP knows parameters with at most two infinite dimensions, got {shape}; a fused "
            "parameter should be several"
        )
    if shape.num_infinite == 2:
        return 1 / shape.width_mult if kind == "adam" else shape.mult(0) / shape.mult(1)
    return shape.width_mult if kind == "sgd" else 1.0


def mup_param_groups(
    named_params: Iterable[tuple[str, Tensor]] | Iterable[Tensor],
    base_width: int | None = None,
    *,
    lr: float,
    weight_decay: float = 0.0,
    kind: Kind = "adam",
    decoupled_wd: bool = False,
) -> list[dict[str, Any]]:
    """Param groups with muP's learning rates, for an optimizer of any make.

    Args:
        named_params: ``model.named_parameters()`` or ``model.parameters()``.
        base_width: None to read the base shapes that ``set_base_shapes`` gave. A number for a plain
            chain of layers without: the width is then the smallest dimension that one weight puts
            out and a later one takes in, and its multiples are infinite. The 1/m in front of the
            readout is then the model's own affair.
        lr: at the base width.
        weight_decay: at the base width.
        kind: of the optimizer, see ``mup_factor``.
        decoupled_wd: True if the optimizer's decay is not multiplied by its learning rate; then it
            stays as it is.

    Returns:
        Groups with ``params``, ``lr`` and ``weight_decay``, one for each factor.

    Raises:
        ValueError: if a parameter has no base shape and no base width is given, or if the widths
            cannot be told from the shapes.

    Source:
        Yang, Hu et al. 2022, arXiv 2203.03466, table 8; entry large-learning-rates.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(5, 64), nn.Linear(64, 64), nn.Linear(64, 3))
        >>> groups = mup_param_groups(net.named_parameters(), 16, lr=0.1)
        >>> [(len(g["params"]), g["lr"]) for g in groups]
        [(5, 0.1), (1, 0.025)]
    """
    pairs = [p if isinstance(p, tuple) else (str(i), p) for i, p in enumerate(named_params)]
    if base_width is None:
        shapes = {id(p): _required((name, p)) for name, p in pairs}
    else:
        shapes = _told_by_shape(pairs, base_width)
    group = {"params": [p for _, p in pairs], "lr": lr, "weight_decay": weight_decay}
    return _split(group, kind, decoupled_wd, shapes)


def _told_by_shape(pairs: list[tuple[str, Tensor]], base_width: int) -> dict[int, BaseShape]:
    """Base shapes of a chain of layers by the identities of its parameters."""
    if base_width < 1:
        raise ValueError(f"base_width must be at least 1, got {base_width}")
    weights = [(n, p) for n, p in pairs if p.ndim >= 2]
    passed = {
        p.shape[0] for i, (_, p) in enumerate(weights) for _, q in weights[i + 1 :]
        if q.shape[1] == p.shape[0]
    }  # fmt: skip
    if not passed:
        raise ValueError(
            "mup_param_groups: no weight takes in what an earlier one puts out, so that the width "
            "cannot be told from the shapes; use set_base_shapes(model, base, delta)"
        )
    width = min(passed)
    if odd := sorted(d for d in passed if d % width):
        raise ValueError(
            f"mup_param_groups: the hidden dimensions {odd} are no multiples of {width}, so that "
            "the width cannot be told from the shapes; use set_base_shapes(model, base, delta)"
        )
    for name, p in (weights[0], weights[-1]):
        if not p.shape[0] % width and not p.shape[1] % width:
            raise ValueError(
                f"mup_param_groups: both dimensions of {name}, {tuple(p.shape)}, are multiples of "
                f"the width {width}, so that it cannot be told which of them grows; use "
                "set_base_shapes(model, base, delta)"
            )
    found = {}
    for _, p in pairs:
        infinite = [not d % width and i < 2 for i, d in enumerate(p.shape)]
        sizes = zip(p.shape, infinite, strict=True)
        base = tuple(d * base_width // width if grows else None for d, grows in sizes)
        found[id(p)] = BaseShape(base, tuple(p.shape))
    return found


def _split(
    group: dict[str, Any],
    kind: Kind,
    decoupled_wd: bool,
    shapes: dict[int, BaseShape] | None = None,
) -> list[dict[str, Any]]:
    """One param group into one for each factor, in the order in which they are met."""
    params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
    by_factor: dict[float, list[Any]] = {} if params else {1.0: []}
    for item in params:
        shape = _required(item) if shapes is None else shapes[id(item)]
        by_factor.setdefault(mup_factor(shape, kind), []).append(item)
    return [
        {
            **group,
            "params": some,
            "lr": group["lr"] * factor,
            "weight_decay": group["weight_decay"] / (1.0 if decoupled_wd else factor),
        }
        for factor, some in by_factor.items()
    ]


def _required(item: Tensor | tuple[str, Tensor]) -> BaseShape:
    """The base shape of a parameter, named or not."""
    name, p = item if isinstance(item, tuple) else ("of shape", item)
    shape = base_shape_of(p)
    if shape is None:
        raise ValueError(
            f"muP: parameter {name} {tuple(p.shape)} has no base shape, so that its learning rate "
            "would silently be the standard one; call set_base_shapes(model, base, delta) before "
            "making the optimizer"
        )
    return shape


class MuSGD(SGD):
    """``torch.optim.SGD`` with muP's learning rates.

    Args:
        params: of a model with base shapes; groups may have rates of their own.
        lr: at the base width; others as of ``torch.optim.SGD``, decay too at the base width.

    Raises:
        ValueError: for a parameter without base shape.

    Source:
        Yang, Hu et al. 2022, arXiv 2203.03466, table 8; entry large-learning-rates.

    Example:
        >>> from torch import nn
        >>> from thalweg.nn import MuReadout, set_base_shapes
        >>> net = nn.Sequential(nn.Linear(8, 64, bias=False), MuReadout(64, 3, bias=False))
        >>> shapes = {"0.weight": (16, 8), "1.weight": (3, 16)}
        >>> [g["lr"] for g in MuSGD(set_base_shapes(net, shapes).parameters(), lr=0.1).param_groups]
        [0.4]
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, split by factor; its rate and decay are those of the base width."""
        for some in _split({**self.defaults, **param_group}, "sgd", decoupled_wd=False):
            super().add_param_group(some)


class MuAdam(Adam):
    """``torch.optim.Adam`` with muP's learning rates.

    Adam's decay goes through its normalised gradient, where no factor makes it the same at every
    width; for decay take ``MuAdamW``.

    Args:
        params: of a model with base shapes; groups may have rates of their own.
        lr: at the base width; others as of ``torch.optim.Adam``.

    Raises:
        ValueError: for a parameter without base shape.

    Source:
        Yang, Hu et al. 2022, arXiv 2203.03466, table 8; entry large-learning-rates.

    Example:
        >>> from torch import nn
        >>> from thalweg.nn import set_base_shapes
        >>> net = set_base_shapes(nn.Linear(64, 64), nn.Linear(16, 16))
        >>> [g["lr"] for g in MuAdam(net.parameters(), lr=0.1).param_groups]
        [0.025, 0.1]
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, split by factor; its rate and decay are those of the base width."""
        for some in _split({**self.defaults, **param_group}, "adam", decoupled_wd=False):
            super().add_param_group(some)


class MuAdamW(AdamW):
    """``torch.optim.AdamW`` with muP's learning rates.

    Args:
        params: of a model with base shapes; groups may have rates of their own.
        lr: at the base width.
        decoupled_wd: False (default): a step shrinks weights by rate × decay, as in torch, and
            decay is scaled so that this does not depend on the width. True leaves it as it is.
        options: as of ``torch.optim.AdamW``.

    Raises:
        ValueError: for a parameter without base shape.

    Source:
        Yang, Hu et al. 2022, arXiv 2203.03466, table 8; entry large-learning-rates.

    Example:
        >>> from torch import nn
        >>> from thalweg.nn import set_base_shapes
        >>> net = set_base_shapes(nn.Linear(64, 64), nn.Linear(16, 16))
        >>> optimizer = MuAdamW(net.parameters(), lr=0.1, weight_decay=0.01)
        >>> [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
        [(0.025, 0.04), (0.1, 0.01)]
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        *,
        decoupled_wd: bool = False,
        **options: Any,
    ) -> None:
        groups: list[Any] = list(params)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        # in the groups, so that it is there when the first of them is added
        super().__init__([{"decoupled_wd": decoupled_wd, **g} for g in groups], lr, **options)
        self.defaults["decoupled_wd"] = decoupled_wd

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, split by factor; its rate and decay are those of the base width."""
        group = {**self.defaults, **param_group}
        for some in _split(group, "adam", group["decoupled_wd"]):
            super().add_param_group(some)
