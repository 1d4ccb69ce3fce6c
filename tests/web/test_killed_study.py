"""A real study, started from its page, whose worker and server are killed with SIGKILL."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from html import unescape

STUDY, PAGE = "almanac_retrieval", "/e/almanac"


def _until(true, seconds=100):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def _token(page):
    return unescape(re.search(r'name="token" value="([^"]+)"', page)[1])


def test_what_was_finished_when_all_were_killed_is_not_done_again(client, runs, tmp_path):
    command = [sys.executable, "-m", "thalweg", "web", str(runs), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        at = server.stdout.readline().strip().rstrip("/")
        token = _token(urllib.request.urlopen(at + PAGE, timeout=60).read().decode())
        form = urllib.parse.urlencode({"token": token, "study": STUDY}).encode()
        urllib.request.urlopen(f"{at}{PAGE}/study", form, timeout=60).close()
        jobs = client.app.app.state.site.jobs
        [job] = jobs.all()
        kept = tmp_path / "data" / "unfinished"
        first = _until(lambda: next(iter(kept.glob("*/seed-*.json")), None))
        os.kill(job.pid, signal.SIGKILL)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    _until(lambda: jobs.get(job.id).state != "running")
    assert jobs.get(job.id).state == "killed" and "killed" in client.get("/jobs").text
    finished = {p.name: json.loads(p.read_text())["wall_s"] for p in first.parent.glob("*.json")}
    assert 1 <= len(finished) < 3  # it was killed on its way
    assert not list((tmp_path / "data").glob("evidence/*/*"))

    form = {"token": _token(client.get(PAGE).text), "study": STUDY}
    again = client.post(f"{PAGE}/study", data=form, follow_redirects=False)
    assert again.status_code == 303
    name = again.headers["location"].rpartition("/")[2]
    _until(lambda: jobs.get(name).state != "running")
    assert jobs.get(name).state == "done", jobs.log(name)[0].decode()
    [evidence] = (tmp_path / "data").glob("evidence/almanac/*.json")
    measured = json.loads(evidence.read_text())
    assert measured["seeds"] == [0, 1, 2]  # nothing lost, nothing twice
    for file, wall_s in finished.items():
        seed = int(re.search(r"\d+", file)[0])
        assert measured["wall_s"][seed] == round(wall_s, 3)  # of before the kill
    assert not kept.exists() or not list(kept.iterdir())
