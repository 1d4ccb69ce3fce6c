"""The questions that a report answers, which instruments answer them, and how to read each.

This is the page's table of contents as data: a new instrument is one more `Figure` here; one that
nobody wrote down appears in the last group under its own name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["GROUPS", "OTHER", "Figure", "Group", "arrange"]


@dataclass(frozen=True)
class Figure:
    """One chart.

    Attributes:
        title: its heading.
        instruments: drawn on the same axes, in this order.
        how: one sentence on how to read it.
        each: every part is a line of its own, as the losses of two optimizers are.
        held: it is written when it changes and holds in between.
        fixed: the stretch of values to show, if it is always the same.
    """

    title: str
    instruments: tuple[str, ...]
    how: str
    each: bool = False
    held: bool = False
    fixed: tuple[float, float] | None = None


@dataclass(frozen=True)
class Group:
    """One question, and the charts that answer it."""

    slug: str
    question: str
    lead: str
    figures: tuple[Figure, ...]


GROUPS = (
    Group(
        "learning",
        "Is it learning?",
        "What training is for: the loss goes down, and goes down on data it has not seen.",
        (
            Figure(
                "Loss",
                ("loss", "val_loss"),
                "Falling is learning; when the held-out loss turns up while the training loss "
                "still falls, the network has begun to memorise.",
                each=True,
            ),
            Figure(
                "Learning rate",
                ("lr",),
                "The schedule as it was applied; kinks here explain kinks elsewhere.",
                each=True,
                held=True,
            ),
        ),
    ),
    Group(
        "stability",
        "Is it stable?",
        "Whether steps are of a size that the loss surface bears, and gradients of a size that "
        "can be trusted.",
        (
            Figure(
                "Gradient norm",
                ("grad_norm_preclip", "grad_norm"),
                "Before and after clipping: where the two part, clipping acted; a steady rise or "
                "single spikes come before many divergences.",
            ),
            Figure(
                "Update ratio",
                ("update_ratio",),
                "Length of a step relative to the weights it changes; about 0.001 is usual, 0.1 "
                "rewrites the network in ten steps.",
            ),
            Figure(
                "Update norm",
                ("update_norm",),
                "Length of a step; with a constant learning rate its changes are the optimizer's.",
            ),
            Figure(
                "Sharpness",
                ("sharpness", "stability_threshold"),
                "Greatest curvature of the loss over the threshold that theory gives the "
                "optimizer, 2 / learning rate for gradient descent; training climbs to it and "
                "hovers there. Adam's threshold is that of the preconditioned curvature.",
                each=True,
            ),
            Figure(
                "Critical sharpness",
                ("critical_sharpness",),
                "The curvature met along the step that is taken; at 2 / learning rate a step no "
                "longer lowers the loss.",
            ),
            Figure(
                "Hessian trace",
                ("hessian_trace",),
                "Total curvature; falling means that training moves to flatter ground.",
            ),
            Figure(
                "Spectrum of the Hessian",
                ("hessian_density",),
                "Where the curvatures lie (eigenvalue) and how many of them (density), at 64 "
                "points each.",
            ),
            Figure(
                "Items of a micro-batch",
                ("micro_batch_items",),
                "Targets that each micro-batch of an accumulated step counts; where they differ, a "
                "mean of means is not the mean over all.",
            ),
            Figure(
                "Weight of an item",
                ("item_weight",),
                "What one target of each micro-batch weighs in the gradient of the step; lines "
                "that part mean that tokens are not treated alike.",
            ),
            Figure(
                "Loss of a micro-batch",
                ("micro_batch_loss",),
                "Mean loss of an item in each micro-batch of an accumulated step.",
            ),
            Figure(
                "Gradient noise scale",
                ("grad_noise_scale",),
                "The batch size at which noise and signal are equal; far above the batch in use, "
                "larger batches would pay.",
            ),
        ),
    ),
    Group(
        "alive",
        "Is it alive?",
        "Whether every layer still carries signal: units that answer, activations of a healthy "
        "size, weights that use their rank.",
        (
            Figure(
                "Dormant units",
                ("dormant_fraction",),
                "Share of a layer's units that no longer respond: 0 is all awake, 1 is a dead "
                "layer; what rises and stays is lost capacity.",
                fixed=(0.0, 1.0),
            ),
            Figure(
                "Activation scale",
                ("activation_rms",),
                "Root mean square of what each layer passes on; a layer that shrinks towards 0 or "
                "grows without end starves or floods the next.",
            ),
            Figure(
                "Effective rank",
                ("effective_rank",),
                "How many directions a layer really uses; a lasting fall is collapse.",
            ),
            Figure(
                "Stable rank",
                ("stable_rank",),
                "Least number of directions that hold 99 % of a layer's singular values; a "
                "lasting fall is collapse.",
            ),
            Figure(
                "Frobenius rank",
                ("frobenius_rank",),
                "Squared Frobenius over squared spectral norm; near 1 a single direction "
                "dominates the layer.",
            ),
            Figure(
                "Rank of the tangent kernel",
                ("entk_rank",),
                "How many independent directions the outputs can still be moved in; where it "
                "falls, the network can learn less and less that is new.",
            ),
            Figure(
                "Jacobian",
                ("jacobian_spectrum",),
                "How much the network stretches its inputs, least and most: far apart, signals "
                "and gradients fade in some directions and explode in others.",
            ),
        ),
    ),
    Group(
        "conserved",
        "What is conserved?",
        "What stays, what drifts, and how far training has moved from where it began.",
        (
            Figure(
                "Weight norm",
                ("weight_norm",),
                "Grows freely without weight decay and settles with it; before normalisation "
                "layers a growing norm is a falling effective learning rate.",
            ),
            Figure(
                "Distance from initialisation",
                ("distance_from_init",),
                "How far the weights have moved; a curve that flattens has settled, a square root "
                "is a random walk.",
            ),
            Figure(
                "Drift of the conserved quantities",
                ("law_drift",),
                "How far training has moved off the laws that exact gradient flow would keep; "
                "step size, momentum and weight decay break them.",
            ),
            Figure(
                "Residual of the laws",
                ("law_residual",),
                "What is left of the drift after step size, momentum and weight decay are "
                "accounted for; far from 0 something else acts.",
            ),
            Figure(
                "Isometry defect",
                ("isometry_defect",),
                "How far a layer is from keeping lengths and angles; 0 keeps both.",
            ),
        ),
    ),
)

#: Where instruments go that no group above names.
OTHER = Group(
    "other",
    "What else was measured?",
    "Figures that belong to none of the questions above, as they were recorded.",
    (),
)
_OWN = "A figure that the training script logged itself."
_UNKNOWN = "Recorded under this name; this version of Thalweg has no advice on how to read it."


def arrange(instruments: Iterable[str]) -> list[tuple[Group, list[Figure]]]:
    """The groups that have something to show, each with its figures, for the instruments of a run.

    Example:
        >>> [(g.slug, [f.title for f in fs]) for g, fs in arrange(["loss", "user/acc", "new"])]
        [('learning', ['Loss', 'acc']), ('other', ['new'])]
    """
    left = dict.fromkeys(instruments)
    arranged: list[tuple[Group, list[Figure]]] = []
    for group in GROUPS:
        figures = []
        for figure in group.figures:
            present = tuple(name for name in figure.instruments if name in left)
            if present:
                figures.append(replace(figure, instruments=present))
            for name in present:
                del left[name]
        if group.slug == "learning":
            for name in [name for name in left if name.startswith("user/")]:
                figures.append(Figure(name.removeprefix("user/"), (name,), _OWN, each=True))
                del left[name]
        if figures:
            arranged.append((group, figures))
    if left:
        arranged.append((OTHER, [Figure(name, (name,), _UNKNOWN) for name in left]))
    return arranged
