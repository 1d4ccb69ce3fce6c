"""The pages of runs, also of one that is being recorded and one of a stranger."""

import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import xml.etree.ElementTree as ET
from html import unescape

import numpy as np
import pytest

from thalweg.web import live
from thalweg.web.run_folder import RunFolder

EVIL = "<script>alert(1)<b>"


@pytest.fixture
def planted(runs, plant):
    loss = {("loss", ""): np.linspace(2, 1, 200), ("lr", ""): np.ones(200)}
    plant(runs / "a", loss | {("grad_norm", f"w.{i}"): np.ones(200) for i in range(30)})
    plant(runs / "b", {("loss", ""): np.full(100, np.nan)}, status="failed")
    said = [{"event": EVIL, "time_s": 0, "step": 3, "message": EVIL}]
    plant(runs / EVIL, {(f"user/{EVIL}", EVIL): np.ones(3)}, events=said, script=EVIL)
    return runs


def test_every_run_is_listed_and_opens(client, planted):
    listed = client.get("/api/runs.json").json()["data"]["runs"]
    assert {run["name"] for run in listed} == {"a", "b", EVIL}
    for path in ("/runs", "/runs/a", "/runs/b", "/compare-runs", "/compare-runs?r=a&r=b"):
        page = client.get(path)
        assert page.status_code == 200, path
        twin = unescape(re.search(r'<a href="([^"]+)">this page as JSON', page.text)[1])
        assert client.get(twin).json()["schema_version"] == 1
        again = client.get(path, headers={"if-none-match": page.headers["etag"]})
        assert again.status_code == 304


def test_an_empty_folder_says_how_to_record(client):
    assert "thalweg record" in client.get("/runs").text


def test_a_damaged_run_does_not_hide_the_others(client, planted):
    (planted / "b" / "run.json").write_text("{")
    data = client.get("/api/runs.json").json()["data"]
    assert [run["name"] for run in data["unreadable"]] == ["b"] and len(data["runs"]) == 2
    assert "expected JSON" in client.get("/runs/b").text


def test_charts_give_what_was_recorded(client, planted):
    page = client.get("/runs/a").text
    links = [unescape(u) for u in re.findall(r'data-series="([^"]+)"', page)]
    assert len(links) == 3 and "Parts 1 to 12 of 30" in page
    said = {tuple(s["part"] for s in client.get(u).json()["data"]["series"]): u for u in links}
    [loss] = client.get(said["",]).json()["data"]["series"] if ("",) in said else [None]
    assert loss["steps"][:3] == [0, 1, 2] and loss["middle"][0] in (2.0, 1.0)
    more = client.get("/runs/a?instrument=grad_norm&begin=24").text
    assert "Parts 25 to 30 of 30" in more and "loss</h3>" not in more
    pictures = [unescape(u) for u in re.findall(r'<noscript><img src="([^"]+)"', page)]
    assert len(pictures) == 3
    for picture in pictures:
        svg = client.get(picture)
        assert "default-src 'none'" in svg.headers["content-security-policy"]
        assert ET.fromstring(svg.text).tag.endswith("svg")


def test_a_stretch_may_be_asked_for(client, planted):
    url = "/api/runs/a/series.json?instrument=loss&part=&from=50&to=60"
    [series] = client.get(url).json()["data"]["series"]
    assert 40 <= series["steps"][0] <= 50 and 60 <= series["steps"][-1] <= 70
    for wrong in ("from=x", "to=1e3", "columns=999999", "columns=-1", "from=" + "9" * 30,
                  "part=" + "&part=" * 30):  # fmt: skip
        said = client.get(f"/api/runs/a/series.json?instrument=loss&{wrong}")
        assert said.status_code == 404 and said.json()["data"]["error"], wrong


def test_a_series_without_a_finite_value_is_drawn_as_nothing(client, planted):
    [series] = client.get("/api/runs/b/series.json?instrument=loss").json()["data"]["series"]
    assert set(series["middle"]) == {None} and len(series["nonfinite"]) == 100
    assert client.get("/runs/b/chart.svg?instrument=loss").status_code == 200


def test_a_run_named_like_markup_stays_text(client, planted):
    name = urllib.request.quote(EVIL)
    for path in ("/runs", f"/runs/{name}", f"/compare-runs?r={name}", f"/runs/{name}/diagnosis",
                 f"/runs/{name}?instrument={name}", f"/compare-runs?r={name}no"):  # fmt: skip
        page = client.get(path).text
        assert "<script>alert" not in page and "&lt;script&gt;alert" in page, path
    picture = client.get(f"/runs/{name}/chart.svg?instrument=user/{name}&part={name}")
    assert picture.status_code == 200 and "<script" not in picture.text


@pytest.mark.parametrize(
    "name",
    ["%2e%2e", "%2e%2e%2foutside", "..%2Foutside", "%2Fetc", "a%00", "a%2F..%2F..%2Foutside"],
)
def test_no_address_leads_out_of_the_folder(client, planted, plant, name):
    plant(planted.parent / "outside", {("loss", ""): np.ones(3)})
    for path in (f"/runs/{name}", f"/api/runs/{name}.json", f"/runs/{name}/live",
                 f"/runs/{name}/diagnosis", f"/api/runs/{name}/series.json?instrument=loss",
                 f"/compare-runs?r={name}"):  # fmt: skip
        said = client.get(path)
        assert said.status_code == 404 and "outside</h1>" not in said.text, path


def test_a_link_out_of_the_folder_is_not_followed(client, planted, plant):
    plant(planted.parent / "outside", {("secret", ""): np.ones(3)})
    (planted / "link").symlink_to(planted.parent / "outside")
    assert client.get("/runs/link").status_code == 404
    assert "link" not in [r["name"] for r in client.get("/api/runs.json").json()["data"]["runs"]]


def test_the_doctor_is_asked_in_a_process_of_its_own(client, planted, plant):
    bad = np.concatenate([np.linspace(2, 1, 50), np.full(50, np.nan)])
    plant(planted / "nan", {("loss", ""): bad})
    data = client.get("/api/runs/nan/diagnosis.json").json()["data"]
    assert "nonfinite" in {f["rule"] for f in data["findings"]}
    page = client.get("/runs/nan/diagnosis").text
    assert 'class="diagnoses"' in page and "Not judged" in page


def test_what_the_doctor_says_stays_text(client, planted, plant, monkeypatch):
    plant(planted / "nan", {("loss", ""): np.full(100, np.nan)})
    doctor = client.app.app.state.site.doctor
    found = doctor.examine("nan")
    finding = {
        **found["findings"][0],
        "rule": EVIL,
        "symptom": EVIL,
        "treatment": f"`{EVIL}` {EVIL}",
    }
    finding["evidence"] = [{**finding["evidence"][0], "text": EVIL, "series": [EVIL, EVIL]}]
    told = {"findings": [finding], "skipped": {EVIL: EVIL}}
    monkeypatch.setattr(doctor, "examine", lambda name: told)
    page = client.get("/runs/nan/diagnosis").text
    assert "<script>alert" not in page and page.count("&lt;script&gt;") >= 6


def test_what_is_compared_is_what_the_runs_share(client, planted):
    page = client.get("/compare-runs?r=a&r=b").text
    links = [unescape(u) for u in re.findall(r'data-series="([^"]+)"', page)]
    assert len(links) == 1
    found = client.get(links[0]).json()["data"]["series"]
    assert [s["part"] for s in found] == ["a", "b"]
    assert "share no series" in client.get(f"/compare-runs?r=a&r={urllib.request.quote(EVIL)}").text
    assert "at most 8" in client.get("/compare-runs?" + "&".join(f"r={i}" for i in range(9))).text


def test_a_run_that_ended_ends_its_stream(client, planted):
    said = client.get("/runs/a/live")
    assert said.headers["content-type"].startswith("text/event-stream")
    assert [line for line in said.text.splitlines() if line.startswith("event")] == [
        "event: grown",
        "event: ended",
    ]
    assert client.get("/runs/none/live").status_code == 404


def test_streams_are_counted(client, planted, monkeypatch):
    monkeypatch.setattr(live, "MOST_STREAMS", 0)
    assert client.get("/runs/a/live").status_code == 503
    monkeypatch.undo()
    assert client.app.app.state.site.streams.open == 0


@pytest.fixture
def server(runs, tmp_path):
    """A server of its own, as a user starts it."""
    command = [sys.executable, "-m", "thalweg", "web", str(runs), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(20)
    process.stdout.close()


def test_only_this_machine_reaches_it(server):
    """127.0.0.2 is this machine too: it is let in where all addresses are listened on."""
    port = int(server.rstrip("/").rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=10).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=10)


def test_a_live_page_is_told_of_growth_and_of_the_end(server, runs, plant, append):
    writer = plant(runs / "now", {("loss", ""): np.ones(5)}, status="running", close=False)
    told = []

    def read():
        with urllib.request.urlopen(server + "runs/now/live", timeout=60) as stream:
            for line in stream:
                told.append(line.decode().strip())

    reader = threading.Thread(target=read)
    reader.start()
    _until(lambda: told.count("event: grown") == 1)
    append(writer, {("loss", ""): np.ones(5)}, first=5)
    _until(lambda: told.count("event: grown") == 2)
    writer.close()
    header = runs / "now" / "run.json"
    header.write_text(header.read_text().replace("running", "closed"))
    reader.join(30)
    assert not reader.is_alive() and "event: ended" in told
    assert any("closed" in line for line in told)
    page = urllib.request.urlopen(server + "runs/now").read().decode()
    assert "torch" not in page and "now" in page


def _until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_swollen_run_is_refused(client, planted, monkeypatch):
    monkeypatch.setattr("thalweg.web.run_folder.MAX_HEADER", 10)
    assert "too large" in client.get("/runs/a").text
    assert RunFolder(planted).names()


def test_the_first_chart_is_read_while_the_browser_reads_the_page(client, planted, monkeypatch):
    expected = []
    site = client.app.app.state.site
    monkeypatch.setattr(site.data, "expect", lambda *asked: expected.append(asked))
    assert client.get("/api/runs/a.json").status_code == 200 and not expected
    assert client.get("/runs/a").status_code == 200
    assert expected == [("a", "grad_norm", [f"w.{i}" for i in range(12)])]
