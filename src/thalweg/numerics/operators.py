"""Linear operators: a square matrix known only by its products with vectors.

Every routine of this floor takes an operator, a callable ``v -> Av`` with ``dim=``, or a dense
``(p, p)`` tensor; ``as_operator`` makes one of the three into the first. Axes: `p` rows and
columns, `k` vectors multiplied at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["LinearOperator", "as_operator"]


class LinearOperator:
    """A square real matrix given by its product with a vector.

    Args:
        matvec: maps (p,) to (p,).
        dim: p, at least 1.
        matmat: maps (p, k) to (p, k) where that is cheaper than k products.
        symmetric: whether A = Aᵀ; Lanczos and its kin refuse an operator that is not.
        dtype: floating dtype of the vectors.
        device: where the vectors live.

    Attributes:
        num_matvecs: products with single vectors so far; a product with (p, k) counts k.

    Raises:
        ValueError: if dim < 1.

    Example:
        >>> import torch
        >>> A = LinearOperator(lambda v: 3 * v, 2)
        >>> A.matvec(torch.ones(2)), A.num_matvecs
        (tensor([3., 3.]), 1)
    """

    def __init__(
        self,
        matvec: Callable[[Tensor], Tensor],
        dim: int,
        *,
        matmat: Callable[[Tensor], Tensor] | None = None,
        symmetric: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if dim < 1:
            raise ValueError(f"LinearOperator: dim must be at least 1, got {dim}")
        self.dim, self.symmetric = int(dim), symmetric
        self.dtype, self.device = dtype, torch.device(device)
        self.num_matvecs = 0
        self._matvec, self._matmat = matvec, matmat

    def matvec(self, v: Tensor) -> Tensor:
        """The product Av, (p,)."""
        self.num_matvecs += 1
        return self._matvec(v)

    def matmat(self, V: Tensor) -> Tensor:
        """The product AV, (p, k); one product per column unless the operator knows better."""
        self.num_matvecs += V.shape[1]
        if self._matmat is not None and V.shape[1] > 1:
            return self._matmat(V)
        if V.shape[1] == 0:
            return torch.zeros_like(V)
        return torch.stack([self._matvec(v) for v in V.T]).T

    def dense(self) -> Tensor:
        """The matrix itself, (p, p): p products. For small p."""
        return self.matmat(torch.eye(self.dim, dtype=self.dtype, device=self.device))

    def __repr__(self) -> str:
        kind = "symmetric" if self.symmetric else "square"
        return f"{type(self).__name__}({kind}, dim={self.dim}, {self.dtype}, {self.device})"


def as_operator(
    A: LinearOperator | Callable[[Tensor], Tensor] | Tensor,
    dim: int | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LinearOperator:
    """Makes an operator of whatever knows how to multiply.

    Args:
        A: an operator, returned as it is; a dense (p, p) tensor; or a callable v -> Av, taken to
            be symmetric (pass a ``LinearOperator`` to say otherwise).
        dim: p, needed for a callable only.
        dtype: of the vectors given to a callable, default float32.
        device: of the vectors given to a callable, default cpu.

    Raises:
        TypeError: if A is none of the three.
        ValueError: if a tensor is not square, real, floating and finite; if a callable comes
            without dim; if dim contradicts A.

    Example:
        >>> import torch
        >>> as_operator(torch.eye(3)).dim
        3
    """
    if isinstance(A, LinearOperator):
        operator = A
    elif isinstance(A, Tensor):
        operator = _from_dense(A)
    elif callable(A):
        if dim is None:
            raise ValueError("as_operator: a callable needs dim=, the length of its vectors")
        return LinearOperator(A, dim, dtype=dtype or torch.float32, device=device or "cpu")
    else:
        raise TypeError(
            "as_operator: expected a LinearOperator, a callable v -> Av with dim=, or a dense "
            f"tensor; got {type(A).__name__}"
        )
    if dim is not None and dim != operator.dim:
        raise ValueError(f"as_operator: dim={dim} was given, but A has {operator.dim} rows")
    return operator


def _from_dense(A: Tensor) -> LinearOperator:
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] == 0:
        raise ValueError(f"as_operator: expected a square (p, p) matrix, got {tuple(A.shape)}")
    if not A.is_floating_point():
        raise ValueError(f"as_operator: expected a real floating matrix, got {A.dtype}")
    A = A.detach()
    if not bool(torch.isfinite(A).all()):
        raise ValueError("as_operator: the matrix holds nan or inf")
    # Half precision multiplies in float32: Krylov vectors lose their orthogonality below it.
    A = A if A.dtype == torch.float64 else A.float()
    scale, eps = A.abs().max(), torch.finfo(A.dtype).eps
    symmetric = bool((A - A.T).abs().max() <= 100 * eps * scale)
    return LinearOperator(
        lambda v: A @ v,
        A.shape[0],
        matmat=lambda V: A @ V,
        symmetric=symmetric,
        dtype=A.dtype,
        device=A.device,
    )
