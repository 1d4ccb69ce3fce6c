"""Kernels of infinitely wide convolutional networks whose filters do not overlap.

The input is cut into patches of s_1 entries, each of unit norm, which filters of sizes s_1 … s_L
join as a tree; p top nodes go to a linear readout. With t_i = ⟨x_i, y_i⟩ at the leaves, Σ = Θ = t,
and layer by layer

    K = κ1(Σ),   T = κ0(Σ) Θ;   then over each group of s_{l+1} (at the top of p):
    Σ ← mean K,   Θ ← mean T + mean K

The last Σ is the kernel of random features (NNGP), the last Θ the tangent kernel (NTK). Weights
shared along the input or not give the same. A fully connected network is a tree without branches.

Source: F. Cagnetta, A. Favero, M. Wyart 2022, arXiv 2208.01003; arc-cosine kernels from Y. Cho,
L. K. Saul 2009. One-dimensional inputs only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["HierarchicalKernel", "arccos0", "arccos1", "fc_kernel", "patch_dimension"]

Kind = Literal["ntk", "nngp"]

#: Norms of patches may differ from 1 by this: float32 data divided by their norm do by 1e-7.
UNIT = 1e-5


def arccos0(t: Tensor) -> Tensor:
    """Arc-cosine kernel of degree 0, of step functions: κ0 = (π − arccos t)/π.

    Args:
        t: cosines, any shape; taken as within [−1, 1] if round-off left it.

    Returns:
        Like ``t``, from 0 to 1.

    Source: Cho, Saul 2009; Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        >>> arccos0(torch.tensor([1.0, 0.0, -1.0]))
        tensor([1.0000, 0.5000, 0.0000])
    """
    return 1 - t.clamp(-1, 1).arccos() / math.pi


def arccos1(t: Tensor) -> Tensor:
    """Arc-cosine kernel of degree 1, of ReLU: κ1 = (√(1 − t²) + t(π − arccos t))/π, κ1′ = κ0.

    Args:
        t: cosines, any shape; taken as within [−1, 1] if round-off left it.

    Returns:
        Like ``t``, from 0 to 1; its derivative is finite at ±1 too.

    Source: Cho, Saul 2009; Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        >>> arccos1(torch.tensor([1.0, 0.0])) * torch.tensor([1.0, math.pi])
        tensor([1., 1.])
    """
    out = _Arccos1.apply(t)
    assert isinstance(out, Tensor)
    return out


class _Arccos1(torch.autograd.Function):
    """κ1 with its derivative written out: automatic differentiation gives nan at ±1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(t: Tensor) -> Tensor:
        t = t.clamp(-1, 1)
        return (1 - t**2).sqrt() / math.pi + t * arccos0(t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad * arccos0(ctx.saved_tensors[0])


@dataclass(frozen=True)
class HierarchicalKernel:
    """Kernel of a wide CNN with filters that do not overlap; call it on inputs.

    Attributes:
        filters: s_1 … s_L, first layer first; their product must divide the dimension of inputs.
        kind: ``ntk`` for training all layers, ``nngp`` for the last only.
        normalize: divide each leaf patch by its norm; else they must have norm 1.
        max_bytes: of the blocks of rows worked on at once, beside the result; 16 MiB stay in cache.

    Raises:
        ValueError: for no filters or sizes below 1, another kind; when called, for a dimension that
            the filters do not divide, patches without unit norm or that are zero.

    Cost: an arc cosine per pair of inputs and node of the tree; computed in float64, returned in
        the dtype of the inputs (in float32 the small eigenvalues are lost). No gradients.

    Source: Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        NTK(x, x) = L + 1, and for one layer the kernel of opposite inputs is 0:

        >>> x = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
        >>> HierarchicalKernel((2, 2))(x), HierarchicalKernel((2,))(x, -x)
        (tensor([[3.]]), tensor([[0.]]))
    """

    filters: tuple[int, ...]
    kind: Kind = "ntk"
    normalize: bool = False
    max_bytes: int = 1 << 24

    def __post_init__(self) -> None:
        object.__setattr__(self, "filters", _checked_filters(self.filters))
        if self.kind not in ("ntk", "nngp"):
            raise ValueError(f"kind must be 'ntk' or 'nngp', got {self.kind!r}")
        if self.filters[0] == 1:
            warnings.warn(
                "leaf patches of size 1 have no angles: normalised inputs are signs only",
                stacklevel=3,
            )

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Gram matrix.

        Args:
            x: (n, d).
            y: (m, d), default x.

        Returns:
            (n, m); with x alone exactly symmetric, with the exact diagonal L + 1 (NNGP 1).
        """
        a = self._leaves(x)
        if y is None:
            return self._symmetric(a).to(x)
        b = self._leaves(y)
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(f"x has {x.shape[-1]} entries a sample, but y has {y.shape[-1]}")
        rows = self._rows(len(b))
        out = a.new_empty(len(a), len(b))
        for i in range(0, len(a), rows):
            out[i : i + rows] = self._block(a[i : i + rows], b)
        return out.to(x)

    def _symmetric(self, a: Tensor) -> Tensor:
        """Half of the matrix, and its mirror image."""
        n, rows = len(a), self._rows(len(a))
        out = a.new_empty(n, n)
        for i in range(0, n, rows):
            block = self._block(a[i : i + rows], a[i:])
            out[i : i + rows, i:] = block
            out[i:, i : i + rows] = block.T
        out.diagonal().fill_(len(self.filters) + 1 if self.kind == "ntk" else 1)
        return out

    def _block(self, a: Tensor, b: Tensor) -> Tensor:
        """Kernel of leaf patches (r, leaves, s_1) and (m, leaves, s_1), the tree depth first."""
        top = a.shape[1] * self.filters[0] // math.prod(self.filters)
        return self._group(a, b, len(self.filters), range(top), top)[
            0 if self.kind == "nngp" else 1
        ]

    def _group(
        self, a: Tensor, b: Tensor, layer: int, nodes: range, size: int
    ) -> tuple[Tensor, Tensor]:
        """Σ and Θ above a group of nodes of a layer; one node's arrays are held at a time."""
        sigma, theta = a.new_zeros(len(a), len(b)), a.new_zeros(len(a), len(b))
        for node in nodes:
            if layer == 1:
                below = slope = a[:, node] @ b[:, node].T
            else:
                width = self.filters[layer - 1]
                children = range(node * width, (node + 1) * width)
                below, slope = self._group(a, b, layer - 1, children, width)
            below = below.clamp_(-1, 1)
            step = below.arccos().div_(-math.pi).add_(1)  # κ0
            sigma.addcmul_(below, step)
            if self.kind == "ntk":
                theta.addcmul_(step, slope)
            del step, slope  # before the root is taken: the block is as large as memory allows
            sigma.add_(below.square_().neg_().add_(1).sqrt_(), alpha=1 / math.pi)
        sigma /= size
        return sigma, theta.div_(size).add_(sigma)

    def _rows(self, columns: int) -> int:
        """Rows of a block: two sums at each layer, and four arrays at the lowest."""
        arrays = 2 * len(self.filters) + 4
        return max(1, self.max_bytes // (8 * arrays * max(1, columns)))

    def _leaves(self, x: Tensor) -> Tensor:
        """(n, leaves, s_1) float64 of unit norm."""
        whole, s = math.prod(self.filters), self.filters[0]
        if x.ndim != 2 or not x.is_floating_point():
            raise ValueError(f"expected floating inputs (n, d), got {x.dtype} {tuple(x.shape)}")
        if not x.shape[1] or x.shape[1] % whole:
            d = x.shape[1]
            raise ValueError(f"filters {self.filters}, product {whole}, do not divide d = {d}")
        leaves = x.double().reshape(len(x), x.shape[1] // s, s)
        norms = leaves.norm(dim=2, keepdim=True)
        if not torch.isfinite(norms).all():
            raise ValueError("inputs are not finite")
        if self.normalize:
            if (norms == 0).any():
                raise ValueError(f"a patch of {s} entries is zero and has no direction")
            return leaves / norms
        if ((norms - 1).abs() > UNIT).any():
            raise ValueError(
                f"patches of {s} entries must have norm 1, got {norms.min().item():.4g} to "
                f"{norms.max().item():.4g}; divide them, or pass normalize=True"
            )
        return leaves


def fc_kernel(
    x: Tensor,
    y: Tensor | None = None,
    depth: int = 1,
    kind: Kind = "ntk",
    *,
    normalize: bool = False,
) -> Tensor:
    """Kernel of a wide fully connected ReLU network without biases.

    Args:
        x: (n, d) of unit norm.
        y: (m, d), default x.
        depth: hidden layers.
        kind: ``ntk`` or ``nngp``.
        normalize: divide inputs by their norm.

    Returns:
        (n, m); NTK(x, x) = depth + 1.

    Raises:
        ValueError: if depth is below 1, or as ``HierarchicalKernel``.

    Source: Cho, Saul 2009; Jacot, Gabriel, Hongler 2018, arXiv 1806.07572.

    Example:
        One layer, orthogonal inputs, κ0(0)·0 + κ1(0) = 1/π:

        >>> fc_kernel(torch.eye(2)[:1], torch.eye(2)[1:]) * math.pi
        tensor([[1.]])
    """
    if depth < 1:
        raise ValueError(f"depth, the number of hidden layers, must be at least 1, got {depth}")
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"expected floating inputs (n, d), got {x.dtype} {tuple(x.shape)}")
    return HierarchicalKernel((x.shape[1], *[1] * (depth - 1)), kind, normalize)(x, y)


def patch_dimension(filters: Sequence[int], layer: int, dim: int | None = None) -> int:
    """Effective dimension of a patch that a unit of a layer sees: its number of angles.

        (s_1 − 1) s_2 … s_layer, and (s_1 − 1) d/s_1 for the output, layer L + 1

    Args:
        filters: s_1 … s_L.
        layer: from 1 to L + 1.
        dim: d, for layer L + 1 only.

    Raises:
        ValueError: for other layers, or if d is missing or not a multiple of the filters' product.

    Source: Cagnetta, Favero, Wyart 2022, arXiv 2208.01003.

    Example:
        >>> [patch_dimension((2, 2, 2), layer) for layer in (1, 2, 3)]
        [1, 2, 4]
    """
    sizes = _checked_filters(filters)
    if not 1 <= layer <= len(sizes) + 1:
        raise ValueError(f"layer must be from 1 to {len(sizes) + 1}, got {layer}")
    if layer <= len(sizes):
        return (sizes[0] - 1) * math.prod(sizes[1:layer])
    if dim is None or dim < 1 or dim % math.prod(sizes):
        raise ValueError(f"the output needs dim, which filters {sizes} divide, got {dim}")
    return (sizes[0] - 1) * dim // sizes[0]


def _checked_filters(filters: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(s) for s in filters)
    if not sizes or any(s < 1 for s in sizes):
        raise ValueError(f"filters must be sizes of at least 1, first layer first, got {sizes}")
    return sizes
