"""The docs are current: what is made from code and results is what they give now."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("command", [["docs/build_pages.py"], ["-m", "benchmarks.tables"]])
def test_generated_parts_are_current(command):
    done = subprocess.run(
        [sys.executable, *command, "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_link_inside_the_docs_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_command_line_is_in_the_readme():
    from thalweg.cli.app import app

    readme = (ROOT / "README.md").read_text()
    for verb in app:
        if not verb.startswith("-") and verb != "version":
            assert f"thalweg {verb}" in readme, f"the README does not mention thalweg {verb}"


RUN = "Every block on this page is run by the tests"
GUIDES = [p for p in sorted((ROOT / "docs").rglob("*.md")) if RUN in p.read_text()]


@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.stem)
def test_the_python_of_a_guide_runs(page):
    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


COMMANDS = "commands on this page are run by the tests"
WALKS = [
    p for p in sorted((ROOT / "docs").rglob("*.md")) if COMMANDS in " ".join(p.read_text().split())
]
#: One process runs them all, since importing torch takes longer than most of them.
RUNNER = """
import contextlib, io, json, sys
from thalweg.cli import main
results = []
for command in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            code = main(command)
        except SystemExit as ended:
            code = ended.code or 0
    results.append([code, said.getvalue()])
print(json.dumps(results))
"""


def _masked(text):
    """One line without numbers: figures differ between machines."""
    return " ".join(re.sub(r"\binf\b|\d+(\.\d+)?(e[+-]?\d+)?", "#", text).split())


@pytest.mark.parametrize("page", WALKS, ids=lambda p: p.stem)
def test_the_commands_of_a_guide_print_what_it_shows(page, tmp_path):
    text = page.read_text()
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name, f"no file name in the first line of {block!r}"
        (tmp_path / name[1]).write_text(block)
    for name, block in re.findall(r"`(\w+\.json)`[^`]*\n```json\n(.*?)^```$", text, re.M | re.S):
        (tmp_path / name).write_text(block)
    blocks = "".join(re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S))
    calls = re.findall(r"^\$ thalweg (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.M)
    assert calls
    commands = json.dumps([shlex.split(command) for command, _ in calls])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, commands],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80", "THALWEG_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for (command, shown), (code, said) in zip(calls, json.loads(done.stdout), strict=True):
        assert code == (1 if re.search("WARNING|PROBLEM", shown) else 0), command
        # Findings stand in the order of their figures, so each is looked for by itself.
        for part in re.split(r"^\.\.\.$|^ *- |^$", shown, flags=re.M):
            assert _masked(part) in _masked(said), f"{command} prints not {part} but {said}"
