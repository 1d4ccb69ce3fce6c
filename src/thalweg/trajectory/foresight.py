"""Is extrapolating worth it? A checkpoint that is there is predicted from those before it.

The part that the prediction sees is as many times shorter than what is there as the target is
further off than what is there, so the test asks the question that the user asks. Errors come from
inner products alone.

Source: the check is ours; what it guards against is reported by the replication
github.com/basetenlabs/relex-replication of Wei et al. 2026, arXiv 2605.21468.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.trajectory.course import Course, directions, line_weights
from thalweg.trajectory.extrapolation import TrajectoryModel
from thalweg.trajectory.random_walk import line_through_walk

__all__ = ["Foresight", "foresight", "foresight_of"]

LEAST = 3  # checkpoints that a prediction must see
RELIABLE = 0.9  # of the way that the weights went on, which the last checkpoint misses by 1


@dataclass(frozen=True)
class Foresight:
    """Errors of predictions of a checkpoint that was held out, and what follows from them.

    Errors are ‖Δ̂ − Δ‖/‖Δ − Δ_s‖ over all tensors, Δ_s the last change that the prediction sees: in
    units of the way that the weights went on. Not training on has error 1.

    Attributes:
        target: the step that is asked for.
        wanted: (target − base)/(last − base): how many times further than observed.
        seen: last step that the predictions see.
        held_out: the step that they predict, the last observed one.
        horizon: (held_out − base)/(seen − base): how many times further they reach.
        error: of the model.
        bend: factor by which the error of telling a point from half the way grows each time that
            training doubles; 1 where it does not grow, or where too little is seen to say.
        expected: error at the target if the path goes on bending so.
        last_delta: of the last change, scaled with time.
        per_coordinate: of a line through every coordinate.
        cosine: between predicted and true change.
        norm_ratio: of their lengths.
        explained: share of the first direction of each tensor, of the energy of all that was seen.
        walk: the same of a random walk seen at these steps.
        go: whether to extrapolate.
        why: the reason, in words.
    """

    target: float
    wanted: float
    seen: int
    held_out: int
    horizon: float
    error: float
    bend: float
    expected: float
    last_delta: float
    per_coordinate: float
    cosine: float
    norm_ratio: float
    explained: float
    walk: float
    go: bool
    why: str


def foresight(model: TrajectoryModel, target: float) -> Foresight:
    """Whether the model can be trusted with a step, by predicting the last one it has seen.

    Go, if the prediction comes nearer than the last checkpoint that it saw (error ≤ 0.9), is
    expected to do so at the target although the path bends more and more, reaches at least half as
    far as is asked for, and the path is straighter than a random walk's. A go says that
    extrapolating is worth an evaluation, not that it is right. Time is the model's clock.

    Args:
        model: of at least four checkpoints.
        target: step, after the last observed one.

    Raises:
        ValueError: with fewer checkpoints, or a target that was observed or is earlier.

    Example:
        >>> import torch
        >>> from thalweg.trajectory import fit_rank1
        >>> path = {t: {"w": torch.tensor([1.0 + t, 2.0 * t])} for t in range(9)}
        >>> report = foresight(fit_rank1(path), 16)
        >>> report.go, report.seen, report.horizon
        (True, 4, 2.0)
    """
    return foresight_of(
        model.grams,
        model.steps,
        target,
        base_step=model.store.base_step,
        course=model.course,
        clock=model.clock,
    )


def foresight_of(
    grams: Mapping[str, Tensor],
    steps: Sequence[int],
    target: float,
    *,
    base_step: int = 0,
    course: Course | None = None,
    clock: Callable[[float], float] = float,
) -> Foresight:
    """The same from inner products alone, which sketches give too.

    Args:
        grams: name → (T, T) inner products of the changes; one entry if they are not known apart.
        steps: (T,) ascending.
        target: as above.
        base_step: of θ_0.
        course: how the directions are carried on; default: one, along a line.
        clock: step → time.

    Raises:
        ValueError: as above.
    """
    course = Course() if course is None else course
    times = torch.tensor([clock(t) for t in steps], dtype=torch.float64)
    if len(steps) < LEAST + 1:
        raise ValueError(
            f"foresight: expected at least {LEAST + 1} checkpoints after the base, got {len(steps)}"
        )
    if target <= steps[-1]:
        raise ValueError(
            f"foresight: step {target:g} is not after the last observed one, {steps[-1]}; "
            "there is nothing to foresee"
        )
    origin = float(clock(base_step))
    ahead = times - origin
    wanted = (float(clock(target)) - origin) / float(ahead[-1])
    far = [n for n in range(LEAST, len(steps)) if float(ahead[-1] / ahead[n - 1]) >= wanted]
    n = max(far, default=LEAST)
    horizon = float(ahead[-1] / ahead[n - 1])
    seen = slice(0, n)
    end, last = float(times[-1]), _unit(len(steps), n - 1)
    truth = _unit(len(steps), len(steps) - 1)
    predicted: dict[str, Tensor] = {}
    energy = first = 0.0
    for name, G in grams.items():
        inner = G[seen, seen]
        predicted[name] = _padded(course.weights(inner, times[seen], end), len(steps))
        energy += float(inner.trace())
        first += float(directions(inner, 1)[1].square().sum())
    line = _padded(line_weights(times[seen], end), len(steps))
    way = _norm(grams, truth - last)
    error = _norm(grams, {k: w - truth for k, w in predicted.items()}) / way if way else 0.0
    lengths = _norm(grams, predicted), _norm(grams, truth)
    both = lengths[0] * lengths[1]
    inner_product = sum(float(w @ grams[k] @ truth) for k, w in predicted.items())
    bend, near = _bending(grams, times, ahead, course)
    expected = max(error, near * bend ** math.log2(wanted))
    explained = first / energy if energy else float("nan")
    walk = line_through_walk(steps[:n], base_step=base_step).explained
    if way == 0:
        go, why = False, "the weights did not move after the part that was seen"
    elif explained <= walk:
        go, why = (
            False,
            (
                f"the first directions explain {explained:.2f} of the path, those of a random walk "
                f"{walk:.2f}: it is no more than noise"
            ),
        )
    else:
        go, why = _verdict(error, horizon, wanted, bend, expected)
    return Foresight(
        target=target,
        wanted=wanted,
        seen=steps[n - 1],
        held_out=steps[-1],
        horizon=horizon,
        error=error,
        bend=bend,
        expected=expected,
        last_delta=_norm(grams, horizon * last - truth) / way if way else 0.0,
        per_coordinate=_norm(grams, line - truth) / way if way else 0.0,
        cosine=inner_product / both if both else float("nan"),
        norm_ratio=lengths[0] / lengths[1] if lengths[1] else float("nan"),
        explained=explained,
        walk=walk,
        go=go,
        why=why,
    )


def _bending(
    grams: Mapping[str, Tensor], times: Tensor, ahead: Tensor, course: Course
) -> tuple[float, float]:
    """Growth of the error of telling a point from half the way, per doubling, and that error."""
    errors = []
    for end in (len(ahead) - 1, int((ahead <= ahead[-1] / 2).sum()) - 1):
        n = int((ahead <= ahead[end] / 2).sum()) if end >= 0 else 0
        if n < LEAST:
            return 1.0, errors[0] if errors else 0.0
        truth, last = _unit(len(times), end), _unit(len(times), n - 1)
        missed = {
            name: _padded(course.weights(G[:n, :n], times[:n], float(times[end])), len(times))
            - truth
            for name, G in grams.items()
        }
        way = _norm(grams, truth - last)
        errors.append(_norm(grams, missed) / way if way else 0.0)
    now, before = errors
    return (max(now / before, 1.0) if before > 0 else 1.0), now


def _verdict(
    error: float, horizon: float, wanted: float, bend: float, expected: float
) -> tuple[bool, str]:
    if not error <= RELIABLE:
        return False, (
            f"a checkpoint {horizon:.3g} times further than what was seen was missed by "
            f"{error:.2f} of the way that the weights went on; the last checkpoint seen misses it "
            "by 1"
        )
    if expected > RELIABLE:
        return False, (
            f"the path bends: a point told from half the way is missed {bend:.2f} times more each "
            f"time that training doubles, so that the target would be missed by {expected:.2f} of "
            "the way; the last checkpoint misses it by 1"
        )
    if horizon < wanted / 2:
        return False, (
            f"the observed part can test {horizon:.3g} times its length only, "
            f"{wanted:.3g} times are asked for; observe more, or ask for less"
        )
    return True, (
        f"a checkpoint {horizon:.3g} times further than what was seen was missed by {error:.2f} "
        "of the way that the weights went on; the last checkpoint seen misses it by 1"
    )


def _norm(grams: Mapping[str, Tensor], w: Tensor | dict[str, Tensor]) -> float:
    """Length of a mixture over all tensors."""
    each = w if isinstance(w, dict) else dict.fromkeys(grams, w)
    squares = sum(float(each[name] @ G @ each[name]) for name, G in grams.items())
    return max(squares, 0.0) ** 0.5


def _unit(size: int, at: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(at), size).double()


def _padded(w: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(w, (0, size - len(w)))
