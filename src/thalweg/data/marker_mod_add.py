"""Modular addition of marked values in a sequence: a task that attention alone can solve.

Markers stand somewhere in a row of random tokens; the token after each is a value; the label is the
sum of the values modulo C, read at the last position.

Source: Y. Xu 2026, arXiv 2602.10496.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["MarkerModAdd"]


class MarkerModAdd:
    """A generator of sequences and labels.

    Args:
        T: tokens in a sequence.
        C: the modulus; values are the tokens 0 … C − 1.
        ms: numbers of markers; each batch draws one of them.
        vocab: tokens in all.
        per_sample_positions: markers at other places in each sequence; else, as in the source, at
            the same places in a whole batch.
        first_marker: marker i is token first_marker + i; default: 100 if it fits, else C.

    Raises:
        ValueError: if markers do not fit into a sequence or tokens into the vocabulary.

    Example:
        >>> import torch
        >>> task = MarkerModAdd(12, 4, (1, 2), vocab=32)
        >>> x, y = task.sample(5, generator=torch.Generator().manual_seed(0))
        >>> x.shape, bool((y < 4).all())
        (torch.Size([5, 12]), True)
    """

    def __init__(
        self,
        T: int,
        C: int,
        ms: Sequence[int],
        vocab: int = 256,
        per_sample_positions: bool = False,
        *,
        first_marker: int | None = None,
    ) -> None:
        most = max(ms, default=0)
        if first_marker is None:
            first_marker = 100 if vocab > 100 + most and C <= 100 else C
        if not ms or min(ms) < 1 or C < 1 or T < 2 * most + 1:
            raise ValueError(
                f"MarkerModAdd: need C >= 1, ms >= 1 and T >= 2 max(ms) + 1, got T={T}, C={C}, "
                f"ms={tuple(ms)}"
            )
        if first_marker < C or vocab <= first_marker + most:
            raise ValueError(
                f"MarkerModAdd: {vocab} tokens do not hold {C} values, {most} markers from token "
                f"{first_marker} on, and others"
            )
        self.T, self.C, self.ms, self.vocab = T, C, tuple(ms), vocab
        self.per_sample_positions, self.first_marker = per_sample_positions, first_marker

    def sample(
        self, n: int, generator: torch.Generator | None = None, *, m: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """N sequences and their labels.

        Args:
            n: how many.
            generator: of everything drawn.
            m: markers in each; default: one of ``ms``, drawn. A curriculum gives them in turn.

        Returns:
            x (n, T) int64, y (n,) int64.

        Raises:
            ValueError: if m is not one of ``ms``.
        """
        if m is None:
            m = self.ms[int(torch.randint(len(self.ms), (), generator=generator))]
        if m not in self.ms:
            raise ValueError(f"MarkerModAdd: m must be one of {self.ms}, got {m}")
        marker = self.first_marker + torch.arange(m)
        taken = torch.cat([torch.arange(self.C), self.first_marker + torch.arange(max(self.ms))])
        free = torch.ones(self.vocab, dtype=torch.bool)
        free[taken] = False
        others = free.nonzero()[:, 0]
        x = others[torch.randint(len(others), (n, self.T), generator=generator)]
        rows = n if self.per_sample_positions else 1
        places = self._places(rows, m, generator).expand(n, m)
        values = torch.randint(self.C, (n, m), generator=generator)
        x.scatter_(1, places, marker.expand(n, m))
        x.scatter_(1, places + 1, values)
        return x, values.sum(1) % self.C

    def _places(self, rows: int, m: int, generator: torch.Generator | None) -> Tensor:
        """Marker places in 1 … T − 2, no two adjacent, in random order, uniform: (rows, m).

        m places with gaps in T − 2 are m distinct places in T − 2 − (m − 1), spread out.
        """
        room = self.T - 2 - (m - 1)
        drawn = torch.rand(rows, room, generator=generator).argsort(1)[:, :m].sort(1).values
        spread = drawn + torch.arange(m) + 1
        order = torch.rand(rows, m, generator=generator).argsort(1)
        return spread.gather(1, order)
