"""Averaging a model over a group: the nearest equivariant model.

Source: M. M. Bronstein, J. Bruna, T. Cohen, P. Veličković 2021, arXiv 2104.13478 (Reynolds
operator).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from thalweg.numerics.action import Representation, as_action, inverses
from thalweg.numerics.group import Group

__all__ = ["Symmetrized", "symmetrize"]


class Symmetrized(nn.Module):
    """A model averaged over a group; made by ``symmetrize``.

    Attributes:
        model: the model that is averaged; its parameters are this module's.
        group: the group.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        group: Group,
        in_rep: Representation | None = None,
        out_rep: Representation | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.group = group
        self._in = as_action(group if in_rep is None else in_rep, group, "in_rep")
        self._out = as_action(out_rep, group, "out_rep")
        self._inverse = inverses(group)

    def forward(self, x: Tensor) -> Tensor:
        """The average of ρ_out(g)⁻¹ f(ρ_in(g) x), in the shape of f(x)."""
        total = self._out(0, self.model(self._in(0, x)))
        for i in range(1, self.group.order):
            total = total + self._out(self._inverse[i], self.model(self._in(i, x)))
        return total / self.group.order

    def extra_repr(self) -> str:
        """The group."""
        return f"group={self.group.name}, order={self.group.order}"


def symmetrize(
    model: Callable[[Tensor], Tensor],
    group: Group,
    in_rep: Representation | None = None,
    out_rep: Representation | None = None,
) -> Symmetrized:
    """Make a model equivariant by averaging it over a finite group.

        f_G(x) = (1/|G|) Σ_g ρ_out(g)⁻¹ f(ρ_in(g) x)

    It is a projection: an equivariant model is left as it is, and ‖f − f_G‖ is the part of f that
    is not equivariant. For a linear f it is ``numerics.reynolds``.

    Args:
        model: f, (B, …) to (B, …); a module is shared, not copied, and trains through the average.
        group: the group.
        in_rep: (g, n, n) on the last axis of x, or an action ``(i, x) -> x``; by default the
            group's own matrices.
        out_rep: the same for the output; by default the average is invariant.

    Returns:
        A module with the parameters of f under ``model.``.

    Raises:
        ValueError: if a representation does not fit the group, or (when called) x or the output.

    Cost:
        g forward passes a call.

    Source:
        Bronstein et al. 2021, arXiv 2104.13478.

    Example:
        The even part of a function is its average over a change of sign:

        >>> import torch
        >>> sign = Group.from_generators([-torch.eye(1)])
        >>> even = symmetrize(torch.exp, sign)
        >>> bool(torch.isclose(even(torch.ones(1, 1)), torch.cosh(torch.ones(()))))
        True
    """
    return Symmetrized(model, group, in_rep, out_rep)
