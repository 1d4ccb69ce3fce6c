import json
import socketserver
import threading
from pathlib import Path

import pytest

from thalweg.cli import main

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")


def data(capsys):
    return json.loads(capsys.readouterr().out)["data"]


def test_ingest(capsys, tmp_path):
    assert main(["almanac", "ingest", str(VECTORS / "arxiv_page_s0_m10.xml"), "--json"]) == 0
    said = data(capsys)
    assert (said["new"], said["updated"], said["skipped"]) == (10, 0, 0)
    assert len(said["papers"]) == 10 and "new_ids" not in said
    assert main(["almanac", "ingest", str(VECTORS / "arxiv_page_s5_m10.xml")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "5 new, 0 updated, 5 known already"


def test_ingest_of_bad_records_and_documents(capsys, tmp_path):
    (tmp_path / "some.json").write_text(
        json.dumps([{"id": "x", "title": "T"}, {"id": "2401.00001", "title": "T"}])
    )
    assert main(["almanac", "ingest", str(tmp_path / "some.json")]) == 1
    said = capsys.readouterr()
    assert "some.json, record 1, id: expected an arXiv id" in said.err and "1 new" in said.out
    (tmp_path / "bad.xml").write_text("<!DOCTYPE x><x/>")
    good = str(VECTORS / "arxiv_one.xml")
    assert main(["almanac", "ingest", str(tmp_path / "bad.xml"), good, "--json"]) == 2
    said = data(capsys)
    assert said["new"] == 1 and "DOCTYPE" in said["errors"][0]["reason"]
    assert main(["almanac", "ingest"]) == 2
    assert "thalweg almanac ingest papers.xml" in capsys.readouterr().err


def test_digest(capsys, tmp_path):
    main(["almanac", "ingest", str(VECTORS / "hf_daily.json")])
    capsys.readouterr()
    assert main(["almanac", "digest", "2024-W01"]) == 0
    assert "Slow features of late training" in capsys.readouterr().out
    for form, start in (("html", b"<!doctype html>"), ("eml", b"Subject: Thalweg almanac")):
        out = tmp_path / f"week.{form}"
        assert main(["almanac", "digest", "2024-W01", "--format", form, "-o", str(out)]) == 0
        assert out.read_bytes().startswith(start)
    capsys.readouterr()
    assert main(["almanac", "digest", "2024-W01", "--json"]) == 0
    said = data(capsys)
    assert said["first"] == "2024-01-01" and len(said["papers"]) == 2 and said["sent"] is None
    assert main(["almanac", "digest"]) == 0
    assert main(["almanac", "digest", "2024-W99"]) == 2
    assert main(["almanac", "digest", "--send-to", "a@b.org"]) == 2
    assert "go together" in capsys.readouterr().err


def test_digest_by_mail(capsys):
    got = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                if line.upper().startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    got.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                self.wfile.write(b"221 bye\r\n" if line.startswith(b"quit") else b"250 ok\r\n")
                if line.startswith(b"quit"):
                    return

    main(["almanac", "ingest", str(VECTORS / "hf_daily.json")])
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        mail = ["--send-to", "ada@example.org", "--smtp", f"127.0.0.1:{server.server_address[1]}"]
        assert main(["almanac", "digest", "2024-W01", *mail]) == 0
        assert main(["almanac", "digest", "2024-W01", *mail]) == 0
        server.shutdown()
        thread.join()
    out = capsys.readouterr().out
    assert "items to ada@example.org; 0 had been sent before" in out
    assert "nothing new for ada@example.org" in out and len(got) == 1


def test_export(capsys, tmp_path):
    assert main(["almanac", "export", "atom", "--kind", "law"]) == 0
    assert capsys.readouterr().out.startswith('<?xml version="1.0"')
    out = tmp_path / "feed.json"
    assert main(["almanac", "export", "json", "-o", str(out), "--limit", "2"]) == 0
    assert len(json.loads(out.read_text())["items"]) == 2
    capsys.readouterr()
    assert main(["almanac", "export", "csv", "--json", "--topic", "grokking"]) == 0
    assert data(capsys)["text"].startswith("id,kind,title")
    assert main(["almanac", "export", "pdf"]) == 2
    assert main(["almanac", "export", "rss", "-o", str(tmp_path / "no" / "a.xml")]) == 2
    assert "cannot be written" in capsys.readouterr().err
