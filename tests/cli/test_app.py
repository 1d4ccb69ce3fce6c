import json
import math
import subprocess
import sys

import pytest

from thalweg import __version__
from thalweg.cli import main
from thalweg.recorder.measurements import MeasurementWriter

LONG = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A working directory with runs/a and runs/b, b the newer one."""
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate("ab"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        header = {"schema_version": 1, "kind": "thalweg.run", "created": f"2026-01-0{k + 1}"}
        header |= {"status": "closed", "segments": [{"segment": 0}], "script": "train.py"}
        header |= {"overhead": {"budget": 0.05, "achieved": 0.031}}
        header |= {"optimizers": [{"class": "AdamW", "lr": 0.001}]}
        (run / "run.json").write_text(json.dumps(header))
        writer = MeasurementWriter(run / "measurements", rank=0, segment=0)
        names = [("loss", ""), ("grad_norm", ""), ("grad_norm", LONG), ("user/" + "x" * 70, "")]
        codes = [writer.series(*n) for n in names]
        for step in range(100 - 20 * k):
            loss = math.nan if step == 50 else 1 / (1 + step) + k
            writer.append(step, step * 0.1, codes, [loss, 1.0, 2.0, -1.2345e-300])
        writer.append(99, 10.0, [writer.series("sharpness")], [math.nan], None, ["skipped:budget"])
        writer.close()
        event = {"time_s": 1.0, "step": 7, "event": "warning", "message": "the disk was full"}
        (run / "events.jsonl").write_text(json.dumps(event) + '\n{"torn')
    return tmp_path / "runs"


def thalweg(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "thalweg", *args], capture_output=True, text=True, **kwargs
    )


def test_show_defaults_to_the_newest_run_and_fits_80_columns(runs, capsys):
    assert main(["show"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("runs/b\n")
    for fact in ("train.py", "closed", "3.1% of", "budget 5.0%", "AdamW lr=0.001", "0:00:10"):
        assert fact in out
    assert "step 7: warning: the disk was full" in out
    assert "note: events.jsonl: torn tail, 6 bytes dropped" in out
    assert LONG not in out and "×" in out
    assert main(["show", "runs/a", "--parts"]) == 0
    out += capsys.readouterr().out
    assert LONG in out
    assert max(map(len, out.splitlines())) <= 80


def test_show_selects(runs, capsys):
    assert main(["show", "--instrument", "grad_norm", "--part", LONG, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    [line] = data["series"]
    assert (line["instrument"], line["part"], line["count"], line["last"]) == (
        *("grad_norm", LONG),
        *(80, 2.0),
    )
    assert main(["show", "--instrument", "los"]) == 2
    assert "nearest: 'loss'" in capsys.readouterr().err
    assert main(["show", "--part", "nope"]) == 2


def test_show_json(runs, capsys):
    assert main(["show", "--json", "--root", str(runs)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema_version"] == 1
    data = said["data"]
    assert set(data) == {"run", "header", "series", "events", "notes"}
    assert data["header"]["last_step"] == 99 and data["header"]["steps"] == 81
    loss = next(line for line in data["series"] if line["instrument"] == "loss")
    assert (loss["count"], loss["nonfinite"], loss["first"]) == (80, 1, 2.0)


def test_an_empty_run_is_shown(runs, capsys):
    for file in (runs / "b" / "measurements").iterdir():
        file.unlink()
    assert main(["show"]) == 0
    assert "no measurements yet" in capsys.readouterr().out


def test_compare_aligns_at_the_last_common_step(runs, capsys):
    assert main(["compare", "runs/a", "runs/b"]) == 0
    out = capsys.readouterr().out
    assert "at step 79" in out and max(map(len, out.splitlines())) <= 80
    assert main(["compare", "runs/a", "runs/b", "--instrument", "loss", "--json"]) == 0
    [loss] = json.loads(capsys.readouterr().out)["data"]["series"]
    assert loss["step"] == 79
    assert [line["last"] for line in loss["runs"]] == [1 / 80, 1 / 80 + 1]
    assert main(["compare", "runs/a"]) == 2
    assert "needs two runs" in capsys.readouterr().err
    assert main(["compare", "runs/a", "runs/b", "--instrument", "los"]) == 2


def test_export(runs, tmp_path, capsys):
    assert main(["export", "--to", "csv", "-o", "out.csv"]) == 0
    assert main(["export", "--to", "csv", "-o", "out.csv"]) == 2
    assert main(["export", "--to", "csv", "-o", "out.csv", "--overwrite", "--json"]) == 0
    assert (tmp_path / "out.csv").exists()
    assert main(["export", "--to", "xlsx", "-o", "out"]) == 2
    assert main(["export"]) == 2


def test_check_finds_damage(runs, capsys):
    assert main(["check"]) == 0
    assert "sound" in capsys.readouterr().out
    (runs / "b" / "measurements" / "r0-s0-0000.parquet").write_bytes(b"PAR1")
    assert main(["check"]) == 1
    assert "damage: measurements/r0-s0-0000.parquet" in capsys.readouterr().out
    assert main(["check", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)["data"]
    assert not data["sound"] and data["problems"][0]["severity"] == "damage"


def test_wrong_use_and_input_exit_with_2(runs, capsys):
    for args in (["shw"], ["show", "--bad"], ["show", "runs/none"], ["show", "a", "b"]):
        assert main(args) == 2, args
        out, err = capsys.readouterr()
        assert not out and err.startswith("thalweg: ") and "Traceback" not in err


def test_an_internal_error_exits_with_3(runs, capsys, monkeypatch):
    def fail(*_, **__):
        raise AttributeError("of our own")

    monkeypatch.setattr("thalweg.recorder.run.Run.all_series", fail)
    assert main(["show"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("thalweg: AttributeError: of our own") and "THALWEG_DEBUG=1" in err
    monkeypatch.setenv("THALWEG_DEBUG", "1")
    assert main(["show"]) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["show", "compare", "export", "check", "version"])
def test_help_ends_in_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith(f"Example: thalweg {verb}")


def test_version(capsys):
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_as_a_process(runs, tmp_path):
    done = thalweg("show", "runs/a", cwd=tmp_path)
    assert done.returncode == 0 and "loss" in done.stdout and not done.stderr
    assert "\x1b" not in done.stdout
    assert thalweg("nothing").returncode == 2
    assert thalweg("--help").stdout.strip().endswith("Example: thalweg show runs/digits")


def test_a_closed_pipe_is_no_error(runs):
    code = f"{sys.executable} -m thalweg show runs/a --json | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["{", "0"] and not done.stderr


def test_what_the_verbs_import(runs):
    code = (
        "import sys; from thalweg.cli import main;"
        "heavy = lambda *names: [name for name in names if name in sys.modules];"
        "main(['--help']); assert not heavy('torch', 'pyarrow', 'numpy'), heavy('numpy');"
        "main(['show']); main(['check']); main(['compare', 'runs/a', 'runs/b']);"
        "main(['export', '-o', 'out', '--to', 'tensorboard']); assert not heavy('torch', 'pandas')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
