import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from thalweg.almanac import IngestError, IngestReport, ingest, intake, papers, search
from thalweg.almanac.fetching import LARGEST
from thalweg.almanac.static_vectors import DIM
from thalweg.almanac.store import open_store, store_file
from thalweg.errors import ThalwegError

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"


def atom(*papers):
    rows = "".join(
        f"<entry><id>http://arxiv.org/abs/{i}</id><title>{title}</title></entry>"
        for i, title in papers
    )
    return f'<feed xmlns="http://www.w3.org/2005/Atom">{rows}</feed>'


def test_overlapping_pages_and_the_same_again():
    first, second = VECTORS / "arxiv_page_s0_m10.xml", VECTORS / "arxiv_page_s5_m10.xml"
    one, two, again = ingest(first), ingest(second), ingest(str(first))
    assert isinstance(one, IngestReport)
    assert (one.new + two.new, one.skipped + two.skipped) == (15, 5)
    assert (again.new, again.updated, again.skipped) == (0, 0, 10)
    assert len(papers()) == 15


def test_a_newer_version_is_one_record(tmp_path):
    file = tmp_path / "a.xml"
    for version, said in ((1, (1, 0, 0)), (3, (0, 1, 0)), (2, (0, 0, 1)), (3, (0, 0, 1))):
        file.write_text(atom((f"2401.00001v{version}", f"Title {version}")))
        report = ingest(file)
        assert (report.new, report.updated, report.skipped) == said
    assert [(p.version, p.title) for p in papers()] == [(3, "Title 3")]


def test_the_title_zero_is_a_title():
    assert ingest(VECTORS / "arxiv_title_zero.xml").new == 1
    assert papers()[0].title == "0"


def test_withdrawn_papers_go(tmp_path):
    (tmp_path / "a.xml").write_text(atom(("2401.00009v1", "To go")))
    ingest(tmp_path / "a.xml")
    report = ingest(VECTORS / "oai_listrecords.xml")
    assert (report.new, report.removed) == (1, 1)
    assert [p.id for p in papers()] == ["arxiv:2401.00001"]


def test_new_papers_are_scored_and_related(tmp_path):
    title = "Conservation laws of gradient flow from symmetry in linear networks"
    (tmp_path / "a.xml").write_text(atom(("2401.00001v1", title)))
    ingest(tmp_path / "a.xml")
    paper = papers()[0]
    assert paper.near[0].slug == "conservation-laws" and paper.importance > 1
    assert search(title, k=1)[0].name == paper.id


def test_a_document_that_cannot_be_read_changes_nothing(tmp_path):
    ingest(VECTORS / "arxiv_one.xml")
    whole = (VECTORS / "arxiv_page_s0_m10.xml").read_bytes()
    for data in (whole[:-200], whole.replace(b"<feed", b"<!DOCTYPE feed><feed"), b"", b"hello"):
        (tmp_path / "bad.xml").write_bytes(data)
        with pytest.raises(IngestError, match=r"bad\.xml"):
            ingest(tmp_path / "bad.xml")
    assert len(papers()) == 1


def test_a_failure_while_writing_changes_nothing(monkeypatch):
    real, written = intake.write, []

    def half(connection, rows, vectors=None):
        rows = list(rows)
        real(connection, rows[:5], vectors)
        written.append(connection.execute("SELECT count(*) FROM papers").fetchone()[0])
        raise OSError("disk full")

    monkeypatch.setattr(intake, "write", half)
    with pytest.raises(ThalwegError, match="disk full"):
        ingest(VECTORS / "arxiv_page_s0_m10.xml")
    assert written == [5] and papers() == []


def test_somebody_else_writes_meanwhile(monkeypatch, tmp_path):
    (tmp_path / "a.xml").write_text(atom(("2401.00001v2", "Newer")))
    (tmp_path / "b.xml").write_text(atom(("2401.00001v1", "Older")))
    real, calls = intake._plan, []

    def slow(connection, document):
        plan = real(connection, document)
        if not calls:
            calls.append(1)
            monkeypatch.setattr(intake, "_plan", real)
            ingest(tmp_path / "a.xml")
            monkeypatch.setattr(intake, "_plan", slow)
        return plan

    monkeypatch.setattr(intake, "_plan", slow)
    report = ingest(tmp_path / "b.xml")
    assert (report.new, report.skipped) == (0, 1)  # planned anew: v2 has come in between
    assert papers()[0].title == "Newer"


def test_a_pipe_without_end_is_not_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe.xml")
    said = []

    def pour():
        with (tmp_path / "pipe.xml").open("wb", buffering=0) as pipe:
            try:
                while len(said) < 64:
                    pipe.write(bytes(2**20))
                    said.append("a megabyte")
            except BrokenPipeError:
                pass

    source = threading.Thread(target=pour)
    source.start()
    with pytest.raises(IngestError, match="larger than 20 MB"):
        ingest(tmp_path / "pipe.xml")
    source.join()
    assert len(said) <= 21


def test_too_large_and_what_is_no_document(tmp_path):
    big = tmp_path / "big.xml"
    with big.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(IngestError, match="larger than 20 MB"):
        ingest(big)
    with pytest.raises(IngestError, match="larger than 20 MB"):
        intake.read_document(b"x" * (LARGEST + 1), "web")
    for source, said in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no.xml", "No such file"),
        ("ftp://example.org/a.xml", "expected a file, or an http"),
        ("file:///etc/passwd", "expected a file, or an http"),
    ):
        with pytest.raises(IngestError, match=said):
            ingest(source)
    with pytest.raises(IngestError, match="expected an Atom feed, RSS or OAI-PMH"):
        intake.read_document(b"<html/>", "x")
    with pytest.raises(IngestError, match="expected rss, got atom"):
        ingest(VECTORS / "arxiv_one.xml", "rss")
    with pytest.raises(ThalwegError, match="unknown format"):
        ingest(VECTORS / "arxiv_one.xml", "pdf")


def test_vectors_of_new_texts_where_there_is_a_model(monkeypatch):
    monkeypatch.setattr(intake, "model_installed", lambda: True)
    monkeypatch.setattr(intake, "embed", lambda texts: np.ones((len(texts), DIM), np.float32))
    ingest(VECTORS / "arxiv_one.xml")
    with open_store() as connection:
        (blob,) = connection.execute("SELECT vector FROM papers").fetchone()
    assert np.linalg.norm(np.frombuffer(blob, np.float16).astype(float)) == pytest.approx(
        1, abs=1e-2
    )
    assert search("random walks on lattice points", k=1)[0].name == "arxiv:1605.08386"


KILLED = """
import sys
from pathlib import Path
from thalweg.almanac import ingest
for path in sorted(Path(sys.argv[1]).glob("*.xml")):
    report = ingest(path)
    print(path.name, report.new, flush=True)
"""


def test_killed_while_reading_in_nothing_is_lost_and_nothing_is_half_there(tmp_path):
    each = 40
    for n in range(30):
        rows = [(f"24{n:02d}.{i:05d}v1", f"Paper {n} {i}") for i in range(each)]
        (tmp_path / f"{n:02d}.xml").write_text(atom(*rows))
    for wait in (0.05, 0.2):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "THALWEG_DATA": os.environ["THALWEG_DATA"]},
        )
        said = [process.stdout.readline()]  # the first is in
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].splitlines()
        reported = {line.split()[0][:2] for line in said if line.strip()}
        counts = {}
        for paper in papers():
            counts[paper.id[8:10]] = counts.get(paper.id[8:10], 0) + 1
        assert set(counts.values()) == {each}  # each document whole or not at all
        assert reported <= set(counts)  # what was reported is there
    with open_store() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for path in sorted(tmp_path.glob("*.xml")):
        ingest(path)
    assert len(papers()) == 30 * each and store_file().exists()


def test_several_processes_at_once_count_each_paper_once():
    program = "import sys; from thalweg.almanac import ingest; print(ingest(sys.argv[1]).new)"
    command = [sys.executable, "-c", program, str(VECTORS / "arxiv_page_s0_m10.xml")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert sum(map(int, said)) == 10 == len(papers())
