"""What the runs of the folder show, by what the doctor last said of them; nobody is asked anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from thalweg.almanac.corpus import corpus
from thalweg.almanac.paper import Paper
from thalweg.almanac.run_findings import RunFinding, concerning, findings_of, reason
from thalweg.errors import ThalwegError
from thalweg.web.run_folder import RunFolder

__all__ = ["Concerns", "papers_on"]

#: Seconds for which nothing is looked at: 32 readers do not make 32 walks through the runs.
STILL_S = 2.0
#: Papers on the page of a diagnosis.
MOST_PAPERS = 8


class Concerns:
    """What the runs of a folder have to do with papers.

    Args:
        folder: where the runs lie.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._looked = -STILL_S
        self._found: tuple[tuple[RunFinding, ...], tuple[str, ...]] = ((), ())

    def all(self) -> tuple[tuple[RunFinding, ...], tuple[str, ...]]:
        """What the runs show, and the names of those of which the doctor has said nothing yet."""
        with self._lock:
            if time.monotonic() - self._looked >= STILL_S:
                paths = []
                for name in self.folder.names():
                    try:
                        paths.append(self.folder.open(name).path)
                    except ThalwegError:  # not to be shown, or gone
                        continue
                self._found = findings_of(paths)
                self._looked = time.monotonic()
            return self._found

    def of(self, papers: Iterable[Paper]) -> dict[str, str]:
        """Paper id to why it concerns a run, in words, of those that do."""
        findings = self.all()[0]
        return {p.id: why for p in papers if (why := concerning(p, findings))}


def papers_on(findings: Iterable[RunFinding]) -> list[tuple[Paper, str]]:
    """The papers that were read in and concern some findings, with the reason, closest first."""
    findings = tuple(findings)
    if not findings:
        return []
    told = [(paper, *reason(paper, findings)) for paper in corpus().papers]
    near = [row for row in told if row[1]]
    near.sort(key=lambda row: (-row[1], -row[0].hot(), row[0].id))
    return [(paper, why) for paper, _, why in near[:MOST_PAPERS]]
