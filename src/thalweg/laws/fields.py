"""The directions that a gradient can take: families of vector fields on parameter space.

What training can conserve follows from the span of all gradients that data and loss allow. A family
is given by a map φ through which the function depends on its parameters (any data, any loss: the
fields are the gradients of φ's components), by explicit fields, or by a module with a loss and a
sampler (the fields are gradients on samples).

Source: S. Marcotte, R. Gribonval, G. Peyré 2023, arXiv 2307.00144; for data symmetry Galley,
Shahverdi, Flinth 2026, arXiv 2606.10913.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

__all__ = ["Fields", "fields_from_map", "generic_point", "path_map"]


@dataclass(frozen=True)
class Fields:
    """A family of d vector fields on R^D.

    Attributes:
        combine: ``(theta (D,), coefficients (d,)) -> (D,)``, the combination Σ c_i X_i(θ),
            differentiable by ``torch.func`` as often as brackets ask for.
        dim: D.
        count: d.
        names: of the coordinates, for formulas.
        whole: whether the family is known to span all its kind: more samples add nothing.
        kink: what makes the fields non-smooth, as ``ReLU in '1'``; empty if nothing was seen.
        every: ``theta -> (d, D)``, all fields at once.
    """

    combine: Callable[[Tensor, Tensor], Tensor]
    dim: int
    count: int
    names: tuple[str, ...] = ()
    whole: bool = True
    kink: str = ""
    every: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    def at(self, theta: Tensor) -> Tensor:
        """(d, D) every field at θ."""
        if self.every is not None:
            return self.every(theta)
        eye = torch.eye(self.count, dtype=theta.dtype, device=theta.device)
        return vmap(lambda c: self.combine(theta, c))(eye)

    @staticmethod
    def of(fields: Fields | Sequence[Callable[[Tensor], Tensor]], dim: int) -> Fields:
        """A family from a list of callables ``theta (D,) -> (D,)``; a family stays as it is.

        Raises:
            ValueError: if the list is empty, or a field does not return D numbers.
        """
        if isinstance(fields, Fields):
            if fields.dim != dim:
                raise ValueError(f"theta has {dim} coordinates, the fields have {fields.dim}")
            return fields
        listed = list(fields)
        if not listed:
            raise ValueError("at least one vector field is needed, got an empty list")
        for i, one in enumerate(listed):
            shape = tuple(one(torch.full((dim,), 0.5, dtype=torch.float64)).shape)
            if shape != (dim,):
                raise ValueError(f"field {i} must return shape ({dim},), got {shape}")

        def combine(theta: Tensor, coefficients: Tensor) -> Tensor:
            stacked = torch.stack([one(theta) for one in listed])
            return coefficients @ stacked

        return Fields(combine, dim, len(listed))


def fields_from_map(
    phi: Callable[[Tensor], Tensor], dim: int, *, names: Sequence[str] = ()
) -> Fields:
    """The gradients of the components of φ: what any data and any loss can give.

    Args:
        phi: ``theta (D,) -> (d,)`` or any shape, made of torch operations.
        dim: D.
        names: of the coordinates, for formulas.

    Returns:
        The family of ∇φ_i.

    Raises:
        ValueError: if φ does not depend on its argument.

    Example:
        >>> f = fields_from_map(lambda t: t[0] * t[1], 2)
        >>> f.at(torch.tensor([2.0, 3.0]))
        tensor([[3., 2.]])
    """

    def flat(theta: Tensor) -> Tensor:
        return phi(theta).reshape(-1)

    probe = torch.linspace(0.3, 0.9, dim, dtype=torch.float64).requires_grad_()
    values = flat(probe)
    if not values.requires_grad:
        raise ValueError("phi does not depend on theta: its value carries no gradient")

    def combine(theta: Tensor, coefficients: Tensor) -> Tensor:
        return grad(lambda t: (coefficients * flat(t)).sum())(theta)

    return Fields(combine, dim, len(values), tuple(names), every=jacrev(flat))


def path_map(
    widths: Sequence[int], *, bias: bool = False
) -> tuple[Callable[[Tensor], Tensor], int]:
    """The path products of a ReLU network: how its function depends on the weights, locally.

    Inside a region of inputs with fixed activations, the output is linear in the products of the
    weights along each path from an input (or a bias) to an output. Gradients over all data are
    combinations of the gradients of these products.

    Args:
        widths: of input, hidden layers and output.
        bias: whether hidden layers and output have biases.

    Returns:
        φ on the weights, W_1, b_1, W_2, b_2, … row-major, and D.

    Example:
        >>> phi, dim = path_map([1, 1, 1])
        >>> phi(torch.tensor([2.0, 3.0])), dim
        (tensor([6.]), 2)
    """
    layers = list(zip(widths[1:], widths[:-1], strict=True))
    dim = sum(out * into + (out if bias else 0) for out, into in layers)

    def phi(theta: Tensor) -> Tensor:
        at = 0
        paths: list[Tensor] = []  # each (units of the present layer, number of paths to each)
        for depth, (out, into) in enumerate(layers):
            weight = theta[at : at + out * into].reshape(out, into)
            at += out * into
            if depth == 0:
                grown = [weight]
            else:
                grown = [(weight[:, :, None] * p[None]).reshape(out, -1) for p in paths]
            if bias:
                grown.append(theta[at : at + out].reshape(out, 1))
                at += out
            paths = grown
        return torch.cat([p.reshape(-1) for p in paths])

    return phi, dim


def generic_point(
    dim: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """A random point without zeros, ties or special signs: ±(0.5 … 1.5).

    Args:
        dim: D.
        generator: of the random numbers.
        dtype: of the point.

    Returns:
        (D,).
    """
    size = 0.5 + torch.rand(dim, generator=generator, dtype=dtype)
    sign = torch.where(torch.rand(dim, generator=generator) < 0.5, -1.0, 1.0)
    return size * sign.to(dtype)
