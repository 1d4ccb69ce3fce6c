"""``thalweg doctor``: what is wrong with a training, why, and what to do about it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from thalweg.doctor.diagnosis import Diagnosis

__all__ = ["doctor"]


def doctor(
    run: Path | None = None,
    /,
    *,
    root: Path = Path("runs"),
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Say what is wrong with a training, with the evidence and the treatment.

    The exit code is 1 if there is a problem or a warning; notes do not count. What was said last is
    kept in your data folder, so that the page and digests can name papers that concern the run.

    Args:
        run: directory of the run; the newest under --root if left out.
        root: directory in which runs lie.
        json: print JSON.
    """
    from dataclasses import asdict

    from thalweg.almanac.kept_diagnoses import keep_diagnosis
    from thalweg.cli.output import print_json
    from thalweg.doctor.examination import RULES, examine
    from thalweg.recorder.run import Run, newest_run
    from thalweg.recorder.run_files import measured_state

    opened = Run(newest_run(root) if run is None else run)
    state = measured_state(opened.path)
    found = examine(opened)
    keep_diagnosis(opened.path, found.findings, state)
    code = int(any(finding.severity != "note" for finding in found.findings))
    if json:
        findings = [asdict(finding) for finding in found.findings]
        data = {"run": str(opened.path), "findings": findings, "skipped": found.skipped}
        print_json(data)
        return code
    print(opened.path)
    for finding in found.findings:
        print()
        print(*_lines(finding), sep="\n")
    judged = len(RULES) - len(found.skipped)
    print()
    said = f"{judged} of {len(RULES)} rules could judge"
    print(said if found.findings else f"nothing found; {said}")
    for rule, why in found.skipped.items():
        print(f"  not judged: {rule}: {why}")
    return code


def _lines(finding: Diagnosis) -> list[str]:
    """One finding, in lines that fit the terminal."""
    from thalweg.cli.output import width

    def fill(lead: str, text: str) -> list[str]:
        later = " " * len(lead)
        return textwrap.wrap(
            text,
            width(),
            initial_indent=lead,
            subsequent_indent=later,
            break_on_hyphens=False,
        )

    lines = fill(f"{finding.severity.upper()}: ", f"{finding.symptom} [{finding.rule}]")
    for evidence in finding.evidence:
        lines += fill("  - ", evidence.text)
    if finding.source:
        lines += fill("  source     ", finding.source)
    treatment = finding.treatment + (" (planned)" if finding.planned else "")
    return lines + fill("  treatment  ", treatment)
