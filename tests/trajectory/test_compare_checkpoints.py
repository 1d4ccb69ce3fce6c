"""Two checkpoints: groups, files, JSON; the figures themselves are tested by tensor."""

import json
import math

import pytest
import torch

from thalweg.errors import ThalwegError
from thalweg.trajectory import GroupGeometry, UpdateGeometryReport, compare_checkpoints


def decoder(seed=0, dim=8):
    g = torch.Generator().manual_seed(seed)
    state = {"model.embed_tokens.weight": torch.randn(20, dim, generator=g)}
    for layer in range(2):
        for name, shape in {
            "self_attn.q_proj.weight": (dim, dim),
            "mlp.up_proj.weight": (2 * dim, dim),
            "input_layernorm.weight": (dim,),
        }.items():
            state[f"model.layers.{layer}.{name}"] = torch.randn(shape, generator=g)
    state["steps"] = torch.tensor(5)
    return state


def tuned(state, scale=0.05):
    g = torch.Generator().manual_seed(9)
    return {
        n: t + scale * torch.randn(t.shape, generator=g) if t.is_floating_point() else t
        for n, t in state.items()
    }


def test_groups_hold_every_tensor_once():
    base = decoder()
    report = compare_checkpoints(base, tuned(base), k=2, r=2)
    assert isinstance(report, UpdateGeometryReport) and len(report.tensors) == 7
    assert list(report.modules) == ["q", "up", "embed", "norm"] and list(report.layers) == [0, 1]
    summary = report.summary
    assert isinstance(summary, GroupGeometry)
    assert sum(g.numel for g in report.modules.values()) == summary.numel == 160 + 2 * 200
    changed = sum(t.changed for t in report.tensors)
    assert summary.sparsity == pytest.approx(1 - changed / summary.numel)
    squares = sum(t.change_norm**2 for t in report.tensors)
    assert summary.relative_norm**2 == pytest.approx(
        squares / sum(t.norm**2 for t in report.tensors)
    )
    drifts = [t.drift for t in report.tensors if t.k]
    assert summary.matrices == 5 and summary.drift == pytest.approx(sum(drifts) / 5)
    assert report.skipped == {"steps": "int64, not floating"}


def test_json_and_rows_have_no_nan():
    base = decoder()
    report = compare_checkpoints(base, base, k=2)
    data = json.loads(report.to_json())
    assert data["summary"]["sparsity"] == 1 and data["summary"]["low"] is None
    assert data["tensors"][0]["low_lift"] is None and data["settings"]["alpha"] == 0.5
    assert report.rows()[0]["sparsity"] == 1 and math.isnan(report.summary.low)


def test_files_of_shards_are_the_state_dict(tmp_path):
    from safetensors.torch import save_file

    base = decoder()
    after = tuned(base)
    folder = tmp_path / "hub"
    folder.mkdir()
    names, where = list(after), {}
    for i, part in enumerate((names[:3], names[3:])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({n: after[n] for n in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    torch.save(base, tmp_path / "base.pt")
    told = []
    files = compare_checkpoints(
        tmp_path / "base.pt", folder, k=2, progress=lambda done, total: told.append((done, total))
    )
    assert files.tensors == compare_checkpoints(base, after, k=2).tensors
    assert told[-1] == (560, 560) and len(told) == 7


def test_the_noise_has_a_seed():
    base = decoder()
    one, two, other = (compare_checkpoints(base, tuned(base), k=2, seed=s) for s in (0, 0, 1))
    assert one.tensors == two.tensors and one.tensors != other.tensors


def test_errors():
    base = decoder()
    with pytest.raises(ThalwegError, match=r"'model\.embed_tokens\.weight' is in the tuned"):
        compare_checkpoints({k: v for k, v in base.items() if "embed" not in k}, base)
    with pytest.raises(ValueError, match="k, r, n_control"):
        compare_checkpoints(base, base, k=0)
