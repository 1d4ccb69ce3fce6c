"""What the doctor last said of each run, kept in the user's data folder.

Reading a run never writes into it, and an examination may take seconds and much memory: so what it
found is kept beside, one small file a run, for pages and digests that only want to know what a run
showed. A run that was recorded anew in the same place is another run and has no diagnosis.

Source: the project's almanac (2026).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thalweg.almanac.evidence import user_folder
from thalweg.recorder.run_files import measured_state, read_header

if TYPE_CHECKING:
    from thalweg.doctor.diagnosis import Diagnosis

__all__ = ["Finding", "Kept", "is_current", "keep_diagnosis", "kept_diagnosis"]

SCHEMA = 1


@dataclass(frozen=True)
class Finding:
    """What is kept of a finding.

    Attributes:
        rule: name of the rule that found it.
        symptom: what is wrong, one sentence.
        entry: slug of the result behind it, empty if there is none.
        treatment: what to do.
    """

    rule: str
    symptom: str
    entry: str
    treatment: str


@dataclass(frozen=True)
class Kept:
    """What the doctor last said of a run.

    Attributes:
        findings: the gravest first.
        state: of the measurements that it saw; ``measured_state`` differs once the run has grown.
    """

    findings: tuple[Finding, ...]
    state: str


def keep_diagnosis(run: Path, findings: Sequence[Diagnosis], state: str) -> None:
    """Keep what was found, in the place of what was kept before.

    Where the data folder cannot be written nothing is kept: an examination does not fail for it.

    Args:
        run: its directory.
        findings: the gravest first.
        state: ``measured_state`` from before the examination.
    """
    kept = [Finding(f.rule, f.symptom, f.entry or "", f.treatment) for f in findings]
    document = {
        "schema_version": SCHEMA,
        "run": os.fspath(run.resolve()),
        "created": read_header(run).get("created"),
        "state": state,
        "findings": [asdict(finding) for finding in kept],
    }
    target = _file(run)
    part = target.with_suffix(f".{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(document), "utf-8")
        part.replace(target)
    except OSError:
        return


def kept_diagnosis(run: Path) -> Kept | None:
    """What the doctor last said of a run; None if it has said nothing, or of another run there.

    Args:
        run: its directory.

    Raises:
        ThalwegError: if it is no run.
    """
    created = read_header(run).get("created")
    try:
        document = json.loads(_file(run).read_text("utf-8"))
        if document["schema_version"] != SCHEMA or document["created"] != created:
            return None
        findings = tuple(Finding(**finding) for finding in document["findings"])
        return Kept(findings, str(document["state"]))
    except (OSError, ValueError, TypeError, KeyError):  # none, or not one of ours
        return None


def is_current(kept: Kept | None, run: Path) -> bool:
    """Whether a run has not grown since."""
    return kept is not None and kept.state == measured_state(run)


def _file(run: Path) -> Path:
    key = hashlib.sha256(os.fsencode(run.resolve())).hexdigest()[:32]
    return user_folder() / "diagnoses" / f"{key}.json"
