import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.almanac.plain_text import arxiv_id, one_line, utc, web_link


@given(st.text(st.characters(), max_size=60))
def test_one_line_is_one_printable_line_and_stays_itself(text):
    found = one_line(text)
    assert one_line(found) == found and "\n" not in found and found.strip() == found
    found.encode("utf-8")  # no lone surrogates
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in found)


def test_what_turns_or_hides_text_is_dropped():
    assert one_line("a\u202eb\x1b[31mc\ufffe\u2067") == "ab[31mc"


def test_identifiers():
    assert arxiv_id(" 2401.00001v12 ") == ("arxiv:2401.00001", 12)
    assert arxiv_id("math.GT/0309136v1") == ("arxiv:math.GT/0309136", 1)
    for wrong in ("2401.1", "2401.00001v", "a/../0601001", "2401.00001v1/x", ""):
        assert arxiv_id(wrong) is None


def test_moments():
    assert utc("2024-01-01") == "2024-01-01"
    assert utc("2024-01-01T00:00:00") == "2024-01-01T00:00:00Z"
    assert utc("2024-01-01T01:30:00+02:00") == "2023-12-31T23:30:00Z"
    for wrong in ("yesterday", "2024-13-01", "", "0001-01-01T00:00:00+05:00"):
        with pytest.raises((ValueError, TypeError)):
            utc(wrong)


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", "data:text/html,x", "//example.org", "https://", "http://a b",
     'https://x"y', "file:///etc/passwd", "https://[", "ftp://example.org/a"],
)  # fmt: skip
def test_only_links_to_the_web(link):
    assert web_link(link) is None
    assert web_link("https://example.org/a?b=c#d") == "https://example.org/a?b=c#d"
