"""Maximal-update parametrisation (muP): base shapes, and the readout that goes with them.

A dimension that grows with the width is *infinite*; its multiplier m is its size over its size in a
base model. ``set_base_shapes`` says which are, the readout divides its input by m and keeps a
variance that does not depend on the width, and the optimizers of ``thalweg.optim`` scale each
parameter's learning rate. Then the best learning rate of the base model stays the best.

Source: Yang, Hu et al. 2022, arXiv 2203.03466, as in microsoft/mup. Departures: a second call, and
a base that sets nothing apart, raise; base shapes survive ``copy.deepcopy`` and ``torch.save``; a
readout tied to an embedding keeps the embedding's initialisation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["BaseShape", "MuReadout", "base_shape_of", "set_base_shapes", "shapes_of"]

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class BaseShape:
    """How each dimension of a parameter compares with the base model.

    Attributes:
        base: size of each dimension in the base model; None for one that does not grow.
        shape: size here.
    """

    base: tuple[int | None, ...]
    shape: tuple[int, ...]

    @property
    def num_infinite(self) -> int:
        """Dimensions that grow with the width: 0 fixed, 1 vector-like, 2 matrix-like."""
        return sum(b is not None for b in self.base)

    @property
    def width_mult(self) -> float:
        """Size over base size of the last infinite dimension, which is the fan-in if both are."""
        found = [self.mult(i) for i, b in enumerate(self.base) if b is not None]
        return found[-1] if found else 1.0

    def mult(self, axis: int) -> float:
        """Size over base size of one dimension; 1 if it is finite."""
        base = self.base[axis]
        return 1.0 if base is None else self.shape[axis] / base


class _Owned(dict[str, BaseShape]):
    """Base shapes of the parameters that one module owns, by their names in it.

    Copying a parameter drops attributes; a copied module hands them on through this.
    """

    def __init__(self, owned: Mapping[str, BaseShape], params: dict[str, Any]) -> None:
        super().__init__(owned)
        self.params = params
        for name, shape in self.items():
            params[name].base_shape = shape

    def __deepcopy__(self, memo: dict[int, Any]) -> _Owned:
        return _Owned(self, copy.deepcopy(self.params, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return _Owned, (dict(self), self.params)


def base_shape_of(param: Tensor) -> BaseShape | None:
    """The base shape that ``set_base_shapes`` gave a parameter; None if it has none."""
    return getattr(param, "base_shape", None)


def set_base_shapes(
    model: nn.Module,
    base: nn.Module | Shapes,
    delta: nn.Module | Shapes | None = None,
    *,
    rescale_params: bool = True,
) -> nn.Module:
    """Say which dimensions grow with the width, and go from standard to muP initialisation.

    A dimension is infinite if ``base`` and ``delta`` differ in it; without ``delta``, if ``base``
    and ``model`` do. To be called once, after any initialisation of one's own (of a spread like
    1/√fan-in, or of one that does not depend on the width) and before the optimizer is made.

    Args:
        model: changed in place.
        base: a model of the base width, or its parameters' names and shapes; only shapes are read.
        delta: the same at any other width; without it a model of just the base width is refused.
        rescale_params: False for a model whose values are in muP already, from a checkpoint. If
            True, biases behind an infinite fan-in, and the weight of a ``MuReadout``, are
            multiplied by √m.

    Returns:
        ``model``.

    Raises:
        RuntimeError: if it was called before with parameters rescaled, which would scale twice.
        ValueError: if names or finite dimensions differ, nothing is infinite, or a Linear leads
            from an infinite to a finite dimension without being a ``MuReadout``.

    Source:
        Yang, Hu et al. 2022, arXiv 2203.03466, table 8 and appendix B; entry large-learning-rates.

    Example:
        >>> def mlp(n):
        ...     return nn.Sequential(nn.Linear(8, n), nn.ReLU(), MuReadout(n, 3))
        >>> net = set_base_shapes(mlp(64), mlp(16), mlp(32))
        >>> net[2].width_mult, base_shape_of(net[0].weight)
        (4.0, BaseShape(base=(16, None), shape=(64, 8)))
    """
    already = any("_base_shapes" in vars(m) for m in model.modules())
    if already and rescale_params:
        raise RuntimeError(
            "set_base_shapes: the model has base shapes already, and a second call would rescale "
            "its parameters twice; make a new model, or pass rescale_params=False"
        )
    found = _base_shapes(model, base, delta)
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.Linear) and not isinstance(module, MuReadout):
            out, into = found[f"{prefix}weight"].base
            if out is None and into is not None:
                raise ValueError(
                    f"set_base_shapes: {name or 'the model'} leads from a dimension that grows "
                    "with the width to one that does not; make it a MuReadout"
                )
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        owned = {n: found[prefix + n] for n, p in module._parameters.items() if p is not None}
        if owned:
            module._base_shapes = _Owned(owned, module._parameters)  # pyright: ignore
        if isinstance(module, MuReadout):
            module._width_mult = owned["weight"].width_mult
    if rescale_params:
        _rescale(model)
    return model


def _base_shapes(
    model: nn.Module, base: nn.Module | Shapes, delta: nn.Module | Shapes | None
) -> dict[str, BaseShape]:
    """Base shape of every parameter, under each of its names."""
    here, there = shapes_of(model), shapes_of(base)
    other = here if delta is None else shapes_of(delta)
    for what, shapes in (("base", there), ("delta", other)):
        if shapes.keys() != here.keys():
            odd = sorted(shapes.keys() ^ here.keys())[:3]
            raise ValueError(
                f"set_base_shapes: model and {what} have different parameters, such as {odd}; "
                "they must differ in width only"
            )
    if there == other:
        against = "model" if delta is None else "delta"
        raise ValueError(
            f"set_base_shapes: base and {against} have the same shapes, which would leave the "
            "model in standard parametrisation; give a delta, a model of another width than base"
        )
    found = {}
    for name, shape in here.items():
        if not len(shape) == len(there[name]) == len(other[name]):
            raise ValueError(
                f"set_base_shapes: {name} is {shape} in model, {there[name]} in base and "
                f"{other[name]} in delta: the number of dimensions must be the same"
            )
        infinite = [b != d for b, d in zip(there[name], other[name], strict=True)]
        for size, b, grows in zip(shape, there[name], infinite, strict=True):
            if size != b and not grows:
                raise ValueError(
                    f"set_base_shapes: {name} is {shape} in model and {there[name]} in base, but "
                    "base and delta agree in that dimension; make delta differ in every width"
                )
        base_dims = [b if grows else None for b, grows in zip(there[name], infinite, strict=True)]
        found[name] = BaseShape(tuple(base_dims), shape)
    return found


def shapes_of(source: nn.Module | Shapes) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter under each of its names."""
    if isinstance(source, nn.Module):
        pairs = [(n, p.shape) for n, p in source.named_parameters(remove_duplicate=False)]
        return {n: tuple(s) for n, s in pairs}
    return {n: tuple(s) for n, s in source.items()}


def _rescale(model: nn.Module) -> None:
    """Standard initialisation to muP's: √m for what has the spread 1/√fan-in and must not."""
    embeddings = {
        id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
    }
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, nn.Linear | _ConvNd):
                continue
            own: dict[str, BaseShape] = module._base_shapes  # pyright: ignore
            # torch's default initialisation takes the second axis for the fan-in, always
            root = own["weight"].mult(1) ** 0.5
            if module.bias is not None:
                module.bias.mul_(root)
            if isinstance(module, MuReadout) and id(module.weight) not in embeddings:
                module.weight.mul_(root)


class MuReadout(nn.Linear):
    """Linear layer from the width to a fixed number of outputs, with muP's 1/m.

        y = W (output_mult · x / m) + b

    Args:
        in_features: the width.
        out_features: outputs.
        bias: whether to have one.
        output_mult: a factor to be tuned at the base width.
        readout_zero_init: start from zero outputs, which makes all widths begin alike.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        RuntimeError: in the forward pass, if ``set_base_shapes`` was not called on the model.

    Source:
        Yang, Hu et al. 2022, arXiv 2203.03466, table 8; entry large-learning-rates.

    Example:
        >>> net = nn.Sequential(MuReadout(8, 2, readout_zero_init=True))
        >>> _ = set_base_shapes(net, nn.Sequential(nn.Linear(2, 2)))
        >>> net(torch.ones(1, 8)), net[0].width_mult
        (tensor([[0., 0.]], grad_fn=<AddmmBackward0>), 4.0)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        output_mult: float = 1.0,
        readout_zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.output_mult = output_mult
        self.readout_zero_init = readout_zero_init
        self._width_mult: float | None = None
        super().__init__(in_features, out_features, bias, device, dtype)

    def reset_parameters(self) -> None:
        """As a Linear, or zero."""
        super().reset_parameters()
        if self.readout_zero_init:
            with torch.no_grad():
                for p in self.parameters():
                    p.zero_()

    @property
    def width_mult(self) -> float:
        """m, the width over that of the base model."""
        if self._width_mult is None:
            raise RuntimeError(
                "MuReadout: the model has no base shapes; call "
                "set_base_shapes(model, base, delta) before using it"
            )
        return self._width_mult

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return super().forward(input * (self.output_mult / self.width_mult))

    def extra_repr(self) -> str:
        """As of a Linear, with the multiplier."""
        return f"{super().extra_repr()}, output_mult={self.output_mult}"
