"""Seeds that are finished while their study is not: kept on disk, so that a kill repeats none.

One JSON file per seed under ``unfinished/`` in the user data folder, in a folder named after all
that the figures depend on; gone once the study's evidence is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thalweg.almanac.evidence import user_folder
from thalweg.studies.figures import Figures

__all__ = ["Unfinished"]


@dataclass(frozen=True)
class Unfinished:
    """The finished seeds of one setting of a study.

    Attributes:
        folder: where they lie.
    """

    folder: Path

    @staticmethod
    def of(study: str, config: Any, code: str, versions: Mapping[str, str]) -> Unfinished:
        """The place for a study with these settings, this code and these versions."""
        key = json.dumps([asdict(config), code, dict(versions)], sort_keys=True, default=str)
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return Unfinished(user_folder() / "unfinished" / f"{study}-{digest}")

    def read(self) -> dict[int, tuple[Figures, float]]:
        """Seed to its figures and seconds; a torn file counts as not there."""
        found = {}
        for path in self.folder.glob("seed-*.json"):
            try:
                data = json.loads(path.read_text("utf-8"))
                curves = {k: (x, y) for k, (x, y) in data["figures"].pop("curves").items()}
                figures = Figures(**data["figures"], curves=curves)
                found[int(data["seed"])] = (figures, float(data["wall_s"]))
            except (OSError, ValueError, TypeError, KeyError):
                continue
        return found

    def write(self, seed: int, figures: Figures, wall_s: float) -> None:
        """Keep one seed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"seed-{seed}.part"
        data = {"seed": seed, "wall_s": wall_s, "figures": asdict(figures)}
        part.write_text(json.dumps(data), "utf-8")  # Python's JSON keeps NaN and infinities
        part.replace(part.with_suffix(".json"))

    def clear(self) -> None:
        """Forget them all."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self.folder.rmdir()
