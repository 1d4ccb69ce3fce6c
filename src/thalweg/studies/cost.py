"""What the preset ``paper`` of a study costs, estimated from what ``quick`` took.

    CPU hours a seed = factor × median seconds of a quick seed in the shipped evidence / 3600

A study's docstring states the factor, the expression of its settings that the factor is the ratio
of (paper's over quick's), and the memory of a seed: ``Cost: paper does 186 × the work of quick
(num_steps * …), in 1 GB.`` The expression counts the multiply-adds of the part that grows most;
1e6 in it stands for what a training step takes however small its matrices are. No paper preset was
run for it: the order of magnitude is meant, not the digits.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from thalweg.almanac.catalogue import study_entries
from thalweg.almanac.evidence import SHIPPED
from thalweg.errors import ThalwegError

__all__ = ["Cost", "cost"]

_FOLDER = Path(__file__).parent
_STATED = re.compile(r"Cost: paper does ([\d.]+) × the work of quick \((.+?)\), in ([\d.]+) GB\.")


@dataclass(frozen=True)
class Cost:
    """An estimate for the preset ``paper``.

    Attributes:
        factor: how many times the work of ``quick`` it does.
        work: the expression of the settings that this is the ratio of.
        memory: bytes of a seed, at most.
        quick_s: median seconds of a seed of ``quick``; None without shipped evidence.
    """

    factor: float
    work: str
    memory: int
    quick_s: float | None

    @property
    def hours(self) -> float | None:
        """CPU hours a seed, on one thread of the machine that the evidence was made on."""
        return None if self.quick_s is None else self.factor * self.quick_s / 3600

    def told(self, seeds: int) -> str:
        """The cost of some seeds in words."""
        memory = f"{self.memory / 1e9:.3g} GB each"
        if self.hours is None:
            return f"{self.factor:g} times quick for each of {seeds} seeds, {memory}"
        each, total = (f"{float(f'{h:.2g}'):g}" for h in (self.hours, self.hours * seeds))
        return (
            f"about {each} CPU hours a seed, {total} for {seeds} seeds, {memory} (an estimate: "
            f"{self.factor:g} times the work of quick, which took {self.quick_s:.3g} s)"
        )


def cost(name: str) -> Cost:
    """The cost of a study's ``paper``, from its docstring; nothing is imported.

    Args:
        name: a study of this version.

    Raises:
        ThalwegError: if its docstring states none.
    """
    doc = ast.get_docstring(ast.parse((_FOLDER / f"{name}.py").read_text("utf-8"))) or ""
    stated = _STATED.search(" ".join(doc.split()))
    if stated is None:
        raise ThalwegError(
            f"study {name} does not state its cost: 'Cost: paper does N × the work of quick "
            "(EXPRESSION), in N GB.' in its docstring"
        )
    factor, work, memory = stated.groups()
    return Cost(float(factor), work, round(float(memory) * 1e9), _quick_seconds(name))


def _quick_seconds(name: str) -> float | None:
    """Median over the newest shipped evidence of the preset quick."""
    found = []
    for entry in study_entries(name):
        for path in (SHIPPED / entry.slug).glob("*.json"):
            data = json.loads(path.read_text("utf-8"))
            if data["study"] == name and data["preset"] == "quick":
                found.append((data["run_at"], data["wall_s"]))
    return float(statistics.median(max(found)[1])) if found else None
