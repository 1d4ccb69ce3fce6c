"""L2 norms of lists of tensors, whole and each, in one pass and without a device sync.

Axes: `n` tensors in the list. Low precision is accumulated in float32, float64 stays float64.
Sharded tensors (DTensor) give the norm of the global tensor: one all-reduce per mesh dimension
for the whole list, which every rank of the mesh must call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Norms", "norms"]


@dataclass(frozen=True)
class Norms:
    """Norms of a list of tensors.

    Attributes:
        total: norm of all entries together, 0-d.
        each: norm of each tensor, (n,), on the device of the first.
    """

    total: Tensor
    each: Tensor


def norms(tensors: Iterable[Tensor], *, like: Sequence[Tensor] | None = None) -> Norms:
    """L2 norm of each tensor and of all of them together.

        each_i = ‖t_i‖₂,   total = (Σ_i each_i²)^½

    Args:
        tensors: any shapes, devices and floating or complex dtypes; sparse COO allowed.
        like: for local shards, the sharded tensors whose layout they have; default themselves.

    Returns:
        Norms with float32 entries (float64 if any input is double); zero-size tensors count 0.

    Cost: one read of every entry, a handful of kernel launches (``torch._foreach_norm``).

    Example:
        >>> import torch
        >>> norms([torch.tensor([3.0]), torch.tensor([[4.0]])]).total
        tensor(5.)
    """
    tensors = list(tensors)
    if not tensors:
        return Norms(torch.zeros(()), torch.zeros(0))
    each = _each(tensors, tensors if like is None else like)
    return Norms(torch.linalg.vector_norm(each), each)


def _each(tensors: Sequence[Tensor], like: Sequence[Tensor]) -> Tensor:
    """Norm of each tensor, (n,): grouped by dtype and device so that each group is one launch."""
    sharded = [i for i, t in enumerate(like) if hasattr(t, "device_mesh")]
    groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    flat = [_dense(t) for t in tensors]
    for i, t in enumerate(flat):
        groups.setdefault((t.dtype, t.device), []).append(i)
    accumulate = torch.float64 if any(t.dtype == torch.float64 for t in flat) else torch.float32
    if len(groups) == 1 and not sharded:
        return torch.stack(_group(flat)).to(accumulate)
    each = torch.zeros(len(flat), dtype=accumulate, device=flat[0].device)
    for indices in groups.values():
        values = torch.stack(_group([flat[i] for i in indices])).to(each)
        each[indices] = values
    if sharded:
        _reduce_over_meshes(like, sharded, each)
    return each


def _dense(t: Tensor) -> Tensor:
    """The entries of ``t`` as a real, dense, local tensor with the same norm."""
    if hasattr(t, "to_local"):
        t = t.to_local()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    if t.is_sparse:
        t = t.coalesce().values()
    return torch.view_as_real(t) if t.is_complex() else t


def _group(tensors: list[Tensor]) -> list[Tensor]:
    low = tensors[0].dtype in (torch.float16, torch.bfloat16)
    return list(torch._foreach_norm(tensors, 2.0, dtype=torch.float32 if low else None))


def _reduce_over_meshes(like: Sequence[Tensor], sharded: list[int], each: Tensor) -> None:
    """Turns local norms into global ones, in place.

    A dimension over which a tensor is replicated holds equal copies: their squares are divided by
    its size, so that the same sum over all ranks of the mesh is right for every placement.
    """
    import torch.distributed as dist

    by_mesh: dict[object, list[int]] = {}
    for i in sharded:
        by_mesh.setdefault(like[i].device_mesh, []).append(i)  # pyright: ignore[reportAttributeAccessIssue]
    for mesh, indices in by_mesh.items():
        copies = [
            _product(mesh.size(d) for d, p in enumerate(like[i].placements) if p.is_replicate())  # pyright: ignore
            for i in indices
        ]
        squares = each[indices] ** 2 / torch.tensor(copies, dtype=each.dtype, device=each.device)
        for d in range(mesh.ndim):  # pyright: ignore[reportAttributeAccessIssue]
            dist.all_reduce(squares, group=mesh.get_group(d))  # pyright: ignore[reportAttributeAccessIssue]
        each[indices] = squares.sqrt()


def _product(sizes: Iterable[int]) -> int:
    out = 1
    for s in sizes:
        out *= s
    return out
