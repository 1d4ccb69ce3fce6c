"""Studies started from the page: one at a time, and nothing lost by a kill."""

import json
import os
import re
import subprocess
import sys
import time
from html import unescape

import pytest

from thalweg.errors import ThalwegError
from thalweg.web import jobs as jobs_module
from thalweg.web.jobs import Jobs, WorkerBusy, worker
from thalweg.web.worker import run

#: Says something until it is let go, then ends as it is told.
SLOW = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
print("begun <b>", flush=True)
while not (folder / "go").exists():
    time.sleep(0.02)
print("last words", flush=True)
code = (folder / "go").read_text()
(folder / "exit.part").write_text(code)
(folder / "exit.part").replace(folder / "exit")
"""


def slow(folder, study, preset):
    return [sys.executable, "-c", SLOW, str(folder)]


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "data"))
    made = Jobs(slow)
    yield made
    for job in made.all():
        made.cancel(job.id)


def _go(jobs, id, code="0"):
    part = jobs.folder / id / "go.part"
    part.write_text(code)
    part.replace(jobs.folder / id / "go")
    _until(lambda: jobs.get(id).state != "running")


def _until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(("code", "state"), [("0", "done"), ("2", "failed")])
def test_a_job_runs_to_its_end(jobs, code, state):
    assert jobs.all() == []
    id = jobs.start("broken_laws", entry="conservation-laws")
    assert jobs.get(id).state == "running" and jobs.get(id).preset == "quick"
    _go(jobs, id, code)
    assert jobs.get(id).state == state
    text, end = jobs.log(id)
    assert text == b"begun <b>\nlast words\n" and end == len(text)
    assert jobs.log(id, 10) == (b"last words\n", end)
    assert jobs.log(id, 10**9) == (b"", end)


def test_one_at_a_time(jobs):
    first = jobs.start("relex", entry="relex")
    with pytest.raises(WorkerBusy, match="running"):
        Jobs(slow).start("relex", entry="relex")  # of another server
    _go(jobs, first)
    second = jobs.start("relex", entry="relex")
    assert first != second and [j.id for j in jobs.all()] == sorted([first, second], reverse=True)
    assert jobs.get(first).state == "done" and jobs.get(second).state == "running"
    _go(jobs, second)


def test_cancel(jobs):
    id = jobs.start("relex", entry="relex")
    jobs.cancel(id)
    assert jobs.get(id).state == "cancelled"
    jobs.cancel(id)
    other = jobs.start("relex", entry="relex")
    _go(jobs, other)
    jobs.cancel(other)  # too late
    assert jobs.get(other).state == "done"


def test_what_ignores_sigterm_is_killed(jobs, monkeypatch):
    monkeypatch.setattr(jobs_module, "GRACE_S", 0.2)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True)\n" + SLOW
    jobs._command = lambda folder, *_: [sys.executable, "-c", deaf, str(folder)]
    id = jobs.start("relex", entry="relex")
    _until(lambda: b"begun" in jobs.log(id)[0])
    jobs.cancel(id)
    assert jobs.get(id).state == "cancelled"


def test_a_killed_worker_is_told(jobs):
    id = jobs.start("relex", entry="relex")
    os.kill(jobs.get(id).pid, 9)
    _until(lambda: jobs.get(id).state == "killed")
    assert jobs.start("relex", entry="relex") != id  # the way is free


def test_a_killed_server_loses_nothing(jobs):
    server = f"""
import os, sys
from thalweg.web.jobs import Jobs
SLOW = {SLOW!r}
jobs = Jobs(lambda folder, *_: [sys.executable, "-c", SLOW, str(folder)])
id = jobs.start("relex", entry="relex")
print(id, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", server], capture_output=True, text=True)
    assert done.returncode == -9
    id = done.stdout.strip()
    assert jobs.get(id).state == "running"
    with pytest.raises(WorkerBusy):
        jobs.start("relex", entry="relex")
    _go(jobs, id)
    assert jobs.get(id).state == "done" and b"last words" in jobs.log(id)[0]


@pytest.mark.parametrize(
    "name", ["..", "x", "20260101T000000Z-../..", "", "20260101T000000Z-relex"]
)
def test_no_name_leads_out(jobs, name):
    jobs.folder.mkdir(parents=True)
    for outside in (jobs.folder, jobs.folder.parent):  # as if a job were there
        facts = {"study": "relex", "preset": "quick", "entry": "relex", "pid": 1, "started": ""}
        (outside / "job.json").write_text(json.dumps(facts))
        (outside / "log").write_text("secret")
    for ask in (jobs.get, jobs.log, jobs.cancel):
        with pytest.raises(ThalwegError, match="unknown job"):
            ask(name)


def test_the_worker_runs_a_study_and_writes_its_end(tmp_path, monkeypatch):
    command = worker(tmp_path, "no_study", "smoke")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and (tmp_path / "exit").read_text() == "2"
    assert "no_study" in done.stderr
    asked = []
    monkeypatch.setattr("thalweg.web.worker.main", lambda argv: asked.append(argv) or 0)
    assert run(tmp_path, "relex", "quick") == 0 and (tmp_path / "exit").read_text() == "0"
    assert asked == [["study", "run", "relex", "--preset", "quick"]]


@pytest.fixture
def page(client, jobs):
    client.app.app.state.site.jobs = jobs
    return client


def _form(page, path):
    text = page.get(path).text
    token = re.search(r'name="token" value="([^"]+)"', text)[1]
    return unescape(token)


def test_a_study_is_started_followed_and_cancelled_from_its_entry(page, jobs):
    token = _form(page, "/e/conservation-laws")
    form = {"token": token, "study": "broken_laws"}
    said = page.post("/e/conservation-laws/study", data=form, follow_redirects=False)
    assert said.status_code == 303
    path = said.headers["location"]
    _until(lambda: "begun &lt;b&gt;" in page.get(path).text)
    assert page.get(f"/api{path}.json").json()["data"]["state"] == "running"
    assert page.get("/jobs").text.count(path) == 1
    busy = page.post("/e/conservation-laws/study", data=form)
    assert busy.status_code == 409 and "A study is running" in busy.text
    page.post(f"{path}/cancel", data={"token": token})
    assert page.get(f"/api{path}.json").json()["data"]["state"] == "cancelled"
    stream = page.get(f"{path}/log").text
    assert "event: log" in stream and stream.endswith(
        'event: ended\ndata: {"state": "cancelled"}\n\n'
    )


def test_nothing_acts_without_the_token(page, jobs):
    id = jobs.start("relex", entry="relex")
    good = _form(page, "/e/relex")
    for token in (None, "", good[:-1], good + "x"):
        form = {"study": "relex"} | ({"token": token} if token is not None else {})
        assert page.post("/e/relex/study", data=form).status_code == 403
        assert page.post(f"/jobs/{id}/cancel", data=form).status_code == 403
    # Nor in the address, where it would be written down.
    assert page.post(f"/jobs/{id}/cancel?token={good}", data={}).status_code in (403, 415)
    cross = {"origin": "http://evil.example"}
    ours = {"token": good, "study": "relex"}
    assert page.post(f"/jobs/{id}/cancel", data=ours, headers=cross).status_code == 403
    assert jobs.get(id).state == "running" and len(jobs.all()) == 1
    for path in ("/e/relex/study", f"/jobs/{id}/cancel"):
        assert page.get(path).status_code == 405


def test_only_a_study_of_the_entry_is_started(page, jobs):
    token = _form(page, "/e/relex")
    for study in ("broken_laws", "../x", "", "relex; ls"):
        said = page.post("/e/relex/study", data={"token": token, "study": study})
        assert said.status_code == 404
    assert page.post("/e/no/study", data={"token": token, "study": "relex"}).status_code == 404
    assert jobs.all() == []


def test_a_long_log_shows_its_end(page, jobs, monkeypatch):
    id = jobs.start("relex", entry="relex")
    _go(jobs, id)
    (jobs.folder / id / "log").write_bytes(b"x" * 200_000 + b"the end")
    data = page.get(f"/api/jobs/{id}.json").json()["data"]
    assert len(data["log"]) == jobs_module.MOST_LOG and data["log"].endswith("the end")
    for begin in (0, -(10**6)):
        text, end = jobs.log(id, begin)
        assert len(text) == end == jobs_module.MOST_LOG
    assert page.get(f"/jobs/{id}/log?begin=-1").status_code == 404
    assert json.loads((jobs.folder / id / "job.json").read_text())["study"] == "relex"
