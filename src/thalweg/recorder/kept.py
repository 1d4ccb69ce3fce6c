"""The files of the black box: states of a training, and the steps that were kept after one.

``blackbox/state-r0-s0-000000120.safetensors`` is the state after step 120 of rank 0, segment 0.
``blackbox/kept-r0-s0-000000133-nonfinite.safetensors`` holds what fed the steps from such a state
up to step 133, at which something was not finite. What is no tensor stands as JSON in the metadata
of the file. Both are written under a temporary name and renamed: a reader sees all of one or none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import ThalwegError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FOLDER",
    "KEPT_NAME",
    "KINDS",
    "STATE_NAME",
    "Kept",
    "kept_name",
    "list_kept",
    "read",
    "read_meta",
    "state_name",
    "write",
]

FOLDER = "blackbox"
#: From the most telling on.
KINDS = ("nonfinite", "exception", "spike")
STATE_NAME = re.compile(r"state-r(\d+)-s(\d+)-(\d+)\.safetensors")
KEPT_NAME = re.compile(r"kept-r(\d+)-s(\d+)-(\d+)-(nonfinite|exception|spike)\.safetensors")
_META = "thalweg"


@dataclass(frozen=True)
class Kept:
    """Steps that the black box kept.

    Attributes:
        path: their file.
        rank, segment: whose.
        step: at which the alarm was raised.
        kind: ``nonfinite``, ``exception`` or ``spike``.
    """

    path: Path
    rank: int
    segment: int
    step: int
    kind: str


def state_name(rank: int, segment: int, step: int) -> str:
    """Name of the state after a step."""
    return f"state-r{rank}-s{segment}-{step:09d}.safetensors"


def kept_name(rank: int, segment: int, step: int, kind: str) -> str:
    """Name of the steps kept on an alarm."""
    return f"kept-r{rank}-s{segment}-{step:09d}-{kind}.safetensors"


def list_kept(run: Path) -> list[Kept]:
    """What the black box of a run kept, the most telling first, of a kind the latest first.

    Args:
        run: the run directory.
    """
    folder = run / FOLDER
    found = []
    for path in folder.iterdir() if folder.is_dir() else []:
        if match := KEPT_NAME.fullmatch(path.name):
            rank, segment, step = map(int, match.groups()[:3])
            found.append(Kept(path, rank, segment, step, match[4]))
    return sorted(found, key=lambda k: (KINDS.index(k.kind), -k.segment, -k.step, k.rank))


def write(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> int:
    """Writes tensors and JSON into one file.

    Args:
        path: of the file; its folder is made.
        tensors: by name; they are brought to the host, dense and contiguous.
        meta: what else there is, as JSON.

    Returns:
        Bytes of tensors written.

    Raises:
        OSError: if the disk refuses; nothing is left half written.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    host = _on_host(tensors)
    try:
        save_file(host, temporary, metadata={_META: json.dumps(meta)})
        os.replace(temporary, path)  # noqa: PTH105 - the mate of save_file, which takes a path
    except Exception as error:
        temporary.unlink(missing_ok=True)
        # safetensors reports a full disk as its own error type.
        raise error if isinstance(error, OSError) else OSError(str(error)) from error
    return sum(t.numel() * t.element_size() for t in host.values())


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Dense, contiguous tensors on the host, no two in one storage."""
    storages: set[int] = set()
    out: dict[str, Tensor] = {}
    for name, t in tensors.items():
        t = t.detach()
        host = (t.to_dense() if t.layout != _strided() else t).to("cpu").contiguous()
        storage = host.untyped_storage()
        whole = storage.nbytes() == host.numel() * host.element_size()
        if not whole or storage.data_ptr() in storages:
            host = host.clone()
        storages.add(host.untyped_storage().data_ptr())
        out[name] = host
    return out


def _strided() -> Any:
    import torch

    return torch.strided


def read_meta(path: Path) -> dict[str, Any]:
    """The JSON in a file of the black box; no tensor is read.

    Raises:
        ThalwegError: if it is missing or damaged.
    """
    return _open(path, "np", lambda file: {})[1]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON of a file of the black box.

    Raises:
        ThalwegError: if it is missing or damaged.
    """
    return _open(path, "pt", lambda file: {n: file.get_tensor(n) for n in file.keys()})


def _open(
    path: Path, framework: str, tensors: Callable[[Any], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            meta = json.loads(file.metadata()[_META])
            if not isinstance(meta, dict):
                raise ValueError("its metadata is no object")
            return tensors(file), meta
    except FileNotFoundError:
        raise ThalwegError(
            f"{path}: expected a file of the black box; there is none. Was the run copied whole?"
        ) from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ThalwegError(
            f"{path}: expected a file of the black box; got damage ({error}). "
            "See `thalweg check`; other kept steps may be whole: thalweg replay RUN --at STEP"
        ) from None
