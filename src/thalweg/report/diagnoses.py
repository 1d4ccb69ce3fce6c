"""The doctor's findings as HTML: symptom, evidence, published result, treatment."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from thalweg.report.chart import chart_id
from thalweg.report.scale import number

__all__ = ["DiagnosisLike", "EvidenceLike", "diagnoses_section", "evidence_steps"]

_ORDER = {"problem": 0, "warning": 1, "note": 2}
# A finding with more steps than this names the first ones only.
_STEPS = 6


class EvidenceLike(Protocol):
    """What a diagnosis rests on, as `thalweg.doctor` gives it."""

    @property
    def text(self) -> str:
        """What was found, in words."""
        ...

    @property
    def steps(self) -> tuple[int, ...]:
        """Where to look."""
        ...

    @property
    def value(self) -> float | None:
        """The figure."""
        ...

    @property
    def uncertainty(self) -> float | None:
        """Of the figure."""
        ...

    @property
    def series(self) -> tuple[str, str] | None:
        """Instrument and part."""
        ...


class DiagnosisLike(Protocol):
    """A finding, as `thalweg.doctor` gives it; the floor below need not be there."""

    @property
    def rule(self) -> str:
        """Name of the rule that spoke."""
        ...

    @property
    def severity(self) -> str:
        """problem, warning or note."""
        ...

    @property
    def symptom(self) -> str:
        """One sentence."""
        ...

    @property
    def evidence(self) -> Sequence[EvidenceLike]:
        """What it rests on."""
        ...

    @property
    def entry(self) -> str | None:
        """Slug of the published result."""
        ...

    @property
    def source(self) -> str | None:
        """Citation."""
        ...

    @property
    def treatment(self) -> str:
        """A line of code, or advice."""
        ...

    @property
    def planned(self) -> bool:
        """The treatment is not part of this package yet."""
        ...


def diagnoses_section(
    diagnoses: Sequence[DiagnosisLike] | None, drawn: set[str], measured: bool
) -> str:
    """The section on top.

    Args:
        diagnoses: findings; None if no doctor looked.
        drawn: anchors of the charts on the page, to which evidence may point.
        measured: whether the run holds anything to judge.
    """
    if not measured:
        body = '<p class="none">Nothing to judge: this run holds no measurements yet.</p>'
    elif diagnoses is None:
        body = (
            '<p class="none"><b>Not diagnosed.</b> No doctor has looked at this run; '
            "the curves below speak for themselves.</p>"
        )
    elif not diagnoses:
        body = (
            '<p class="none well"><b>Nothing found.</b> No rule of the doctor found fault with '
            "this run.</p>"
        )
    else:
        ranked = sorted(diagnoses, key=lambda found: _ORDER.get(found.severity, 3))
        body = f'<ol class="diagnoses">{"".join(_diagnosis(d, drawn) for d in ranked)}</ol>'
    return f'<section id="diagnoses"><h2>Diagnosis</h2>{body}</section>'


def evidence_steps(diagnoses: Sequence[DiagnosisLike], instruments: Sequence[str]) -> list[int]:
    """The steps that findings point at in the chart of some instruments, ascending."""
    found = {
        int(step)
        for diagnosis in diagnoses
        for evidence in diagnosis.evidence
        if evidence.series and evidence.series[0] in instruments
        for step in evidence.steps[:_STEPS]
    }
    return sorted(found)


def _diagnosis(found: DiagnosisLike, drawn: set[str]) -> str:
    severity = found.severity if found.severity in _ORDER else "note"
    evidence = "".join(f"<li>{_evidence(piece, drawn)}</li>" for piece in found.evidence)
    pieces = [
        f'<li class="{severity}"><p class="severity">{severity}'
        f'<span class="rule">{escape(found.rule)}</span></p><h3>{escape(found.symptom)}</h3>',
        f"<ul>{evidence}</ul>" if evidence else "",
    ]
    planned = " <small>(planned: not in this package yet)</small>" if found.planned else ""
    pieces.append(
        f'<p class="treatment"><b>Treatment{planned}</b> {_marked_up(found.treatment)}</p>'
    )
    said = ". ".join(text.rstrip(".") for text in (found.source, _entry(found.entry)) if text)
    if said:
        pieces.append(f'<p class="source">{escape(said)}</p>')
    return "".join(pieces) + "</li>"


def _marked_up(text: str) -> str:
    """Words, and what stands in backticks as code; without any, all of it is code."""
    pieces = text.split("`")
    if len(pieces) < 3:
        return f"<code>{escape(text)}</code>"
    return "".join(
        f"<code>{escape(piece)}</code>" if i % 2 else escape(piece)
        for i, piece in enumerate(pieces)
    )


def _entry(slug: str | None) -> str | None:
    return f"Almanac: {slug}" if slug else None


def _evidence(piece: EvidenceLike, drawn: set[str]) -> str:
    text = escape(piece.text)
    if piece.value is not None:
        spread = "" if piece.uncertainty is None else f" ± {number(piece.uncertainty, 2)}"
        text += f' <span class="value">{number(piece.value)}{spread}</span>'
    steps = [f"step {step:,}" for step in piece.steps[:_STEPS]]
    if more := len(piece.steps) - len(steps):
        steps.append(f"{more:,} more")
    where = chart_id(piece.series[0]) if piece.series else ""
    if steps and where in drawn:
        first = int(piece.steps[0])
        text += f' <a href="#{where}" data-step="{first}">{", ".join(steps)}</a>'
    elif not all(str(step) in piece.text for step in piece.steps):  # else the text says it
        text += f" <span>({', '.join(steps)})</span>"
    elif where in drawn:
        text += f' <a href="#{where}">curve</a>'
    return text
