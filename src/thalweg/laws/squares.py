"""q(v, v) of many laws on the same tensors, in as few passes over them as possible.

What a law is at the weights must be exact, and ``Law.fn`` computes it in float64. What a step adds
to it, η² q(v, v), is a square of small numbers: in float32 its error is that of rounding the
weights once, times (step ÷ weight)². So it is computed in the precision of the parameters, float32
at least. Norms of slices are shared between laws, and a Gram matrix of two parts costs one product,

    QQᵀ − KKᵀ  =  the symmetric part of (Q − K)(Q + K)ᵀ

since QKᵀ − KQᵀ is antisymmetric.

Source: derived here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from thalweg.laws.law import Law, Piece

__all__ = ["Squares"]


class Squares:
    """q(v, v) of laws at one v.

    Args:
        tensors: name to tensor, as velocities by the names of their parameters.

    Example:
        >>> law = Law("", "", (Piece("a", axis=1), Piece("b", -1.0)))
        >>> tensors = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[1.0], [1.0]])}
        >>> Squares(tensors).of(law)
        tensor([0., 3.], dtype=torch.float64)
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._norms: dict[tuple[str, int], Tensor] = {}

    def of(self, law: Law) -> Tensor:
        """(K,) in float64: ``law.fn`` of the tensors, for a law of degree two."""
        if law.form == "gram":
            return self._gram(law)
        total: Tensor | None = None
        for piece in law.pieces:
            part = piece.weight * self._rows(piece)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _rows(self, piece: Piece) -> Tensor:
        """(U,) the squared norm of each unit's row."""
        tensor = self._tensors[piece.parameter]
        if piece.axis is None or tensor.ndim == 0:
            return piece.rows({piece.parameter: _wide(tensor)}).double().square().sum(1)
        key = (piece.parameter, piece.axis % tensor.ndim)
        if key not in self._norms:
            self._norms[key] = _slice_norms(_wide(tensor.detach()), key[1])
        norms = self._norms[key]
        return norms if piece.index is None else norms[piece.index.to(norms.device)].sum(1)

    def _gram(self, law: Law) -> Tensor:
        """The upper triangle of Σ weight · R Rᵀ, two parts of opposite weight at a time."""
        parts = [(piece.weight, self._matrix(piece)) for piece in law.pieces]
        total: Tensor | None = None
        while parts:
            weight, left = parts.pop(0)
            other = next(
                (i for i, (w, r) in enumerate(parts) if w == -weight and r.shape == left.shape),
                None,
            )
            if other is None:
                product = left @ left.T
            else:
                right = parts.pop(other)[1]
                product = (left - right) @ (left + right).T
            product = weight * product if weight != 1.0 else product
            total = product if total is None else total + product
        assert total is not None
        whole = (total + total.T).reshape(-1)
        return whole[_upper(len(total)).to(whole.device)].double() / 2

    def _matrix(self, piece: Piece) -> Tensor:
        """(U, M) the rows of a piece, as a view where its slices lie side by side."""
        tensor = _wide(self._tensors[piece.parameter].detach())
        start = _run(piece.index) if piece.index is not None and piece.axis is not None else None
        if start is None or piece.index is None or piece.axis is None:
            return piece.rows({piece.parameter: tensor})
        moved = tensor.narrow(piece.axis, start, len(piece.index)).movedim(piece.axis, 0)
        return moved.reshape(len(moved), -1)


_runs = WeakIdKeyDictionary()


def _run(index: Tensor) -> int | None:
    """Where the slices of a (U, k) index start if they are one each and side by side."""
    if index not in _runs:
        first = int(index[0, 0])
        run = torch.arange(first, first + len(index), device=index.device)
        _runs[index] = first if index.shape[1] == 1 and torch.equal(index[:, 0], run) else None
    return _runs[index]


def _slice_norms(tensor: Tensor, axis: int) -> Tensor:
    """(n,) the squared norms of the slices along an axis."""
    if tensor.ndim == 1:
        return tensor.double().square()
    if axis == 0:
        return torch.linalg.vector_norm(tensor.flatten(1), dim=1).double().square()
    others = [i for i in range(tensor.ndim) if i != axis]
    return tensor.square().sum(others).double()


@lru_cache(maxsize=64)
def _upper(n: int) -> Tensor:
    """Flat indices of the upper triangle, as ``Law.fn`` orders it."""
    rows, columns = torch.triu_indices(n, n)
    return rows * n + columns


def _wide(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
