"""How the elements of a group act on tensors: by matrices on the last axis, or by a function.

Matrices serve vectors; a function ``(index of the element, x) -> x`` serves what is no vector, as
``lambda i, x: torch.rot90(x, i, (-2, -1))`` for images under ``Group.cyclic(4, rotation=True)``.
Source: M. M. Bronstein, J. Bruna, T. Cohen, P. Veličković 2021, arXiv 2104.13478.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.numerics.group import Group, require_orthogonal

__all__ = ["Action", "Representation", "as_action", "inverses"]

#: ``(index of the element, x) -> x`` under that element.
Action = Callable[[int, Tensor], Tensor]
#: A stack (g, n, n) in the order of the group, the group itself, or an action.
Representation = Tensor | Group | Action

# Products looked at to see that matrices multiply as the group does.
_PRODUCTS = 64


def as_action(rep: Representation | None, group: Group, what: str) -> Action:
    """The action of a representation; none given is the trivial one.

    Args:
        rep: (g, n, n) orthogonal matrices in the order of the group, a group, an action, or None.
        group: the group.
        what: the argument's name, said in errors.

    Returns:
        ``(i, x) -> x``; matrices act on the last axis, in the dtype of x.

    Raises:
        ValueError: if there is not one matrix per element, one is not orthogonal, they do not
            multiply as the group does, or (when called) x has another last axis.

    Example:
        >>> act = as_action(Group.cyclic(3), Group.cyclic(3), "in_rep")
        >>> act(1, torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 1., 2.])
    """
    if rep is None:
        return lambda i, x: x
    if not isinstance(rep, Tensor | Group):
        return rep
    stack = rep.elements if isinstance(rep, Group) else rep.detach().double().cpu()
    require_orthogonal(stack, what)
    if len(stack) != group.order:
        raise ValueError(
            f"{what} has {len(stack)} matrices, {group.name} has {group.order} elements: give one "
            "per element, in the order of group.elements"
        )
    i, j = _pairs(group.order)
    found = stack[i] @ stack[j]
    wrong = (found - stack[_index(group, group.elements[i] @ group.elements[j])]).abs().amax((1, 2))
    if wrong.max() > 1e-6:
        k = int(wrong.argmax())
        raise ValueError(
            f"{what} is no representation of {group.name}: matrices {int(i[k])} and {int(j[k])} do "
            "not multiply as the elements do. Give them in the order of group.elements"
        )
    dim = stack.shape[-1]

    def act(i: int, x: Tensor) -> Tensor:
        if x.shape[-1:] != (dim,):
            raise ValueError(
                f"{what} acts on {dim} coordinates, the last axis of shape {tuple(x.shape)} has "
                "another length. Give matrices of that size, or an action (i, x) -> x"
            )
        return x @ stack[i].T.to(x)

    return act


def inverses(group: Group) -> list[int]:
    """The index of the inverse of every element.

    Example:
        >>> inverses(Group.cyclic(4))
        [0, 3, 2, 1]
    """
    return _index(group, group.elements.transpose(1, 2)).tolist()


def _pairs(order: int) -> tuple[Tensor, Tensor]:
    """All pairs of a small group, pairs drawn with a fixed seed for a large one."""
    if order * order <= _PRODUCTS:
        i, j = torch.meshgrid(torch.arange(order), torch.arange(order), indexing="ij")
        return i.flatten(), j.flatten()
    generator = torch.Generator().manual_seed(0)
    i, j = torch.randint(order, (2, _PRODUCTS), generator=generator)
    return i, j


def _index(group: Group, matrices: Tensor) -> Tensor:
    """(k,) the indices of elements of a group, given as matrices."""
    flat, wanted = group.elements.flatten(1), matrices.flatten(1)
    near = [torch.cdist(block, flat).min(1) for block in wanted.split(256)]
    if max(float(n.values.max()) for n in near) > 1e-6:
        raise ValueError(f"{group.name} is not closed. Use Group.from_generators to complete it")
    return torch.cat([n.indices for n in near])
