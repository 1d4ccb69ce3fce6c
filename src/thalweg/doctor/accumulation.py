"""Gradients accumulated as a mean of means over micro-batches of different numbers of items.

With n_i items and mean loss m_i, micro-batch i of k is due the share v_i = n_i/N of the step. A
mean of means gives it w_i = 1/k, and the loss is off by Σ(w_i − v_i) m_i. How far the gradient is
off depends on how it is made up: where it is the noise of independent items, as late in a training,
the error has the expected size √(Σ(w_i − v_i)² N/n_i) of it, and less where micro-batches agree.

Source: "Fixing Gradient Accumulation", Debut, Zucker, Mueller, Shieh, Bossan 2024
(huggingface.co/blog/gradient_accumulation). The expected size is derived here, from items whose
gradients are independent and of one variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.doctor.diagnosis import Diagnosis, Evidence
from thalweg.doctor.readings import by_part
from thalweg.recorder.run import Run

__all__ = ["uneven_accumulation"]

LEAST_RECORDS = 3
# Half of Σ|w − v|, median over the records. Counts that scatter by a twentieth misplace a fiftieth,
# and then the gradient's error is a twentieth of its noise at most.
MISPLACED = 0.02
# Weights that are no mean of means have been chosen: nearer to 1/k than to n/N by this factor.
NEARER = 4.0


@dataclass(frozen=True)
class _Step:
    """An accumulated step; of each of its k micro-batches, (k,), items, mean loss and share."""

    step: int
    items: np.ndarray
    loss: np.ndarray
    share: np.ndarray

    @property
    def off(self) -> np.ndarray:
        """(k,) share of the gradient beyond the share of items."""
        return self.share - self.items / self.items.sum()

    @property
    def misplaced(self) -> float:
        """Share of the step's weight that lies on other items than it should."""
        return float(np.abs(self.off).sum() / 2)

    @property
    def by_means(self) -> bool:
        """Whether micro-batches weigh alike, however much is in them."""
        return float(np.abs(self.share - 1 / len(self.share)).sum() / 2) * NEARER < self.misplaced

    @property
    def error(self) -> float:
        """Expected size of the gradient's error over that of its noise."""
        return float(np.sqrt((self.off**2 * self.items.sum() / self.items).sum()))


def uneven_accumulation(run: Run) -> list[Diagnosis]:
    """Finds accumulated steps in which an item's weight depends on its micro-batch's count."""
    steps = _steps(run)
    if len(steps) < LEAST_RECORDS:
        return []
    misplaced = np.array([s.misplaced for s in steps])
    if np.median(misplaced) < MISPLACED or np.mean([s.by_means for s in steps]) < 0.5:
        return []
    spread = np.array([s.items.max() / s.items.min() for s in steps])
    median = sorted(steps, key=lambda s: s.misplaced)[len(steps) // 2]
    error = np.array([s.error for s in steps])
    offset = np.array([np.abs(s.off @ s.loss) / np.abs(s.share @ s.loss) for s in steps])
    k = len(median.items)
    between = (steps[0].step, steps[-1].step)
    return [
        Diagnosis(
            "uneven_accumulation",
            "warning",
            "accumulated gradients are a mean of means: what an item weighs depends on how many "
            "others are in its micro-batch",
            (
                Evidence(
                    f"at step {median.step} the {k} micro-batches count {_listed(median.items)} "
                    f"items; the largest is {np.median(spread):.3g} times the smallest in the "
                    f"median of {len(steps)} records",
                    (median.step,),
                    float(np.median(spread)),
                    _spread(spread),
                    ("micro_batch_items", "micro-batch 1"),
                ),
                Evidence(
                    f"backward ran on the mean of each over its own items, all weighted alike: "
                    f"{np.median(misplaced):.2g} of the weight lies on the wrong items",
                    between,
                    float(np.median(misplaced)),
                    _spread(misplaced),
                    ("item_weight", "micro-batch 1"),
                ),
                Evidence(
                    f"expected error of the gradient: {np.median(error):.2g} of its size where it "
                    "is noise of independent items, as late in a training; less where "
                    "micro-batches agree",
                    between,
                    float(np.median(error)),
                    _spread(error),
                ),
                Evidence(
                    f"the loss is off by {np.median(offset):.1g} of itself",
                    between,
                    float(np.median(offset)),
                    _spread(offset),
                    ("micro_batch_loss", "micro-batch 1"),
                ),
            ),
            "gradient-accumulation",
            "Debut et al. 2024, Fixing Gradient Accumulation (Hugging Face)",
            f"`with thalweg.optim.AccumulationContext(model, optimizer, steps={k}) as scale:` and "
            "in it `scale(loss_sum, count).backward()` with `reduction='sum'`; in Transformers a "
            "loss that takes `num_items_in_batch`",
            False,
        )
    ]


def _steps(run: Run) -> list[_Step]:
    """Steps whose micro-batches all have items, a finite loss and a weight."""
    rows: dict[int, list[tuple[float, float, float]]] = {}
    losses, weights = by_part(run, "micro_batch_loss"), by_part(run, "item_weight")
    for part, (at, items) in by_part(run, "micro_batch_items").items():
        if part not in losses or part not in weights:
            continue
        found = (dict(zip(*s, strict=True)) for s in (losses[part], weights[part]))
        loss, weight = found
        for step, n in zip(at, items, strict=True):
            row = n, loss.get(step, np.nan), weight.get(step, np.nan)
            rows.setdefault(int(step), []).append(row)
    steps = []
    for step, each in sorted(rows.items()):
        items, loss, weight = np.array(each).T
        whole = np.isfinite([items, loss, weight]).all() and items.min() > 0 and weight.min() > 0
        if whole and len(items) >= 2:
            share = items * weight
            steps.append(_Step(step, items, loss, share / share.sum()))
    return steps


def _spread(values: np.ndarray) -> float:
    return float(np.subtract(*np.percentile(values, [75, 25])) / 1.349)


def _listed(items: np.ndarray, most: int = 8) -> str:
    more = f", … ({len(items)} in all)" if len(items) > most else ""
    return ", ".join(f"{n:g}" for n in items[:most]) + more
