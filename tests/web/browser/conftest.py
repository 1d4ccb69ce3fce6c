"""A server of its own, as a user starts it, and Debian's Chromium in front of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Whatever else the browser or a page would ask for has no address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
#: For machines that are busy with something else; nothing waits that long on one that is not.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
EVIL = "<script>alert(1)<b>"
STEPS = 20_000
#: When the loss of the long run is high, for one step.
SPIKE = 7_777
PAPERS = ("arxiv_page_s0_m10.xml", "hf_daily.json")
#: Every page by a short name.
PAGES = {
    "list": "/",
    "entry": "/e/conservation-laws",
    "search": "/search?q=what+does+gradient+flow+conserve",
    "topics": "/topics",
    "topic": "/topics/symmetry",
    "compare": "/compare?e=relex&e=ska&e=conservation-laws",
    "digest": "/digest/2026-06",
    "runs": "/runs",
    "run": "/runs/long",
    "run-of-a-stranger": f"/runs/{quote(EVIL)}",
    "diagnosis": "/runs/short/diagnosis",
    "compare-runs": "/compare-runs?r=long&r=short",
    "jobs": "/jobs",
    "job": "/jobs/20261124T100000Z-relex",
    "no-page": "/e/conservation-law",
}


def pytest_generate_tests(metafunc):
    if "address" in metafunc.fixturenames:
        metafunc.parametrize("address", PAGES.values(), ids=list(PAGES))


@pytest.fixture(scope="package")
def browser():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Debian's browser is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield made
        made.close()


@pytest.fixture(scope="package")
def home(tmp_path_factory, plant):
    """Runs, one of them a stranger's, papers, and a study that has ended."""
    root = tmp_path_factory.mktemp("home")
    (root / "runs").mkdir()
    rng = np.random.default_rng(0)
    fall = 2 * np.exp(-np.arange(STEPS) / 4000) + 0.1 + 0.02 * rng.random(STEPS)
    fall[SPIKE] = 40.0
    parts = {("grad_norm", f"blocks.{i}.weight"): rng.lognormal(size=STEPS) for i in range(14)}
    said = [{"event": "spike", "time_s": 0, "step": SPIKE, "message": "loss 40 at one step"}]
    long = {"script": "train.py --lr 0.1", "events": said, "created": "2026-11-24T10:00:00Z"}
    plant(root / "runs" / "long", {("loss", ""): fall, ("lr", ""): 1 / (1 + fall), **parts}, **long)
    torn = np.where(np.arange(200) < 150, fall[::100], np.nan)
    short = {("loss", ""): torn, ("user/accuracy", ""): 1 - fall[::100] / 3}
    plant(root / "runs" / "short", short, status="failed", script="train.py")
    said = [{"event": EVIL, "time_s": 0, "step": 3, "message": EVIL}]
    evil = {("loss", ""): np.ones(9), (f"user/{EVIL}", EVIL): np.arange(9.0)}
    plant(root / "runs" / EVIL, evil, events=said, script=EVIL)
    job = root / "data" / PAGES["job"].lstrip("/")
    job.mkdir(parents=True)
    facts = {"study": "relex", "preset": "quick", "entry": "relex", "pid": 1}
    (job / "job.json").write_text(json.dumps({**facts, "started": "2026-11-24T10:00:00Z"}))
    (job / "log").write_text("relex: seed 0\n" * 40)
    (job / "exit").write_text("0")
    samples = Path(__file__).parents[2] / "vectors" / "almanac"
    command = "from thalweg.almanac import ingest; import sys; [ingest(p) for p in sys.argv[1:]]"
    papers = [str(samples / name) for name in PAPERS]
    subprocess.run([sys.executable, "-c", command, *papers], env=_env(root / "data"), check=True)
    return root


def _env(data):
    return {**os.environ, "THALWEG_DATA": str(data)}


class Server:
    """``thalweg web`` as a process; started again it has the port that it had."""

    def __init__(self, home):
        self.home = home
        self.port = 0
        self.start()

    def start(self):
        command = [sys.executable, "-m", "thalweg", "web", str(self.home / "runs")]
        command += ["--port", str(self.port)]
        env = _env(self.home / "data")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        self.base = self.process.stdout.readline().strip()
        self.port = int(self.base.rstrip("/").rpartition(":")[2])

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
            self.process.stdout.close()


@pytest.fixture(scope="package")
def server(home):
    made = Server(home)
    yield made
    made.stop()


@pytest.fixture
def own_server(tmp_path):
    """A server over empty folders, for tests that change or end it; named before ``visit``."""
    (tmp_path / "runs").mkdir()
    made = Server(tmp_path)
    yield made
    made.stop()


class Watch:
    """What went wrong in a page: errors it logs, requests that fail or leave this machine."""

    def __init__(self, page, base):
        self.found = []
        self.base = base
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("request", self._asked)
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _logged(self, message):
        if message.type in ("error", "warning", "assert"):
            self.found.append(f"{message.type}: {message.text}")

    def _asked(self, request):
        if not request.url.startswith(self.base):
            self.found.append(f"asks {request.url}")

    def _failed(self, request):
        # A stream ends when its page is left, and so does what was on its way.
        if request.failure != "net::ERR_ABORTED":
            self.found.append(f"{request.url}: {request.failure}")

    def _answered(self, response):
        if response.status >= 400:
            self.found.append(f"{response.url}: {response.status}")


@pytest.fixture
def visit(browser, request):
    """Opens an address; at the end nothing may have gone wrong that ``page.watch`` saw."""
    pages, contexts = [], []

    def open_one(path="/", *, of=None, **settings):
        of = of or request.getfixturevalue("server")
        size = {"width": settings.pop("width", 1200), "height": settings.pop("height", 900)}
        context = browser.new_context(base_url=of.base, viewport=size, **settings)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.watch = Watch(page, of.base)
        pages.append(page)
        page.goto(path)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert [page.watch.found for page in pages] == [[] for _ in pages]


@pytest.fixture(scope="session")
def drawn():
    return _drawn


def _drawn(page):
    """Waits until all charts in sight are drawn."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.live-chart')].every(chart => "
        "chart.dataset.drawn || chart.getBoundingClientRect().top > innerHeight)"
    )


@pytest.fixture
def barrier_free(visit, drawn):
    """Checks a page at a width, light and dark; with THALWEG_SHOTS=DIR its pictures stay there."""

    def check(address, width, spoil="null"):
        page = visit(address, width=width, color_scheme="light", reduced_motion="reduce")
        page.evaluate(spoil)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            drawn(page)
            found = Axe().run(page, options={"resultTypes": ["violations"]})
            faults = [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]]
            assert faults == [], scheme
            wide = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            needed, there = page.evaluate(wide)
            assert needed <= there
            _picture(page, address, width, scheme)
        page.watch.found[:] = [said for said in page.watch.found if address != PAGES["no-page"]]

    return check


def _picture(page, address, width, scheme):
    if folder := os.environ.get("THALWEG_SHOTS"):
        name = next(name for name in PAGES if PAGES[name] == address)
        page.set_viewport_size({"width": width, "height": 5000})
        _drawn(page)
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / f"{name}-{width}-{scheme}.png", full_page=True)
