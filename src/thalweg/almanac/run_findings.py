"""What the user's runs have to do with a paper.

A finding of the doctor names a published result, and its treatment names code that belongs to one;
a paper is near to entries. Where they meet, the paper concerns the run, and the reason can be said.
Where a paper is near to neither it may still speak of the very thing, by the words of the rule
("gradient spikes", "loss of plasticity").

Source: the project's almanac (2026).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from thalweg.almanac.catalogue import entries
from thalweg.almanac.char_ngrams import words
from thalweg.almanac.finding import PLAIN
from thalweg.almanac.kept_diagnoses import Finding, is_current, keep_diagnosis, kept_diagnosis
from thalweg.almanac.paper import Paper
from thalweg.errors import ThalwegError
from thalweg.recorder.run_files import measured_state

__all__ = ["RunFinding", "concerning", "finding_in", "findings_of", "reason", "run_findings"]

_CODE = re.compile(r"thalweg(?:\.\w+)+")
_STEM = 7  #: first letters that make two words one
_BETWEEN = 1  #: words that may stand between two words of a rule


@dataclass(frozen=True)
class RunFinding:
    """Something that a run shows.

    Attributes:
        run: its name.
        rule: of the doctor.
        symptom: what is wrong, one sentence.
        treated_by: slugs of the entries whose code the treatment names.
        entry: slug of the result behind the finding, empty if there is none.
    """

    run: str
    rule: str
    symptom: str
    treated_by: tuple[str, ...]
    entry: str


def run_findings(folder: str | os.PathLike[str]) -> tuple[RunFinding, ...]:
    """What the runs of a folder show; the doctor looks at those that it has not seen as they are.

    Args:
        folder: in which runs lie; what is no run is passed over.

    Raises:
        ThalwegError: if there is no such folder.
    """
    from thalweg.doctor.examination import diagnose

    folder = Path(folder)
    if not folder.is_dir():
        raise ThalwegError(f"{folder}: there is no such folder of runs")
    paths = sorted(p for p in folder.iterdir() if p.is_dir())
    for path in paths:
        try:
            if not is_current(kept_diagnosis(path), path):
                state = measured_state(path)
                keep_diagnosis(path, diagnose(path), state)
        except ThalwegError:
            continue
    return findings_of(paths)[0]


def findings_of(paths: Iterable[Path]) -> tuple[tuple[RunFinding, ...], tuple[str, ...]]:
    """What the doctor last said of some runs, without asking it.

    Args:
        paths: their directories; what is no run is passed over.

    Returns:
        The findings, and the names of the runs of which it has said nothing yet.
    """
    found: list[RunFinding] = []
    silent = []
    for path in paths:
        try:
            kept = kept_diagnosis(path)
        except ThalwegError:
            continue
        if kept is None:
            silent.append(path.name)
        else:
            found += [finding_in(path.name, finding) for finding in kept.findings]
    return tuple(found), tuple(silent)


def finding_in(run: str, finding: Finding) -> RunFinding:
    """A finding with the entries that its treatment leads to."""
    owners = _owners()
    named = [owners[code] for code in _CODE.findall(finding.treatment) if code in owners]
    treated = tuple(dict.fromkeys(slug for slugs in named for slug in slugs))
    return RunFinding(run, finding.rule, finding.symptom, treated, finding.entry)


def concerning(paper: Paper, findings: Sequence[RunFinding]) -> str:
    """Why a paper concerns one of the runs, in words; empty if it concerns none.

    Args:
        paper: with the entries that it is near to.
        findings: what the runs show.
    """
    return reason(paper, findings)[1]


def reason(paper: Paper, findings: Sequence[RunFinding]) -> tuple[int, str]:
    """How closely a paper concerns a run, 3 (its treatment), 2, 1 or 0, and why in words."""
    near = [n.slug for n in paper.near]
    for f in findings:
        for slug in near:
            if slug in f.treated_by:
                return 3, f"{_shows(f)}; this paper is near {slug}, which treats it"
    for f in findings:
        if f.entry in near:
            return 2, f"{_shows(f)}; this paper is near {f.entry}, the result behind it"
    for f in findings:
        if said := _phrase_in(f"{paper.title}. {paper.abstract}", f.rule):
            return 1, f"{_shows(f)}; this paper speaks of {said!r}"
    return 0, ""


def _shows(f: RunFinding) -> str:
    return f"your run {f.run} shows {f.symptom.rstrip('.')}"


@cache
def _owners() -> dict[str, tuple[str, ...]]:
    """Importable name to the entries that it belongs to."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries():
        for symbol in entry.symbols:
            found[symbol] = (*found.get(symbol, ()), entry.slug)
    return found


def _phrase_in(text: str, rule: str) -> str:
    """Where a text speaks of what a rule is named after; empty if it does not, or one word only."""
    wanted = _phrase(rule)
    low = text.casefold()
    if len(wanted) < 2 or not all(stem in low for stem in wanted):
        return ""
    said = words(text)
    stems = [_stem(word) for word in said]
    for start, stem in enumerate(stems):
        at = start
        for next_stem in wanted[1:] if stem == wanted[0] else ():
            within = stems[at + 1 : at + 2 + _BETWEEN]
            if next_stem not in within:
                break
            at += 1 + within.index(next_stem)
        else:
            if stem == wanted[0]:
                return " ".join(said[start : at + 1])
    return ""


@cache
def _phrase(rule: str) -> tuple[str, ...]:
    return tuple(_stem(word) for word in rule.split("_") if len(word) > 3 and word not in PLAIN)


def _stem(word: str) -> str:
    one = word if word.endswith("ss") else word.removesuffix("s")
    return one[:_STEM]
