"""From samples to a verdict: what a claim's figures say, judged by a threshold fixed beforehand.

A mean that meets the threshold is not enough: its 95 % interval must, and that takes two seeds.
The rules are those of the project's almanac (2026); they are one-sided, so that doing better than
published is never a failure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Judgement", "claim_verdict", "entry_verdict", "judge"]

ClaimVerdict = Literal["pass", "weak", "fail", "untested"]
EntryVerdict = Literal["reproduced", "partly", "not", "untested"]


@dataclass(frozen=True)
class Judgement:
    """What the samples of one claim say.

    Attributes:
        verdict: ``pass``, ``weak``, ``fail`` or ``untested``.
        mean: mean of the samples; None without samples or if one is not finite.
        bound: the end of the two-sided 95 % interval of the mean that lies on the side of the
            threshold (for ``in``: the end nearest to leaving the band); None with fewer than two
            samples.
    """

    verdict: ClaimVerdict
    mean: float | None
    bound: float | None


def judge(
    samples: Sequence[float], op: str, threshold: float | Sequence[float], *, control: bool = True
) -> Judgement:
    """Judge the samples of a claim, one per seed.

    ``pass`` if mean ∓ t₀.₉₇₅(n−1)·s/√n meets the threshold, ``weak`` if only the mean does or
    there is one sample, ``fail`` if the mean misses it or a sample is not finite.

    Args:
        samples: (n,) one figure per seed.
        op: ``>=``, ``<=`` or ``in``.
        threshold: a number, or the band ``[low, high]`` for ``in``.
        control: whether the claim's negative control failed as it must; if it did not, the
            measurement cannot tell the effect from nothing and ``pass`` becomes ``weak``.

    Raises:
        ValueError: for another op, or a threshold that does not fit it.

    Example:
        >>> judge([0.95, 0.96, 0.97], ">=", 0.9).verdict
        'pass'
        >>> judge([0.5, 0.9, 0.8], ">=", 0.7).verdict
        'weak'
    """
    low, high = _band(op, threshold)
    n = len(samples)
    if n == 0:
        return Judgement("untested", None, None)
    if not all(math.isfinite(x) for x in samples):
        return Judgement("fail", None, None)
    mean = math.fsum(samples) / n
    bound = None
    if n >= 2:
        half = _half_width(samples, mean)
        ends = (mean - half, mean + half)
        # With one threshold the other side is infinitely far, so this picks the right end.
        bound = ends[0] if ends[0] - low <= high - ends[1] else ends[1]
    if not low <= mean <= high:
        verdict: ClaimVerdict = "fail"
    elif bound is not None and low <= bound <= high and control:
        verdict = "pass"
    else:
        verdict = "weak"
    return Judgement(verdict, mean, bound)


def claim_verdict(
    samples: Sequence[float], op: str, threshold: float | Sequence[float]
) -> ClaimVerdict:
    """The verdict of ``judge`` alone: ``pass``, ``weak``, ``fail`` or ``untested``.

    Example:
        >>> claim_verdict([0.99], ">=", 0.9), claim_verdict([0.99, float("nan")], ">=", 0.9)
        ('weak', 'fail')
    """
    return judge(samples, op, threshold).verdict


def entry_verdict(claims: Sequence[ClaimVerdict]) -> EntryVerdict:
    """The verdict of an entry from those of its claims.

    ``reproduced`` if all pass, ``not`` if none passes or is weak, else ``partly``;
    ``untested`` if no claim has been tested.

    Example:
        >>> entry_verdict(["pass", "weak"]), entry_verdict(["fail"]), entry_verdict(["untested"])
        ('partly', 'not', 'untested')
    """
    if all(v == "untested" for v in claims):
        return "untested"
    if all(v == "pass" for v in claims):
        return "reproduced"
    return "partly" if any(v in ("pass", "weak") for v in claims) else "not"


def _band(op: str, threshold: float | Sequence[float]) -> tuple[float, float]:
    if op == "in":
        band = list(threshold) if isinstance(threshold, Sequence) else []
        if len(band) != 2 or not band[0] <= band[1]:
            raise ValueError(f"op 'in' needs a band [low, high], got {threshold!r}")
        return float(band[0]), float(band[1])
    if op not in (">=", "<="):
        raise ValueError(f"op must be '>=', '<=' or 'in', got {op!r}")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise ValueError(f"op {op!r} needs a number as threshold, got {threshold!r}")
    return (float(threshold), math.inf) if op == ">=" else (-math.inf, float(threshold))


def _half_width(samples: Sequence[float], mean: float) -> float:
    """Half the 95 % interval of the mean, Student's t."""
    from scipy.special import stdtrit

    n = len(samples)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in samples) / (n - 1))
    return float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
