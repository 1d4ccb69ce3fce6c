"""The pages of the almanac, as a reader and as a program sees them."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest

from thalweg.almanac import catalogue
from thalweg.almanac.catalogue import entries, get
from thalweg.almanac.evidence import SHIPPED, read_folder, write_evidence
from thalweg.web.almanac_pages import code_at, read_at
from thalweg.web.app import PAGES
from thalweg.web.shelf import Shelf

PATHS = ["/", "/e/conservation-laws", "/e/almanac", "/topics", "/topics/symmetry", "/compare",
         "/compare?e=relex&e=ska", "/search?q=sharpness", "/digest", "/digest/2026-06"]  # fmt: skip


def _data(client, path):
    document = client.get(path).json()
    assert document["schema_version"] == 1
    return document["data"]


@pytest.mark.parametrize("path", PATHS)
def test_every_page_has_a_twin_and_one_is_spared_what_one_has(client, path):
    page = client.get(path)
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    twin = unescape(re.search(r'<a href="([^"]+)">this page as JSON', page.text)[1])
    said = client.get(twin)
    assert said.headers["content-type"] == "application/json" and "data" in said.json()
    for address, first in ((path, page), (twin, said)):
        again = client.get(address, headers={"if-none-match": f'"x", {first.headers["etag"]}'})
        assert again.status_code == 304 and not again.content
        assert client.get(address, headers={"if-none-match": '"other"'}).status_code == 200


def test_every_entry_is_listed_and_opens(client):
    listed = _data(client, "/api/entries.json")["entries"]
    assert {e["slug"] for e in listed} == {e.slug for e in entries()}
    page = client.get("/").text
    for entry in listed:
        assert f'href="/e/{entry["slug"]}"' in page
        assert client.get(f"/e/{entry['slug']}").status_code == 200


def test_filters_and_sorts(client):
    some = _data(client, "/api/entries.json?kind=law&topic=symmetry&sort=title")
    assert [e["slug"] for e in some["entries"]] == [
        e.slug for e in sorted(entries(kind="law", topic="symmetry"), key=lambda e: e.title.lower())
    ]
    for verdict in ("reproduced", "partly", "not", "untested"):
        found = _data(client, f"/api/entries.json?verdict={verdict}")["entries"]
        assert {e["verdict"] for e in found} <= {verdict}
    assert all(
        e["date"][:4] == "2026" for e in _data(client, "/api/entries.json?year=2026")["entries"]
    )
    dates = [e["date"] for e in _data(client, "/api/entries.json?sort=date")["entries"]]
    assert dates == sorted(dates, reverse=True)
    wrong = client.get("/?kind=laws")
    assert wrong.status_code == 404 and "law" in wrong.text


def test_an_entry_shows_what_was_measured(client):
    claims = _data(client, "/api/entries/conservation-laws.json")["claims"]
    page = unescape(client.get("/e/conservation-laws").text)
    for claim in claims:
        assert claim["statement"] in page and claim["verdict"] in page
        assert claim["evidence"]["code_hash"] in page and claim["evidence"]["run_at"] in page
        assert len(claim["samples"]) >= 3
    assert "1e-12" in page and "must be" in page and "<= " in page
    svg = client.get("/e/conservation-laws/evidence.svg")
    assert svg.headers["content-type"].startswith("image/svg+xml")
    assert "script-src" not in svg.headers["content-security-policy"]
    assert "default-src 'none'" in svg.headers["content-security-policy"]
    assert 'href="/e/geometric-deep-learning"' in page  # builds on it
    assert 'href="/e/conservation-laws"' in client.get("/e/geometric-deep-learning").text


def test_what_is_not_there_is_named(client):
    for path in ("/e/conservation-law", "/topics/symetry", "/compare?e=nope"):
        said = client.get(path)
        assert said.status_code == 404 and "nearest" in said.text, path
    assert client.get("/nothing").status_code == 404
    assert client.get("/api/entries/nope.json").json()["data"]["error"].startswith("unknown entry")
    assert client.post("/").status_code == 405
    too_many = "&".join(f"e={e.slug}" for e in entries()[:7])
    assert "at most 6" in client.get(f"/compare?{too_many}").text


def test_a_crash_tells_no_secrets(client, monkeypatch):
    monkeypatch.setattr(Shelf, "all", lambda self: 1 / int("0" + "0"))
    said = client.get("/")
    assert said.status_code == 500 and "ZeroDivisionError" in said.text
    assert (
        "Traceback" not in said.text
        and "division by" not in said.text
        and "default-src" in said.headers["content-security-policy"]
    )


def test_markup_stays_text(client, monkeypatch):
    evil = "<script>alert(1)</script>"
    entry = replace(
        get("relex"), title=evil, summary=f"A{evil}. B. C.", topics=(evil,), links=(),
        source=replace(get("relex").source, authors=(evil,), url="javascript:alert(1)",
                       arxiv=None, doi=None, code="javascript:alert(1)"),
        claims=tuple(replace(c, statement=evil) for c in get("relex").claims),
    )  # fmt: skip
    monkeypatch.setattr("thalweg.web.shelf.entries", lambda: [entry, get("almanac")])
    for path in (
        "/",
        "/e/relex",
        "/topics",
        "/compare?e=relex",
        "/e/<script>alert(1)",
        f"/?kind={evil}",
    ):
        page = client.get(path).text
        assert "<script>alert" not in page and '="javascript:' not in page, path
        assert "&lt;script&gt;" in page, path
    picture = client.get("/e/relex/evidence.svg").text
    assert "<script" not in picture and "&lt;script&gt;" in picture


def test_where_to_read_it():
    entry = get("conservation-laws")
    assert read_at(entry) == "https://arxiv.org/abs/2606.10913"
    bare = replace(entry.source, arxiv=None, doi="10.1/x")
    assert read_at(replace(entry, source=bare)) == "https://doi.org/10.1/x"
    assert code_at(replace(entry, source=replace(bare, code="a/b"))) == "https://github.com/a/b"
    assert code_at(replace(entry, source=replace(bare, code="file:///etc"))) is None


def test_new_evidence_shows_without_a_restart(client, tmp_path):
    before = _data(client, "/api/entries/relex.json")["claims"][0]
    _, item = read_folder(SHIPPED, "relex")[-1]
    worse = {k: tuple(1e9 for _ in v) for k, v in item.samples.items()}
    newer = replace(item, run_at="2099-01-01T00:00:00Z", samples=worse)
    write_evidence(newer, tmp_path / "data" / "evidence")
    site = client.app.app.state.site
    site.shelf._looked = -10.0
    after = _data(client, "/api/entries/relex.json")["claims"][0]
    assert before["origin"] == "shipped" and after["origin"] == "user"
    assert after["samples"][0] == 1e9


def test_the_table_of_pages_names_a_twin_for_each():
    assert all(twin.startswith("/api/") and twin.endswith(".json") for _, twin, _ in PAGES)
    assert catalogue.entries()


def test_styles_and_scripts_are_served_and_nothing_else(client):
    assert client.get("/static/page.css").headers["content-type"].startswith("text/css")
    assert client.get("/static/uPlot.iife.min.js").status_code == 200
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/%2e%2e%2fapp.py",
                 "/static//etc/passwd", "/static/uPlot.LICENSE"):  # fmt: skip
        assert client.get(path).status_code == 404, path


def test_json_keeps_what_json_lacks():
    from thalweg.web.answer import as_json

    assert json.loads(as_json({"a": [float("nan"), float("inf"), -float("inf")]}))["data"] == {
        "a": ["nan", "inf", "-inf"]
    }
