"""What training conserves in a module, read off its architecture.

The forward is run once and every call is followed: which rescalings of units, and which shifts of
activations, leave the function alone. Each one is a law (Noether). So a law is never looked up by
the name of a layer: residual sums, grouped and rotary heads, fused projections and tied weights are
covered by following what happens. With a sample, each law is checked through its generator.

Source: D. Kunin et al. 2020, arXiv 2012.04728; S. Marcotte, R. Gribonval, G. Peyré 2023, arXiv
2307.00144, and 2025, arXiv 2506.06194, for attention and residual networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.laws.balances import balance_laws, free_key_biases
from thalweg.laws.law import Law
from thalweg.laws.made_up_input import made_up_input, required_inputs
from thalweg.laws.scaling_flow import follow
from thalweg.laws.shifts import shift_laws
from thalweg.laws.trace import as_double, call, prepared, trace_forward
from thalweg.laws.verify import check_forward, verify_laws

__all__ = ["KnownLaws", "NotCovered", "known_laws"]


@dataclass(frozen=True)
class NotCovered:
    """A part of a module about which nothing is claimed.

    Attributes:
        module: its dotted name, empty for the whole.
        reason: why.
    """

    module: str
    reason: str


class KnownLaws(list[Law]):
    """A list of laws that also says what it does not cover.

    Attributes:
        not_covered: parts of the module where laws may exist that were not looked for, and laws
            that failed their check.
    """

    def __init__(self, laws: Iterable[Law] = (), not_covered: Iterable[NotCovered] = ()) -> None:
        super().__init__(laws)
        self.not_covered = tuple(not_covered)


def known_laws(
    module: nn.Module,
    sample: Any | Callable[[torch.Generator], Any] | None = None,
    *,
    loss: Literal["any", "cross-entropy"] = "any",
    generator: torch.Generator | None = None,
) -> KnownLaws:
    """The laws that gradient flow on a module obeys, whatever the data.

    Training is taken as it is run: batch norms use batch statistics, dropout that is set counts as
    present (it breaks some laws), frozen parameters do not move, tied ones move together. The
    module itself is left alone: a float64 copy is run.

    Args:
        module: any module whose forward is torch operations.
        sample: an input: a tensor, a tuple of positional inputs, a dict of named ones, or a
            callable that draws one. A pair ``(x, y)`` is an input and its target if ``forward``
            needs one input only; y is not used. With it, each law is checked through its generator
            and dropped if it fails (``verified`` is True on those returned). Without it, an input
            is made up from the layers' shapes to follow the forward, and ``verified`` is None.
        loss: ``cross-entropy`` adds the laws of a softmax over the outputs (last axis; axis 1 of
            images). By default any loss of the outputs is allowed.
        generator: of a drawn sample and of the checks' random losses.

    Returns:
        The laws, deepest inside a layer first, with ``.not_covered``. Laws that hold but for a
        norm's ε say so in their note.

    Raises:
        TypeError: if ``module`` is not a module.
        ValueError: if the forward is random, changes parameters or buffers, or fails on the
            sample.

    Cost:
        One forward to follow; with a sample nine gradients more; three float64 copies.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> [law.formula for law in known_laws(net)]
        ['‖2.weight[:,j]‖² − ‖0.weight[j]‖² − ‖0.bias[j]‖²']
        >>> known_laws(net, torch.randn(4, 3))[0].verified
        True
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    if loss not in ("any", "cross-entropy"):
        raise ValueError(f"loss must be 'any' or 'cross-entropy', got {loss!r}")
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError("known_laws: the module has no trainable parameters, so nothing moves")
    generator = generator or torch.Generator().manual_seed(0)
    copied = prepared(module)
    if sample is None:
        inputs = made_up_input(copied)
        if inputs is None:
            reason = "no input could be made up that its forward accepts: pass sample="
            return KnownLaws([], [NotCovered("", reason)])
    else:
        inputs = _inputs(copied, sample, generator)
    try:
        call(copied, inputs)
    except Exception as error:
        raise ValueError(
            f"known_laws: the forward of {type(module).__name__} fails on the sample, in float64 "
            f"({type(error).__name__}: {error}). Give one that module(sample) accepts"
        ) from error
    check_forward(copied, inputs)
    trace = trace_forward(copied, inputs)
    if not trace.outputs:
        raise ValueError("known_laws: the forward returns no floating-point tensor for a loss")
    state = follow(trace)
    shifts = shift_laws(trace, free_key_biases(state), loss)
    laws = [*balance_laws(state, _constant(shifts, trace.params)), *shifts]
    missing = [NotCovered(where, reason) for where, reason in state.unknown]
    if sample is not None:
        checked = verify_laws(copied, inputs, laws, generator=generator)
        laws = [law for law in checked if law.verified]
        missing += [
            NotCovered(law.name, f"{law.formula} failed its check: the loss changes along its "
                       f"generator at a relative rate of {law.defect:.0e}")
            for law in checked if not law.verified
        ]  # fmt: skip
    return KnownLaws(laws, missing)


def _constant(shifts: list[Law], params: dict[str, nn.Parameter]) -> dict[str, set[int]]:
    """Entries of biases that are laws by themselves."""
    found: dict[str, set[int]] = {}
    for law in shifts:
        piece = law.pieces[0]
        size = params[piece.parameter].shape
        if len(size) == 1 and piece.index is None:
            found.setdefault(piece.parameter, set()).update(range(size[0]))
        elif len(size) == 1 and piece.index is not None and piece.index.shape[1] == 1:
            found.setdefault(piece.parameter, set()).update(piece.index[:, 0].tolist())
    return found


def _inputs(module: nn.Module, sample: Any, generator: torch.Generator) -> Any:
    """The inputs of one call, in float64."""
    drawn = sample(generator) if callable(sample) and not isinstance(sample, Tensor) else sample
    if isinstance(drawn, list):
        drawn = tuple(drawn)
    if isinstance(drawn, tuple):
        needed = required_inputs(module)
        if len(drawn) == 2 and needed == 1:
            drawn = drawn[0]
        elif not drawn:
            raise ValueError("sample is an empty tuple; it needs at least one input")
    if not isinstance(drawn, Tensor | tuple | dict):
        raise TypeError(
            "sample must be a tensor, a tuple or dict of inputs, a pair (x, y), or a callable "
            f"that draws one, got {type(drawn).__name__}"
        )
    return as_double(drawn)
