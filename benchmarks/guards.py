"""Every guard of the page is taken out in turn; a test must notice.

The package is copied, one guard of the copy is removed, and the tests named beside it run against
the copy. They must pass with all guards in place and fail without one. A guard whose absence no
test notices is named, and the exit code is 1.

    python -m benchmarks.guards          # about 10 minutes
    python -m benchmarks.guards --quick  # the first five, writes no file
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import facts

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "guards.json"

GUARD = "tests/web/test_guard.py"
JOBS = "tests/web/test_jobs.py"
FOLDER = "tests/web/test_run_folder.py"
RUNS = "tests/web/test_run_pages.py"
DATA = "tests/web/test_run_data.py"
ENTRIES = "tests/web/test_almanac_pages.py"
FINDING = "tests/web/test_finding_pages.py"
INTAKE = "tests/almanac/test_intake.py"
FETCHING = "tests/almanac/test_fetching.py"
XML = "tests/almanac/test_xml_document.py"
PICKLE = "tests/test_no_pickle.py"


@dataclass(frozen=True)
class Removal:
    """A guard and how it is taken out.

    Attributes:
        kind: what it guards against.
        guard: what it does, for readers.
        file: below ``src/thalweg``.
        code: its source, which occurs once.
        instead: what takes its place.
        tests: file in which a test must fail then.
    """

    kind: str
    guard: str
    file: str
    code: str
    instead: str
    tests: str


_POLICY = (
    ("default-src 'none'; style", "default-src *; style", "nothing by default"),
    ("script-src 'self'", "script-src 'self' 'unsafe-inline'", "scripts of its own files only"),
    ("style-src 'self'; script", "style-src *; script", "styles of its own only"),
    ("img-src 'self'; ", "img-src *; ", "pictures of its own only"),
    ("connect-src 'self'; ", "connect-src *; ", "requests to itself only"),
    ("form-action 'self'; ", "", "forms to itself only"),
    ("base-uri 'none'; ", "", "no other base of links"),
    ("; frame-ancestors 'none'", "", "no frame around it"),
)

_GUARD_PY = [
    ("who asks", "one Host header, a name of this machine",
     "len(hosts) != 1 or not self._ours(hosts[0])", "False"),
    ("who asks", "not two Host headers", "len(hosts) != 1 or ", ""),
    ("who asks", "on loopback no other address",
     "if is_loopback(self.host):\n            return False", "if False:\n            return False"),
    ("who asks", "beyond loopback no foreign name",
     "return name.lower() == self.host.lower() or _is_address(name)", "return True"),
    ("who asks", "Origin is the page itself",
     'origin is not None and origin != f"{scope[\'scheme\']}://{hosts[0]}"', "False"),
    ("who asks", "nothing is embedded in other pages (Sec-Fetch-Site)",
     'if foreign and headers.get("sec-fetch-mode") != "navigate"', "if False"),
    ("who asks", "nor in pages of other ports", '("cross-site", "same-site")', '("cross-site",)'),
    ("who asks", "no websocket", 'if scope["type"] != "http":', "if False:"),
    ("token", "a form carries the token",
     'if not hmac.compare_digest(form.get("token", "").encode(), self.value.encode()):',
     "if False:"),
    ("token", "drawn anew by every server", "secrets.token_urlsafe(32)", '"token"'),
    ("size", "of an address", 'if len(scope.get("raw_path", b"")) + len(scope["query_string"]) '
     "> MAX_URL:", "if False:"),
    ("size", "of a form", "if len(body) > MAX_FORM:", "if False:"),
    ("size", "fields of a form", ", max_num_fields=50", ""),
    ("size", "only ordinary forms", 'if kind != "application/x-www-form-urlencoded":', "if False:"),
    ("headers", "no guessing of types", '"x-content-type-options": "nosniff",', ""),
    ("headers", "no frame, for old browsers", '"x-frame-options": "DENY",', ""),
    ("headers", "no address is told to others", '"referrer-policy": "same-origin",', ""),
    ("headers", "no page of another loads it",
     '"cross-origin-resource-policy": "same-origin",', ""),
    ("headers", "no page of another holds its window",
     '"cross-origin-opener-policy": "same-origin",', ""),
    ("headers", "on every answer", "await app(scope, receive, sent)",
     "await app(scope, receive, send)"),
]  # fmt: skip

GUARDS: tuple[Removal, ...] = (
    Removal("who asks", "bound to this machine only", "cli/web.py",
            'host: str = "127.0.0.1") -> int', 'host: str = "0.0.0.0") -> int', RUNS),
    *(Removal(kind, guard, "web/guard.py", code, instead, GUARD)
      for kind, guard, code, instead in _GUARD_PY),
    *(Removal("policy", guard, "web/guard.py", code, instead, GUARD)
      for code, instead, guard in _POLICY),
    Removal("policy", "a picture opened by itself runs nothing", "web/app.py",
            '    response.headers["content-security-policy"] = "default-src \'none\'; style-src '
            '\'unsafe-inline\'"\n', "", ENTRIES),
    Removal("token", "to start a study", "web/job_pages.py",
            "site.token.check(form)\n        slug", "slug", JOBS),
    Removal("token", "to cancel one", "web/job_pages.py",
            "site.token.check(form)\n        id", "id", JOBS),
    Removal("what may run", "only a study of the entry", "web/job_pages.py",
            "if study not in entry.studies or study not in available():", "if False:", JOBS),
    Removal("what may run", "one study at a time", "web/jobs.py",
            "fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", JOBS),
    Removal("paths", "a run is a plain name", "web/run_folder.py",
            "not _NAME.fullmatch(name) or ", "", FOLDER),
    Removal("paths", "a run that is opened lies in the folder", "web/run_folder.py",
            "not self._sound(path) or ", "", FOLDER),
    Removal("paths", "a run that is listed lies in the folder", "web/run_folder.py",
            " if self._sound(p.parent)", "", FOLDER),
    Removal("paths", "its directory is no link out of the folder", "web/run_folder.py",
            "path.resolve().is_relative_to(root) and ", "", FOLDER),
    Removal("paths", "nor are the files in it", "web/run_folder.py",
            "file.resolve().is_relative_to(root) for", "True for", FOLDER),
    Removal("paths", "a job is a plain name", "web/jobs.py",
            "not _ID.fullmatch(name) or ", "", JOBS),
    Removal("paths", "only known files are served", "web/app.py",
            "return etagged(request, files[name], _STATIC[Path(name).suffix])",
            'return etagged(request, (Path(__file__).parent / "static" / name).read_bytes(), "")',
            ENTRIES),
    Removal("text", "templates escape", "web/answer.py", "autoescape=True", "autoescape=False",
            RUNS),
    Removal("text", "findings escape", "report/diagnoses.py", "text = escape(piece.text)",
            "text = piece.text", RUNS),
    Removal("text", "pictures of evidence escape", "report/evidence.py",
            'class="title">{escape(t)}</text>', 'class="title">{t}</text>', ENTRIES),
    Removal("text", "links of entries lead to web pages", "web/almanac_pages.py",
            'return url if url and url.startswith(("https://", "http://")) else None',
            "return url", ENTRIES),
    Removal("text", "links of papers lead to web pages", "web/templates/search.html",
            "{% if h.url.startswith(('https://', 'http://')) %}", "{% if h.url %}", FINDING),
    Removal("text", "errors of ours tell no contents", "web/app.py", "type(error).__name__",
            "error", ENTRIES),
    Removal("size", "of a run's header and events", "web/run_folder.py",
            "if file.exists() and file.stat().st_size > MAX_HEADER:", "if False:", FOLDER),
    Removal("size", "series of an answer", "web/run_data.py",
            "if not 0 < len(parts) <= MOST_SERIES:", "if False:", DATA),
    Removal("size", "columns of an answer", "web/run_data.py",
            "if not 0 < columns <= MOST_COLUMNS:", "if False:", DATA),
    Removal("size", "runs side by side", "web/run_pages.py",
            "if len(names) > min(MOST_COMPARED, MOST_SERIES):", "if False:", RUNS),
    Removal("size", "entries side by side", "web/almanac_pages.py",
            "if len(asked) > MOST_COMPARED:", "if False:", ENTRIES),
    Removal("size", "of a question", "web/finding_pages.py",
            'if len(chosen["q"]) > MOST_ASKED:', "if False:", FINDING),
    Removal("size", "of a number", "web/run_pages.py", "len(text) > 18 or ", "", RUNS),
    Removal("size", "live pages at once", "web/live.py",
            "if self.open >= MOST_STREAMS:", "if False:", RUNS),
    Removal("size", "of a log", "web/jobs.py", "text = file.read(MOST_LOG)", "text = file.read()",
            JOBS),
    Removal("size", "of a document read from a file", "almanac/intake.py",
            "return file.read(LARGEST + 1)", "return file.read()", INTAKE),
    Removal("size", "of a document from anywhere", "almanac/intake.py",
            "if len(data) > LARGEST:", "if False:", INTAKE),
    Removal("size", "of a document from the web", "almanac/fetching.py",
            "if len(body) > LARGEST:", "if False:", FETCHING),
    Removal("size", "depth of a document", "almanac/xml_document.py",
            "if self._open > DEPTH:", "if False:", XML),
    Removal("paths", "only the web is fetched, also by redirect", "almanac/fetching.py",
            'if urlsplit(newurl).scheme not in ("http", "https"):', "if False:", FETCHING),
    Removal("paths", "no entities in documents", "almanac/xml_document.py",
            'raise ValueError("it declares a DOCTYPE, which no feed needs; it is refused")',
            "return", XML),
    Removal("pickle", "weights are read as weights", "trajectory/checkpoint.py",
            "weights_only=True", "weights_only=False", PICKLE),
    Removal("pickle", "arrays are read as arrays", "almanac/static_vectors.py",
            "allow_pickle=False", "allow_pickle=True", PICKLE),
)  # fmt: skip


def copied(folder: Path) -> Path:
    """The package in a folder of its own."""
    target = folder / "thalweg"
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "src" / "thalweg", target, ignore=ignored))


def run(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Exit code of the tests against the package in a folder, and the first that failed."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    failed = re.search(r"^_{3,} (?:ERROR at \w+ of )?([\w.]+).* _{3,}$", done.stdout, re.M)
    return done.returncode, failed[1] if failed else done.stdout[-500:]


def without(folder: Path, removal: Removal, noticed_before: str) -> str:
    """The test that fails without a guard; empty if none does.

    The one that noticed the last time is tried first, then all of its file.
    """
    path = folder / "thalweg" / removal.file
    whole = path.read_text()
    if whole.count(removal.code) != 1:
        raise ValueError(f"{removal.file}: expected once: {removal.code}")
    path.write_text(whole.replace(removal.code, removal.instead))
    try:
        first = f"{removal.tests}::{noticed_before}"
        code, failed = run(folder, [first]) if noticed_before else (0, "")
        if code != 1:
            code, failed = run(folder, [removal.tests])
    finally:
        path.write_text(whole)
    if code not in (0, 1):
        raise RuntimeError(f"pytest gave {code} without: {removal.guard}\n{failed}")
    return failed if code else ""


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Take out every guard in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="guards whose description has this in it")
    asked = parser.parse_args(argv)
    chosen = [g for g in GUARDS if asked.only in g.guard][: 5 if asked.quick else None]
    before = json.loads(RESULT.read_text())["guards"] if RESULT.exists() else []
    known = {(g["kind"], g["guard"]): g["noticed_by"] for g in before}
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        code, failed = run(folder, sorted({g.tests for g in chosen}))
        if code:
            raise RuntimeError(f"the tests fail with every guard in place: {failed}")
        for removal in chosen:
            noticed = without(folder, removal, known.get((removal.kind, removal.guard), ""))
            found.append({"kind": removal.kind, "guard": removal.guard, "noticed_by": noticed})
            print(f"{removal.kind}: {removal.guard}: {noticed or 'NOT NOTICED'}", flush=True)
    result = {"command": "python -m benchmarks.guards", **facts("pytest"), "guards": found}
    if not asked.quick and not asked.only:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    sys.exit(not all(g["noticed_by"] for g in main(sys.argv[1:])["guards"]))
