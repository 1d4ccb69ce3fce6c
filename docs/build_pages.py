"""Writes the pages that are made: one per instrument from its docstring, results from evidence.

python docs/build_pages.py           # rewrite
python docs/build_pages.py --check   # exit 1 if a page is not current
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import thalweg.instruments
from thalweg.almanac.catalogue import entries
from thalweg.almanac.results_page import results_page

FOLDER = Path(__file__).parent / "instruments"
SECTIONS = ("Args", "Returns", "Raises", "Cost", "Source", "Example", "Attributes", "Yields")
TITLES = {
    "Args": "Arguments",
    "Example": "Example with a known answer",
    "Attributes": "Fields",
}


def pages() -> dict[Path, str]:
    """Every page that should be there, and its text."""
    functions = {
        name: function
        for name in thalweg.instruments.__all__
        if hasattr(function := getattr(thalweg.instruments, name), "needs")
    }
    out = {FOLDER / f"{name}.md": page(name, f) for name, f in functions.items()}
    rows = [f"| [`{n}`]({n}.md) | {_first(f)} | {_when(f)} |" for n, f in functions.items()]
    index = ["# Instruments", "", "| name | measures | in a recording |", "|---|---|---|", *rows]
    about = (
        "Tensors in, tensors out; `thalweg.instruments.readings(result)` gives the value, "
        "uncertainty and status of each figure, as a recording holds them."
    )
    out[FOLDER / "index.md"] = "\n".join([index[0], "", about, *index[1:], ""])
    out[FOLDER.parent / "results.md"] = results_page(entries())
    return out


def page(name: str, function: object) -> str:
    """The page of one instrument."""
    module = sys.modules[getattr(function, "__module__", "")]
    sections = split(inspect.getdoc(function) or "")
    lines = [
        f"# {name}",
        "",
        f"```python\nfrom thalweg.instruments import {name}\n```",
        "",
        sections.pop(""),
        "",
        f"**In a recording**: {_when(function)}",
        "",
    ]
    around = inspect.getdoc(module) or ""
    if "Source" not in sections and (found := re.search(r"Source: (.*?)(?:\n\n|\Z)", around, re.S)):
        sections["Source"] = found[1]
    for section in SECTIONS:
        if section in sections:
            body = sections[section]
            body = f"```python\n{body}\n```" if ">>>" in body else body
            lines += [f"## {TITLES.get(section, section)}", "", body, ""]
    for result in _results(function):
        kept = split(inspect.getdoc(result) or "")
        lines += [f"## {result.__name__}", "", kept[""], "", kept.get("Attributes", ""), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def split(docstring: str) -> dict[str, str]:
    """A Google docstring as sections in Markdown; the text before them under ``""``."""
    found: dict[str, list[str]] = {"": []}
    at = ""
    for line in docstring.splitlines():
        head = re.match(r"(\w+):(?: (.*))?$", line)
        if head and head[1] in SECTIONS:
            at = head[1]
            found[at] = [head[2]] if head[2] else []
        else:
            found[at].append(line if at == "" else re.sub("^    ", "", line))
    return {k: _markdown(v, k) for k, v in found.items()}


def _markdown(lines: list[str], section: str) -> str:
    text = "\n".join(lines).strip("\n")
    if section in ("Args", "Attributes", "Raises"):
        text = re.sub(r"\n {2,}", " ", text)
        return re.sub(r"^(\w+(?:, \w+)*): ", r"- `\1`: ", text, flags=re.M)
    return text.replace("``", "`")


def _results(function: object) -> list[type]:
    """The dataclass that an instrument returns, if it has one of its own."""
    name = str(inspect.signature(function).return_annotation)  # pyright: ignore[reportArgumentType]
    result = getattr(thalweg.instruments, name, None) or getattr(
        sys.modules[function.__module__], name, None
    )
    return [result] if inspect.isclass(result) and hasattr(result, "__dataclass_fields__") else []


def _first(function: object) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0].rstrip(".")


def _when(function: object) -> str:
    from thalweg.recorder.plan import Plan, known_instruments

    name = function.__name__  # pyright: ignore[reportAttributeAccessIssue]
    if name in Plan().names:
        return "by default"
    if name == "stability_threshold":
        return "beside `sharpness`"
    if name in known_instruments():
        return f"on request, `--instruments default,{name}`"
    return "by hand only"


def main() -> int:
    """Rewrites or checks."""
    want = pages()
    extra = [p for p in FOLDER.glob("*.md") if p not in want]
    stale = [p for p, text in want.items() if not p.exists() or p.read_text() != text]
    if "--check" in sys.argv:
        for path in [*stale, *extra]:
            name = path.relative_to(FOLDER.parent)
            print(f"docs/{name} is not current: python docs/build_pages.py")
        return int(bool(stale or extra))
    FOLDER.mkdir(exist_ok=True)
    for path in extra:
        path.unlink()
    for path in stale:
        path.write_text(want[path])
        print(f"wrote docs/{path.relative_to(FOLDER.parent)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
