"""``thalweg check-accumulation``: is accumulating the same as taking the whole batch?"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_accumulation"]

WHAT_TO_DO = {
    "count-normalisation": (
        "Sum the losses and divide by the count of the whole step: "
        "thalweg.optim.AccumulationContext does it, in one process and under DDP"
    ),
    "batch-norm": "Batch norm sees micro-batches: use group or layer norm, or larger micro-batches",
    "dropout/RNG": (
        "Random numbers are drawn in another order: no bias, and equal only in evaluation mode"
    ),
    "non-decomposable": (
        "The loss looks at the batch as a whole (contrast, balancing, a regulariser counted in "
        "each part): no count repairs it; compute that part on the whole batch"
    ),
    "nondeterministic kernel": "torch.use_deterministic_algorithms(True) finds the kernel",
    "missing zero_grad": "Call optimizer.zero_grad() before the first micro-batch of every step",
}


def check_accumulation(
    build: str,
    /,
    *,
    splits: Annotated[str, Parameter()] = "2,4,ragged",
    reduction: Literal["auto", "mean", "sum"] = "auto",
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Check that gradients accumulated over micro-batches are those of the whole batch.

    BUILD is FILE.py:FUNCTION; the function takes no arguments and returns (model, loss_fn, batch)
    with loss_fn(model, batch) a scalar or (sum, count), or a Transformers model and a batch with
    labels. The exit code is 1 if they differ.

    Args:
        build: where model, loss and batch are made, as train.py:build.
        splits: numbers of micro-batches, and ragged for a smaller last one.
        reduction: how losses of micro-batches add up: mean, sum, or auto to find out.
        json: print JSON.
    """
    from thalweg.cli.output import number, print_json, width
    from thalweg.instruments import check_accumulation as check

    model, loss_fn, batch = _built(build)
    names = [s.strip() for s in splits.split(",")]
    wanted = [int(s) if s.isdigit() else s for s in names]
    report = check(model, loss_fn, batch, wanted, reduction=reduction)
    if json:
        print_json(asdict(report))
        return 0 if report.ok else 1
    for split, error in report.errors.items():
        label = f"{split} micro-batches" if split.isdigit() else split
        print(f"{label:<20} relative gradient error {number(error)}")
    print(f"cause: {report.cause}")
    if report.ok:
        return 0
    if report.weights:
        print("the true gradient weighs the micro-batches " + _listed(report.weights))
        print(f"loss off by {number(report.expected_bias)}, as these weights explain")
    worst = sorted(report.per_param, key=lambda n: -report.per_param[n])[:3]
    for name in worst:
        print(f"worst: {number(report.per_param[name])} in {name}")
    print(*textwrap.wrap(WHAT_TO_DO[report.cause], width(), break_on_hyphens=False), sep="\n")
    return 1


def _listed(weights: tuple[float, ...], most: int = 8) -> str:
    shown = ", ".join(f"{w:.3g}" for w in weights[:most])
    return shown + (", …" if len(weights) > most else "")


def _built(build: str) -> tuple[nn.Module, Callable[[nn.Module, Any], Any], Any]:
    from torch import nn

    from thalweg.cli.built import called
    from thalweg.errors import ThalwegError

    made = called(build, "BUILD")
    if isinstance(made, tuple) and isinstance(made[0], nn.Module):
        if len(made) == 3 and callable(made[1]):
            return made
        if len(made) == 2 and isinstance(made[1], Mapping) and "labels" in made[1]:
            return made[0], lambda model, batch: model(**batch).loss, made[1]
    raise ThalwegError(
        f"{build} must return (model, loss_fn, batch), or a Transformers model and a batch with "
        f"labels; it returned {type(made).__name__}"
    )
