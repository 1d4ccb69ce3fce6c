"""GroupSort: an activation that only permutes its inputs.

Features are sorted within groups; its Jacobian is a permutation almost everywhere, so that with
orthogonal weights the whole network has a Jacobian whose singular values are all one. Groups of
two are MaxMin.

Source: C. Anil, J. Lucas, R. Grosse 2019, arXiv 1811.05381; as an activation that keeps plasticity
A. Rosseau et al. 2026, arXiv 2606.09762.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["GroupSort"]


class GroupSort(nn.Module):
    """Sorts consecutive features within groups, ascending.

    Args:
        group: features that are sorted together; it must divide their number.
        dim: the feature axis: -1 for dense layers and transformers, 1 for convolutions.

    Raises:
        ValueError: if group is not positive; in a forward, if it does not divide the features.

    Source:
        Anil et al. 2019, arXiv 1811.05381; entry adamo-isometry.

    Example:
        >>> import torch
        >>> GroupSort(2)(torch.tensor([3.0, 1.0, -1.0, 2.0]))
        tensor([ 1.,  3., -1.,  2.])
    """

    def __init__(self, group: int = 2, *, dim: int = -1) -> None:
        super().__init__()
        if group < 1:
            raise ValueError(f"group must be at least 1, got {group}")
        self.group, self.dim = group, dim

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape; the same shape comes out."""
        size = x.shape[self.dim]
        if size % self.group:
            raise ValueError(
                f"GroupSort: groups of {self.group} do not divide {size} features; choose a width "
                f"that is a multiple of {self.group}"
            )
        parts = x.unflatten(self.dim, (size // self.group, self.group))
        within = self.dim if self.dim < 0 else self.dim + 1
        return parts.sort(within).values.flatten(within - 1, within)

    def extra_repr(self) -> str:
        """Its settings, for ``print``."""
        return f"group={self.group}, dim={self.dim}"
