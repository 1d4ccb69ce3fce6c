"""Where a run came from, as HTML: how it was started and on what, how it ended, what happened."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["notable", "provenance_section"]

# Events that are part of every run, and how many of the others are listed from either end.
_ORDINARY = {"started", "closed"}
_LISTED = 40


def notable(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The events that say more than that training began and ended."""
    return [event for event in events if event.get("event") not in _ORDINARY]


def provenance_section(
    header: Mapping[str, Any], events: Sequence[Mapping[str, Any]], notes: Sequence[str]
) -> str:
    """The section at the bottom.

    Args:
        header: ``run.json``.
        events: all of the run.
        notes: what could not be read.
    """
    rows = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{fact}</dd></div>"
        for label, fact in _facts(header).items()
        if fact
    )
    pieces = [f"<dl>{rows}</dl>"]
    if notes:
        listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
        pieces.append(f'<h3>What could not be read</h3><ul class="notes">{listed}</ul>')
    pieces.append(_events(events))
    for label, key in (("Environment", "environment"), ("Models", "models")):
        if header.get(key):
            text = escape(json.dumps(header[key], indent=1, ensure_ascii=False))
            pieces.append(f"<details><summary>{label}</summary><pre>{text}</pre></details>")
    body = "".join(pieces)
    return f'<section id="provenance"><h2>Where does this run come from?</h2>{body}</section>'


def _facts(header: Mapping[str, Any]) -> dict[str, str]:
    """Each fact as HTML, "" where it is not known."""
    git = header.get("git") or {}
    commit = _code(git.get("commit", "")) if git else ""
    if commit and git.get("dirty"):
        commit += " with uncommitted changes"
    versions, hardware = header.get("versions") or {}, header.get("hardware") or {}
    command = header.get("command") or []
    machine = [hardware.get("cpu"), f"{hardware['cpus']} cores" if hardware.get("cpus") else None]
    machine += [*(hardware.get("gpus") or []), hardware.get("system")]
    optimizers = header.get("optimizers") or []
    seed = header.get("seed")
    return {
        "command": _code(" ".join(map(str, command))) if isinstance(command, list) else "",
        "script": _code(header.get("script") or ""),
        "directory": _code(header.get("cwd") or ""),
        "git commit": commit,
        "seed": "" if seed is None else _code(seed),
        "created": escape(str(header.get("created") or "")),
        "segments": _segments(header.get("segments") or []),
        "optimizer": "<br>".join(map(_optimizer, optimizers)),
        "loss": escape(str(header.get("loss_closure") or "")),
        "versions": escape(", ".join(f"{name} {v}" for name, v in versions.items())),
        "machine": escape(", ".join(str(fact) for fact in machine if fact)),
        "overhead": _overhead(header.get("overhead")),
        "rows lost": f"{header['dropped_rows']:,}" if header.get("dropped_rows") else "",
    }


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>" if text != "" else ""


def _segments(segments: Sequence[Any]) -> str:
    lines = []
    for segment in segments:
        if isinstance(segment, dict):
            first, last = segment.get("first_step", "?"), segment.get("last_step", "?")
            ended = segment.get("ended") or "not ended"
            text = f"steps {first} to {last}, {segment.get('started', '?')} to {ended}"
            lines.append(escape(f"{text}, {segment.get('status', '?')}"))
    return "<br>".join(lines)


def _optimizer(optimizer: Any) -> str:
    if not isinstance(optimizer, dict):
        return escape(str(optimizer))
    name = " ".join(str(optimizer[key]) for key in ("part", "class") if optimizer.get(key))
    groups = optimizer.get("groups") or [optimizer]
    texts = []
    for group in groups:
        kept = {
            key: value
            for key, value in group.items()
            if isinstance(value, int | float | list) and key != "params" and value is not False
        }
        texts.append(", ".join(f"{key}={_brief(value)}" for key, value in kept.items()))
    return f"<b>{escape(name)}</b> {escape('; '.join(texts))}"


def _brief(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _overhead(overhead: Any) -> str:
    if not isinstance(overhead, dict) or overhead.get("achieved") is None:
        return ""
    budget = overhead.get("budget")
    allowed = "" if budget is None else f" (budget {budget:.1%})"
    return f"{overhead['achieved']:.1%} of the training's time{allowed}"


def _events(events: Sequence[Mapping[str, Any]]) -> str:
    found = notable(events)
    if not found:
        return ""
    kinds = Counter(str(event.get("event")) for event in found)
    counted = ", ".join(f"{count:,} × {kind}" for kind, count in kinds.most_common(8))
    shown, hidden = found, len(found) - 2 * _LISTED
    gap = ""
    if hidden > 0:
        shown = found[:_LISTED] + found[-_LISTED:]
        gap = f'<tr><td colspan="3">… {hidden:,} more in the run …</td></tr>'
    rows = [_event(event) for event in shown]
    if gap:
        rows.insert(_LISTED, gap)
    unfolded = " open" if len(found) <= 5 else ""
    return (
        f'<details{unfolded}><summary>Events <span class="count">{len(found):,}</span></summary>'
        f'<p class="note">{escape(counted)}</p><div class="wide" tabindex="0" role="region" '
        'aria-label="Events"><table class="events"><thead><tr><th scope="col">step</th>'
        '<th scope="col">event</th><th scope="col">what it says</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _event(event: Mapping[str, Any]) -> str:
    known = {"time_s", "step", "rank", "event", "traceback"}
    words = [str(event[key]) for key in ("message", "error", "why") if event.get(key)]
    rest = {k: v for k, v in event.items() if k not in known | {"message", "error", "why"}}
    words += [f"{key}={value}" for key, value in rest.items() if value is not None]
    if event.get("rank"):
        words.append(f"(rank {event['rank']})")
    text = " ".join(words)
    text = text if len(text) <= 400 else text[:399] + "…"
    return (
        f"<tr><td>{escape(str(event.get('step', '–')))}</td>"
        f"<td>{escape(str(event.get('event')))}</td><td>{escape(text)}</td></tr>"
    )
