import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import thalweg
from thalweg.cli import main
from thalweg.cli.trajectory_source import checkpoints
from thalweg.errors import ThalwegError

G = torch.randn(40, generator=torch.Generator().manual_seed(0))


def folders(tmp_path, steps, move):
    for t in steps:
        folder = tmp_path / "ckpts" / f"checkpoint-{t}"
        folder.mkdir(parents=True)
        save_file({"w": move(t), "count": torch.tensor(t)}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"step": t}))
    return tmp_path / "ckpts"


def straight(t):
    return 1 + t * G


def test_a_straight_path_is_a_go(tmp_path, capsys):
    source = folders(tmp_path, range(0, 90, 10), straight)
    out = tmp_path / "later"
    assert main(["extrapolate", str(source), "--to", "160", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= max(80, len(str(out)) + 60)
    assert "8 checkpoints, steps 10 to 80" in printed and "go: a checkpoint 2 times" in printed
    assert "last checkpoint as it is" in printed and "and 1 files" not in printed.split("wrote")[0]
    state = load_file(out / "model.safetensors")
    torch.testing.assert_close(state["w"], straight(160), rtol=1e-4, atol=1e-4)
    assert state["count"] == 80
    assert json.loads((out / "config.json").read_text()) == {"step": 80}
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert file.metadata()["thalweg.verdict"] == "go"


def test_noise_is_a_no_go(tmp_path, capsys):
    def scatter(t):
        g = torch.Generator().manual_seed(t)
        return torch.randn(4000, generator=g)

    source = folders(tmp_path, range(8), scatter)
    out = tmp_path / "x.safetensors"
    assert main(["extrapolate", str(source), "--to", "14", "-o", str(out), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["go"] is False and "noise" in data["why"] and data["written"] == str(out)
    assert data["tensors"][0]["name"] == "w"


def test_options(tmp_path, capsys):
    source = folders(tmp_path, range(9), straight)
    out = tmp_path / "x.safetensors"
    names = [str(source / f"checkpoint-{t}") for t in (0, 2, 3, 4, 6)]
    args = ["extrapolate", *names, "--to", "12", "-o", str(out), "--steps", ":6", "--scale", "0.5"]
    assert main(args) == 0
    torch.testing.assert_close(load_file(out)["w"], 1 + 6 * G, rtol=1e-4, atol=1e-4)
    assert "steps 2 to 6" in capsys.readouterr().out


def test_of_a_run(tmp_path, capsys):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with thalweg.record(model, optimizer, tmp_path / "run", overhead=10.0):
        for _ in range(40):
            loss = model(torch.ones(3, 4)).square().mean() + model.weight.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    out = tmp_path / "x.safetensors"
    assert main(["extrapolate", str(tmp_path / "run"), "--to", "60", "-o", str(out)]) in (0, 1)
    assert load_file(out)["weight"].shape == (2, 4)
    assert "random walk" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--to", "5"], "not after the last observed"),
        (["--to", "90", "--steps", "x"], "expected FROM:TO"),
        (["--to", "90", "--steps", "7:"], "at least 4 checkpoints"),
        (["--to", "90", "--rank", "0"], "--rank"),
        (["--to", "90", "--base", "nowhere"], "no such checkpoint"),
    ],
)
def test_wrong_options_write_nothing(tmp_path, capsys, args, message):
    source = folders(tmp_path, range(9), straight)
    out = tmp_path / "x.safetensors"
    assert main(["extrapolate", str(source), "-o", str(out), *args]) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_wrong_checkpoints_write_nothing(tmp_path, capsys):
    source = folders(tmp_path, range(9), straight)
    bad = source / "checkpoint-5" / "model.safetensors"
    out = tmp_path / "x.safetensors"
    args = ["extrapolate", str(source), "--to", "90", "-o", str(out)]
    for content, message in (
        ({"v": G}, "step 5 lacks tensor 'w'"),
        ({"w": G[:3]}, "'w' has shape (3,) at step 5"),
        ({"w": G * torch.nan}, "'w' is not finite at step 5"),
    ):
        save_file(content, bad)
        assert main(args) == 2
        assert message in capsys.readouterr().err and not out.exists()
    bad.write_bytes(b"short")
    assert main(args) == 2
    assert "expected a whole safetensors file" in capsys.readouterr().err
    out.write_text("mine")
    assert main(args) == 2
    assert "--overwrite" in capsys.readouterr().err and out.read_text() == "mine"


def test_checkpoints_one_by_one(tmp_path):
    source = folders(tmp_path, (3, 7), straight)
    one, two = source / "checkpoint-7", source / "checkpoint-3"
    assert checkpoints(one, two) == {3: two, 7: one} == checkpoints(source)
    with pytest.raises(ThalwegError, match="two checkpoints of step 7"):
        checkpoints(one, one)
    with pytest.raises(ThalwegError, match="no such"):
        checkpoints(one, source / "checkpoint-9")
    (tmp_path / "final").mkdir()
    with pytest.raises(ThalwegError, match="expected a step in its name"):
        checkpoints(one, tmp_path / "final")
