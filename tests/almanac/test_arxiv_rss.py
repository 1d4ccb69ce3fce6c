import json
from dataclasses import asdict
from pathlib import Path

from thalweg.almanac.intake import read_document

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"


def test_the_daily_announcement():
    found = read_document((VECTORS / "arxiv_rss.xml").read_bytes(), "rss.xml")
    assert found.format == "rss" and not found.errors
    expected = json.loads((VECTORS / "arxiv_rss_expected.json").read_text())
    for paper, wanted in zip(found.papers, expected, strict=True):
        for key, value in wanted.items():
            assert asdict(paper)[key] == (tuple(value) if isinstance(value, list) else value), key


def test_a_weekend_is_empty_and_a_bad_item_is_reported():
    assert read_document(b"<rss><channel/></rss>", "rss.xml").papers == ()
    items = (
        "<item><title>a</title><guid>oai:arXiv.org:nothing</guid></item>"
        "<item><title>b</title><guid>oai:arXiv.org:2401.00001v1</guid><pubDate>x</pubDate></item>"
        "<item><guid>oai:arXiv.org:2401.00002v1</guid></item>"
        "<item><title>d</title><link>https://arxiv.org/abs/2401.00003</link></item>"
    )
    found = read_document(f"<rss><channel>{items}</channel></rss>".encode(), "rss.xml")
    assert [p.id for p in found.papers] == ["arxiv:2401.00003"]
    assert [(e.record, e.field) for e in found.errors] == [
        ("1", "guid"),
        ("arxiv:2401.00001", "pubDate"),
        ("arxiv:2401.00002", "title"),
    ]
