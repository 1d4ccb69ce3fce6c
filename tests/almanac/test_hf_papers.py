import json
from dataclasses import asdict
from pathlib import Path

import pytest

from thalweg.almanac import IngestError
from thalweg.almanac.intake import read_document

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"
DAILY = (VECTORS / "hf_daily.json").read_bytes()


def read(value):
    return read_document(json.dumps(value).encode(), "hf.json", "hf")


def test_the_papers_of_a_day():
    found = read_document(DAILY, "hf.json")
    expected = json.loads((VECTORS / "hf_daily_expected.json").read_text())
    assert found.format == "hf" and not found.errors
    for paper, wanted in zip(found.papers, expected, strict=True):
        for key, value in wanted.items():
            assert asdict(paper)[key] == (tuple(value) if isinstance(value, list) else value), key


def test_one_paper_is_flat_and_hidden_authors_are_never_shown():
    inner = json.loads(DAILY)[2]["paper"]
    paper = read(inner).papers[0]
    assert paper.authors == ("Di One",) and paper.upvotes == 140 and paper.code_stars is None
    assert "Eli" not in json.dumps(asdict(paper))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "x"}, "id"),
        ({"id": 7}, "id"),
        ({"title": None}, "title"),
        ({"title": ["a"]}, "title"),
        ({"upvotes": "many"}, "upvotes"),
        ({"upvotes": -1}, "upvotes"),
        ({"publishedAt": "soon"}, "publishedAt"),
        ({"authors": 3}, "authors"),
    ],
)
def test_a_bad_record_is_named_with_its_field(change, field):
    base = {"id": "2401.00001", "title": "T"}
    found = read([{"paper": base | change}, {"paper": {**base, "id": "2401.00002"}}])
    assert [p.id for p in found.papers] == ["arxiv:2401.00002"]
    assert found.errors[0].field == field and found.errors[0].record in ("1", "arxiv:2401.00001")


def test_links_are_only_to_the_web():
    paper = read([{"id": "2401.00001", "title": "T", "githubRepo": "javascript:x"}]).papers[0]
    assert paper.code_url is None


@pytest.mark.parametrize("data", [b"[", b'"text"', b"3", b"[" * 100_000, b"\xff{"])
def test_what_is_no_list_of_papers(data):
    with pytest.raises(IngestError, match=r"hf\.json: "):
        read_document(data, "hf.json", "hf")
    assert read([3]).errors[0].record == "1"
