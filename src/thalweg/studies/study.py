"""A study: a module of this folder with settings, presets and ``run(config, seed) -> Figures``.

It is found by its name, ``thalweg.studies.<name>``; which claims it tests is said by the entries of
the almanac, and nowhere else. Listing studies imports none of them.
"""

from __future__ import annotations

import ast
import importlib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from thalweg.almanac.catalogue import entries
from thalweg.errors import ThalwegError, unknown_name
from thalweg.studies.figures import Figures

__all__ = ["PRESETS", "Study", "available", "described", "load", "with_settings"]

PRESETS = ("smoke", "quick", "full", "paper")
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Study:
    """One study, imported.

    Attributes:
        name: of its module.
        doc: what it does, from the module's docstring.
        presets: ``smoke``, ``quick``, ``full``, ``paper`` to a frozen dataclass of settings.
        run: ``(config, seed) -> Figures``.
    """

    name: str
    doc: str
    presets: Mapping[str, Any]
    run: Callable[[Any, int], Figures]

    def config(self, preset: str) -> Any:
        """The settings of a preset.

        Raises:
            ThalwegError: if the study has no such preset.
        """
        if preset not in self.presets:
            raise unknown_name(f"preset of {self.name}", preset, self.presets)
        return self.presets[preset]


def available() -> list[str]:
    """Names of the studies that are in this version and that a claim names."""
    return [n for n in planned() if (_FOLDER / f"{n}.py").exists()]


def planned() -> list[str]:
    """Names of all studies that a claim of the almanac names, in this version or not."""
    return sorted({study for entry in entries() for study in entry.studies})


def described(name: str) -> str:
    """First paragraph of a study's docstring, read without importing it."""
    doc = ast.get_docstring(ast.parse((_FOLDER / f"{name}.py").read_text("utf-8"))) or ""
    return " ".join(doc.split("\n\n")[0].split())


def load(name: str) -> Study:
    """Import a study.

    Raises:
        ThalwegError: if there is none of that name, with the three nearest, or it is planned only.
    """
    if name not in planned():
        raise unknown_name("study", name, planned())
    if name not in available():
        slugs = ", ".join(e.slug for e in entries() if name in e.studies)
        raise ThalwegError(
            f"study {name!r} is planned and not in this version: the claims of {slugs} that it "
            "tests are untested"
        )
    module = importlib.import_module(f"thalweg.studies.{name}")
    return Study(name, (module.__doc__ or "").strip(), module.PRESETS, module.run)


def with_settings(config: Any, settings: Mapping[str, str]) -> Any:
    """A config with some fields replaced by values given as text.

    Args:
        config: a frozen dataclass.
        settings: field to text; lists are not taken.

    Raises:
        ThalwegError: for an unknown field, or text that is not of the field's type.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     lr: float = 0.1
        >>> with_settings(Config(), {"lr": "1e-3"})
        Config(lr=0.001)
    """
    assert is_dataclass(config) and not isinstance(config, type)
    hints = typing.get_type_hints(type(config))
    known = [f.name for f in fields(config)]
    changes = {}
    for name, text in settings.items():
        if name not in known:
            raise unknown_name("setting", name, known)
        changes[name] = _parsed(name, text, hints[name])
    try:
        return replace(config, **changes)
    except (TypeError, ValueError) as error:
        raise ThalwegError(str(error)) from None


def _parsed(name: str, text: str, kind: Any) -> Any:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        try:
            if option is types.NoneType and text.lower() == "none":
                return None
            if option is bool and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if option in (int, float, str):
                return option(text)
        except ValueError:
            continue
    wanted = " or ".join(getattr(o, "__name__", str(o)) for o in options)
    raise ThalwegError(f"setting {name!r} must be {wanted}, got {text!r}")
