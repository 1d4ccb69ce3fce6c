"""An entry: one published result as data, with the claims that can be run and their thresholds.

Entries are TOML files in ``data/entries``, one a result. Every key is checked; an unknown one is an
error that names the nearest known. Source: the project's almanac (2026).
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.almanac.verdict import judge
from thalweg.errors import ThalwegError, unknown_name

__all__ = ["KINDS", "RELATIONS", "Bound", "Claim", "Entry", "Link", "Source", "parse_entry"]

KINDS = (
    *("law", "instrument", "trajectory", "theory", "optimizer", "loss", "layer"),
    *("continual", "rl", "unlearning", "generative", "almanac"),
)
RELATIONS = ("builds_on", "contrasts", "same_quantity", "explains")
_STUDY = re.compile(r"thalweg\.studies\.[a-z0-9_]+:[a-z_]+")
_SLUG = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True)
class Source:
    """Where a result was published.

    Attributes:
        authors: as they sign.
        date: ISO date of the first public version.
        arxiv: arXiv id without version.
        doi: digital object identifier.
        url: where to read it.
        venue: journal or conference.
        code: the authors' code, ``owner/name`` or a URL.
    """

    authors: tuple[str, ...]
    date: str
    arxiv: str | None = None
    doi: str | None = None
    url: str | None = None
    venue: str | None = None
    code: str | None = None

    @property
    def short(self) -> str:
        """Authors, year and id in a few words, as ``Galley et al. 2026, arXiv 2606.10913``."""
        names = [name.split()[-1] for name in self.authors]
        who = names[0] if len(names) == 1 else " and ".join(names)
        who = f"{names[0]} et al." if len(names) > 2 else who
        where = f"arXiv {self.arxiv}" if self.arxiv else self.doi or self.venue or self.url
        return ", ".join(filter(None, [f"{who} {self.date[:4]}", where]))


@dataclass(frozen=True)
class Link:
    """A relation to another entry: ``rel`` is one of ``RELATIONS``."""

    rel: str
    slug: str


@dataclass(frozen=True)
class Bound:
    """A named comparison of a claim: its baseline or its negative control.

    Attributes:
        name: what is compared with, in words.
        op: for a control, how its mean must relate to ``threshold``; None for a baseline.
        threshold: a number or a band; None for a baseline.
    """

    name: str
    op: str | None = None
    threshold: float | tuple[float, float] | None = None


@dataclass(frozen=True)
class Claim:
    """One statement of a result that a study puts to the test.

    Attributes:
        id: unique in its entry; the study returns its figure under this name.
        statement: what is claimed, one sentence.
        op: ``>=``, ``<=`` or ``in``: how the figure must relate to ``threshold``.
        threshold: a number, or the band ``(low, high)``.
        study: ``thalweg.studies.NAME:run``.
        setting: on what it is tried here.
        paper_value: what the source reports, in words or as a number.
        unit: of the figure, empty if pure.
        baseline: what the figure is paired with, seed by seed.
        control: the negative control, which must meet a bound of its own.
        seeds: how many seeds, at least 3.
        budget_s: CPU seconds that the quick preset may take.
    """

    id: str
    statement: str
    op: str
    threshold: float | tuple[float, float]
    study: str
    setting: str = ""
    paper_value: str | float | None = None
    unit: str = ""
    baseline: Bound | None = None
    control: Bound | None = None
    seeds: int = 3
    budget_s: float = 120.0

    @property
    def study_name(self) -> str:
        """Name of the study, as ``thalweg study run`` takes it."""
        return self.study.partition(":")[0].rpartition(".")[2]

    @property
    def bound(self) -> str:
        """Op and threshold in words, as ``<= 1e-12``."""
        return bound_text(self.op, self.threshold)


@dataclass(frozen=True)
class Entry:
    """A published result: what it says, where its code is, what is claimed.

    Attributes:
        slug: unique name, ``[a-z0-9-]+``.
        title: of the publication.
        kind: one of ``KINDS``.
        source: where it was published.
        summary: exactly three sentences.
        claims: with thresholds that precede every run.
        topics: for browsing.
        symbols: importable names of the code; empty as long as it is not implemented.
        guides: pages under ``docs/``.
        links: related entries.
        importance_override: a score 1–10 that replaces the computed one.
        importance_reason: why.
    """

    slug: str
    title: str
    kind: str
    source: Source
    summary: str
    claims: tuple[Claim, ...]
    topics: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    guides: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    importance_override: int | None = None
    importance_reason: str | None = None

    @property
    def implemented(self) -> bool:
        """Whether its code is in this version."""
        return bool(self.symbols)

    @property
    def studies(self) -> tuple[str, ...]:
        """Names of the studies that test its claims, in the order of the claims."""
        return tuple(dict.fromkeys(claim.study_name for claim in self.claims))

    @property
    def verdict(self) -> str:
        """``reproduced``, ``partly``, ``not`` or ``untested``, from the evidence that counts."""
        from thalweg.almanac.standings import standing

        return standing(self).verdict

    def claim(self, claim_id: str) -> Claim:
        """The claim of that id.

        Raises:
            ThalwegError: if there is none.
        """
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        raise unknown_name(f"claim of {self.slug}", claim_id, [c.id for c in self.claims])


def bound_text(op: str, threshold: float | tuple[float, float]) -> str:
    """Op and threshold in words.

    Example:
        >>> bound_text("<=", 1e-12), bound_text("in", (1, 2))
        ('<= 1e-12', 'in [1, 2]')
    """
    if isinstance(threshold, tuple):
        return f"{op} [{threshold[0]:g}, {threshold[1]:g}]"
    return f"{op} {threshold:g}"


def parse_entry(text: str, name: str) -> Entry:
    """Read and check one entry.

    Args:
        text: TOML.
        name: file name, for the error; its stem must be the slug.

    Raises:
        ThalwegError: naming the file, the key, what was expected and what came.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ThalwegError(f"{name}: no valid TOML: {error}") from None
    top = _Table(name, "", data)
    source = top.table("source")
    importance = top.table("importance", required=False)
    entry = Entry(
        slug=top.text("slug", check=lambda v: bool(_SLUG.fullmatch(v))),
        title=top.text("title"),
        kind=top.choice("kind", KINDS),
        source=Source(
            authors=source.texts("authors", least=1),
            date=source.text("date", check=_is_date),
            arxiv=source.text("arxiv", required=False) or None,
            doi=source.text("doi", required=False) or None,
            url=source.text("url", required=False) or None,
            venue=source.text("venue", required=False) or None,
            code=source.text("code", required=False) or None,
        ),
        summary=top.text("summary"),
        claims=tuple(_claim(t) for t in top.tables("claims")),
        topics=top.texts("topics"),
        symbols=top.texts("symbols"),
        guides=top.texts("guides"),
        links=tuple(_link(t) for t in top.tables("links")),
        importance_override=importance.number("override", required=False, kind=int),
        importance_reason=importance.text("reason", required=False) or None,
    )
    for table in (importance, source, top):
        table.refuse_rest()
    if f"{entry.slug}.toml" != Path(name).name:
        raise ThalwegError(f"{name}: slug {entry.slug!r} must be the name of the file")
    if (n := len(sentences(entry.summary))) != 3:
        raise ThalwegError(f"{name}: summary must have exactly 3 sentences, it has {n}")
    ids = [c.id for c in entry.claims]
    if len(set(ids)) != len(ids):
        raise ThalwegError(f"{name}: two claims have the same id: {', '.join(ids)}")
    if (entry.importance_override is None) != (entry.importance_reason is None):
        raise ThalwegError(f"{name}: importance.override and importance.reason go together")
    return entry


def sentences(text: str) -> list[str]:
    """The sentences of a summary: split after ``.``, ``!`` or ``?`` before a capital or quote.

    Example:
        >>> sentences("One, e.g. this. Two? Three!")
        ['One, e.g. this.', 'Two?', 'Three!']
    """
    return re.split(r"(?<=[.!?])\s+(?=[A-ZÀ-ÞΑ-Ω“\"(])", " ".join(text.split()))


def _claim(t: _Table) -> Claim:
    op = t.choice("op", (">=", "<=", "in"))
    threshold = t.threshold(op)
    baseline, control = t.table("baseline", required=False), t.table("control", required=False)
    claim = Claim(
        id=t.text("id", check=lambda v: bool(re.fullmatch(r"[a-z0-9_]+", v))),
        statement=t.text("statement"),
        op=op,
        threshold=threshold,
        study=t.text("study", check=lambda v: bool(_STUDY.fullmatch(v))),
        setting=t.text("setting", required=False),
        paper_value=t.take("paper_value", (str, int, float), None),
        unit=t.text("unit", required=False),
        baseline=Bound(baseline.text("name")) if baseline.data else None,
        control=_control(control) if control.data else None,
        seeds=t.number("seeds", required=False, kind=int) or 3,
        budget_s=t.number("budget_s", required=False) or 120.0,
    )
    for table in (baseline, control, t):
        table.refuse_rest()
    if claim.seeds < 3:
        raise ThalwegError(f"{t.name}: {t.where}seeds must be at least 3, got {claim.seeds}")
    return claim


def _control(t: _Table) -> Bound:
    op = t.choice("op", (">=", "<=", "in"))
    return Bound(t.text("name"), op, t.threshold(op))


def _link(t: _Table) -> Link:
    link = Link(t.choice("rel", RELATIONS), t.text("slug"))
    t.refuse_rest()
    return link


def _is_date(value: str) -> bool:
    try:
        return bool(datetime.date.fromisoformat(value))
    except ValueError:
        return False


class _Table:
    """One TOML table being read: keys are taken out, what is left is unknown."""

    def __init__(self, name: str, where: str, data: Mapping[str, Any]) -> None:
        self.name, self.where, self.data = name, where, dict(data)
        self._known: list[str] = []

    def take(self, key: str, types: tuple[type, ...], default: Any = ...) -> Any:
        self._known.append(key)
        if key not in self.data:
            if default is ...:
                raise ThalwegError(f"{self.name}: {self.where}{key} is missing")
            return default
        value = self.data.pop(key)
        if not isinstance(value, types) or isinstance(value, bool):
            expected = " or ".join(t.__name__ for t in types)
            raise ThalwegError(f"{self.name}: {self.where}{key} must be {expected}, got {value!r}")
        return value

    def text(self, key: str, *, required: bool = True, check: Callable[[str], bool] = bool) -> str:
        value = self.take(key, (str, datetime.date), ... if required else "")
        value = " ".join(str(value).split())
        if (required or value) and not check(value):
            raise ThalwegError(f"{self.name}: {self.where}{key} is not valid: {value!r}")
        return value

    def number(self, key: str, *, required: bool = True, kind: type = float) -> Any:
        value = self.take(key, (int,) if kind is int else (int, float), ... if required else None)
        return None if value is None else kind(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            raise ThalwegError(
                f"{self.name}: {self.where}{key}: {unknown_name('choice', value, choices)}"
            )
        return value

    def texts(self, key: str, least: int = 0) -> tuple[str, ...]:
        values = self.take(key, (list,), ... if least else [])
        if len(values) < least or not all(isinstance(v, str) and v for v in values):
            raise ThalwegError(f"{self.name}: {self.where}{key} must be a list of strings")
        return tuple(values)

    def threshold(self, op: str) -> float | tuple[float, float]:
        value = self.take("threshold", (int, float, list))
        try:
            judge([], op, value)
        except ValueError as error:
            raise ThalwegError(f"{self.name}: {self.where}threshold: {error}") from None
        return (float(value[0]), float(value[1])) if isinstance(value, list) else float(value)

    def table(self, key: str, *, required: bool = True) -> _Table:
        return _Table(self.name, f"{key}.", self.take(key, (dict,), ... if required else {}))

    def tables(self, key: str) -> list[_Table]:
        rows = self.take(key, (list,), [])
        return [_Table(self.name, f"{key}[{i}].", row) for i, row in enumerate(rows)]

    def refuse_rest(self) -> None:
        for key in self.data:
            raise ThalwegError(f"{self.name}: {self.where}{unknown_name('key', key, self._known)}")
