import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from thalweg.errors import ThalwegError
from thalweg.recorder.stored_weights import SKETCHES, Snapshots, read_sketches


def sketch_file(path, rows):
    columns = list(zip(*rows, strict=True))
    arrays = [
        pa.array([np.asarray(v, np.float16) for v in column], field.type)
        if field.name == "values"
        else pa.array(column, field.type)
        for column, field in zip(columns, SKETCHES, strict=True)
    ]
    batch = pa.record_batch(arrays, schema=SKETCHES)
    path.write_bytes(SKETCHES.serialize().to_pybytes() + batch.serialize().to_pybytes())


def test_snapshots_are_lazy_and_the_newest_segment_holds(tmp_path):
    for step, rank, segment in [(10, 0, 0), (10, 0, 1), (10, 1, 0), (2, 0, 0)]:
        name = f"step-{step:09d}-r{rank}-s{segment}.safetensors"
        save_file({"w": torch.full((2,), step + rank / 4 + segment / 2)}, tmp_path / name)
    (tmp_path / "step-000000099-r0-s0.safetensors.tmp").write_bytes(b"")
    found = Snapshots(tmp_path)
    assert list(found) == [2, 10] and len(found) == 2 and 10 in found
    assert found[10]["w"].tolist() == [10.5, 10.5]
    assert Snapshots(tmp_path, rank=1)[10]["w"].tolist() == [10.25, 10.25]
    with pytest.raises(KeyError, match="there are 2, 10"):
        found[3]
    assert 3 not in found and found.get(3) is None


def test_a_damaged_snapshot_says_which(tmp_path):
    (tmp_path / "step-000000001-r0-s0.safetensors").write_bytes(b"no tensors here")
    found = Snapshots(tmp_path)
    assert list(found) == [1]  # listing reads no file
    with pytest.raises(ThalwegError, match="expected a safetensors snapshot"):
        found[1]


def test_sketches_by_part(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 8)).astype(np.float16)
    rows = [
        (step, step * 0.1, part, 7, 100 + len(part), 0.5, values[i])
        for i, (step, part) in enumerate([(0, ""), (0, "head"), (5, ""), (5, "head")])
    ]
    sketch_file(tmp_path / "sketches-r0-s0.arrows", rows)
    found, notes = read_sketches(tmp_path)
    assert not notes and sorted(found) == ["", "head"]
    head = found["head"]
    assert (head.dim, head.seed, head.steps.tolist()) == (104, 7, [0, 5])
    assert head.values.dtype == np.float32
    assert np.array_equal(head.values, values[[1, 3]].astype(np.float32) * np.float32(0.5))
    assert read_sketches(tmp_path, rank=1) == ({}, {})


def test_sketches_of_a_resumed_run(tmp_path):
    row = np.ones(4)
    sketch_file(
        tmp_path / "sketches-r0-s0.arrows",
        [(step, 0.0, "", 7, 9, float(step), row) for step in (0, 5, 10)],
    )
    sketch_file(tmp_path / "sketches-r0-s1.arrows", [(5, 0.0, "", 7, 9, 50.0, row)])
    found, notes = read_sketches(tmp_path)
    assert found[""].steps.tolist() == [0, 5, 10] and not notes
    assert found[""].values[:, 0].tolist() == [0, 50, 10]
    sketch_file(tmp_path / "sketches-r0-s2.arrows", [(11, 0.0, "", 8, 9, 1.0, row)])
    found, notes = read_sketches(tmp_path)
    assert found[""].steps.tolist() == [11] and found[""].seed == 8
    assert "4 of another projection left out" in notes["sketches of ''"]


def test_a_torn_sketch_stream_is_read_to_its_last_whole_batch(tmp_path):
    path = tmp_path / "sketches-r0-s0.arrows"
    sketch_file(path, [(0, 0.0, "", 7, 9, 1.0, np.ones(4))])
    data = path.read_bytes()
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        found, notes = read_sketches(tmp_path)
        assert not found and (notes or cut in (0, len(SKETCHES.serialize())))
