"""Evidence: what a study measured, as one JSON file that is never changed once it is written.

Shipped evidence lies in the package, a user's own in the user data folder. Each file stores its
verdict beside the samples, so that the one can be checked against the other. Source: the project's
almanac (2026).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from thalweg.almanac.verdict import Judgement, entry_verdict, judge
from thalweg.errors import ThalwegError

__all__ = [
    "SHIPPED",
    "Evidence",
    "as_json",
    "read_evidence",
    "read_folder",
    "user_folder",
    "write_evidence",
]

SHIPPED = Path(__file__).parent / "data" / "evidence"
SCHEMA = 1


@dataclass(frozen=True)
class Evidence:
    """One run of one study for one entry.

    Attributes:
        entry: slug.
        study: name of the study.
        preset: ``quick``, ``full`` or ``paper``.
        config: every setting of the study.
        run_at: UTC, ISO.
        commit: git commit of the code, empty if unknown; ``+`` at its end if it was changed.
        code_hash: of the study and the code it tests.
        data_hash: of the data that the seeds saw.
        versions: of python, torch, numpy and this package.
        platform: operating system and processor.
        threads: of torch, in each worker.
        seeds: in order.
        bounds: claim id to ``{op, threshold}`` as they stood when the study ran; a control's
            under ``control``.
        samples: claim id to one figure per seed.
        baselines: claim id to the baseline's figure for the same seeds.
        controls: claim id to the negative control's figure for the same seeds.
        curves: name to ``{"x": [...], "y": [[...] per seed]}``.
        wall_s: seconds of each seed.
        argv: how it was started.
        verdict: of the claims in it.
    """

    entry: str
    study: str
    preset: str
    config: Mapping[str, Any]
    run_at: str
    commit: str
    code_hash: str
    data_hash: str
    versions: Mapping[str, str]
    platform: str
    threads: int
    seeds: tuple[int, ...]
    bounds: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, tuple[float, ...]]
    verdict: str
    wall_s: tuple[float, ...]
    argv: tuple[str, ...] = ()
    baselines: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    controls: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def judgement(self, claim_id: str) -> Judgement:
        """What the samples of a claim say, by the bounds that stood when the study ran."""
        bound = self.bounds[claim_id]
        held = True
        if (control := bound.get("control")) is not None:
            figures = self.controls.get(claim_id, ())
            held = judge(figures, control["op"], control["threshold"]).verdict in ("pass", "weak")
        return judge(self.samples[claim_id], bound["op"], bound["threshold"], control=held)

    def computed_verdict(self) -> str:
        """The verdict that follows from the samples, whatever the file says."""
        return entry_verdict([self.judgement(claim_id).verdict for claim_id in self.samples])


def as_json(evidence: Evidence) -> dict[str, Any]:
    """Its fields as JSON takes them; figures that JSON lacks as "nan", "inf", "-inf"."""
    return _jsonable(asdict(evidence))


def user_folder() -> Path:
    """Where a user's own evidence, unfinished studies and sweeps go.

    ``THALWEG_DATA`` if set, else ``thalweg`` under ``XDG_DATA_HOME`` or ``~/.local/share``.
    """
    if own := os.environ.get("THALWEG_DATA"):
        return Path(own)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "thalweg"


def write_evidence(evidence: Evidence, folder: Path) -> Path:
    """Write evidence to a new file ``<folder>/<entry>/<time>-<study>-<preset>.json``.

    Args:
        evidence: what was measured.
        folder: the evidence folder, shipped or the user's.

    Returns:
        The file.

    Raises:
        ThalwegError: if the folder cannot be written, or the file is there already.
    """
    stamp = evidence.run_at.replace(":", "").replace("-", "")[:15] + "Z"
    path = folder / evidence.entry / f"{stamp}-{evidence.study}-{evidence.preset}.json"
    text = json.dumps({"schema_version": SCHEMA, **as_json(evidence)}, indent=1)
    # One list of figures a line: a human can read it and a diff shows what changed.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(_flat_lists(text) + "\n", "utf-8")
        os.link(part, path)  # refuses to replace, and is there whole or not at all
        part.unlink()
    except FileExistsError:
        raise ThalwegError(f"{path} is there already; evidence is never overwritten") from None
    except OSError as error:
        raise ThalwegError(f"{path.parent}: cannot write evidence: {error}") from None
    return path


def read_evidence(path: Path) -> Evidence:
    """Read one file.

    Raises:
        ThalwegError: naming the file and what is wrong with it.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        if data.pop("schema_version") != SCHEMA:
            raise ThalwegError(f"{path.name}: written by a newer version of Thalweg")
        known = {f.name for f in fields(Evidence)}
        if unknown := set(data) - known:
            raise ThalwegError(f"{path.name}: unknown fields {sorted(unknown)}")
        for name in ("samples", "baselines", "controls"):
            data[name] = {k: tuple(map(_number, v)) for k, v in data[name].items()}
        for name in ("seeds", "wall_s", "argv"):
            data[name] = tuple(data[name])
        evidence = Evidence(**data)
        for claim_id, figures in evidence.samples.items():
            if len(figures) != len(evidence.seeds):
                raise ThalwegError(
                    f"{path.name}: {claim_id} has {len(figures)} samples for "
                    f"{len(evidence.seeds)} seeds"
                )
        evidence.computed_verdict()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ThalwegError(
            f"{path.name}: no valid evidence: {type(error).__name__}: {error}"
        ) from None
    return evidence


def read_folder(folder: Path, entry: str) -> list[tuple[Path, Evidence]]:
    """All readable evidence of an entry in a folder, oldest first; damaged files are left out."""
    found = []
    for path in sorted((folder / entry).glob("*.json")):
        try:
            found.append((path, read_evidence(path)))
        except ThalwegError:
            continue
    return sorted(found, key=lambda pair: pair[1].run_at)


def _number(value: Any) -> float:
    if isinstance(value, str):
        if value not in ("nan", "inf", "-inf"):
            raise ValueError(f"{value!r} is no figure")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no figure")
    return float(value)


def _jsonable(value: Any) -> Any:
    """What JSON lacks as "nan", "inf", "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_jsonable(v) for v in value]
    return value


def _flat_lists(text: str) -> str:
    """Innermost lists of an indented JSON text on one line each."""
    return re.sub(
        r"\[\s*([^\[\]{}]*?)\s*\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text
    )
