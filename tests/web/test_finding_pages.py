"""Search, digests, feeds and badges over HTTP; what they say is tested with the almanac."""

import email
import email.policy
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from thalweg.almanac import digest, related, search

EVIL = "<script>alert(1)</script>"


def test_search_finds_what_the_almanac_finds(client):
    q = "what does gradient flow conserve"
    hits = client.get("/api/search.json", params={"q": q}).json()["data"]["hits"]
    assert [h["name"] for h in hits] == [h.name for h in search(q)]
    page = client.get("/search", params={"q": q}).text
    assert page.index("/e/conservation-laws") and hits[0]["why"] in page
    laws = client.get("/api/search.json?q=gradient&kind=law&year=2026&min_importance=2").json()
    assert {h["kind"] for h in laws["data"]["hits"]} == {"law"}


@pytest.mark.parametrize(
    "q", ['"', "AND", "a-b*", "' OR 1=1", "(", EVIL, "\0", "é🙂", "  ", "NEAR("]
)
def test_no_sign_in_a_question_has_a_meaning(client, q):
    page = client.get("/search", params={"q": q})
    assert page.status_code == 200 and "<script>alert" not in page.text


def test_only_addresses_of_the_web_become_links(client, monkeypatch):
    urls = ["javascript:alert(1)", "data:text/html,x", "", "https://example.org/a"]
    hits = [
        replace(hit, kind="paper", url=url) for hit, url in zip(search("law"), urls, strict=False)
    ]
    monkeypatch.setattr("thalweg.web.finding_pages.search_in", lambda *args, **kw: hits)
    page = client.get("/search?q=law").text
    assert "javascript:" not in page and "data:text" not in page
    assert page.count('rel="noreferrer"') == 1 and 'href="https://example.org/a"' in page


def test_wrong_questions_are_named(client):
    for wrong in ("q=" + "a" * 301, "year=x", "min_importance=-1", "kind=no", "topic=no"):
        said = client.get(f"/search?{wrong}")
        assert said.status_code == 404 and 'class="said"' in said.text, wrong


def test_related_entries_say_why(client):
    for sort in ("relevance", "date", "importance"):
        data = client.get(f"/api/entries/grokalign.json?related={sort}").json()["data"]
        assert [r["slug"] for r in data["related"]] == [
            r.slug for r in related("grokalign", sort=sort)
        ]
    page = client.get("/e/grokalign").text
    assert "contrasts with" in page and "centrality" in page
    assert client.get("/e/grokalign?related=size").status_code == 404


def test_the_list_is_by_importance(client):
    found = client.get("/api/entries.json").json()["data"]["entries"]
    scores = [e["importance"] for e in found]
    assert scores == sorted(scores, reverse=True) and 1 <= scores[-1] <= scores[0] <= 10


@pytest.mark.parametrize(
    ("name", "kind"),
    [("atom", "application/atom+xml"), ("rss", "application/rss+xml"),
     ("json", "application/feed+json"), ("csv", "text/csv")],
)  # fmt: skip
def test_feeds(client, name, kind):
    feed = client.get(f"/feed.{name}?topic=symmetry")
    assert feed.headers["content-type"].startswith(kind)
    assert "http://127.0.0.1:8000/e/conservation-laws" in feed.text
    again = client.get(
        f"/feed.{name}?topic=symmetry", headers={"if-none-match": feed.headers["etag"]}
    )
    assert again.status_code == 304
    assert client.get(f"/feed.{name}?topic=no").status_code == 404
    if name in ("atom", "rss"):
        ET.fromstring(feed.text)
    if name == "json":
        assert feed.json()["version"] == "https://jsonfeed.org/version/1.1"


def test_digests_of_a_day_a_week_and_a_month(client):
    for period in ("2026-06-11", "2026-W24", "2026-06"):
        page = client.get(f"/digest/{period}").text
        assert "Conservation Laws from Data Symmetry" in page and f"<h1>{period}</h1>" in page
        assert client.get(f"/digest/{period}.txt").text == digest(period).text
    assert 'href="/digest/2026-W23"' in client.get("/digest/2026-W24").text
    mail = email.message_from_bytes(client.get("/digest/2026-06.eml").content,
                                    policy=email.policy.default)  # fmt: skip
    assert "2026-06" in mail["subject"]
    assert "Nothing new" in client.get("/digest/1999-01-01").text
    for wrong in ("2026-W99", "x", "2026-13", EVIL.replace("/", "")):
        assert client.get(f"/digest/{wrong}").status_code == 404
    for edge in ("0001-01-01", "0001-01", "9999-12-31"):
        assert client.get(f"/digest/{edge}").status_code == 200, edge


def test_badges(client):
    svg = client.get("/badge/conservation-laws.svg")
    assert ET.fromstring(svg.text).get("aria-label").startswith("thalweg: ")
    assert client.get("/badge/no.svg").status_code == 404
