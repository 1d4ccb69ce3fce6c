"""``thalweg replay``: run the last steps before something went wrong again, and look at them."""

from __future__ import annotations

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
    from thalweg.cli.output import number

    lines = [str(path), f"kept at step {done.step} ({done.kind}): {done.why}"]
    same = "bit for bit as recorded" if done.departs is None else f"DEPARTS at {done.departs}"
    lines.append(f"steps {done.first} to {done.last} run again, {done.losses} losses: {same}")
    lines += [f"note: {note}" for note in done.notes]
    lines.append("")
    if done.bad is None:
        lines.append("every tensor that was looked at is finite")
    else:
        bad = done.bad
        where = f" of {bad.where!r}" if bad.where else ""
        lines.append(f"first bad tensor: step {bad.step}, {bad.phase}: {bad.what}{where}")
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
    from thalweg.cli.output import figures, number

    if not done.moments:
        return []
    number_of = done.step if done.bad is None else done.bad.step
    at = next((i for i, m in enumerate(done.moments) if m.step == number_of), -1)
    now = done.moments[at]
    before: Moment | None = done.moments[at - 1] if at != 0 and len(done.moments) > 1 else None
    was = f"step {before.step}" if before else ""

    def table(title: str, rows: list[tuple[str, dict[str, float], dict[str, float]]]) -> list[str]:
        names = list(dict.fromkeys(name for _, each, _ in rows for name in each))
        heads = [head for what, _, _ in rows for head in (was, what) if head]
        lines = ["", *figures(title, heads)]
        for name in names:
            cells = [
                number(each.get(name))
                for _, present, past in rows
                for each in ([past, present] if before else [present])
            ]
            lines += figures(name, cells)
        return lines

    empty: dict[str, float] = {}
    return [
        *table(
            f"step {now.step}",
            [("output rms", now.activation_rms, before.activation_rms if before else empty)],
        ),
        *table(
            "",
            [
                ("gradient", now.grad_norm, before.grad_norm if before else empty),
                ("update", now.update_norm, before.update_norm if before else empty),
            ],
        ),
    ]
