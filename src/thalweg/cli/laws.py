"""``thalweg laws``: what training a model conserves, and whether a recorded run keeps to it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from torch import nn

    from thalweg.laws import KnownLaws, LawReport
    from thalweg.numerics import Group

__all__ = ["laws"]

GROUPS = ("cyclic", "rotation", "dihedral", "symmetric")


def laws(
    build: str,
    /,
    *,
    data: Annotated[str | None, Parameter(show_default=False)] = None,
    group: Annotated[str | None, Parameter(show_default=False)] = None,
    loss: Literal["any", "cross-entropy"] = "any",
    run: Annotated[Path | None, Parameter(show_default=False)] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Find what training a model conserves: which laws, how many, and how sure that is.

    BUILD is FILE.py:FUNCTION; the function takes no arguments and returns the model, or the model
    and a sample input. With a sample every law is checked through its generator. Up to 40
    parameters the count is checked by Lie brackets as well.

    Args:
        build: where the model is built, as model.py:build.
        data: where a sample input comes from, FILE.py:FUNCTION or an .npz with x (and y).
        group: symmetry of the data, whose extra laws are counted (at most 40 parameters):
            cyclic:N shifts, rotation:N of the plane, dihedral:N, symmetric:N permutations.
        loss: cross-entropy adds the laws of a softmax over the outputs.
        run: a run recorded with --instruments default,laws: its drift beside the prediction.
        json: print JSON.
    """
    from thalweg.cli.output import print_json
    from thalweg.laws import known_laws

    model, sample = _built(build)
    if data is not None:
        sample = _sample(data)
    symmetry = None if group is None else _group(group)
    found = known_laws(model, sample, loss=loss)
    params = dict(model.named_parameters())
    counts = [law.count(params) for law in found]
    report = _counted(model, sample, symmetry)
    drifts = {} if run is None else _drifts(run)
    if json:
        print_json(_plain(found, counts, report, drifts))
        return 0
    size = sum(p.numel() for p in params.values() if p.requires_grad)
    print(f"{build}: {size:,} trainable parameters")
    for law, count in zip(found, counts, strict=True):
        checked = {True: "checked", None: "unverified", False: "failed"}[law.verified]
        print()
        print(*_fill("", f"{law.name} ({count} law{'s' * (count > 1)}, {checked})"), sep="\n")
        print(*_fill("  ", law.formula), sep="\n")
        if law.note:
            print(*_fill("  ", f"holds if: {law.note}"), sep="\n")
        for line in drifts.get(law.name, ()):
            print(*_fill("  ", line), sep="\n")
    print()
    print(*_summary(found, counts, report, sample), sep="\n")
    for missing in found.not_covered:
        where = missing.module or "the model"
        print(*_fill("not covered: ", f"{where}: {missing.reason}"), sep="\n")
    return 0


def _summary(
    found: KnownLaws, counts: list[int], report: LawReport | str, sample: Any
) -> list[str]:
    families = "1 family" if len(found) == 1 else f"{len(found)} families"
    lines = [f"{sum(counts)} known scalar laws in {families}"]
    if sample is None:
        lines += _fill("", "not checked: give a sample input (--data, or return it with the model)")
    if isinstance(report, str):
        return lines + _fill("", report)
    lines += _fill(
        "", f"independent laws by {report.method}: {report.n_laws}, gap {report.gap:.0e}"
    )
    if report.n_extra is not None:
        parts = ", ".join(
            f"dimension {t.dim} × {t.multiplicity} ({'trivial' if t.trivial else t.kind})"
            for t in report.isotypes
        )
        plain = report.n_laws - report.n_extra
        said = f"{plain} from the architecture, {report.n_extra} more from the symmetry of the data"
        lines += _fill("  ", f"{said}; inputs split into {parts}")
    elif report.lower is not None:
        state = "complete" if report.complete else f"between {report.lower} and {report.upper}"
        lines += _fill("  ", f"{report.lower} of them polynomials: {state}")
    return lines + (_fill("  ", report.note) if report.note else [])


def _counted(model: nn.Module, sample: Any, group: Group | None) -> LawReport | str:
    """The count by brackets where it can be had; else why not."""
    import torch
    from torch import Tensor

    from thalweg.errors import ThalwegError
    from thalweg.laws import conservation_laws, extra_laws, fields_from_model
    from thalweg.laws.conservation_laws import MAX_EXACT_DIM

    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if group is not None:
        shape = tuple(sample.shape[1:]) if isinstance(sample, Tensor) else None
        return extra_laws(model, group, input_shape=shape)
    if size > MAX_EXACT_DIM:
        return f"not counted by brackets: more than {MAX_EXACT_DIM} parameters"
    if not isinstance(sample, Tensor) or not sample.is_floating_point():
        return "not counted by brackets: that takes a floating-point sample input"
    x = sample

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(16, *x.shape[1:], generator=generator), torch.zeros(16)

    try:
        return conservation_laws(fields_from_model(model, "any", draw))
    except ValueError as error:
        raise ThalwegError(f"the laws could not be counted: {error}") from None


def _drifts(path: Path) -> dict[str, list[str]]:
    """What a run says of each law, in words."""
    from thalweg.errors import ThalwegError
    from thalweg.recorder.run import Run

    run = Run(path)
    if "law_drift" not in run.instruments and "law_residual" not in run.instruments:
        raise ThalwegError(
            f"{path} holds no laws: record with --instruments default,laws to follow them"
        )
    lines: dict[str, list[str]] = {}
    for part in run.parts("law_drift"):
        steps, values = run.series("law_drift", part)
        if part and len(values):
            said = f"run: drift {values[-1]:.2g} of its size at step {steps[-1]}"
            lines.setdefault(part, []).append(said)
    for part in run.parts("law_residual"):
        last = run.table("law_residual", part).to_pylist()[-1]
        if part and last["status"] == "ok":
            said = f"not explained by the optimizer: {last['value']:.2g} (rounding: "
            said += f"{last['uncertainty']:.1g})"
            lines.setdefault(part, []).append(f"run: {said}")
        elif part:
            lines.setdefault(part, []).append(f"run: not predicted, {last['status']}")
    return lines


def _plain(
    found: KnownLaws, counts: list[int], report: LawReport | str, drifts: dict[str, list[str]]
) -> dict[str, Any]:
    counted: Any = {"refused": report}
    if not isinstance(report, str):
        counted = {
            "method": report.method,
            "n_laws": report.n_laws,
            "lower": report.lower,
            "upper": report.upper,
            "complete": report.complete,
            "gap": report.gap,
            "n_extra": report.n_extra,
            "note": report.note,
            "formulas": report.formulas,
        }
    return {
        "laws": [
            {
                "name": law.name,
                "formula": law.formula,
                "count": count,
                "order": law.order,
                "parameters": list(law.parameters),
                "verified": law.verified,
                "defect": law.defect,
                "note": law.note,
                "run": drifts.get(law.name, []),
            }
            for law, count in zip(found, counts, strict=True)
        ],
        "count": counted,
        "not_covered": [{"module": m.module, "reason": m.reason} for m in found.not_covered],
    }


def _built(build: str) -> tuple[nn.Module, Any]:
    from torch import nn

    from thalweg.cli.built import called
    from thalweg.errors import ThalwegError

    made = called(build, "BUILD")
    model, sample = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise ThalwegError(
            f"{build} must return an nn.Module, or the module and a sample input; it returned "
            f"{type(made).__name__}"
        )
    return model, sample


def _sample(data: str) -> Any:
    from thalweg.cli.built import called
    from thalweg.errors import ThalwegError

    if not data.endswith(".npz"):
        made = called(data, "--data")
        return made[0] if isinstance(made, tuple) and len(made) == 2 else made
    import numpy as np
    import torch

    try:
        with np.load(data, allow_pickle=False) as file:
            return torch.from_numpy(file["x"])
    except (OSError, ValueError, KeyError) as error:
        raise ThalwegError(f"--data {data}: expected an .npz with an array x: {error}") from None


def _group(text: str) -> Group:
    from thalweg.errors import ThalwegError, unknown_name
    from thalweg.numerics import Group

    kind, _, number = text.partition(":")
    if kind not in GROUPS:
        raise unknown_name("group", kind, GROUPS)
    if not number.isdigit():
        raise ThalwegError(f"--group must be {kind}:N with a whole number N, got {text!r}")
    n = int(number)
    if kind == "rotation":
        return Group.cyclic(n, rotation=True)
    return {"cyclic": Group.cyclic, "dihedral": Group.dihedral, "symmetric": Group.symmetric}[kind](
        n
    )


def _fill(lead: str, text: str) -> list[str]:
    from thalweg.cli.output import width

    return textwrap.wrap(
        text,
        width(),
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_on_hyphens=False,
        break_long_words=False,
    )
