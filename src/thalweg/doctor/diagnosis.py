"""What the doctor says: a judgement with the figures behind it and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["SEVERITIES", "Diagnosis", "Evidence", "Severity"]

Severity = Literal["problem", "warning", "note"]

#: From the gravest on. A problem ruins the training, a warning costs some of it, a note is worth
#: knowing.
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")


@dataclass(frozen=True)
class Evidence:
    """One measured fact behind a diagnosis.

    Attributes:
        text: the fact in words, with its figures.
        steps: where in the training it shows.
        value: its main figure, if it has one.
        uncertainty: one standard error (or robust spread) of ``value``.
        series: instrument and part in which it can be seen.
    """

    text: str
    steps: tuple[int, ...] = ()
    value: float | None = None
    uncertainty: float | None = None
    series: tuple[str, str] | None = None


@dataclass(frozen=True)
class Diagnosis:
    """One finding.

    Attributes:
        rule: name of the rule that found it.
        severity: ``problem``, ``warning`` or ``note``.
        symptom: what is wrong, one sentence.
        evidence: the figures.
        entry: slug of the published result in the almanac, if it has one there.
        source: the published result in words.
        treatment: what to do, where it can be as a line of code.
        planned: whether the treatment is code that this version does not have yet.
    """

    rule: str
    severity: Severity
    symptom: str
    evidence: tuple[Evidence, ...]
    entry: str | None
    source: str | None
    treatment: str
    planned: bool
