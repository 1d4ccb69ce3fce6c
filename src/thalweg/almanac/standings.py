"""Where an entry stands: the verdict of each claim, from the newest valid evidence for it.

Shipped evidence counts until the user has run the study; from then on the newest of both does.
Evidence whose code or threshold has changed since is *stale*: its verdict is shown as such. Source:
the project's almanac (2026).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thalweg.almanac.code_hash import code_hash, entry_files
from thalweg.almanac.entry import Claim, Entry
from thalweg.almanac.evidence import SHIPPED, Evidence, read_folder, user_folder
from thalweg.almanac.verdict import Judgement, entry_verdict
from thalweg.errors import ThalwegError

__all__ = ["ClaimStanding", "Origin", "Standing", "stale_because", "standing"]

Origin = Literal["shipped", "user"]


@dataclass(frozen=True)
class ClaimStanding:
    """One claim and the evidence that counts for it.

    Attributes:
        claim: the claim.
        judgement: what its samples say.
        evidence: where they come from; None if untested.
        path: the file of the evidence.
        origin: ``shipped`` or ``user``.
        stale: why the evidence is out of date; empty if it is not.
    """

    claim: Claim
    judgement: Judgement
    evidence: Evidence | None = None
    path: Path | None = None
    origin: Origin | None = None
    stale: str = ""

    @property
    def baseline(self) -> float | None:
        """Mean of the baseline's figures, if it has one."""
        return self._mean("baselines")

    @property
    def control(self) -> float | None:
        """Mean of the negative control's figures, if it has one."""
        return self._mean("controls")

    def _mean(self, kind: str) -> float | None:
        figures = getattr(self.evidence, kind, {}).get(self.claim.id, ())
        return sum(figures) / len(figures) if figures else None


@dataclass(frozen=True)
class Standing:
    """An entry's claims and what follows from them.

    Attributes:
        verdict: ``reproduced``, ``partly``, ``not`` or ``untested``.
        claims: in the order of the entry.
        stale: whether the evidence of a claim is out of date.
    """

    verdict: str
    claims: tuple[ClaimStanding, ...]

    @property
    def stale(self) -> bool:
        """Whether the evidence of a claim is out of date."""
        return any(c.stale for c in self.claims)


def standing(entry: Entry, evidence: Origin | None = None) -> Standing:
    """Judge an entry by the evidence that counts.

    Args:
        entry: the entry.
        evidence: only ``shipped`` or only ``user`` evidence; by default the newest of both.
    """
    folders: list[tuple[Origin, Path]] = [
        ("shipped", SHIPPED),
        ("user", user_folder() / "evidence"),
    ]
    found: list[tuple[str, Origin, Path, Evidence]] = [
        (item.run_at, origin, path, item)
        for origin, folder in folders
        if evidence in (None, origin)
        for path, item in read_folder(folder, entry.slug)
    ]
    found.sort(key=lambda row: row[0], reverse=True)
    claims = []
    for claim in entry.claims:
        for _, origin, path, item in found:
            if claim.id in item.samples:
                why = stale_because(entry, claim, item)
                judgement = item.judgement(claim.id)
                claims.append(ClaimStanding(claim, judgement, item, path, origin, why))
                break
        else:
            claims.append(ClaimStanding(claim, Judgement("untested", None, None)))
    return Standing(entry_verdict([c.judgement.verdict for c in claims]), tuple(claims))


def stale_because(entry: Entry, claim: Claim, evidence: Evidence) -> str:
    """Why evidence no longer speaks for a claim; empty if it does."""
    if evidence.bounds[claim.id] != claim_bounds(claim):
        return "the threshold of the claim has changed"
    try:
        current = code_hash(entry_files(entry.symbols, evidence.study))
    except ThalwegError as error:
        return str(error)
    return "" if current == evidence.code_hash else "the code has changed"


def claim_bounds(claim: Claim) -> dict[str, object]:
    """Op and threshold of a claim and its control, as evidence stores them."""

    def plain(threshold: object) -> object:
        return list(threshold) if isinstance(threshold, tuple) else threshold

    bounds: dict[str, object] = {"op": claim.op, "threshold": plain(claim.threshold)}
    if claim.control is not None:
        bounds["control"] = {
            "op": claim.control.op,
            "threshold": plain(claim.control.threshold),
        }
    return bounds
