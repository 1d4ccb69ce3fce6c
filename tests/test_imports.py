"""What importing costs: `import thalweg` and the reading side never import torch."""

import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "numpy",
    "pyarrow",
    "scipy",
    "matplotlib",
    "pandas",
    "sklearn",
    "rich",
    "cyclopts",
]


def _loaded(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import thalweg; thalweg.ThalwegError; dir(thalweg)", set()),
        ("from thalweg.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
         {"rich", "cyclopts"}),
        ("from thalweg import Run", {"numpy", "pyarrow"}),
        ("import thalweg.report", {"numpy"}),
        ("from thalweg import diagnose", {"numpy", "pyarrow"}),
        (
            "import thalweg.almanac as a, thalweg.studies as s\na.standing(a.get('almanac'))\n"
            "from thalweg.almanac.verification import verify; verify(a.entries()); s.available()",
            {"numpy", "scipy"},
        ),
        (
            "from thalweg.web import create_app\n"
            "site = create_app().app.state.site\nsite.shelf.all()\n"
            "from starlette.datastructures import QueryParams\n"
            "from thalweg.web import almanac_pages, finding_pages, job_pages, run_pages\n"
            "almanac_pages.entry(site, QueryParams({}), 'relex'); site.jobs.all()",
            {"numpy", "scipy", "pyarrow", "cyclopts", "rich"},
        ),
        (
            "import thalweg.almanac as a\na.search('x'); a.related('grokalign'); a.papers()\n"
            "a.export('atom'); a.digest('2026-11').eml; a.importance_of('grokalign'); dir(a)\n"
            "from thalweg.almanac.intake import ingest; import thalweg.almanac.sending",
            {"numpy", "scipy"},
        ),
        (
            "from thalweg.cli import main\nfor verb in ('search x', 'related grokalign', 'papers', "
            "'digest 2026-11', 'export rss'): main(['almanac', *verb.split()])",
            {"numpy", "scipy", "rich", "cyclopts"},
        ),
        ("import thalweg.instruments, thalweg.numerics, thalweg.laws", {"torch", "numpy", "scipy"}),
    ],
)  # fmt: skip
def test_heavy_packages_stay_out(code, allowed):
    assert not (_loaded(code) & set(HEAVY)) - allowed
