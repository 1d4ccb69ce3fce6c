"""A training with nothing in it and one that is lost from the start, through every verb."""

import pytest

import thalweg
from thalweg.cli.app import main
from thalweg.recorder.script import record_script

TRAIN = """
import torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
with torch.no_grad():
    net[0].weight[0, 0] = float("{weight}")
opt = torch.optim.AdamW(net.parameters(), 0.1)
for _ in range({steps}):
    opt.zero_grad()
    torch.nn.functional.mse_loss(net(torch.ones(4, 3)), torch.zeros(4, 1)).backward()
    opt.step()
"""


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THALWEG_DEBUG")

    def record(weight, steps):
        (tmp_path / "train.py").write_text(TRAIN.format(weight=weight, steps=steps))
        record_script("train.py", out="run")
        return thalweg.Run("run")

    return record


def verbs():
    yield ["show", "run"]
    yield ["show", "run", "--parts"]
    yield ["compare", "run", "run"]
    yield ["check", "run"]
    yield ["report", "run", "-o", "page.html"]
    for kind in ("csv", "parquet", "tensorboard"):
        yield ["export", "run", "--to", kind, "--out", f"out-{kind}"]


def test_zero_steps(recorded, capsys):
    run = recorded(0.0, steps=0)
    assert len(run.steps) == 0 and run.header["status"] == "closed"
    for arguments in verbs():
        assert main(arguments) == 0, arguments
        assert "Traceback" not in capsys.readouterr().err
    assert main(["doctor", "run"]) == 0
    assert "0 of" in capsys.readouterr().out
    assert main(["show", "run"]) == 0
    assert "no torch.optim optimizer ever stepped" in capsys.readouterr().out.replace("\n ", "")
    assert main(["replay", "run"]) == 2
    assert capsys.readouterr().err.startswith("thalweg: ")


def test_nan_weights(recorded, capsys):
    run = recorded("nan", steps=20)
    assert len(run.series("loss")[0]) == 20  # nothing is lost for not being a number
    assert set(run.table("loss")["status"].to_pylist()) == {"nonfinite"}
    for arguments in verbs():
        assert main(arguments) == 0, arguments
        assert "Traceback" not in capsys.readouterr().err
    assert main(["doctor", "run"]) == 1
    assert "values are not finite from step 1 on" in capsys.readouterr().out
