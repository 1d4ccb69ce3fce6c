"""Does a verdict follow from its samples alone, and does an edit of the code make evidence stale?

Recorded samples, operators and thresholds with the verdicts of an independent implementation; the
samples come in the order of the seed. Control: the code that evidence depends on is edited, one
place at a time, and evidence that is still taken for current is counted.

Source: the project's almanac (2026).

Cost: paper does 50 × the work of quick (num_orders), in 1 GB.
"""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from thalweg.almanac.catalogue import get
from thalweg.almanac.code_hash import code_hash, entry_files
from thalweg.almanac.static_vectors import FILE
from thalweg.almanac.verdict import claim_verdict, entry_verdict
from thalweg.studies.figures import Figures, data_hash

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        num_orders: of the samples of each claim.
        num_edits: of each file of code.
    """

    num_orders: int = 20
    num_edits: int = 5


PRESETS = {
    "smoke": Config(num_orders=2, num_edits=1),
    "quick": Config(),
    "full": Config(num_orders=200, num_edits=20),
    "paper": Config(num_orders=1000, num_edits=50),
}


def run(config: Config, seed: int) -> Figures:
    """Judge the recorded cases in many orders, and edit the code in many places."""
    rng = np.random.default_rng(seed)
    cases = json.loads((FILE.parent / "verdict_cases.json").read_text("utf-8"))
    same = [right for _ in range(config.num_orders) for right in _judged(cases, rng)]
    edited = list(_still_current(config, rng))
    figures = [float(x) for case in cases for claim in case["claims"] for x in claim["samples"]]
    return Figures(
        samples={"verdicts_follow": sum(same) / len(same)},
        controls={"verdicts_follow": sum(edited) / len(edited)},
        data_hash=data_hash(torch.tensor(figures, dtype=torch.float64)),
    )


def _judged(cases: list[dict], rng: np.random.Generator) -> Iterator[bool]:
    """Whether each verdict, of claims and of entries, is the recorded one."""
    for case in cases:
        verdicts = []
        for claim in case["claims"]:
            samples = rng.permutation([float(x) for x in claim["samples"]]).tolist()
            verdicts.append(claim_verdict(samples, claim["op"], claim["threshold"]))
            yield verdicts[-1] == claim["verdict"]
        yield entry_verdict(verdicts) == case["entry"]


def _still_current(config: Config, rng: np.random.Generator) -> Iterator[bool]:
    """Whether the hash is the same after an edit of a copy of the code of this entry."""
    files = sorted(set(entry_files(get("almanac").symbols, "almanac_verdicts")))
    before = code_hash(files)
    with tempfile.TemporaryDirectory() as folder:
        for i, path in enumerate(files):
            for edit in range(config.num_edits):
                copy = Path(folder) / f"{i}-{edit}" / path.name
                copy.parent.mkdir()
                copy.write_text(_edited(path.read_text("utf-8"), rng), "utf-8")
                yield code_hash([*(f for f in files if f != path), copy]) == before


def _edited(text: str, rng: np.random.Generator) -> str:
    """The code with one comparison, operation, number or text in it changed."""
    tree = ast.parse(text)
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    places = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.BinOp)
        or (isinstance(node, ast.Constant) and id(node) not in documented)
    ]
    place = places[rng.integers(len(places))]
    if isinstance(place, ast.Compare):
        place.ops[0] = ast.IsNot() if isinstance(place.ops[0], ast.Is) else ast.Is()
    elif isinstance(place, ast.BinOp):
        place.op = ast.Mult() if isinstance(place.op, ast.Sub) else ast.Sub()
    elif isinstance(place.value, str):
        place.value += "x"
    else:
        place.value = 17 if place.value != 17 else 18
    return ast.unparse(tree)
