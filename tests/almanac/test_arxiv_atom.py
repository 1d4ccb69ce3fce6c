import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from thalweg.almanac import IngestError
from thalweg.almanac.intake import read_document

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"
# One recorded abstract was encoded twice and holds control characters, which we drop.
EXPECTED = json.loads(
    re.sub(r"[\x80-\x9f]", "", (VECTORS / "arxiv_expected.json").read_text("utf-8"))
)


def read(text, **options):
    return read_document(text.encode() if isinstance(text, str) else text, "feed.xml", **options)


@pytest.mark.parametrize("name", EXPECTED)
def test_recorded_responses_read_as_by_an_independent_parser(name):
    expected, data = EXPECTED[name], (VECTORS / f"{name}.xml").read_bytes()
    if expected["error"]:
        with pytest.raises(IngestError, match="incorrect id format"):
            read(data)
        return
    found = read(data)
    assert found.format == "atom" and found.total == expected["total"] and not found.errors
    assert len(found.papers) == len(expected["papers"])
    for paper, wanted in zip(found.papers, expected["papers"], strict=True):
        plain = asdict(paper) | {"url": paper.url}
        for key, value in wanted.items():
            assert plain[key] == (tuple(value) if isinstance(value, list) else value), key


FEED = (
    '<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>{id}</id><title>{title}</title>'
    "<published>{date}</published></entry>"
    "<entry><id>http://arxiv.org/abs/2401.00002v1</id><title>Sound</title></entry></feed>"
)
GOOD = {"id": "http://arxiv.org/abs/2401.00001v2", "title": "T", "date": "2024-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"id": "http://example.org/x"}, "record 1, id: expected an arXiv id"),
        ({"title": " "}, "record arxiv:2401.00001, title: there is none"),
        ({"date": "soon"}, "record arxiv:2401.00001, published: expected a date, got 'soon'"),
    ],
)
def test_a_bad_record_is_reported_and_the_others_are_read(wrong, said):
    found = read(FEED.format(**GOOD | wrong))
    assert [p.id for p in found.papers] == ["arxiv:2401.00002"]
    assert str(found.errors[0]).startswith(f"feed.xml, {said}")


def test_html_in_a_title_is_text_and_links_are_only_http():
    found = read(FEED.format(**GOOD | {"title": "&lt;b&gt;x&lt;/b&gt; <i>y</i>"}))
    assert found.papers[0].title == "<b>x</b> y"


def test_the_atom_of_the_daily_announcement():
    text = (
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:arxiv="http://arxiv.org/schemas/atom">'
        "<entry><id>oai:arXiv.org:2401.00001v1</id><title>T</title><updated>2024-01-01T00:00:00Z"
        "</updated><summary>arXiv:2401.00001v1 Announce Type: new \nAbstract: We watch.</summary>"
        "<arxiv:announce_type>new</arxiv:announce_type></entry></feed>"
    )
    paper = read(text).papers[0]
    assert (paper.id, paper.version, paper.abstract) == ("arxiv:2401.00001", 1, "We watch.")
