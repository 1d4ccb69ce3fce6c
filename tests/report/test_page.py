"""The page as a whole: nothing foreign runs in it, nothing is lost, it stays small and quick."""

import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from thalweg import Run, ThalwegError
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.report import render, write

EVIL = "<script>alert(1)</script>"


def record(path, rows, *, events=(), **header):
    """A run with rows of (step, {series: value}, status)."""
    path.mkdir(parents=True)
    facts = {"schema_version": 1, "kind": "thalweg.run", "status": "closed", "segments": []}
    (path / "run.json").write_text(json.dumps(facts | header))
    writer = MeasurementWriter(path / "measurements", rank=0, segment=0)
    for step, values, status in rows:
        codes = [writer.series(*name) for name in values]
        statuses = None if status is None else [status] * len(codes)
        writer.append(step, step * 0.1, codes, list(values.values()), None, statuses)
    writer.close()
    (path / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return Run(path)


def finding(**changes):
    evidence = SimpleNamespace(
        text=EVIL, steps=(3,), value=2.0, uncertainty=0.1, series=("loss", "")
    )
    facts = {"rule": "spike", "severity": "warning", "symptom": EVIL, "evidence": (evidence,)}
    facts |= {"entry": "stable-spam", "source": "Huang 2025", "treatment": EVIL, "planned": True}
    return SimpleNamespace(**facts | changes)


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.open, self.scripts, self.links = [], 0, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.links += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]
        if tag not in ("meta", "wbr", "br", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_what_comes_from_a_run_is_text(run_dir):
    event = {"time_s": 1.0, "step": 2, "event": EVIL, "message": EVIL}
    rows = [(s, {("loss", ""): 1.0, ("weight_norm", EVIL): 2.0, (EVIL, ""): 1.0}, None)
            for s in range(5)]  # fmt: skip
    run = record(run_dir, rows, events=[event], command=[EVIL], script=EVIL, cwd=EVIL)
    page = render(run, [finding()])
    tags = Tags(page)
    assert not tags.open and tags.scripts == 2 and tags.links == []
    assert EVIL not in page and "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page and "planned" in page and "2 ± 0.1" in page


def test_the_states_of_a_diagnosis(run_dir):
    run = record(run_dir, [(0, {("loss", ""): 1.0}, None)])
    assert "Not diagnosed" in render(run) and "Nothing found" in render(run, [])
    worst = render(run, [finding(severity="note", symptom="B"), finding(severity="problem")])
    assert worst.index('<li class="problem">') < worst.index('<li class="note">')


def test_an_empty_run_and_one_of_nan(tmp_path):
    empty = render(record(tmp_path / "empty", [], status="running"))
    assert "no measurements yet" in empty and "unfinished" in empty
    rows = [(s, {("loss", ""): math.nan}, None) for s in range(40)]
    page = render(record(tmp_path / "nan", rows))
    assert "no finite value" in page and "40 not finite" in page and 'class="nonfinite"' in page


def test_what_is_missing_is_said(run_dir):
    rows = [(0, {("loss", ""): 1.0}, None)]
    rows += [(s, {("sharpness", ""): math.nan}, "skipped:budget") for s in (5, 9)]
    rows += [(3, {("new", "a"): math.nan}, "unsupported:flash attention")]
    segments = [{"first_step": 0}, {"first_step": 6}]
    page = render(record(run_dir, rows, world_size=4, segments=segments))
    assert "sharpness at 2 steps from 5 to 9: budget" in page
    assert "flash attention" in page and "What else was measured?" in page
    assert "rank 0 of 4" in page and "resumed" in page


def test_code_in_a_treatment_is_marked_and_words_are_not(run_dir):
    run = record(run_dir, [(0, {("loss", ""): 1.0}, None)])
    page = render(run, [finding(treatment="Clip: `clip(a < b)` or stop", planned=False)])
    assert "</b> Clip: <code>clip(a &lt; b)</code> or stop</p>" in page


@pytest.mark.parametrize(("text", "said"), [("from step 3 on", ""), ("it rose", " <span>(step 3)")])
def test_steps_without_a_curve_are_told_once(run_dir, text, said):
    piece = SimpleNamespace(text=text, steps=(3,), value=None, uncertainty=None, series=None)
    run = record(run_dir, [(0, {("loss", ""): 1.0}, None)])
    assert f"<li>{text}{said}" in render(run, [finding(evidence=(piece,))])
    assert ("(step 3)" in render(run, [finding(evidence=(piece,))])) is bool(said)


def test_clipping_and_held_learning_rates_are_told(run_dir):
    rows = [(s, {("grad_norm_preclip", ""): 2.0 + s, ("grad_norm", ""): 3.0}, None)
            for s in range(4)]  # fmt: skip
    page = render(record(run_dir, [(0, {("lr", ""): 0.1}, None), *rows]))
    assert "Clipping acted at 2 of 4" in page and "Last measured" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])  # type: ignore[index]
    [line] = data["charts"][0]["lines"]
    assert line["x"] == [0, 3] and line["mid"] == [0.1, 0.1]


def test_large_runs_stay_small(run_dir):
    names = [("grad_norm", f"layers.{k}.weight") for k in range(38)] + [("loss", ""), ("lr", "")]
    spike = {("loss", ""): 777.0}
    rows = [(s, dict.fromkeys(names, 1.0 + s % 7) | (spike if s == 3217 else {}), None)
            for s in range(5000)]  # fmt: skip
    events = [{"time_s": s, "step": s, "event": "skipped step", "why": "inf"} for s in range(5000)]
    run = record(run_dir, rows, events=events)
    page = render(run)  # how long that takes is for `python -m benchmarks.report`
    assert len(page) < 1_000_000
    assert "5,000 points shown as 600 min–max columns" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])  # type: ignore[index]
    assert max(data["charts"][0]["lines"][0]["hi"]) == 777.0
    assert "4,920 more in the run" in page


def test_writing_replaces_reports_only(run_dir, tmp_path):
    run = record(run_dir, [(0, {("loss", ""): 1.0}, None)])
    path = write(run)
    assert path == run_dir / "report.html" and write(run) == path
    other = tmp_path / "thesis.html"
    other.write_text("mine")
    with pytest.raises(ThalwegError, match="not a report"):
        write(run, other)
    assert other.read_text() == "mine"
    with pytest.raises(ThalwegError, match="directory"):
        write(run, tmp_path / "no" / "page.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "thesis.html"]
