"""How ``--help`` is laid out: plain text, filled to the width of the terminal.

The texts come from docstrings, whose lines are as long as those of the code; a terminal is seldom
as wide, so paragraphs are filled anew.
"""

from __future__ import annotations

import io
import textwrap
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

__all__ = ["HelpPage", "fill"]


class HelpPage:
    """A formatter of cyclopts: no colours, no boxes, nothing wider than the terminal."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print the commands, the arguments or the options."""
        if not panel.entries:
            return
        lines = ["", f"{panel.title}:"]
        for entry in panel.entries:
            names = ", ".join(_names(entry, panel.format == "parameter"))
            about = " ".join([_plain(entry.description), *_notes(entry)]).strip()
            text = f"{names}: {about}" if about else names
            lines.append(fill(text, console.width, lead="  ", hang="      "))
        _print(console, lines)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the line of usage."""
        text = _plain(usage).removeprefix("Usage:").strip()
        if text:
            _print(console, [fill(f"Usage: {text}", console.width, hang=" " * 7)])

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """Print what a command does, or the example at the end."""
        for paragraph in filter(str.strip, _plain(description).split("\n\n")):
            _print(console, ["", fill(paragraph, console.width)])


def fill(text: str, width: int, lead: str = "", hang: str = "") -> str:
    """Fill one paragraph; words are never broken, nor are options at their hyphens.

    Args:
        text: words with any white space between them.
        width: columns.
        lead: before the first line.
        hang: before the others.

    Example:
        >>> print(fill("--out PATH: a file", 12, hang="  "))
        --out PATH:
          a file
    """
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=lead,
        subsequent_indent=hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _names(entry: HelpEntry, parameter: bool) -> tuple[str, ...]:
    return tuple(entry.display_labels_with_metavar if parameter else entry.display_labels)


def _notes(entry: HelpEntry) -> list[str]:
    found = []
    if entry.choices:
        found.append(f"[choices: {', '.join(entry.choices)}]")
    if entry.default is not None:
        found.append(f"[default: {entry.default}]")
    if entry.required:
        found.append("[required]")
    return found


def _print(console: Console, lines: list[str]) -> None:
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _plain(text: Any) -> str:
    """The words of what rich would print, lines as they were written."""
    if text is None:
        return ""
    page = Console(file=io.StringIO(), width=10_000, color_system=None)
    with page.capture() as captured:
        page.print(text, end="", markup=False, highlight=False)
    return captured.get().strip()
