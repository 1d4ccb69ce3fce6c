"""Laws that the symmetry of the data adds.

With squared error and a network f_θ(x) = Φ(θ)ϕ(x), data enter through C = E[ϕϕᵀ] and B = E[yϕᵀ]
alone. On data augmented by a group G these commute with it, and with more: with the *lifted group*
of all orthogonal maps that commute with every admissible C, which is continuous although G is
finite. The flow cannot leave the points fixed by the isotropy of θ, and this gives new laws: for a
linear network, the column space of the first layer within each non-trivial isotype.

Source: Galley, Shahverdi, Flinth 2026, arXiv 2606.10913 (statements); the constructions here are
derived in ``docs/mathematics.md``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from thalweg.laws.conservation_laws import MAX_EXACT_DIM, LawReport, conservation_laws
from thalweg.laws.model_fields import fields_from_model
from thalweg.numerics.group import Group, Isotype, commutant, isotypic

__all__ = ["LiftedGroup", "augment_fully", "extra_laws", "lifted_group", "linear_extra_laws"]


@dataclass(frozen=True)
class LiftedGroup:
    """The symmetry that fully augmented data have for squared error.

    Iterating gives the isotypes.

    Attributes:
        isotypes: of the representation on features.
        algebra: (k, n, n) antisymmetric basis of the Lie algebra of the lifted group.
    """

    isotypes: tuple[Isotype, ...]
    algebra: Tensor

    @property
    def dim(self) -> int:
        """Dimension of the lifted group; 0 if it is finite."""
        return len(self.algebra)

    def __iter__(self) -> Iterator[Isotype]:
        return iter(self.isotypes)


def lifted_group(representation: Tensor | Group) -> LiftedGroup:
    """The lifted group of a representation on features, for invariant targets.

    Its Lie algebra is {A antisymmetric: A C = C A for every symmetric C that commutes with G, and
    B A = 0 for every invariant functional B}.

    Args:
        representation: (g, n, n) orthogonal, or a group acting on raw inputs.

    Returns:
        Isotypes (dimension d_k, multiplicity a_k, type) and the algebra, of dimension
        Σ d_k(d_k − 1)/2 over non-trivial isotypes of real type.

    Raises:
        ValueError: if the matrices are not orthogonal.

    Example:
        The permutations of four inputs act like all rotations of the three that sum to zero:

        >>> lifted_group(Group.symmetric(4)).dim
        3
    """
    rep = representation.elements if isinstance(representation, Group) else representation.double()
    isotypes = tuple(isotypic(rep))
    n = rep.shape[-1]
    maps = commutant(rep)
    symmetric = _independent((maps + maps.transpose(1, 2)) / 2)
    fixed = next((t.projector for t in isotypes if t.trivial), torch.zeros(n, n).to(rep))
    upper = torch.triu_indices(n, n, 1)
    basis = torch.zeros(upper.shape[1], n, n, dtype=torch.float64)
    basis[torch.arange(len(basis)), upper[0], upper[1]] = 1.0
    basis -= basis.transpose(1, 2).clone()
    if not len(basis):
        return LiftedGroup(isotypes, basis)
    rows = [basis @ c - c @ basis for c in symmetric] + [fixed @ basis]
    equations = torch.cat([r.reshape(len(basis), -1) for r in rows], 1)  # (unknown, equation)
    u, values, _ = torch.linalg.svd(equations, full_matrices=True)
    zero = torch.ones(len(basis), dtype=torch.bool)
    zero[: len(values)] = values < 1e-8
    return LiftedGroup(isotypes, torch.einsum("uk,uij->kij", u[:, zero], basis))


def linear_extra_laws(
    isotypes: LiftedGroup, rank: int, out_isotypes: tuple[Isotype, ...] | None = None
) -> int:
    """Extra laws of a linear network with r hidden units on fully augmented data, in closed form.

    Σ q_k(d_k − q_k) over non-trivial isotypes, q_k = min(a_k r, d_k): the column space of the first
    layer within an isotype is constant. Isotypes of complex or quaternionic type count with the
    dimension of their own Grassmannian over that field only where q_k is a multiple; the real count
    is exact for r = 1 and d_k = 2.

    Args:
        isotypes: from ``lifted_group``.
        rank: r, the width of the first hidden layer.
        out_isotypes: of the targets' representation, for equivariant targets; matched by
            dimension.

    Returns:
        The number of laws beyond the architecture's.

    Example:
        >>> [linear_extra_laws(lifted_group(Group.symmetric(4)), r) for r in (1, 2, 3)]
        [2, 2, 0]
    """
    total = 0
    for t in isotypes:
        if t.trivial:
            continue
        copies = t.multiplicity
        for other in out_isotypes or ():
            if not other.trivial and (other.dim, other.kind) == (t.dim, t.kind):
                copies += other.multiplicity
        q = min(copies * rank, t.dim)
        total += q * (t.dim - q)
    return total


def extra_laws(
    model: nn.Module,
    group: Group,
    *,
    input_shape: tuple[int, ...] | None = None,
    out_rep: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> LawReport:
    """Laws of a network trained with squared error on fully augmented data, and how many are extra.

    Counts by brackets with and without the group. For a network of any size that is linear in its
    input use ``linear_extra_laws``.

    Args:
        model: with at most 40 parameters, polynomial or otherwise smooth.
        group: acts on the last axis of the input.
        input_shape: shape of one sample; by default ``(group.dim,)``.
        out_rep: (g, m, m) action on targets; by default invariant.
        generator: of the random samples.

    Returns:
        The report for augmented data with ``n_laws`` (all), ``n_extra`` and ``isotypes``.

    Raises:
        ValueError: if the model is too large, or the group does not fit.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch...
        >>> net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> report = extra_laws(net, Group.symmetric(4))
        >>> report.n_laws, report.n_extra
        (3, 2)
    """
    generator = generator or torch.Generator().manual_seed(0)
    shape = input_shape or (group.dim,)
    dtype = torch.float64
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if size > MAX_EXACT_DIM:
        raise ValueError(
            f"{size} parameters are too many for brackets (at most {MAX_EXACT_DIM}): use a smaller "
            "model of the same architecture, or linear_extra_laws for a linear one"
        )
    probe = torch.randn(1, *shape, generator=generator, dtype=dtype)
    try:
        with torch.no_grad():
            width = _double(model)(probe).reshape(1, -1).shape[1]
    except RuntimeError as error:
        raise ValueError(
            f"the group acts on {group.dim} coordinates, and the model does not accept a sample of "
            f"shape {tuple(shape)} ({error}): choose a group that fits, or give input_shape"
        ) from error

    def sample(g: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(16, *shape, generator=g, dtype=dtype)
        return x, torch.randn(16, width, generator=g, dtype=dtype)

    rep = "trivial" if out_rep is None else out_rep
    with_group = fields_from_model(model, "mse", sample, group, rep, generator=generator)
    without = fields_from_model(model, "mse", sample, generator=generator)
    augmented = conservation_laws(with_group, method="brackets", generator=generator)
    plain = conservation_laws(without, method="brackets", generator=generator)
    return replace(
        augmented,
        n_extra=augmented.n_laws - plain.n_laws,
        isotypes=tuple(isotypic(group.elements)),
    )


def augment_fully(
    dataset: tuple[Tensor, Tensor], group: Group, out_rep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Every sample under every element of the group.

    Partial or random augmentation gives no law: all of the group, in every batch.

    Args:
        dataset: x (N, …, n) and y (N, …).
        group: acts on the last axis of x.
        out_rep: (g, m, m) action on the last axis of y; by default y is invariant.

    Returns:
        x (N·g, …, n) and y (N·g, …), the images of a sample one after the other.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> x, y = augment_fully((torch.ones(5, 3), torch.ones(5)), Group.symmetric(3))
        >>> x.shape, y.shape
        (torch.Size([30, 3]), torch.Size([30]))
    """
    x, y = dataset
    if x.shape[-1] != group.dim:
        raise ValueError(f"the group acts on {group.dim} coordinates, x has {x.shape[-1]}")
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} samples, y has {len(y)}")
    images = torch.einsum("gij,n...j->ng...i", group.elements.to(x), x)
    if out_rep is None:
        targets = y[:, None].expand(len(y), group.order, *y.shape[1:])
    else:
        if out_rep.shape != (group.order, y.shape[-1], y.shape[-1]):
            raise ValueError(
                f"out_rep must have shape ({group.order}, {y.shape[-1]}, {y.shape[-1]}), got "
                f"{tuple(out_rep.shape)}"
            )
        targets = torch.einsum("gij,n...j->ng...i", out_rep.to(y), y)
    return images.flatten(0, 1), targets.reshape(-1, *y.shape[1:])


def _independent(maps: Tensor) -> Tensor:
    """An orthonormal basis of the span of some matrices."""
    n = maps.shape[-1]
    _, values, vh = torch.linalg.svd(maps.reshape(len(maps), -1), full_matrices=False)
    return vh[values > 1e-9].reshape(-1, n, n)


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double()
