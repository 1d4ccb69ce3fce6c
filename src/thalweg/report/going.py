"""The report's section on the trajectory: where is the training going?

Read from the run's sketches, which cost the same for a model of any size; from its snapshots if the
sketches say too little. Every figure stands beside that of a random walk.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from thalweg.recorder.run import Run
    from thalweg.trajectory import Outlook

__all__ = ["QUESTION", "SLUG", "going_section"]

SLUG, QUESTION = "going", "Where is it going?"
LEAST = 8  # points: fewer say nothing
MOST_WEIGHTS = 20_000_000  # that are read whole when there are no sketches to speak of
WIDTH, HEIGHT, PAD = 320, 180, 10
_STYLE = 'fill="none" stroke-width="2" stroke-linejoin="round" vector-effect="non-scaling-stroke"'


def going_section(run: Run) -> str:
    """The section as HTML; empty if the run keeps too little of its weights.

    Args:
        run: which one.
    """
    found = _outlook(run)
    if found is None:
        return ""
    pca = found.components
    known = (
        "whole snapshots of the weights"
        if found.known_from == "weights"
        else f"sketches of the weights, inner products within about {max(found.error, 5e-3):.1%}"
    )
    lead = (
        f"The path of {pca.dim:,} weights from step {pca.steps[0]:,} to {pca.steps[-1]:,}, from "
        f"{known}, {len(pca.steps):,} points. Dashed: a random walk seen at the same steps; what "
        "is no better than that is noise."
    )
    charts = [_path(found), _prefix(found), *([_horizon(found)] if found.horizons else [])]
    return (
        f'<section id="{SLUG}"><h2>{QUESTION}</h2><p class="lead">{escape(lead)}</p>'
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def _outlook(run: Run) -> Outlook | None:
    """From sketches, or else snapshots; None where both say too little."""
    from thalweg.errors import ThalwegError
    from thalweg.trajectory import DeltaStore, outlook

    try:
        groups = run.sketches().values()
        points = min((len(group.steps) for group in groups), default=0)
        resumed = len(run.header.get("segments", ())) > 1
        last = max((int(group.steps[-1]) for group in groups if len(group.steps)), default=0)
        snapshots = run.weights()
        late = max(snapshots, default=0)
        # Sketches stop when their time is used up; snapshots go on.
        if points >= LEAST and not resumed and 2 * last >= late:
            return outlook(run, sketched=True)
        if len(snapshots) >= LEAST:
            store = DeltaStore(run)
            if sum(info.numel for info in store.tensors.values()) <= MOST_WEIGHTS:
                return outlook(store)
    except (ThalwegError, ValueError):
        return None  # damaged or not finite: the report has said so elsewhere
    return None


def _path(found: Outlook) -> str:
    pca = found.components
    xy = pca.scores[:, :2].numpy()
    if xy.shape[1] < 2:
        return ""
    x, y = (_place(xy[:, i], WIDTH if i == 0 else HEIGHT) for i in range(2))
    drawn = (
        f'<polyline class="s0" stroke="var(--line)" {_STYLE} points="{_points(x, HEIGHT - y)}"/>'
        f"{''.join(_dot(a, HEIGHT - b, 's0', 2.5) for a, b in zip(x, y, strict=True))}"
        f"{_dot(x[0], HEIGHT - y[0], 's5')}{_dot(x[-1], HEIGHT - y[-1], 's1')}"
    )
    here, walk = pca.r(0.9), pca.null_r(0.9)
    first, second = (float(v) for v in pca.explained[:2])
    hold = "dimension holds" if here == 1 else "dimensions hold"
    against = (
        f"of it; a random walk's would need {walk}"
        if found.structured
        else f"of it, no fewer than a random walk's {walk}"
    )
    said = f"{here} {hold} nine tenths {against}."
    how = (
        f"{said} Across: the first component, {first:.0%} of the path; up: the second, "
        f"{second:.0%}."
    )
    legend = _legend([("s5", "start", ""), ("s1", "end", "")])
    label = f"The path in its first two components. {how}"
    axis = ("first component", "")
    return _figure("The path in its two main directions", how, drawn, legend, label, axis)


def _prefix(found: Outlook) -> str:
    steps = np.array([p.step for p in found.prefixes], float)
    here = np.array([p.share for p in found.prefixes])
    walk = np.array([p.walk for p in found.prefixes])
    half = next((p for p in found.prefixes if p.share >= 0.5), found.prefixes[-1])
    how = (
        f"By step {half.step:,}, {half.share:.0%} of the squared length of the whole change lies "
        f"in the span of the changes so far; of a random walk {half.walk:.0%} would."
    )
    drawn = _lines(np.log(steps), [(here, "s0", False), (walk, "s5", True)], top=1.0)
    legend = _legend(
        [
            ("s0", "share told by the start", f"{here[0]:.2f} → {here[-1]:.2f}"),
            ("s5", "random walk", f"{walk[0]:.2f} → {walk[-1]:.2f}"),
        ]
    )
    axis = (f"up to step {found.prefixes[0].step:,}", f"{found.prefixes[-1].step:,}")
    return _figure("How early is the direction settled?", how, drawn, legend, how, axis)


def _horizon(found: Outlook) -> str:
    far = np.array([h.horizon for h in found.horizons])
    error = np.array([h.error for h in found.horizons])
    order = np.argsort(far)
    far, error = far[order], error[order]
    last = found.components.steps[-1]
    if found.reach > 1:
        to = found.components.steps[0] + round(found.reach * (last - found.components.steps[0]))
        said = f"worth a try up to step {to:,} or so: thalweg extrapolate --to STEP"
    else:
        said = "not worth a try: the path bends"
    how = (
        "The last point, told by a line from earlier and earlier ones; missed by, as a share of "
        f"the way between (dashed: not training on). Extrapolating from here is {said}."
    )
    top = max(1.2, float(error.max()))
    ends = f"{error[0]:.2f} at {far[0]:.3g}×, {error[-1]:.2f} at {far[-1]:.3g}×"
    drawn = _lines(np.log(far), [(error, "s0", False), (np.ones(len(far)), "s5", True)], top=top)
    legend = _legend(
        [
            ("s0", "missed by", ends),
            ("s5", "not training on", "1.00"),
        ]
    )
    axis = (f"{far[0]:.3g} times further than what is seen", f"{far[-1]:.3g} times")
    return _figure("How far ahead can it be told?", how, drawn, legend, how, axis)


def _lines(x: np.ndarray, lines: Sequence[tuple[np.ndarray, str, bool]], *, top: float) -> str:
    """Lines over x, from 0 to ``top``."""
    across, drawn = _place(x, WIDTH), []
    for values, tone, dashed in lines:
        up = HEIGHT - PAD - np.clip(values / top, 0, 1) * (HEIGHT - 2 * PAD)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        points = _points(across, up)
        drawn.append(
            f'<polyline class="{tone}" stroke="var(--line)" {_STYLE}{dash} points="{points}"/>'
        )
        if not dashed:
            drawn += [_dot(a, b, tone) for a, b in zip(across, up, strict=True)]
    return "".join(drawn)


def _figure(
    title: str, how: str, drawn: str, legend: str, label: str, axis: tuple[str, str]
) -> str:
    ends = "".join(f"<span>{escape(end)}</span>" for end in axis)
    return (
        f'<figure class="chart"><h3>{escape(title)}</h3><p class="how">{escape(how)}</p>{legend}'
        f'<svg class="going" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label, quote=True)}">{drawn}</svg>'
        f'<p class="across">{ends}</p></figure>'
    )


def _legend(items: Sequence[tuple[str, str, str]]) -> str:
    rows = "".join(
        f'<li class="{tone}"><svg viewBox="0 0 24 8" aria-hidden="true"><line x1="0" y1="4" '
        f'x2="24" y2="4" stroke="var(--line)" stroke-width="3"/></svg>{escape(name)}'
        f'<span class="ends">{escape(ends)}</span></li>'
        for tone, name, ends in items
    )
    return f'<ul class="legend">{rows}</ul>'


def _place(values: np.ndarray, size: int) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    return PAD + share * (size - 2 * PAD)


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _dot(x: float, y: float, tone: str, r: float = 4) -> str:
    return f'<circle class="{tone}" cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="var(--line)"/>'
