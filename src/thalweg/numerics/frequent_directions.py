"""Frequent Directions: a small matrix that stands for a stream of columns.

Source: Liberty 2013, arXiv 1206.0594; Ghashami, Liberty, Phillips, Woodruff 2016,
arXiv 1501.01711; with decay as in entry coso. Axes: `m` rows, `k` columns of one update, `r` rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FrequentDirections"]


class FrequentDirections:
    """A sketch S of all columns seen, SSᵀ ≈ A = Σ_t Q_t Q_tᵀ.

        U diag(s) · = svd([γ S, Q_t]);   S ← U_r diag(√max(s² − s_{r+1}², 0))

    With γ = 1, 0 ⪯ A − SSᵀ ⪯ δ I, δ = Σ_t s²_{r+1,t} = ``error_bound``, and δ is no more than
    ‖A − A_j‖_* / (r − j) for every j < r. With γ < 1 the same holds of the decayed sum.

    Args:
        rank: r, columns kept, ≥ 1; more than m are never needed.
        decay: γ in (0, 1].

    Raises:
        ValueError: if an argument is out of range.

    Cost: an svd of (m, r + k) per update, m r floats.

    Example:
        >>> import torch
        >>> fd = FrequentDirections(2)
        >>> fd.update(torch.tensor([[3.0], [0.0]]))
        >>> fd.singular_values, fd.error_bound
        (tensor([3., 0.]), 0.0)
    """

    def __init__(self, rank: int, *, decay: float = 1.0) -> None:
        if rank < 1 or not 0 < decay <= 1:
            raise ValueError(
                f"FrequentDirections: need rank >= 1 and 0 < decay <= 1, got {rank}, {decay}"
            )
        self.rank, self.decay = rank, decay
        self.error_bound = 0.0
        self._U: Tensor | None = None
        self._s: Tensor | None = None

    def update(self, cols: Tensor) -> None:
        """Takes in columns.

        Args:
            cols: (m, k) or (m,); half precision is kept as float32.

        Raises:
            ValueError: if they are not finite or m is not that of the first update.
        """
        cols = cols.detach().reshape(len(cols), -1)
        cols = cols if cols.dtype == torch.float64 else cols.float()
        if not bool(torch.isfinite(cols).all()):
            raise ValueError("FrequentDirections: the columns hold nan or inf")
        if self._U is not None and len(cols) != len(self._U):
            raise ValueError(
                f"FrequentDirections: columns have {len(cols)} entries, earlier ones had "
                f"{len(self._U)}"
            )
        if self._U is not None:
            cols = torch.cat([self.decay * self.sketch.to(cols), cols], 1)
        U, s, _ = torch.linalg.svd(cols, full_matrices=False)
        if len(s) > self.rank:
            shrink = s[self.rank].square()
            self.error_bound = self.decay**2 * self.error_bound + float(shrink)
            s = (s[: self.rank].square() - shrink).clamp(min=0).sqrt()
        else:
            self.error_bound *= self.decay**2
        pad = self.rank - len(s)
        self._U = torch.nn.functional.pad(U[:, : self.rank], (0, pad))
        self._s = torch.nn.functional.pad(s, (0, pad))

    @property
    def sketch(self) -> Tensor:
        """S, (m, r).

        Raises:
            ValueError: before the first update.
        """
        U, s = self._state()
        return U * s

    @property
    def singular_values(self) -> Tensor:
        """Of S, (r,), descending.

        Raises:
            ValueError: before the first update.
        """
        return self._state()[1]

    def basis(self, energy: float = 1.0) -> Tensor:
        """Orthonormal main directions, (m, j).

        Args:
            energy: j = #{i : Σ_{l≤i} s_l² / Σ s² < energy}, the source's count, but at least 1 (the
                source keeps none where the first direction alone has the energy); 1 keeps all
                directions with any.

        Raises:
            ValueError: if energy is not in (0, 1], or before the first update.
        """
        if not 0 < energy <= 1:
            raise ValueError(f"FrequentDirections: energy must be in (0, 1], got {energy}")
        U, s = self._state()
        squares = s.double().square()
        if energy == 1.0:
            count = int((s > 0).sum())
        else:
            count = int((squares.cumsum(0) / squares.sum() < energy).sum())
            count = max(count, int(s[0] > 0))
        return U[:, :count]

    def _state(self) -> tuple[Tensor, Tensor]:
        if self._U is None or self._s is None:
            raise ValueError("FrequentDirections: nothing seen yet; call update(cols) first")
        return self._U, self._s
