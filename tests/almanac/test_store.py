import sqlite3
from pathlib import Path

import pytest

from thalweg.almanac import ingest, papers
from thalweg.almanac.store import open_store, store_file, store_state, transaction
from thalweg.errors import ThalwegError

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"


def test_asking_makes_no_file():
    assert papers() == [] and store_state() == ("", 0)
    assert not store_file().exists()


def test_papers_come_back_whole_the_newest_first():
    ingest(VECTORS / "hf_daily.json")
    found = papers()
    assert [p.date for p in found] == sorted((p.date for p in found), reverse=True)
    first = next(p for p in found if p.id == "arxiv:2401.00001")
    assert first.keywords == ("training dynamics", "plateau") and first.code_stars == 41
    assert [p.id for p in papers(limit=1)] == [found[0].id] and papers(limit=0) == []
    assert {p.id for p in papers(since="2024-01-01")} == {"arxiv:2401.00001", "arxiv:2401.00002"}
    assert papers(since="2030-01-01") == []


def test_a_write_changes_the_state_and_a_broken_transaction_does_not():
    ingest(VECTORS / "hf_daily.json")
    before = store_state()
    with open_store() as connection, pytest.raises(ZeroDivisionError), transaction(connection):
        connection.execute("DELETE FROM papers")
        raise ZeroDivisionError
    assert len(papers()) == 3 and store_state() == before
    ingest(VECTORS / "arxiv_one.xml")
    assert store_state() != before


def test_write_ahead_and_synchronous():
    with open_store() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_what_cannot_be_opened_says_so(tmp_path, monkeypatch):
    store_file().parent.mkdir(parents=True)
    store_file().write_bytes(b"no database" * 100)
    with pytest.raises(ThalwegError, match=r"almanac\.sqlite: file is not a database"):
        papers()
    store_file().unlink()
    with sqlite3.connect(store_file()) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ThalwegError, match="another version of Thalweg"):
        papers()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "file"))
    with pytest.raises(ThalwegError):
        ingest(VECTORS / "arxiv_one.xml")


def test_doors():
    with pytest.raises(ValueError, match="limit"):
        papers(limit=-1)
    with pytest.raises(ValueError, match="isoformat"):
        papers(since="yesterday")
