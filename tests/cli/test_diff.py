import json

import pytest
import torch
from safetensors.torch import save_file

from thalweg.cli import main


def states(move=0.0):
    g, h = (torch.Generator().manual_seed(s) for s in (0, 1))
    out = {}
    for name, shape in {
        "model.embed_tokens.weight": (60, 24),
        "model.layers.0.self_attn.qkv_proj.weight": (72, 24),
        "model.layers.1.mlp.gate_up_proj.weight": (96, 24),
        "model.norm.weight": (24,),
    }.items():
        W = (0.02 * torch.randn(shape, generator=g)).bfloat16().float()
        out[name] = (W + move * torch.randn(shape, generator=h)).bfloat16()
    return out | {"steps": torch.tensor(3)}


@pytest.fixture
def pair(tmp_path):
    save_file(states(), tmp_path / "base.safetensors")
    folder = tmp_path / "tuned"
    folder.mkdir()
    after = states(1e-4)
    names = list(after)
    where = {n: f"model-0000{1 + (i > 1)}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(where.values()):
        save_file({n: after[n] for n in names if where[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return [str(tmp_path / "base.safetensors"), str(folder)]


def test_noise_is_said_to_be_noise(pair, tmp_path, capsys):
    plot = tmp_path / "plots" / "change.svg"
    assert main(["diff", *pair, "--k", "4", "--r", "4", "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()[1:-1]
    assert max(map(len, lines)) <= 80
    said = " ".join(printed.split())
    assert "No more than noise:" in said and "changes on the smallest 50% of weights" in said
    for kind in ("q ", "k ", "v ", "gate ", "up ", "embed ", "norm "):
        assert any(line.startswith(kind) for line in lines), kind
    assert "steps: int64, not floating" in printed and "by layer" in printed
    assert "<svg" in plot.read_text()


def test_json_has_every_tensor(pair, capsys):
    assert main(["diff", *pair, "--k", "4", "--alpha", "0.3", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema_version"] == 1 and len(data["data"]["tensors"]) == 7
    first = data["data"]["tensors"][0]
    assert first["low_control"] == pytest.approx(first["low"], rel=0.15)
    assert data["data"]["settings"]["alpha"] == 0.3


def test_options(pair, capsys):
    assert main(["diff", pair[0], pair[0]]) == 0
    assert "No weight differs in bfloat16" in capsys.readouterr().out
    assert main(["diff", *pair, "--control", "none", "--max-svd-dim", "8"]) == 0
    printed = capsys.readouterr().out
    assert "No more than noise" not in printed and "nan" in printed
    assert main(["diff", *pair, "--control", "shuffle", "--draws", "2"]) == 0


def test_a_change_along_the_first_direction_is_no_noise(tmp_path, capsys):
    W = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    save_file({"w": W}, tmp_path / "a.safetensors")
    save_file({"w": W + 0.5 * S[0] * torch.outer(U[:, 0], Vh[0])}, tmp_path / "b.safetensors")
    assert main(["diff", *(str(tmp_path / f"{x}.safetensors") for x in "ab"), "--k", "2"]) == 0
    assert "energy between principal" not in capsys.readouterr().out.partition("No more")[2]


def test_wrong_input(tmp_path, capsys):
    whole, broken = states(), states(1e-4)
    broken["model.norm.weight"][3] = float("nan")
    less = {n: t for n, t in whole.items() if "embed" not in n}
    reshaped = {**whole, "model.norm.weight": torch.ones(12)}
    files = {"whole": whole, "broken": broken, "less": less, "reshaped": reshaped}
    for name, state in files.items():
        save_file(state, tmp_path / f"{name}.safetensors")

    def refused(name):
        assert main(["diff", *(str(tmp_path / f"{n}.safetensors") for n in ("whole", name))]) == 2
        return capsys.readouterr().err

    assert "'model.norm.weight' of the tuned checkpoint has entries that are not" in refused(
        "broken"
    )
    assert "'model.embed_tokens.weight' is in the base only" in refused("less")
    assert "of shape (24,) in the base and (12,)" in refused("reshaped")
    assert "no such checkpoint" in refused("nowhere")
    args = ["diff", *(str(tmp_path / f"{n}.safetensors") for n in ("whole", "less"))]
    assert main([*args, "--skip-mismatched"]) == 0
    assert "model.embed_tokens.weight: in the base only" in capsys.readouterr().out
    assert main([*args, "--skip-mismatched", "--k", "0"]) == 2
