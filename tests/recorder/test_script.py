"""`thalweg record SCRIPT` runs a script as python would: compared with python itself."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import thalweg
from thalweg.cli import main
from thalweg.recorder import record_script

TRAIN = """
import sys, torch
torch.manual_seed(0)
net = torch.nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
    opt.zero_grad()
    torch.nn.functional.mse_loss(net(torch.ones(4, 3)), torch.zeros(4, 1)).backward()
    opt.step()
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def write(name, *texts):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(map(textwrap.dedent, texts)))
        return name

    return write


def _run(*command):
    plain = {k: v for k, v in os.environ.items() if k != "THALWEG_DEBUG"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, env=plain
    )


def _record(*arguments):
    return _run("-m", "thalweg", "record", "--out", "run", *arguments)


def test_argv_main_path_directory_and_output_are_pythons(bench):
    script = bench(
        "sub/where.py",
        """
        import sys, os, pathlib, neighbour, pickle
        class Here: pass
        print(sys.argv, __name__, __file__, os.getcwd(), sys.path[0])
        print(sys.modules["__main__"].Here is Here, type(pickle.loads(pickle.dumps(Here()))))
        print(globals().get("__annotations__"), __spec__ if "__spec__" in globals() else None)
        print("to stderr", file=sys.stderr)
        """,
        TRAIN.replace("len(sys.argv) > 1", "False"),
    )
    bench("sub/neighbour.py", "")
    arguments = [script, "--out", "mine", "-m", "--help", "--hf-token", "s3cret"]
    bare, recorded = _run(*arguments), _record(*arguments)
    assert bare.returncode == recorded.returncode == 0, recorded.stderr
    assert bare.stdout == recorded.stdout
    assert "to stderr" in recorded.stderr
    run = thalweg.Run("run")
    assert run.header["command"] == [*arguments[:-1], "[redacted]"]
    assert len(run.series("loss")[0]) == 5


def test_a_module_is_run_as_python_m_runs_it(bench):
    bench("pkg/__init__.py", "")
    bench("pkg/train.py", "import sys\nprint(sys.argv[1:], __name__, __package__)\n" + TRAIN)
    recorded = _record("-m", "pkg.train", "7")
    assert recorded.returncode == 0, recorded.stderr
    assert recorded.stdout == "['7'] __main__ pkg\n"
    assert thalweg.Run("run").series("loss")[0][-1] == 7


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        ("sys.exit(3)", 3, "failed"),
        ("sys.exit('what went wrong')", 1, "failed"),
        ("sys.exit()", 0, "closed"),
    ],
)
def test_exit_codes_are_the_scripts_own(bench, ending, code, status):
    done = _record(bench("train.py", TRAIN + ending))
    assert done.returncode == code
    assert ("what went wrong" in done.stderr) == ("wrong" in ending)
    assert "Traceback" not in done.stderr
    assert thalweg.Run("run").header["status"] == status


def test_a_traceback_is_the_scripts_own(bench):
    script = bench("train.py", TRAIN + "def f():\n    raise KeyError('lost')\nf()\n")
    bare, recorded = _run(script), _record(script)
    assert recorded.returncode == bare.returncode == 1
    assert bare.stderr in recorded.stderr  # to the letter
    run = thalweg.Run("run")
    assert run.header["status"] == "failed"
    assert len(run.series("loss")[0]) == 5


def test_a_script_that_fails_at_import_or_does_not_compile(bench):
    for text, error in [("import no_such\n", "ModuleNotFoundError"), ("def f(:\n", "SyntaxError")]:
        done = _run("-m", "thalweg", "record", "--out", error, bench("train.py", text))
        assert done.returncode == 1
        assert error in done.stderr and "thalweg/" not in done.stderr
        assert thalweg.Run(error).header["status"] == "failed"


def test_from_python(bench):
    with pytest.raises(thalweg.ThalwegError, match=r"no script 'nope\.py'"):
        record_script("nope.py", out="run")
    assert not Path("run").exists()


def test_wrong_usage(bench, capsys, monkeypatch):
    monkeypatch.delenv("THALWEG_DEBUG")
    script = bench("train.py", TRAIN)
    for arguments, message in [
        (["nope.py"], "no script 'nope.py'; here: train.py"),
        (["--bogus", script], "record has no option --bogus"),
        (["--overhead", "0", script], "overhead must be a positive fraction"),
        (["--overhead", "much", script], "--overhead"),
        (["--instruments", "los", script], "nearest: 'loss'"),
        (["-m", "no.such"], "no module 'no.such'"),
        (["--resume", script], "there is no run at run"),
        ([], "record needs a script"),
    ]:
        assert main(["record", "--out", "run", *arguments]) == 2
        printed = capsys.readouterr()
        assert message in printed.err, printed.err
        assert "Traceback" not in printed.err
        assert not Path("run").exists()
    Path("run").mkdir()
    Path("run/mine.txt").write_text("precious")
    assert main(["record", "--out", "run", script]) == 2
    assert "is not a run" in capsys.readouterr().err
    assert [p.name for p in Path("run").iterdir()] == ["mine.txt"]
