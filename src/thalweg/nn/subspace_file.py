"""The file of a trained subspace: a seed and d numbers, as safetensors with metadata.

Source: the compressed model of Li, Farkhoor, Liu, Yosinski 2018, arXiv 1804.08838. The file also
says which initial parameters it belongs to, by a hash, and a few numbers of the maps, by which
another generator behind the same seed is found out.
"""

from __future__ import annotations

import copy
import hashlib
import json
from os import PathLike
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from thalweg.errors import ThalwegError

if TYPE_CHECKING:
    from thalweg.nn.subspace_module import SubspaceModule

__all__ = ["FORMAT", "digest", "read_subspace", "write_subspace"]

FORMAT = "thalweg.subspace/1"
GENERATOR = "torch.Generator, cpu"


def digest(*tensors: Tensor) -> str:
    """SHA-256 of dtypes, shapes and bytes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write_subspace(inside: SubspaceModule, path: str | PathLike[str]) -> None:
    """``SubspaceModule.export``."""
    tensors = {"theta": inside.theta.detach()}
    if inside.scales is not None:
        tensors["scales"] = inside.scales.detach()
    for name, buffer in inside.module.named_buffers():
        if digest(buffer) != inside.buffers_before[name]:
            tensors[f"buffer.{name}"] = buffer
    about = {
        **inside.about(),
        "generator": GENERATOR,
        "torch": torch.__version__,
        "theta0": digest(*inside.module.parameters()),
    }
    save_file(
        {n: t.cpu().contiguous().clone() for n, t in tensors.items()},
        str(path),
        {n: v if isinstance(v, str) else json.dumps(v) for n, v in about.items()},
    )


def read_subspace(
    cls: type[SubspaceModule], module: nn.Module, path: str | PathLike[str], max_bytes: int
) -> SubspaceModule:
    """``SubspaceModule.load``."""
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ThalwegError(f"{path} is no export of a SubspaceModule: {error}") from None
    if about.get("format") != FORMAT or "theta" not in tensors:
        raise ThalwegError(f"{path} is no export of a SubspaceModule ({FORMAT})")
    names: list[str] = json.loads(about["names"])
    known = dict(module.named_parameters())
    missing = [n for n in names if n not in known]
    if missing or digest(*known.values()) != about["theta0"]:
        what = f"it has no parameter {missing[0]!r}" if missing else "its values are others"
        raise ThalwegError(
            f"{path} was made from a module with other initial parameters ({what}): build it with "
            "the same seed or the same pretrained weights"
        )
    groups: list[int] = json.loads(about["groups"])
    projected = copy.deepcopy(module)
    for name, p in projected.named_parameters():
        p.requires_grad_(name in names)
    inside = cls(
        projected,
        json.loads(about["d"]),
        about["projection"],  # type: ignore[arg-type]
        granularity=about["granularity"],  # type: ignore[arg-type]
        seed=json.loads(about["seed"]),
        dtype=tensors["theta"].dtype,
        said=bool(groups),
        said_groups=dict(zip(names, groups, strict=False)).__getitem__,
        max_bytes=max_bytes,
    )
    theirs = torch.tensor(json.loads(about["probe"]))
    if not torch.allclose(torch.tensor(inside.about()["probe"]), theirs):
        raise ThalwegError(
            f"{path} was written with torch {about['torch']}, whose generator draws other numbers "
            f"from a seed than this one's ({torch.__version__}): load it there and save "
            "materialize()"
        )
    with torch.no_grad():
        inside.theta.copy_(tensors["theta"])
        if inside.scales is not None:
            inside.scales.copy_(tensors["scales"])
        for name, buffer in inside.module.named_buffers():
            if f"buffer.{name}" in tensors:
                buffer.copy_(tensors[f"buffer.{name}"])
    return inside
