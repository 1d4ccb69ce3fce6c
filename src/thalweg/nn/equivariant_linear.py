"""A linear layer that commutes with a group for every value of its weights.

The weights are coordinates in an orthonormal basis of all W with ρ_out(g) W = W ρ_in(g), so that
SGD on them is SGD on W projected to the equivariant maps. Source: M. Finzi, M. Welling,
A. G. Wilson 2021, arXiv 2104.09459. Departure: one dense eigenproblem instead of an iterative one,
hence the limit on the size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.numerics.group import Group, commutant, require_orthogonal

__all__ = ["EquivariantLinear"]

#: n_in · n_out: an eigenproblem of this size takes about a minute and half a gigabyte.
MAX_UNKNOWNS = 4096


class EquivariantLinear(nn.Module):
    """y = W x + b with ρ_out(g) W = W ρ_in(g) and ρ_out(g) b = b.

    Generators are enough, and cheaper than all elements. Each pair of matrices is either orthogonal
    (elements of the group) or antisymmetric (generators of its Lie algebra: A with ρ = exp(tA)).

    Args:
        in_rep: (g, n, n) matrices or a ``Group``.
        out_rep: (g, m, m), as many, in the same order; zeros where a Lie generator does nothing,
            ones (g, 1, 1) where an element does nothing.
        bias: add b, if some b is invariant.
        device: of parameters and bases.
        dtype: of parameters and bases.

    Attributes:
        coefficients: (k,) parameter; k is the dimension of the equivariant maps. Drawn so that W
            has the mean square of ``torch.nn.Linear``.
        bias_coefficients: (l,) parameter, zero at first, or None.
        basis: (k, m, n) orthonormal buffer, saved with the state: its rotation is arbitrary.

    Raises:
        ValueError: if a matrix is neither orthogonal nor antisymmetric, the two stacks do not
            match, n·m exceeds 4096, or only W = 0 is equivariant.

    Cost:
        Eigenvectors of an (n·m)² matrix when made; afterwards that of ``Linear`` and k·n·m.

    Source:
        [geometric-deep-learning]; Finzi et al. 2021, arXiv 2104.09459, section 5.

    Example:
        A layer on sets, λ x + γ mean(x), has two weights and one for the bias:

        >>> layer = EquivariantLinear(Group.symmetric(4), Group.symmetric(4))
        >>> len(layer.coefficients), len(layer.bias_coefficients)
        (2, 1)
    """

    basis: Tensor
    bias_basis: Tensor

    def __init__(
        self,
        in_rep: Tensor | Group,
        out_rep: Tensor | Group,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        left, right = _stack(out_rep, "out_rep"), _stack(in_rep, "in_rep")
        m, n = left.shape[-1], right.shape[-1]
        if len(left) != len(right):
            raise ValueError(
                f"in_rep has {len(right)} matrices and out_rep {len(left)}: give the same elements "
                "or generators for both, in the same order"
            )
        if m * n > MAX_UNKNOWNS:
            raise ValueError(
                f"{n} inputs and {m} outputs give {m * n} unknowns, more than {MAX_UNKNOWNS}: "
                "split the representations into blocks and make a layer for each pair"
            )
        fixed = _fixing(left, right)
        basis = commutant(left, right)
        if not len(basis):
            raise ValueError(
                "only W = 0 is equivariant between these representations: they have no irreducible "
                "part in common. Choose another out_rep"
            )
        dtype = dtype or torch.get_default_dtype()
        self.register_buffer("basis", basis.to(device, dtype))
        bias_basis = _kernel(fixed) if bias else left.new_zeros(0, m)
        self.register_buffer("bias_basis", bias_basis.to(device, dtype))
        # nn.Linear has variance 1/(3n) an entry; k coefficients share the square of all m·n.
        bound = math.sqrt(m / len(basis))
        self.coefficients = nn.Parameter(
            torch.empty(len(basis), device=device, dtype=dtype).uniform_(-bound, bound)
        )
        self.bias_coefficients = None
        if len(bias_basis):
            self.bias_coefficients = nn.Parameter(
                torch.zeros(len(bias_basis), device=device, dtype=dtype)
            )

    @property
    def weight(self) -> Tensor:
        """(m, n) W."""
        return torch.tensordot(self.coefficients, self.basis, 1)

    @property
    def bias(self) -> Tensor | None:
        """(m,) b, or None."""
        if self.bias_coefficients is None:
            return None
        return self.bias_coefficients @ self.bias_basis

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) to (…, m)."""
        return functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes and dimensions."""
        k, m, n = self.basis.shape
        return f"in_features={n}, out_features={m}, dim={k}, bias_dim={len(self.bias_basis)}"


def _stack(rep: Tensor | Group, what: str) -> Tensor:
    stack = rep.elements if isinstance(rep, Group) else rep.detach().double().cpu()
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or not stack.numel():
        raise ValueError(f"{what} must be (g, n, n), got shape {tuple(stack.shape)}")
    return stack


def _fixing(left: Tensor, right: Tensor) -> Tensor:
    """(g, m, m) matrices that are zero on invariant outputs, from elements or Lie generators."""
    # A quarter turn is antisymmetric and orthogonal: it fixes nothing either way.
    lie = _antisymmetric(left) & _antisymmetric(right)
    for name, stack in (("in_rep", right), ("out_rep", left)):
        eye = torch.eye(stack.shape[-1]).to(stack)
        finite = torch.where(lie[:, None, None], eye, stack)
        require_orthogonal(finite, f"no pair of Lie generators, and {name}")
    return torch.where(lie[:, None, None], left, left - torch.eye(left.shape[-1]).to(left))


def _antisymmetric(stack: Tensor) -> Tensor:
    """(g,) which of the matrices are."""
    return (stack + stack.transpose(1, 2)).abs().amax((1, 2)) < 1e-6


def _kernel(matrices: Tensor) -> Tensor:
    """(l, m) orthonormal basis of what all matrices map to zero."""
    gram = torch.einsum("gij,gik->jk", matrices, matrices)
    values, vectors = torch.linalg.eigh(gram)
    return vectors[:, values < 1e-9 * max(len(matrices), 1)].T
