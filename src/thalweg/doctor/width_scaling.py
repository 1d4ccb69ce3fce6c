"""A model in muP whose optimizer is not: base shapes are set, and every rate is the same."""

from __future__ import annotations

from typing import Any

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.recorder.run import Run

__all__ = ["width_scaling"]

# Optimizers whose updates do not depend on the gradient's size, and those that are linear in it.
_ADAM_LIKE = {
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Adagrad",
    "MuAdam",
    "MuAdamW",
}
_SGD_LIKE = {"SGD", "MuSGD"}
# Rates that differ by less are equal.
_SAME = 1e-6


def width_scaling(run: Run) -> list[Diagnosis]:
    """Finds an optimizer that gives all parameters of a model in muP the same learning rate.

    Half of muP is worse than none: the readout is divided by the width, and without the rates that
    go with it the best learning rate moves as before. Rates that differ between parameters, in
    whatever way, are taken for a choice.
    """
    factors = {
        kind: {
            f"{model['label']}.{name}" if model.get("label") else name: float(factor)
            for model in run.header.get("models") or []
            for name, factor in (model.get("width_factors") or {}).get(kind, {}).items()
        }
        for kind in ("adam", "sgd")
    }
    found = []
    for optimizer in run.header.get("optimizers") or []:
        kind = _kind(str(optimizer.get("class")))
        if kind is None:
            continue
        rates = _rates(optimizer, factors[kind])
        wanted = {factors[kind][name] for name in rates}
        if len(wanted) > 1 and _equal(list(rates.values())) and min(rates.values()) > 0:
            found.append(_diagnosis(optimizer, kind, factors[kind], rates))
    return found


def _kind(name: str) -> str | None:
    if name in _ADAM_LIKE:
        return "adam"
    return "sgd" if name in _SGD_LIKE else None


def _rates(optimizer: dict[str, Any], factors: dict[str, float]) -> dict[str, float]:
    """Rate of each parameter that has a factor."""
    return {
        name: float(group["lr"])
        for group in optimizer.get("groups") or []
        if isinstance(group.get("lr"), int | float)
        for name in group.get("params") or []
        if name in factors
    }


def _equal(rates: list[float]) -> bool:
    return max(rates) - min(rates) <= _SAME * max(rates)


def _diagnosis(
    optimizer: dict[str, Any], kind: str, factors: dict[str, float], rates: dict[str, float]
) -> Diagnosis:
    name = str(optimizer["class"])
    low, high = min(rates, key=factors.__getitem__), max(rates, key=factors.__getitem__)
    lr = rates[low]
    ours = {"SGD": "MuSGD", "Adam": "MuAdam", "AdamW": "MuAdamW"}.get(name)
    treatment = (
        f"`thalweg.optim.{ours}(model.parameters(), lr={lr:g})`"
        if ours
        else f"`{name}(thalweg.optim.mup_param_groups(model.named_parameters(), lr={lr:g}, "
        f"kind={kind!r}))`"
    )
    return Diagnosis(
        "width_scaling",
        "warning",
        f"the model is in muP, but {name} gives all its parameters the same learning rate",
        (
            Evidence(
                f"lr = {lr:g} for all {len(rates)}; muP has {factors[low]:g} times the base rate "
                f"for {low} and {factors[high]:g} times for {high}",
                (0,),
                lr,
            ),
        ),
        "large-learning-rates",
        "Yang, Hu et al. 2022, arXiv 2203.03466: base shapes, readout and learning rates belong "
        "together; any one without the others does not transfer",
        f"{treatment}, with the rate that is right at the base width",
        False,
    )
