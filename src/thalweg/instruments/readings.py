"""The figures of any instrument as value, uncertainty and status, as a recording would hold them.

Instruments of tensors return tensors, so that they batch, stay on their device and enter further
mathematics. Where a figure is to be stored or judged instead, this turns what came back into one
``Reading`` per number.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from thalweg.instruments.instrument import Reading

__all__ = ["readings"]


def readings(result: Any) -> dict[str, Reading]:
    """Value, uncertainty and status of each figure that an instrument returned.

    Args:
        result: what any instrument returned: a number, a tensor, or a result with fields.

    Returns:
        part → Reading. The whole stands under ``""``, entries of tensors under ``[i]`` or
        ``[i, j]``, fields of a result under their names (``total`` is the whole, ``each`` its
        parts). Uncertainties are those that the instrument states. A figure computed from given
        tensors has none (nan): it is exact for them up to round-off, and says nothing of tensors
        not given. A value that is not finite has the status ``nonfinite``, unless the instrument
        gave a reason.

    Raises:
        TypeError: if the result holds no figure.

    Cost: one transfer from the device per tensor.

    Example:
        >>> import torch
        >>> from thalweg.instruments import effective_rank, weight_norm
        >>> readings(effective_rank(torch.eye(2)))[""]
        Reading(value=2.0, uncertainty=nan, status='ok')
        >>> list(readings(weight_norm([torch.ones(4), torch.zeros(2)])))
        ['', '[0]', '[1]']
    """
    found = dict(_figures(result, ""))
    if not found:
        raise TypeError(
            f"readings: expected what an instrument returned, a number, a tensor or a result with "
            f"fields; got {type(result).__name__}"
        )
    return found


def _figures(result: Any, part: str) -> list[tuple[str, Reading]]:
    if isinstance(result, Reading):
        return [(part, _judged(result.value, result.uncertainty, result.status))]
    if isinstance(result, int | float):
        return [(part, _judged(float(result)))]
    if isinstance(result, Tensor):
        return _entries(result, part)
    if not dataclasses.is_dataclass(result) or isinstance(result, type):
        return []
    status = getattr(result, "status", "ok")
    figures: list[tuple[str, Reading]] = []
    for field in dataclasses.fields(result):
        where = "" if field.name in ("total", "each") else field.name
        figures += _figures(getattr(result, field.name), where)
    return [
        (name, dataclasses.replace(r, status=status) if status != "ok" else r)
        for name, r in figures
    ]


def _entries(values: Tensor, part: str) -> list[tuple[str, Reading]]:
    if values.is_complex():
        return []
    indices = (
        torch.cartesian_prod(*[torch.arange(n) for n in values.shape]) if values.ndim else None
    )
    numbers = values.detach().double().flatten().tolist()
    if indices is None:
        return [(part, _judged(numbers[0]))]
    places = indices.reshape(len(numbers), -1).tolist()
    return [
        (f"{part}[{', '.join(map(str, place))}]", _judged(number))
        for place, number in zip(places, numbers, strict=True)
    ]


def _judged(value: float, uncertainty: float = math.nan, status: str = "ok") -> Reading:
    bad = status == "ok" and not math.isfinite(value)
    return Reading(value, uncertainty, "nonfinite" if bad else status)
