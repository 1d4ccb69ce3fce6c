import email
import email.policy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from thalweg.almanac import Digest, digest, entries, ingest
from thalweg.almanac.bulletin import period_days
from thalweg.almanac.evidence import user_folder, write_evidence
from thalweg.almanac.run_findings import RunFinding
from thalweg.errors import ThalwegError


def paper(n, day, title="Paper", **more):
    return {"id": f"2401.{n:05d}", "title": f"{title} {n}", "publishedAt": day, **more}


def fill(tmp_path, *papers):
    file = tmp_path / "papers.json"
    file.write_text(json.dumps(papers))
    ingest(file)


@pytest.mark.parametrize(
    ("period", "first", "last"),
    [
        ("2026-W47", "2026-11-16", "2026-11-22"),
        ("2026-W01", "2025-12-29", "2026-01-04"),
        ("2020-W53", "2020-12-28", "2021-01-03"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2026-12", "2026-12-01", "2026-12-31"),
        ("2026-11-24", "2026-11-24", "2026-11-24"),
    ],
)
def test_periods(period, first, last):
    assert [str(day) for day in period_days(period)] == [first, last]


@pytest.mark.parametrize(
    "period", ["2026-W54", "2026-13", "2026-02-30", "2026", "now", "2026-W4", ""]
)
def test_what_is_no_period(period):
    with pytest.raises(ThalwegError, match="period"):
        digest(period)


def test_papers_of_the_period_the_hottest_first(tmp_path):
    law = "Conservation laws of gradient flow from symmetry in linear networks"
    fill(
        tmp_path,
        paper(1, "2024-01-07T23:59:59Z"),
        paper(2, "2024-01-08T00:00:00Z"),
        paper(3, "2024-01-14T12:00:00Z", law),
        paper(4, "2024-01-15T00:00:00Z"),
    )
    week = digest("2024-W02")
    assert isinstance(week, Digest)
    assert [p.id for p in week.papers] == ["arxiv:2401.00003", "arxiv:2401.00002"]
    assert [p.id for p in digest("2024-W02", k=1).papers] == ["arxiv:2401.00003"]
    assert len(digest("2024-01", k=10).papers) == 4
    assert digest("2024-01-15").papers[0].id == "arxiv:2401.00004"


def test_results_published_and_verdicts_that_changed(evidence):
    entry = next(e for e in entries() if e.slug == "grokalign")
    assert "grokalign" in [e.slug for e in digest(entry.source.date[:7]).entries]
    assert not digest("2031-01").changes
    good = replace(evidence, run_at="2031-01-03T10:00:00+00:00")
    write_evidence(good, user_folder() / "evidence")
    bad = replace(good, run_at="2031-02-03T10:00:00+00:00", samples={
        c: (9.0, 9.0, 9.0) for c in good.samples
    })  # fmt: skip
    write_evidence(replace(bad, verdict=bad.computed_verdict()), user_folder() / "evidence")
    # In the new year the newest evidence has one claim of several: the others keep theirs.
    changes = digest("2031-02").changes
    assert all(c.slug == "conservation-laws" and c.date == "2031-02-03" for c in changes)
    assert all(c.before != c.after for c in changes)


def test_a_verdict_goes_from_untested_to_what_the_first_evidence_says():
    changes = {c.slug: c for c in digest("2026-11").changes}
    assert changes and {c.before for c in changes.values()} == {"untested"}
    assert not {c.after for c in changes.values()} & {"untested"}


class Page(HTMLParser):
    """Tags that are open, links, and what would be loaded."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.loaded = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [attrs["href"]] if tag == "a" else []
        self.loaded += [v for k, v in attrs.items() if k == "src"] + [tag] * (tag == "script")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_text_page_and_mail(tmp_path):
    fill(
        tmp_path,
        paper(1, "2024-01-02", "<script>alert(1)</script>", summary="words " * 200),
        paper(2, "2024-01-03", "Ünïcode — \u202etitle"),
    )
    made = digest("2024-W01")
    assert made.text.startswith("Thalweg almanac, 2024-W01 (2024-01-01 to 2024-01-07)\n=====")
    assert max(len(line) for line in made.text.splitlines() if "http" not in line) <= 78
    page = Page()
    page.feed(made.html)
    assert page.open == [] and not page.loaded and "<script>" not in made.html
    assert all(re.match("https?://", link) for link in page.links)
    assert "prefers-color-scheme: dark" in made.html and '<html lang="en">' in made.html
    mail = email.message_from_bytes(made.eml, policy=email.policy.default)
    assert mail["Subject"] == "Thalweg almanac, 2024-W01 (2024-01-01 to 2024-01-07)"
    plain, html = mail.iter_parts()
    assert plain.get_content().replace("\r\n", "\n") == made.text and not mail.defects
    assert html.get_content_type() == "text/html" and "Ünïcode" in html.get_content()
    assert max(map(len, made.eml.splitlines())) <= 998 and made.eml == digest("2024-W01").eml


def test_nothing_new_is_said_so():
    empty = digest("1999-W01")
    assert empty.keys == () and "Nothing new" in empty.text and "Nothing new" in empty.html


def test_a_digest_without_some_items(tmp_path):
    fill(tmp_path, paper(1, "2024-01-02"))
    made = digest("2024-W01")
    rest = made.without({"paper:arxiv:2401.00001"})
    assert set(made.keys) - set(rest.keys) == {"paper:arxiv:2401.00001"}
    assert made.without(made.keys).keys == ()
    with pytest.raises(ValueError, match="k must be"):
        digest("2024-W01", k=-1)


def test_a_paper_says_which_run_it_concerns(tmp_path):
    law = "Conservation laws of gradient flow from symmetry in linear networks"
    fill(tmp_path, paper(1, "2024-01-02", law), paper(2, "2024-01-02", "Zzz"))
    runs = [RunFinding("digits", "broken_law", "a law is broken", (), "conservation-laws")]
    made = digest("2024-W01", runs=runs)
    said = "your run digits shows a law is broken; this paper is near conservation-laws, the result"
    assert made.runs == {"arxiv:2401.00001": f"{said} behind it"}
    assert "your run digits" in " ".join(made.text.split())
