"""A law: a function of the weights that gradient flow conserves, written as data.

Nearly all known laws are sums of inner products of rows of parameters: for a hidden ReLU unit j,
‖out_j‖² − ‖in_j‖² − b_j². A ``Piece`` says which rows of which parameter belong to which unit, a
``Law`` adds pieces up. So a law can be evaluated on weights, gradients and momenta alike, printed,
and differentiated by hand.

Source: S. Marcotte, R. Gribonval, G. Peyré 2023, arXiv 2307.00144; D. Kunin et al. 2020, arXiv
2012.04728.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Law", "Piece"]

Params = Mapping[str, Tensor]
Form = Literal["rows", "gram", "sum"]


@dataclass(frozen=True)
class Piece:
    """The part of one parameter that belongs to U units, as a (U, M) matrix of rows.

    Attributes:
        parameter: name of the parameter.
        weight: what its products count with in the law.
        axis: the axis of the parameter along which units lie; None for the flattened parameter, so
            that ``index`` picks single numbers (a channel that a grouped convolution reads).
        index: (U, k) which slices along ``axis`` make up each unit, or None for one slice each. A
            rotary pair has k = 2, the query heads that share a key head have k = heads.
    """

    parameter: str
    weight: float = 1.0
    axis: int | None = 0
    index: Tensor | None = field(default=None, compare=False)

    def rows(self, params: Params) -> Tensor:
        """(U, M) the rows, in the dtype of the parameter."""
        moved = params[self.parameter].detach()
        moved = moved.reshape(-1) if self.axis is None else moved.movedim(self.axis, 0)
        if self.index is not None:
            moved = moved[self.index.to(moved.device)]
        return moved.reshape(moved.shape[0], -1) if moved.ndim else moved.reshape(1, 1)

    def scatter(self, rows: Tensor, into: Tensor) -> None:
        """Add (U, M) rows to where they come from in a tensor of the parameter's shape."""
        if self.axis is None and into.ndim != 1:
            # A flattened copy: the tensor itself need not be contiguous.
            flat = into.new_zeros(into.numel())
            Piece(self.parameter, self.weight, 0, self.index).scatter(rows, flat)
            into += flat.reshape(into.shape)
            return
        moved = into.movedim(self.axis or 0, 0) if into.ndim else into.reshape(1)
        if self.index is None:
            moved += rows.reshape(moved.shape)
            return
        index = self.index.to(into.device)
        shape = (*index.shape, *moved.shape[1:])
        flat = rows.reshape(shape).reshape(-1, *moved.shape[1:])
        moved.index_add_(0, index.reshape(-1), flat)


@dataclass(frozen=True)
class Law:
    """A conserved function of the weights, one or many scalars of one kind.

    ``rows``: h_u = Σ weight · ‖row_u‖². ``gram``: the upper triangle of Σ weight · R Rᵀ.
    ``sum``: h_u = Σ weight · (sum of row_u), a law of degree one.

    Attributes:
        name: where it lies, as ``fc1 → fc2``.
        formula: in words.
        pieces: what it is made of.
        form: ``rows``, ``gram`` or ``sum``.
        verified: whether its generator was seen to leave the loss alone; None if it was not tried.
        defect: the largest relative change of the loss along a random generator, if tried.
        note: under which condition it holds, empty if none.
    """

    name: str
    formula: str
    pieces: tuple[Piece, ...]
    form: Form = "rows"
    verified: bool | None = None
    defect: float | None = None
    note: str = ""

    @property
    def order(self) -> int:
        """Degree of the polynomial: 1 or 2."""
        return 1 if self.form == "sum" else 2

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters in it."""
        return tuple(dict.fromkeys(p.parameter for p in self.pieces))

    def fn(self, params: Params) -> Tensor:
        """The values of the law.

        Args:
            params: name to tensor, as ``dict(module.named_parameters())``.

        Returns:
            (K,) in float64: K = U units, or U(U+1)/2 for a ``gram`` law.
        """
        return self.bilinear(params, params)

    def bilinear(self, a: Params, b: Params) -> Tensor:
        """(K,) the symmetric form q(a, b) with q(θ, θ) = fn(θ); for a ``sum`` law, the sum of a."""
        total: Tensor | None = None
        for piece in self.pieces:
            part = self.part(piece, a, b)
            total = part if total is None else total + part
        assert total is not None
        return total

    def part(self, piece: Piece, a: Params, b: Params) -> Tensor:
        """(K,) what one piece contributes to ``bilinear``."""
        left = piece.rows(a).double()
        if self.form == "sum":
            return piece.weight * left.sum(1)
        right = left if a is b else piece.rows(b).double()
        if self.form == "rows":
            return piece.weight * (left * right).sum(1)
        gram = left @ right.T
        if a is not b:
            gram = (gram + gram.T) / 2
        return piece.weight * gram[_upper(len(gram), gram.device)]

    def magnitude(self, params: Params) -> Tensor:
        """(K,) the sum of |A_ij θ_i θ_j| (``sum`` law: of |θ_i|): what round-off is relative to."""
        absolute = {name: params[name].detach().abs() for name in self.parameters}
        positive = tuple(Piece(p.parameter, abs(p.weight), p.axis, p.index) for p in self.pieces)
        return Law("", "", positive, self.form).fn(absolute)

    def generator(self, params: Params, coefficients: Tensor | None = None) -> dict[str, Tensor]:
        """The tangent along which the loss does not change, since the law holds.

        It is half the gradient of Σ_k c_k h_k for a quadratic law and the gradient for a ``sum``.

        Args:
            params: name to tensor.
            coefficients: (K,) the combination c of the scalar laws; all ones by default (for a
                ``gram`` law the identity matrix).

        Returns:
            Parameter name to a tensor of its shape; zero where the law does not reach.
        """
        out = {name: torch.zeros_like(params[name]) for name in self.parameters}
        for piece in self.pieces:
            rows = piece.rows(params)
            if coefficients is None:
                moved = torch.ones_like(rows) if self.form == "sum" else rows
            elif self.form == "gram":
                moved = _symmetric(coefficients, len(rows)).to(rows) @ rows
            else:
                scale = coefficients.to(rows).unsqueeze(1)
                moved = scale.expand_as(rows) if self.form == "sum" else scale * rows
            piece.scatter(piece.weight * moved, out[piece.parameter])
        return out

    def count(self, params: Params) -> int:
        """How many scalars ``fn`` returns."""
        units = len(self.pieces[0].rows(params))
        return units * (units + 1) // 2 if self.form == "gram" else units


def _upper(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = torch.triu_indices(n, n, device=device)
    return rows, columns


def _symmetric(coefficients: Tensor, n: int) -> Tensor:
    """The symmetric matrix S with Σ_k c_k h_k = tr(S R Rᵀ)."""
    full = coefficients.new_zeros(n, n)
    full[_upper(n, full.device)] = coefficients / 2
    return full + full.T
