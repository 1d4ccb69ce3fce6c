"""Options that cannot be meant are refused before any work, by their name."""

import pytest

from thalweg.cli import main
from thalweg.cli.extrapolate import _span


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("diff a b --k 0", "--k"),
        ("diff a b --alpha 2", "--alpha"),
        ("diff a b --alpha 0", "--alpha"),
        ("diff a b --eta 1", "--eta"),
        ("diff a b --plot change.txt", "--plot"),
        ("trajectory a --plot path.txt", "--plot"),
        ("extrapolate a --to 9 --rank 0", "--rank"),
        ("extrapolate a --to 9 --window 1", "--window"),
        ("almanac search why --limit 0", "--limit"),
        ("almanac search why --min-importance 11", "--min-importance"),
        ("almanac export atom --limit 0", "--limit"),
        ("almanac export atom --base-url javascript:x", "--base-url"),
        ("almanac build site --base-url ftp://x", "--base-url"),
    ],
)
def test_a_wrong_value_is_named(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_span_of_steps_runs_forward():
    with pytest.raises(ValueError, match="FROM before TO"):
        _span("5:3")
    assert _span("3:5") == slice(3, 5) and _span(":5") == slice(None, 5)


def test_one_checkpoint_is_no_path(tmp_path, capsys):
    alone = tmp_path / "step-1.safetensors"
    alone.write_bytes(b"")
    assert main(["trajectory", str(alone)]) == 2
    assert "one checkpoint; a path needs several" in capsys.readouterr().err
