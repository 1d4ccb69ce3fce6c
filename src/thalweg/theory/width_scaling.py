"""How the largest stable learning rate falls with the width, as the infinite-width limit has it.

A rate η ∝ n^e at width n. Under SGD in standard parametrisation one step changes the output through
the readout by Θ(ηn), a hidden layer through its own weights by Θ(ηn^½) and the first layer by
Θ(ηn^−½). Squared error needs the first to stay bounded, e = −1. Under cross-entropy the gradient
with respect to the logits is bounded by √2 whatever they are, so that logits may diverge while
hidden layers learn, up to e = −½ ("controlled divergence").

Source: Haas, Bordt, von Luxburg, Vankadara 2025, arXiv 2505.22491; for muP Yang, Hu et al. 2022,
arXiv 2203.03466; for ``sp_full_align`` Everett et al. 2024, arXiv 2407.05872. Measured exponents at
widths in the hundreds are flatter than these limits.
"""

from __future__ import annotations

from thalweg.errors import unknown_name

__all__ = ["predicted_exponents", "predicted_slopes", "width_regime"]

PARAMETRIZATIONS = ("sp", "mup", "sp_full_align")
OPTIMIZERS = ("sgd", "adam")
LOSSES = ("ce", "mse")


def predicted_exponents(
    parametrization: str = "sp", optimizer: str = "sgd", loss: str = "ce", depth: int = 2
) -> float:
    """Exponent e of the largest stable learning rate, η_max ∝ n^e, as the width n → ∞.

    Args:
        parametrization: ``sp``: standard initialisation, one rate; ``mup``; or ``sp_full_align``:
            standard initialisation with muP's rates, under which logits still grow.
        optimizer: ``sgd`` or ``adam``.
        loss: ``ce`` or ``mse``.
        depth: hidden layers; with one there is no hidden-to-hidden weight to limit the rate.

    Returns:
        −1, −½ or 0.

    Raises:
        ValueError: for an unknown name or no hidden layer.

    Source:
        Haas et al. 2025, arXiv 2505.22491; entry large-learning-rates.

    Example:
        >>> [predicted_exponents("sp", "sgd", loss) for loss in ("mse", "ce")]
        [-1.0, -0.5]
        >>> predicted_exponents("sp", "sgd", "ce", depth=1), predicted_exponents("mup")
        (0.0, 0.0)
    """
    _known("parametrization", parametrization, PARAMETRIZATIONS)
    _known("optimizer", optimizer, OPTIMIZERS)
    _known("loss", loss, LOSSES)
    if depth < 1:
        raise ValueError(f"depth counts hidden layers and must be at least 1, got {depth}")
    if parametrization != "sp":
        return 0.0
    if loss == "mse":
        return -1.0  # the readout limits the rate, of SGD and of Adam
    if depth == 1:
        return 0.0
    return -0.5 if optimizer == "sgd" else -1.0


def predicted_slopes(exponent: float) -> dict[str, float]:
    """Exponents in the width of what one step of SGD does in standard parametrisation.

        input  e − ½,   hidden  e + ½,   output  e + 1     for η ∝ n^e

    They hold for the effective update ‖(W_t − W_0) x_t‖ (root mean square over units) of each kind
    of layer; the propagated update ‖W_0 (x_t − x_0)‖ of the output has the output's too, by the
    alignment of the readout with what the layer before it has learnt.

    Args:
        exponent: e of the learning rate.

    Source:
        Haas et al. 2025, arXiv 2505.22491; entry large-learning-rates.

    Example:
        >>> predicted_slopes(-0.5)
        {'input': -1.0, 'hidden': 0.0, 'output': 0.5}
    """
    return {"input": exponent - 0.5, "hidden": exponent + 0.5, "output": exponent + 1.0}


def width_regime(exponent: float, loss: str = "ce") -> str:
    """What a learning rate η ∝ n^exponent does to a wide net under SGD in standard parametrisation.

    Args:
        exponent: of the rate, negative where it falls with the width.
        loss: ``ce`` or ``mse``.

    Returns:
        ``stable``: logits and activations stay bounded, features freeze (lazy training);
        ``controlled divergence``: logits grow like n^(1 + exponent), all else stays bounded;
        ``catastrophic``: activations diverge too.

    Raises:
        ValueError: for an unknown loss or nan.

    Source:
        Haas et al. 2025, arXiv 2505.22491, table of regimes; entry large-learning-rates.

    Example:
        >>> [width_regime(e, "ce") for e in (-1, -0.5, 0)]
        ['stable', 'controlled divergence', 'catastrophic']
        >>> width_regime(-0.5, "mse")
        'catastrophic'
    """
    _known("loss", loss, LOSSES)
    if exponent != exponent:
        raise ValueError("exponent must be a number, got nan")
    if exponent <= -1:
        return "stable"
    return "controlled divergence" if loss == "ce" and exponent <= -0.5 else "catastrophic"


def _known(what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise ValueError(str(unknown_name(what, name, names)))
