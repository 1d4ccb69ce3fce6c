"""Checkpoints read a stretch at a time: what is not asked for never enters memory.

A checkpoint is a state dict, a safetensors file, a Hugging Face folder (one file, or shards with an
index), or a file of ``torch.save``. Of safetensors, bytes are read, not mapped, so that memory is
what the caller holds and nothing else; mapped pages would count as ours.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from thalweg.errors import ThalwegError

__all__ = ["Checkpoint", "TensorInfo", "find_checkpoints", "open_checkpoint", "write_checkpoint"]

DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8},
    **{"BOOL": torch.bool, "C64": torch.complex64},
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
TORCH_FILES = {".pt", ".pth", ".bin", ".ckpt"}
INDEX = "model.safetensors.index.json"
MAX_HEADER = 100_000_000  # bytes, the format's own limit
#: Under which key torch files keep the weights when they keep more than the weights.
NESTED = ("state_dict", "model_state_dict", "model")
RUN_SNAPSHOT = re.compile(r"step-(\d+)-r(\d+)-s(\d+)\.safetensors")


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is read.

    Attributes:
        shape: its axes.
        dtype: as stored.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Its number of entries."""
        n = 1
        for size in self.shape:
            n *= size
        return n


class Checkpoint(Protocol):
    """One set of weights.

    Attributes:
        tensors: what it holds, in its order; a tied tensor under its first name only.
        aliases: further names of tied tensors → their first names.
    """

    tensors: dict[str, TensorInfo]
    aliases: dict[str, str]

    def read(self, name: str, start: int, stop: int, scratch: Tensor | None = None) -> Tensor:
        """Entries start … stop of the flattened tensor, 1-D, as stored.

        Args:
            name: of ``tensors``.
            start: ≥ 0.
            stop: ≥ start, ≤ numel.
            scratch: bytes to read into, (≥ bytes,) uint8; the result may lie in it.
        """
        ...


class _Held:
    """A state dict in memory, or mapped by ``torch.load``."""

    def __init__(self, state: Mapping[str, object], where: str) -> None:
        tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
        if not tensors:
            kinds = ", ".join(f"{k}: {type(v).__name__}" for k, v in list(state.items())[:3])
            raise ThalwegError(f"{where}: expected tensors by name, got {{{kinds}}}")
        self._flat: dict[str, Tensor] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self.aliases: dict[str, str] = {}
        first: dict[tuple[object, ...], str] = {}
        for name, t in tensors.items():
            t = t.detach()
            if hasattr(t, "full_tensor"):
                t = t.full_tensor()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            key = (t.device, t.data_ptr(), t.shape, t.stride(), t.dtype)
            if t.numel() and key in first:
                self.aliases[name] = first[key]
                continue
            first[key] = name
            self.tensors[name] = TensorInfo(tuple(t.shape), t.dtype)
            self._flat[name] = t.reshape(-1)

    def read(self, name: str, start: int, stop: int, scratch: Tensor | None = None) -> Tensor:
        return self._flat[name][start:stop].cpu()


class _Files:
    """One or several safetensors files."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self.aliases: dict[str, str] = {}
        self._at: dict[str, tuple[Path, int]] = {}
        for path in paths:
            for name, info, offset in _header(path):
                if name in self.tensors:
                    raise ThalwegError(
                        f"{path}: tensor {name!r} stands in {self._at[name][0].name} as well; "
                        "keep one set of weights in a folder"
                    )
                self.tensors[name] = info
                self._at[name] = (path, offset)

    def read(self, name: str, start: int, stop: int, scratch: Tensor | None = None) -> Tensor:
        path, offset = self._at[name]
        dtype = self.tensors[name].dtype
        count = (stop - start) * dtype.itemsize
        raw = torch.empty(count, dtype=torch.uint8) if scratch is None else scratch[:count]
        view, done = _memory(raw), 0
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                while done < count:
                    got = os.preadv(handle, [view[done:]], offset + start * dtype.itemsize + done)
                    if not got:
                        raise OSError("the file ends early")
                    done += got
                # Stretches are asked for in order: the next may come in while this one is used.
                os.posix_fadvise(
                    handle, offset + start * dtype.itemsize + count, count, os.POSIX_FADV_WILLNEED
                )
            finally:
                os.close(handle)
        except OSError as error:
            raise ThalwegError(f"{path}: cannot read tensor {name!r}: {error}") from None
        return raw.view(dtype)


def open_checkpoint(source: Checkpoint | Mapping[str, object] | str | Path) -> Checkpoint:
    """Opens one checkpoint; nothing but names and shapes is read.

    Args:
        source: a state dict; a ``.safetensors`` file; a folder with ``model.safetensors`` or shards
            and their index; a file of ``torch.save`` (mapped; under ``state_dict``, ``model`` or
            ``model_state_dict`` if it holds more than weights).

    Raises:
        ThalwegError: if there is none, or it is damaged; the message names the file.

    Example:
        >>> import torch
        >>> weights = open_checkpoint(torch.nn.Linear(2, 1).state_dict())
        >>> weights.tensors["weight"].shape, weights.read("bias", 0, 1).shape
        ((1, 2), torch.Size([1]))
    """
    if isinstance(source, Mapping):
        return _Held(source, "state dict")
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if path.is_dir():
        return _Files(_weight_files(path))
    if not path.is_file():
        raise ThalwegError(f"{path}: no such checkpoint")
    if path.suffix == ".safetensors":
        return _Files([path])
    if path.suffix in TORCH_FILES:
        return _Held(_torch_file(path), str(path))
    raise ThalwegError(
        f"{path}: expected .safetensors, {', '.join(sorted(TORCH_FILES))} or a folder"
    )


def find_checkpoints(folder: str | Path) -> dict[int, Path]:
    """Step → checkpoint, of those in a folder, ascending.

    Args:
        folder: a run (its snapshots of rank 0), or a folder of files or of folders with a number in
            their names: ``checkpoint-500``, ``step_10.safetensors``, ``global_step75``. The last
            number of a name is its step.

    Raises:
        ThalwegError: if there are none, or two of one step.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ThalwegError(f"{folder}: no such folder of checkpoints")
    if (folder / "run.json").is_file():
        folder = folder / "weights"
    found: dict[int, Path] = {}
    segments: dict[int, int] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := RUN_SNAPSHOT.fullmatch(path.name):
            step, rank, segment = map(int, match.groups())
            if rank == 0 and segment >= segments.get(step, -1):
                segments[step], found[step] = segment, path
            continue
        numbers = re.findall(r"\d+", path.name if path.is_dir() else path.stem)
        if not numbers or path.name.startswith(".") or not _is_checkpoint(path):
            continue
        step = int(numbers[-1])
        if step in found:
            raise ThalwegError(
                f"{folder}: two checkpoints of step {step}: {found[step].name} and {path.name}"
            )
        found[step] = path
    if not found:
        raise ThalwegError(
            f"{folder}: no checkpoints here; expected files or folders with a step in their names, "
            "as in step-100.safetensors or checkpoint-100/"
        )
    return dict(sorted(found.items()))


def write_checkpoint(
    path: str | Path,
    tensors: Mapping[str, TensorInfo],
    blocks: Iterable[tuple[str, Tensor]],
    *,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a safetensors file a stretch at a time; whole, or not at all.

    Args:
        path: of the file.
        tensors: what it will hold.
        blocks: stretches (name, 1-D), those of a tensor in order and together, tensors in the order
            of ``tensors``; cast to the dtype of the tensor.
        metadata: strings for the header.

    Returns:
        The path.

    Raises:
        ValueError: if the blocks are not those of the tensors.
        OSError: if the disk refuses.
    """
    path = Path(path)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, info in tensors.items():
        size = info.numel * info.dtype.itemsize
        header[name] = {
            "dtype": CODES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for raw in _in_order(tensors, blocks):
                file.write(raw)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _in_order(
    tensors: Mapping[str, TensorInfo], blocks: Iterable[tuple[str, Tensor]]
) -> Iterator[memoryview]:
    """The bytes of the blocks, checked to be those of the tensors."""
    wanted = [(name, info) for name, info in tensors.items() if info.numel]
    at, done = 0, 0
    for name, block in blocks:
        if not block.numel():
            continue
        if at == len(wanted) or name != wanted[at][0] or done + block.numel() > wanted[at][1].numel:
            raise ValueError(f"write_checkpoint: block of {name!r} out of order or too long")
        yield _memory(block.to("cpu", wanted[at][1].dtype).contiguous())
        done += block.numel()
        if done == wanted[at][1].numel:
            at, done = at + 1, 0
    if at < len(wanted):
        raise ValueError(f"write_checkpoint: tensor {wanted[at][0]!r} was not written whole")


def _memory(t: Tensor) -> memoryview:
    """The bytes of a contiguous tensor of the host."""
    return memoryview(t.view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]


def _header(path: Path) -> list[tuple[str, TensorInfo, int]]:
    """Name, shape and dtype, and place in the file of each tensor, checked."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER + 1
            if length > min(MAX_HEADER, size - 8):
                raise ValueError("its header is longer than the file")
            entries = json.loads(file.read(length))
        found = []
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            info = TensorInfo(tuple(int(n) for n in entry["shape"]), DTYPES[entry["dtype"]])
            begin, end = entry["data_offsets"]
            if end - begin != info.numel * info.dtype.itemsize or 8 + length + end > size:
                raise ValueError(f"tensor {name!r} does not lie within the file")
            found.append((begin, name, info))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ThalwegError(f"{path}: expected a whole safetensors file; {error}") from None
    return [
        (name, info, 8 + length + begin) for begin, name, info in sorted(found, key=lambda f: f[0])
    ]


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder."""
    index = folder / INDEX
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ThalwegError(
                f"{index}: expected a weight_map from tensors to shards; {error}"
            ) from None
        paths = [folder / Path(shard).name for shard in shards]
        for path in paths:
            if not path.is_file():
                raise ThalwegError(f"{path}: missing, but named in {INDEX}")
        return paths
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise ThalwegError(f"{folder}: no *.safetensors in this folder")
    return files


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        return (path / INDEX).is_file() or any(path.glob("*.safetensors"))
    return path.suffix == ".safetensors" or path.suffix in TORCH_FILES


def _torch_file(path: Path) -> Mapping[str, object]:
    """The weights in a file of ``torch.save``, mapped; no code in it is run."""
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or refused file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ThalwegError(
            f"{path}: torch.load refused it as a file of weights: {reason}"
        ) from None
    if not isinstance(content, Mapping):
        raise ThalwegError(f"{path}: expected a state dict, got {type(content).__name__}")
    for key in NESTED:
        if isinstance(inner := content.get(key), Mapping):
            return inner
    return content
