import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from thalweg.errors import ThalwegError
from thalweg.trajectory import (
    Checkpoint,
    TensorInfo,
    find_checkpoints,
    open_checkpoint,
    write_checkpoint,
)

STATE = {
    "w": torch.arange(12.0).view(3, 4),
    "h": torch.arange(5).to(torch.bfloat16),
    "n": torch.tensor(7),
    "none": torch.zeros(0, 3),
}


def whole(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    info = checkpoint.tensors[name]
    return checkpoint.read(name, 0, info.numel).view(info.shape)


def folder(tmp_path, form):
    """The state as every form that can be read."""
    if form == "mapping":
        return STATE
    if form == "safetensors":
        save_file(STATE, tmp_path / "a.safetensors")
        return tmp_path / "a.safetensors"
    if form == "hugging face":
        save_file(STATE, tmp_path / "model.safetensors")
        return tmp_path
    if form == "shards":
        parts = {"one.safetensors": ["w"], "two.safetensors": ["h", "n", "none"]}
        for file, names in parts.items():
            save_file({n: STATE[n] for n in names}, tmp_path / file)
        index = {"weight_map": {n: file for file, names in parts.items() for n in names}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        return tmp_path
    content = STATE if form == "torch" else {"model": STATE, "epoch": 3}
    torch.save(content, tmp_path / "a.pt")
    return str(tmp_path / "a.pt")


FORMS = ["mapping", "safetensors", "hugging face", "shards", "torch", "torch, nested"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_the_same(tmp_path, form):
    checkpoint = open_checkpoint(folder(tmp_path, form))
    assert set(checkpoint.tensors) == set(STATE)
    assert checkpoint.tensors["w"] == TensorInfo((3, 4), torch.float32)
    for name, value in STATE.items():
        assert torch.equal(whole(checkpoint, name), value)
    scratch = torch.empty(100, dtype=torch.uint8)
    assert checkpoint.read("w", 2, 5, scratch).tolist() == [2.0, 3.0, 4.0]
    assert checkpoint.read("h", 1, 3, scratch).tolist() == [1.0, 2.0]


def test_tied_tensors_come_once():
    w = torch.ones(3, 2)
    checkpoint = open_checkpoint({"embed": w, "norm": torch.ones(2), "head": w})
    assert list(checkpoint.tensors) == ["embed", "norm"] and checkpoint.aliases == {"head": "embed"}
    transposed = open_checkpoint({"embed": w, "head": w.T})
    assert list(transposed.tensors) == ["embed", "head"]


def test_steps_come_from_names(tmp_path):
    for name in ("checkpoint-20", "checkpoint-3"):
        (tmp_path / name).mkdir()
        save_file(STATE, tmp_path / name / "model.safetensors")
    torch.save(STATE, tmp_path / "v2_step_100.pt")
    (tmp_path / "tokenizer-5.json").write_text("{}")
    (tmp_path / "logs-7").mkdir()
    assert list(find_checkpoints(tmp_path)) == [3, 20, 100]
    save_file(STATE, tmp_path / "again-20.safetensors")
    with pytest.raises(ThalwegError, match=r"two checkpoints of step 20"):
        find_checkpoints(tmp_path)


def test_of_a_run_the_newest_segment_of_rank_0(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "weights").mkdir()
    for name in ("step-000000004-r0-s0", "step-000000004-r0-s1", "step-000000008-r1-s0"):
        save_file(STATE, tmp_path / "weights" / f"{name}.safetensors")
    found = find_checkpoints(tmp_path)
    assert {step: path.name for step, path in found.items()} == {
        4: "step-000000004-r0-s1.safetensors"
    }


def test_writes_what_safetensors_reads(tmp_path):
    tensors = open_checkpoint(STATE).tensors

    def blocks():
        yield "w", torch.arange(7.0)
        yield "w", torch.arange(7.0, 12.0).double()
        yield "h", torch.arange(5.0)
        yield "n", torch.tensor([7])

    path = write_checkpoint(tmp_path / "new" / "out.safetensors", tensors, blocks())
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], STATE[name]) for name in STATE)
    assert [p.name for p in path.parent.iterdir()] == ["out.safetensors"]


@pytest.mark.parametrize(
    "blocks",
    [
        [("w", torch.zeros(12)), ("n", torch.zeros(1))],
        [("w", torch.zeros(13))],
        [("w", torch.zeros(12))],
    ],
)
def test_a_wrong_block_leaves_the_old_file(tmp_path, blocks):
    path = tmp_path / "out.safetensors"
    path.write_text("old")
    with pytest.raises(ValueError, match="write_checkpoint"):
        write_checkpoint(path, open_checkpoint(STATE).tensors, blocks)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def header(**entry) -> bytes:
    text = json.dumps({"w": entry}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 10**12) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        header(dtype="F32", shape=[2], data_offsets=[0, 8]),
        header(dtype="F32", shape=[2], data_offsets=[0, 4]) + bytes(8),
        header(dtype="F99", shape=[2], data_offsets=[0, 8]) + bytes(8),
        header(dtype="F32", shape="x", data_offsets=[0, 8]) + bytes(8),
        header(shape=[2]) + bytes(8),
    ],
)
def test_damage_is_named(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ThalwegError, match=r"bad\.safetensors"):
        open_checkpoint(path)


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "broken.pt").write_bytes(b"no zip")
    (tmp_path / "sharded").mkdir()
    index = json.dumps({"weight_map": {"w": "gone.safetensors"}})
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(index)
    for name in ("empty", "notes.txt", "list.pt", "broken.pt", "sharded", "nowhere"):
        with pytest.raises(ThalwegError, match=name.split(".")[0]):
            open_checkpoint(tmp_path / name)
    with pytest.raises(ThalwegError, match="expected tensors by name"):
        open_checkpoint({"epoch": 3})
    with pytest.raises(ThalwegError, match="no checkpoints here"):
        find_checkpoints(tmp_path / "empty")
    with pytest.raises(ThalwegError, match="no such folder"):
        find_checkpoints(tmp_path / "nowhere")


def test_a_file_that_shrinks_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    checkpoint = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ThalwegError, match=r"a\.safetensors.*'\w'.*ends early"):
        for name, info in checkpoint.tensors.items():
            checkpoint.read(name, 0, info.numel)
