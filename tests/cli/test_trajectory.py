import json

import pytest
import torch
from torch import nn

import thalweg
from thalweg.cli import main
from thalweg.trajectory import DeltaStore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "run"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    x, y = torch.randn(64, 6), torch.randint(2, (64,))
    with thalweg.record(model, optimizer, path, overhead=20.0):
        for _ in range(70):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return path


def store(path, moves):
    kept = DeltaStore(path, base={"w": torch.zeros(moves.shape[1])})
    for t, row in enumerate(moves, 1):
        kept.append(t, {"w": row})
    return path


def test_of_a_run(run, capsys):
    assert main(["trajectory", str(run), "--parts"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 + len(str(run))
    assert "whole weights" in printed and "random walk" in printed
    assert "runs in fewer dimensions than noise" in printed
    assert "0.weight" in printed and "1.running_mean" not in printed


def test_of_its_sketches(run, capsys):
    assert main(["trajectory", str(run), "--sketches", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["known_from"] == "sketches" and data["weights"] == 57 and data["points"] > 10
    assert data["r90"] < data["walk_r90"]
    assert main(["trajectory", str(run), "--sketches", "--parts"]) == 2
    assert "sketches mix all tensors" in capsys.readouterr().err


def test_of_checkpoints(tmp_path, capsys):
    moves = torch.outer(torch.arange(1.0, 21.0), torch.ones(8))
    path = store(tmp_path / "line", moves)
    assert main(["trajectory", str(path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["r90"] == 1 and data["reach"] >= 5 and data["structured"]
    some = [str(p) for p in sorted(path.iterdir())][::3]
    assert main(["trajectory", *some]) == 0
    assert "7 points, steps 0 to 18" in capsys.readouterr().out


def test_noise_is_called_noise(tmp_path, capsys):
    g = torch.Generator().manual_seed(0)
    path = store(tmp_path / "walk", torch.randn(30, 5000, generator=g).cumsum(0))
    assert main(["trajectory", str(path)]) == 0
    assert "No more than noise" in capsys.readouterr().out
    still = store(tmp_path / "still", torch.zeros(6, 10))
    assert main(["trajectory", str(still)]) == 0
    assert "did not move" in capsys.readouterr().out


def test_plot(tmp_path, run, capsys):
    assert main(["trajectory", str(run), "--plot", str(tmp_path / "p.svg")]) == 0
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_wrong_input(tmp_path, capsys):
    few = store(tmp_path / "few", torch.eye(3))
    for args, message in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(few)], "at least 4 points"),
        ([str(few), "--sketches"], "only a run has sketches"),
    ):
        assert main(["trajectory", *args]) == 2
        assert message in capsys.readouterr().err
