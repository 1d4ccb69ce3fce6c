"""Finite groups as stacks of matrices, their orthogonal representations, and isotypic parts.

A representation is a stack (g, n, n), one matrix per element in the order of the group. Source:
M. M. Bronstein, J. Bruna, T. Cohen, P. Veličković 2021, arXiv 2104.13478; J.-P. Serre, "Linear
Representations of Finite Groups", 1977.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Group", "Isotype", "commutant", "isotypic", "require_orthogonal", "reynolds"]

MAX_ORDER = 10_000
Kind = Literal["real", "complex", "quaternionic"]


@dataclass(frozen=True)
class Group:
    """A finite group with a faithful orthogonal representation.

    Attributes:
        elements: (g, n, n) float64 orthogonal matrices, the identity first.
        name: as ``C4``.
    """

    elements: Tensor
    name: str = "G"

    @property
    def order(self) -> int:
        """Number of elements."""
        return len(self.elements)

    @property
    def dim(self) -> int:
        """n, the dimension that it acts on."""
        return self.elements.shape[-1]

    @staticmethod
    def cyclic(n: int, *, rotation: bool = False) -> Group:
        """Shifts of n coordinates, or with ``rotation`` the rotations of the plane by 2π/n.

        Example:
            >>> Group.cyclic(4).dim, Group.cyclic(4, rotation=True).dim
            (4, 2)
        """
        _positive("n", n)
        if not rotation:
            shift = torch.eye(n, dtype=torch.float64).roll(1, 0)
            powers = [torch.linalg.matrix_power(shift, k) for k in range(n)]
            return Group(torch.stack(powers), f"C{n}")
        return Group(torch.stack([_turn(2 * math.pi * k / n) for k in range(n)]), f"C{n}")

    @staticmethod
    def dihedral(n: int) -> Group:
        """Rotations and reflections of the regular n-gon in the plane, 2n elements."""
        _positive("n", n)
        turns = Group.cyclic(n, rotation=True).elements
        flip = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
        return Group(torch.cat([turns, turns @ flip]), f"D{n}")

    @staticmethod
    def symmetric(n: int) -> Group:
        """All permutations of n coordinates.

        Raises:
            ValueError: if n! exceeds 10,000 (n > 7).
        """
        _positive("n", n)
        if math.factorial(n) > MAX_ORDER:
            raise ValueError(
                f"S_{n} has {math.factorial(n)} elements, more than {MAX_ORDER}: use a subgroup, "
                "or its generators where only those are needed"
            )
        eye = torch.eye(n, dtype=torch.float64)
        orders = itertools.permutations(range(n))
        return Group(torch.stack([eye[list(p)] for p in orders]), f"S{n}")

    @staticmethod
    def from_generators(matrices: Tensor | Sequence[Tensor], max_order: int = MAX_ORDER) -> Group:
        """The group that some orthogonal matrices generate.

        Args:
            matrices: (k, n, n).
            max_order: give up beyond so many elements.

        Raises:
            ValueError: if a matrix is not orthogonal, or the group is larger than ``max_order``
                (or infinite).
        """
        stack = torch.as_tensor(
            torch.stack(list(matrices)) if not isinstance(matrices, Tensor) else matrices
        ).double()
        require_orthogonal(stack, "generator")
        known: dict[tuple[int, ...], Tensor] = {}
        waiting = [torch.eye(stack.shape[-1], dtype=torch.float64)]
        while waiting:
            element = waiting.pop(0)
            key = tuple((element * 1e6).round().long().reshape(-1).tolist())
            if key in known:
                continue
            known[key] = element
            if len(known) > max_order:
                raise ValueError(
                    f"the generators give more than {max_order} elements; is the group infinite?"
                )
            waiting += [g @ element for g in stack]
        return Group(torch.stack(list(known.values())))

    @staticmethod
    def of(elements: Tensor, name: str = "G") -> Group:
        """A group from all its elements.

        Raises:
            ValueError: if a matrix is not orthogonal, or the set is not closed.
        """
        elements = elements.double()
        require_orthogonal(elements, "element")
        products = torch.einsum("gij,hjk->ghik", elements, elements)
        distance = torch.cdist(products.reshape(len(elements) ** 2, -1), elements.flatten(1))
        far = int((distance.min(1).values > 1e-6).sum())
        if far:
            raise ValueError(
                f"the {len(elements)} matrices are not closed: {far} products are not among them. "
                "Use Group.from_generators to complete them"
            )
        return Group(elements, name)


@dataclass(frozen=True)
class Isotype:
    """The part of a representation in which one irreducible occurs.

    Attributes:
        dim: d, real dimension of the irreducible.
        multiplicity: a, how often it occurs.
        kind: ``real``, ``complex`` or ``quaternionic``.
        projector: (n, n) orthogonal projector onto the d·a dimensions.
        trivial: whether the group does nothing there.
    """

    dim: int
    multiplicity: int
    kind: Kind
    projector: Tensor
    trivial: bool


def isotypic(representation: Tensor, *, generator: torch.Generator | None = None) -> list[Isotype]:
    """The isotypic decomposition of a real orthogonal representation.

    A random symmetric element of the commutant has one eigenspace per irreducible copy; copies of
    the same irreducible are joined by the commutant, and the size of their endomorphism algebra
    tells the type (1, 2 or 4 dimensions).

    Args:
        representation: (g, n, n) orthogonal.
        generator: of the random element.

    Returns:
        The isotypes, the trivial one first, then by dimension.

    Raises:
        ValueError: if the matrices are not orthogonal.

    Example:
        >>> [(t.dim, t.multiplicity, t.kind) for t in isotypic(Group.symmetric(4).elements)]
        [(1, 1, 'real'), (3, 1, 'real')]
    """
    rep = representation.double()
    require_orthogonal(rep, "representation")
    n = rep.shape[-1]
    generator = generator or torch.Generator().manual_seed(0)
    noise = torch.randn(n, n, generator=generator, dtype=torch.float64)
    average = reynolds(noise + noise.T, rep)
    values, vectors = torch.linalg.eigh(average)
    spread = float(values.abs().max().clamp_min(1.0))
    cuts = (values.diff() > 1e-7 * spread).nonzero().flatten() + 1
    spaces = torch.tensor_split(vectors, cuts.tolist(), dim=1)
    probe = reynolds(torch.randn(n, n, generator=generator, dtype=torch.float64), rep)
    found: list[Isotype] = []
    left = list(range(len(spaces)))
    while left:
        first = left[0]
        same = [
            j
            for j in left
            if spaces[j].shape[1] == spaces[first].shape[1]
            and (spaces[j].T @ probe @ spaces[first]).norm() > 1e-7
        ]
        left = [j for j in left if j not in same]
        basis = torch.cat([spaces[j] for j in same], 1)
        one = spaces[first]
        small = torch.einsum("ia,gij,jb->gab", one, rep, one)
        size = round(float((torch.einsum("gii->g", small) ** 2).mean()))
        kind: Kind = "real" if size == 1 else "complex" if size == 2 else "quaternionic"
        still = (small - torch.eye(one.shape[1], dtype=torch.float64)).abs().max() < 1e-9
        found.append(Isotype(one.shape[1], len(same), kind, basis @ basis.T, bool(still)))
    return sorted(found, key=lambda t: (not t.trivial, t.dim, t.multiplicity))


def reynolds(matrix: Tensor, left: Tensor, right: Tensor | None = None) -> Tensor:
    """The average of ρ_out(g) M ρ_in(g)ᵀ over the group: the projection onto equivariant maps.

    Args:
        matrix: (m, n).
        left: (g, m, m) ρ_out.
        right: (g, n, n) ρ_in, by default ``left``.

    Returns:
        (m, n).
    """
    right = left if right is None else right
    return torch.einsum("gij,jk,glk->il", left, matrix, right) / len(left)


def commutant(left: Tensor, right: Tensor | None = None) -> Tensor:
    """An orthonormal basis of the equivariant maps, ρ_out(g) W = W ρ_in(g) for all g.

    Args:
        left: (g, m, m) ρ_out, all elements or generators only.
        right: (g, n, n) ρ_in, by default ``left``.

    Returns:
        (k, m, n).

    Example:
        >>> len(commutant(Group.symmetric(3).elements))
        2
    """
    right = left if right is None else right
    m, n = left.shape[-1], right.shape[-1]
    eye_m, eye_n = torch.eye(m).to(left), torch.eye(n).to(right)
    # Row-major vec: vec(ρ W − W σ) = (ρ ⊗ I − I ⊗ σᵀ) vec W = R vec W. The sum of RᵀR over the
    # matrices, term by term, needs no product of matrices of that size.
    cross = torch.einsum("gij,gkl->ikjl", left, right).reshape(m * n, m * n)
    squares = torch.einsum("gij,gik->jk", left, left), torch.einsum("gij,gkj->ik", right, right)
    gram = torch.kron(squares[0], eye_n) + torch.kron(eye_m, squares[1]) - cross - cross.T
    values, vectors = torch.linalg.eigh(gram)
    return vectors[:, values < 1e-9 * max(len(left), 1)].T.reshape(-1, m, n)


def _turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def require_orthogonal(stack: Tensor, what: str) -> None:
    """Check that these are orthogonal matrices.

    Args:
        stack: (g, n, n).
        what: what a matrix is called in the error.

    Raises:
        ValueError: for another shape, or naming the matrix that is not orthogonal.
    """
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2]:
        raise ValueError(f"expected (g, n, n) matrices, got shape {tuple(stack.shape)}")
    defect = (stack @ stack.transpose(1, 2) - torch.eye(stack.shape[-1]).to(stack)).abs()
    worst = defect.amax((1, 2))
    if worst.max() > 1e-6:
        i = int(worst.argmax())
        raise ValueError(f"{what} {i} is not orthogonal: |M Mᵀ − 1| reaches {float(worst[i]):.2g}")
