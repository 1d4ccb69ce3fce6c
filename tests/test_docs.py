"""The docs are current: what is made from code and results is what they give now."""

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
    import re

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
    import re

    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
