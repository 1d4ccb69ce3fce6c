"""Feeds, checked rule by rule against what their formats ask for."""

import csv
import datetime
import email.utils
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from thalweg.almanac import entries, export, ingest, papers
from thalweg.almanac.feeds import COLUMNS, NAMESPACE, _cell
from thalweg.almanac.items import items
from thalweg.errors import ThalwegError

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"
A, OURS = "{http://www.w3.org/2005/Atom}", f"{{{NAMESPACE}}}"
RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(Z|[+-]\d{2}:\d{2})")
TAG = re.compile(r"tag:[a-z0-9.-]+,\d{4}(-\d{2}(-\d{2})?)?:[A-Za-z0-9/._:%-]+")  # RFC 4151
VERDICTS = {"reproduced", "partly", "not", "untested"}


@pytest.fixture(autouse=True)
def _papers():
    ingest(VECTORS / "hf_daily.json")
    ingest(VECTORS / "arxiv_page_s0_m10.xml")


def one(element, path):
    found = element.findall(path)
    assert len(found) == 1, f"{path}: {len(found)}"
    return found[0]


def web(address):
    assert urlsplit(address).scheme in ("http", "https") and urlsplit(address).hostname, address
    return address


def check_atom(text):
    """RFC 4287, sections 4.1.1 and 4.1.2."""
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>')
    feed = ET.fromstring(text.encode())
    assert feed.tag == f"{A}feed"
    assert TAG.fullmatch(one(feed, f"{A}id").text) and one(feed, f"{A}title").text
    selves = [k for k in feed.findall(f"{A}link") if k.get("rel") == "self"]
    assert len(selves) == 1 and web(selves[0].get("href"))
    assert selves[0].get("type") == "application/atom+xml"
    moments, names = [], []
    for entry in feed.findall(f"{A}entry"):
        names.append(one(entry, f"{A}id").text)
        assert TAG.fullmatch(names[-1]) and one(entry, f"{A}title").text
        for name in ("updated", "published"):
            assert RFC3339.fullmatch(one(entry, f"{A}{name}").text)
        moments.append(one(entry, f"{A}updated").text)
        links = [(k.get("rel", "alternate"), web(k.get("href"))) for k in entry.findall(f"{A}link")]
        assert [rel for rel, _ in links].count("alternate") == 1 and len(set(links)) == len(links)
        assert len(entry.findall(f"{A}summary")) <= 1
        authors = entry.findall(f"{A}author")
        assert authors or feed.findall(f"{A}author")
        assert all(one(author, f"{A}name").text for author in authors)
        assert all(c.get("term") for c in entry.findall(f"{A}category"))
        assert 1 <= int(one(entry, f"{OURS}importance").text) <= 10
        assert {v.text for v in entry.findall(f"{OURS}verdict")} <= VERDICTS
    assert len(set(names)) == len(names)
    updated = one(feed, f"{A}updated").text
    assert RFC3339.fullmatch(updated) and updated == max(moments, default=updated)
    return names


def check_rss(text):
    """RSS 2.0.11 with Atom's self link, as its advisory board's profile asks."""
    rss = ET.fromstring(text.encode())
    assert rss.tag == "rss" and rss.get("version") == "2.0"
    channel = one(rss, "channel")
    for name in ("title", "link", "description"):
        assert one(channel, name).text
    web(one(channel, "link").text)
    assert email.utils.parsedate_to_datetime(one(channel, "lastBuildDate").text).tzinfo
    assert one(channel, f"{A}link").get("rel") == "self"
    names = []
    for item in channel.findall("item"):
        assert one(item, "title").text and web(one(item, "link").text)
        guid = one(item, "guid")
        assert guid.get("isPermaLink") == "false" and TAG.fullmatch(guid.text)
        assert email.utils.parsedate_to_datetime(one(item, "pubDate").text)
        names.append(guid.text)
    assert len(set(names)) == len(names)
    return names


def check_json(text):
    """JSON Feed 1.1."""
    feed = json.loads(text)
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    assert isinstance(feed["title"], str) and web(feed["home_page_url"]) and web(feed["feed_url"])
    for item in feed["items"]:
        assert isinstance(item["id"], str) and item["id"]
        assert isinstance(item["content_text"], str)
        assert web(item["url"]) and web(item.get("external_url", item["url"]))
        for name in ("date_published", "date_modified"):
            assert RFC3339.fullmatch(item[name])
        assert all(set(a) <= {"name", "url", "avatar"} and a for a in item["authors"])
        assert all(isinstance(tag, str) for tag in item["tags"])
        extra = item["_almanac"]  # extensions begin with an underscore
        assert 1 <= extra["importance"] <= 10 and (extra["verdict"] or "not") in VERDICTS
        assert all({"id", "statement", "bound"} <= set(c) for c in extra["claims"])
    names = [item["id"] for item in feed["items"]]
    assert len(set(names)) == len(names)
    return names


CHECKS = {"atom": check_atom, "rss": check_rss, "json": check_json}


@pytest.mark.parametrize("format", CHECKS)
def test_all_of_it_is_valid_and_the_same_items(format):
    names = CHECKS[format](export(format))
    assert len(names) == len(entries()) + len(papers())
    assert names == [item.tag for item in items()]
    assert export(format) == export(format)  # nothing in it is the time of asking


@pytest.mark.parametrize("format", CHECKS)
def test_one_feed_for_every_topic_and_kind(format):
    topics = sorted({t for e in entries() for t in e.topics})[:6]
    kinds = sorted({e.kind for e in entries()})
    for options in [*({"topic": t} for t in topics), *({"kind": k} for k in [*kinds, "paper"])]:
        names = CHECKS[format](export(format, **options))
        if "kind" in options and options["kind"] != "paper":
            assert len(names) == len(entries(**options))
        elif "kind" in options:
            assert len(names) == len(papers())
    assert len(CHECKS[format](export(format, limit=3))) == 3
    assert CHECKS[format](export(format, limit=0)) == []
    assert "https://lab.example/e/grokalign" in export(format, base_url="https://lab.example/")


def test_a_checker_finds_faults():
    sound = export("atom", limit=2)
    for old, new in (("<id>tag:", "<id>tg:"), ("T", " "), ('rel="self"', 'rel="x"')):
        with pytest.raises((AssertionError, TypeError)):
            check_atom(sound.replace(old, new))


def test_text_from_outside_stays_text(tmp_path):
    title = "<script>alert(1)</script> & ]]> \u0007"
    row = {"id": "2402.00001", "title": title, "summary": "=1+1"}
    (tmp_path / "x.json").write_text(json.dumps([row]))
    ingest(tmp_path / "x.json")
    shown = title.replace(" \u0007", "")
    feed = ET.fromstring(export("atom", kind="paper").encode())
    assert shown in [t.text for t in feed.iter(f"{A}title")]
    assert "<script>" not in export("atom", kind="paper") + export("rss", kind="paper")
    table = list(csv.DictReader(io.StringIO(export("csv", kind="paper"))))
    assert "'=1+1" in [r["summary"] for r in table] and shown in [r["title"] for r in table]
    assert [_cell(t) for t in ("@a", "+1", "-1", "a=")] == ["'@a", "'+1", "'-1", "a="]


def test_the_table():
    text = export("csv")
    assert text.count("\r\n") == len(entries()) + len(papers()) + 1
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    by_name = {r["id"]: r for r in rows}
    assert by_name["grokalign"]["source"] == "https://arxiv.org/abs/2506.12284"
    assert by_name["grokalign"]["verdict"] in VERDICTS


def test_an_entry_changes_with_its_evidence_and_not_otherwise(evidence):
    from dataclasses import replace

    from thalweg.almanac.evidence import user_folder, write_evidence

    before = {i.name: i.updated for i in items()}
    later = replace(evidence, run_at="2031-01-01T00:00:00+00:00")
    write_evidence(later, user_folder() / "evidence")
    after = {i.name: i.updated for i in items()}
    assert {n for n in after if after[n] != before[n]} == {"conservation-laws"}
    assert after["conservation-laws"] == "2031-01-01T00:00:00Z"
    datetime.datetime.fromisoformat(after["grokalign"])


def test_what_there_is_not():
    for options in (
        {"format": "pdf"},
        {"format": "rss", "kind": "x"},
        {"format": "rss", "topic": "x"},
    ):
        with pytest.raises(ThalwegError, match="nearest"):
            export(**options)
    with pytest.raises(ValueError, match="limit"):
        export("rss", limit=-1)
