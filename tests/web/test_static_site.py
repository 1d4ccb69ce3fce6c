"""The static site: every link leads to a file of it, without a server."""

import re
from html import unescape
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import pytest

from thalweg.almanac import entries
from thalweg.cli import main
from thalweg.errors import ThalwegError
from thalweg.web.static_site import build


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build(folder, base_url="https://example.org/almanac")
    return folder


def test_every_link_leads_to_a_file(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(entries())
    for page in pages:
        text = page.read_text()
        links = [unescape(u) for u in re.findall(r'(?:href|src|action)="([^"]*)"', text)]
        assert links
        for link in links:
            to = urlsplit(link)
            if to.scheme:
                assert to.scheme in ("https", "http")
                continue
            assert not to.path.startswith("/") and not to.query, (page, link)
            assert not to.path or (page.parent / unquote(to.path)).is_file(), (page, link)


def test_it_needs_no_server(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "<script" not in text and "<form" not in text and 'name="token"' not in text
    assert (site / "api" / "entries" / "relex.json").read_text().startswith('{"schema_version":1')
    assert "https://example.org/almanac/e/relex" in (site / "feed.atom").read_text()
    assert {p.stem for p in (site / "e").glob("*.html")} == {e.slug for e in entries()}
    assert all(PurePosixPath(p).suffix != ".part" for p in site.rglob("*"))


def test_only_an_earlier_build_is_written_over(site, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ThalwegError, match="left alone"):
        build(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert main(["almanac", "build", str(tmp_path)]) == 2
    assert main(["almanac", "build", str(tmp_path / "new")]) == 0
    before = (tmp_path / "new" / "index.html").read_bytes()
    (tmp_path / "new" / "index.html").write_text("old")
    build(tmp_path / "new")
    assert (tmp_path / "new" / "index.html").read_bytes() == before
    assert not (tmp_path / "new" / "feed.atom").exists()
    assert main(["almanac", "build", str(tmp_path / "x"), "--base-url", "javascript:0"]) == 2
    with pytest.raises(ThalwegError):
        build(tmp_path / "mine")
