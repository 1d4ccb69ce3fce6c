"""The plot of a study's evidence: one strip per claim, one panel per curve, as an SVG of its own.

A strip shows every seed's figure beside the threshold, the baseline and the negative control; a
curve shows every seed. The picture follows the reader's light or dark setting.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from html import escape

import numpy as np

from thalweg.almanac.standings import ClaimStanding
from thalweg.report.scale import Scale, number, scale_of

__all__ = ["draw"]

WIDTH, LEFT, RIGHT = 760, 64, 28
STRIP, CURVE = 92, 190
#: What a study adds to the name of a curve for what theory says of it.
THEORY = " (theory)"
_STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff; color: #1b1f24; }
text { fill: currentColor; } .dim { opacity: .65; } .title { font-weight: 600; }
.axis { stroke: currentColor; opacity: .3; } .seed { stroke: #1f6feb; fill: none; }
.theory { stroke: #bc4c00; fill: none; stroke-width: 1.5; stroke-dasharray: 5 4; }
.sample { fill: #1f6feb; } .baseline { fill: none; stroke: #57606a; stroke-width: 1.5; }
.control { stroke: #bc4c00; stroke-width: 1.5; fill: none; }
.bound { stroke: #cf222e; stroke-dasharray: 4 3; } .good { fill: #1a7f37; opacity: .08; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; color: #e6edf3; } .seed { stroke: #58a6ff; }
  .sample { fill: #58a6ff; } .baseline { stroke: #8b949e; } .control { stroke: #f0883e; }
  .theory { stroke: #f0883e; }
  .bound { stroke: #ff7b72; } .good { fill: #3fb950; opacity: .12; }
}
"""


def draw(claims: Sequence[ClaimStanding]) -> str:
    """The SVG of some claims that have evidence.

    Args:
        claims: where they stand; those without evidence are left out.

    Returns:
        An SVG document.

    Raises:
        ValueError: if no claim has evidence.
    """
    tested = [c for c in claims if c.evidence is not None]
    if not tested:
        raise ValueError("no claim has evidence to draw")
    parts, y = [], 14
    for claim in tested:
        text, height = _strip(claim)
        parts.append(f'<g transform="translate(0 {y})">{text}</g>')
        y += height
    curves = {}
    for claim in tested:
        assert claim.evidence is not None
        curves.update(claim.evidence.curves)
    for name, curve in curves.items():
        if name.endswith(THEORY) and name.removesuffix(THEORY) in curves:
            continue  # drawn over what was measured
        text = _curve(name, curve, curves.get(name + THEORY))
        parts.append(f'<g transform="translate(0 {y})">{text}</g>')
        y += CURVE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" '
        f'height="{y}" role="img"><style>{_STYLE}</style>{"".join(parts)}</svg>\n'
    )


def _strip(c: ClaimStanding) -> tuple[str, int]:
    claim, item = c.claim, c.evidence
    assert item is not None
    samples = item.samples[claim.id]
    baselines, controls = item.baselines.get(claim.id, ()), item.controls.get(claim.id, ())
    bounds = claim.threshold if isinstance(claim.threshold, tuple) else (claim.threshold,)
    scale = _scale([*samples, *baselines, *controls, *bounds])
    lines = textwrap.wrap(f"{c.judgement.verdict.upper()}: {claim.statement}", 100)
    out = [
        f'<text x="8" y="{14 + 15 * i}" class="title">{escape(t)}</text>'
        for i, t in enumerate(lines)
    ]
    top = 15 * len(lines) + 10
    middle = top + 18
    out.append(_good(claim.op, bounds, scale, top))
    out.append(f'<path class="axis" d="M{LEFT} {middle}H{WIDTH - RIGHT}"/>')
    for tick in scale.ticks():
        x = _x(tick, scale)
        out.append(f'<path class="axis" d="M{x:.1f} {middle - 4}v8"/>')
        out.append(
            f'<text x="{x:.1f}" y="{middle + 30}" text-anchor="middle" class="dim">'
            f"{number(tick)}</text>"
        )
    for bound in bounds:
        out.append(f'<path class="bound" d="M{_x(bound, scale):.1f} {top}v36"/>')
    for v in baselines:
        out.append(_mark("baseline", v, scale, middle))
    for v in controls:
        x = _x(v, scale)
        out.append(f'<path class="control" d="M{x - 4:.1f} {middle - 4}l8 8m0-8l-8 8"/>')
    for v in samples:
        out.append(_mark("sample", v, scale, middle))
    bad = sum(not math.isfinite(v) for v in samples)
    words = [f"● seeds ({len(samples)})" + (f", {bad} not finite" if bad else "")]
    words.append(f"┆ must be {claim.bound} {claim.unit}".rstrip())
    if baselines and claim.baseline:
        words.append(f"○ {claim.baseline.name}")
    if controls and claim.control:
        words.append(f"✕ control: {claim.control.name}")
    legend = textwrap.wrap("    ".join(words), 104)
    for i, line in enumerate(legend):
        out.append(f'<text x="{LEFT}" y="{middle + 48 + 14 * i}" class="dim">{escape(line)}</text>')
    return "".join(out), top + STRIP + 14 * (len(legend) - 1)


def _curve(name: str, curve: object, theory: object = None) -> str:
    """The seeds of a curve, and what theory says of it, dashed, on the same axes."""
    x, seeds = _points(curve)
    told_x, told = _points(theory) if theory is not None else (x, [])
    values = np.concatenate([np.zeros(0), *seeds, *told])
    scale = scale_of(values, values) or Scale(0.0, 1.0)
    both = np.concatenate([x, told_x])
    low, high = float(both.min()), float(both.max())
    across = Scale(low, high if high > low else low + 1)
    height, top = CURVE - 62, 24
    legend = " (dashed: theory)" if told else ""
    out = [f'<text x="8" y="12" class="title">{escape(name + legend)}</text>']
    for tick in scale.ticks():
        y = top + (1 - float(scale.place(np.array([tick]))[0])) * height
        out.append(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        out.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" class="dim">'
            f"{number(tick)}</text>"
        )
    for tick in across.ticks():
        out.append(
            f'<text x="{_x(tick, across):.1f}" y="{top + height + 16}" text-anchor="middle" '
            f'class="dim">{number(tick)}</text>'
        )
    for kind, at, lines in (("seed", x, seeds), ("theory", told_x, told)):
        for line in lines:
            places = top + (1 - scale.place(line)) * height
            out.append(f'<path class="{kind}" d="{_path(at, places, line, across)}"/>')
    return "".join(out)


def _points(curve: object) -> tuple[np.ndarray, list[np.ndarray]]:
    """x, and y of every seed."""
    assert isinstance(curve, dict)
    x = np.asarray(curve["x"], float)
    ys = [np.array([float(v) for v in y]) for y in curve["y"]]
    return x, [y for y in ys if len(y) == len(x)]  # an older runner let seeds differ


def _path(x: np.ndarray, places: np.ndarray, values: np.ndarray, across: Scale) -> str:
    """Line through the finite points, broken at the others."""
    path, pen = [], "M"
    for a, b, v in zip(x, places, values, strict=True):
        if not math.isfinite(v):
            pen = "M"
            continue
        path.append(f"{pen}{_x(float(a), across):.1f} {float(b):.1f}")
        pen = "L"
    return "".join(path)


def _scale(values: Sequence[float]) -> Scale:
    array = np.array(values, float)
    return scale_of(array, array) or Scale(0.0, 1.0)


def _good(op: str, bounds: Sequence[float], scale: Scale, top: int) -> str:
    """The stretch in which the claim holds."""
    first, last = LEFT, WIDTH - RIGHT
    a = _x(bounds[0], scale) if op in (">=", "in") else first
    b = _x(bounds[-1], scale) if op in ("<=", "in") else last
    return f'<rect class="good" x="{a:.1f}" y="{top}" width="{max(b - a, 2):.1f}" height="36"/>'


def _mark(kind: str, value: float, scale: Scale, y: int) -> str:
    if not math.isfinite(value):
        return ""
    return f'<circle class="{kind}" cx="{_x(value, scale):.1f}" cy="{y}" r="4.5"/>'


def _x(value: float, scale: Scale) -> float:
    place = float(np.nan_to_num(scale.place(np.array([value])))[0])
    return LEFT + place * (WIDTH - LEFT - RIGHT)
