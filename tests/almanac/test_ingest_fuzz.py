"""Damaged, cut, mixed and made-up documents of every format: our error or papers, no more."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thalweg.almanac import IngestError, ingest, papers
from thalweg.almanac.intake import read_document
from thalweg.almanac.store import open_store

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"
NAMES = ["arxiv_page_s0_m10.xml", "arxiv_rss.xml", "oai_listrecords.xml", "hf_daily.json"]
SEEDS = {name: (VECTORS / name).read_bytes() for name in NAMES}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["paper", "id", "title", "authors", "upvotes", "publishedAt", "hidden"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def only_our_errors(data, name):
    try:
        return read_document(data, name)
    except IngestError as error:
        assert str(error).startswith(name)
        return None


@pytest.mark.parametrize("name", NAMES)
@MANY
@given(data=st.data())
def test_damaged_documents(name, data):
    body = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["cut", "flip", "insert", "repeat", "drop"])):
            case "cut":
                del body[at + 1 :]
            case "flip":
                body[at] = data.draw(st.integers(0, 255))
            case "insert":
                body[at:at] = data.draw(st.binary(max_size=6) | st.sampled_from(
                    [b"&#0;", b"&x;", b"<![CDATA[", b"]]>", b"\x00", b"<!DOCTYPE a>", b'"', b"null"]
                ))  # fmt: skip
            case "repeat":
                body[at:at] = body[at : at + 300]
            case "drop":
                del body[at : at + data.draw(st.integers(1, 200))]
        body = body or bytearray(b"<")
    only_our_errors(bytes(body), name)


@MANY
@given(st.binary(max_size=80))
def test_any_bytes(data):
    only_our_errors(data, "x")
    only_our_errors(b"<" + data, "x")
    only_our_errors(b"[" + data, "x")


@MANY
@given(JSON)
def test_any_json(value):
    only_our_errors(json.dumps([value, {"paper": value}]).encode(), "x")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NAMES), st.integers(0, 10**6), st.binary(max_size=4))
def test_the_store_is_sound_after_whatever_came(tmp_path, name, at, junk):
    body = SEEDS[name]
    at %= len(body)
    file = tmp_path / "feed"
    file.write_bytes(body[:at] + junk + body[at + 3 :])
    before = {p.id for p in papers()}
    try:
        report = ingest(file)
    except IngestError:
        assert {p.id for p in papers()} == before
        return
    after = {p.id for p in papers()}
    assert len(after) == len(before) + report.new - report.removed
    with open_store() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
