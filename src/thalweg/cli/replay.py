"""``thalweg replay``: run the last steps before something went wrong again, and look at them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from thalweg.recorder.replay import Replay
    from thalweg.recorder.walk import Moment

__all__ = ["replay"]


def replay(
    run: Path | None = None,
    /,
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    at: int | None = None,
    steps: int = 10,
    root: Path = Path("runs"),
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Run the steps again that the black box kept, and look at every layer.

    The recorded script runs from its start, in its own working directory, and
    whatever it writes it writes again. From its second step on it is given the
    recorded state, batches and settings; it is stopped after the last kept step.
    What the script prints goes to stderr.

    The exit code is 0 if every loss and the last weights are bit for bit those
    of the recording, 1 if they are not.

    Args:
        run: directory of the run; the newest under --root if left out.
        command: after --, the script and its arguments, if not as recorded.
        at: step of the alarm, where several were kept.
        steps: steps to look at in detail, up to the last.
        root: directory in which runs lie.
        json: print JSON.
    """
    from dataclasses import asdict

    from thalweg.cli.output import print_json
    from thalweg.recorder.replay import replay as again
    from thalweg.recorder.run import newest_run

    path = (newest_run(root) if run is None else run).absolute()
    done = again(path, at=at, steps=steps, command=command)
    if json:
        print_json({"run": str(path), "identical": done.departs is None, **asdict(done)})
    else:
        print(*_lines(path, done), sep="\n")
    return int(done.departs is not None)


def _lines(path: Path, done: Replay) -> list[str]:
    """The walk through, in lines that fit the terminal."""
    from thalweg.cli.output import number, width

    lines = [str(path), f"kept at step {done.step} ({done.kind}): {done.why}"]
    same = "bit for bit as recorded" if done.departs is None else f"DEPARTS at {done.departs}"
    lines.append(f"steps {done.first} to {done.last} run again, {done.losses} losses: {same}")
    lines += [f"note: {note}" for note in done.notes]
    lines = [part for line in lines[1:] for part in textwrap.wrap(line, width())]
    lines.insert(0, str(path))
    lines.append("")
    if done.bad is None:
        lines.append("every tensor that was looked at is finite")
    else:
        bad = done.bad
        where = f" of {bad.where!r}" if bad.where else ""
        said = f"first bad tensor: step {bad.step}, {bad.phase}: {bad.what}{where}"
        lines += textwrap.wrap(said, width(), subsequent_indent="  ")
        lines.append(f"  {bad.nan:,} nan and {bad.inf:,} infinite of {bad.numel:,} values")
    if done.moments:
        lines += ["", f"{'step':>8}" + _columns("loss", "grad_norm", "update_norm", "weight_norm")]
    for moment in done.moments:
        loss = sum(moment.losses) if moment.losses else None
        norms = (moment.grad_norm, moment.update_norm, moment.weight_norm)
        lines.append(f"{moment.step:>8}" + _columns(*map(number, [loss, *map(_whole, norms)])))
    return lines + _layers(done)


def _columns(*cells: str) -> str:
    return "".join(f"{cell:>14}" for cell in cells)


def _whole(each: dict[str, float]) -> float | None:
    return sum(value**2 for value in each.values()) ** 0.5 if each else None


def _layers(done: Replay) -> list[str]:
    """Layers and parameters of the step that matters, beside those of the step before."""
    if not done.moments:
        return []
    wanted = done.step if done.bad is None else done.bad.step
    at = next((i for i, m in enumerate(done.moments) if m.step == wanted), len(done.moments) - 1)
    shown = done.moments[max(at - 1, 0) : at + 1]
    return [
        *_table("output of layer", [("rms", [m.activation_rms for m in shown])], shown),
        *_table(
            "parameter",
            [
                ("gradient", [m.grad_norm for m in shown]),
                ("update", [m.update_norm for m in shown]),
            ],
            shown,
        ),
    ]


def _table(
    title: str, columns: list[tuple[str, list[dict[str, float]]]], shown: Sequence[Moment]
) -> list[str]:
    """Figures by name, for each column one of every step shown."""
    from thalweg.cli.output import figures, number

    names = dict.fromkeys(name for _, each in columns for values in each for name in values)
    if not names:
        return []
    lines = ["", *figures("", [what for what, each in columns for _ in each])]
    lines += figures(title, [f"step {m.step}" for _ in columns for m in shown])
    for name in names:
        cells = [number(values.get(name)) for _, each in columns for values in each]
        lines += figures(name or "(model)", cells)
    return lines
