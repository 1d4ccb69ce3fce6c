import pytest

from thalweg.almanac import IngestError
from thalweg.almanac.xml_document import deep_text, parsed, text_of

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdef", "bcdefg", strict=True))
    + "]><feed>&g;</feed>"
)
FILE = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><feed>&e;</feed>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("text", [LAUGHS, FILE, "<!DOCTYPE feed><feed/>"])
def test_a_doctype_is_refused_in_any_encoding(text, encoding):
    data = text.replace('<?xml version="1.0"?>', "").encode(encoding)
    with pytest.raises(IngestError, match=r"x\.xml: no XML .*DOCTYPE"):
        parsed(data, "x.xml")


@pytest.mark.parametrize(
    "data", [b"", b"<a>", b"<a></b>", b"\xff\xfe\x00", b"<a>&nbsp;</a>", b"<a>\x00</a>",
             b"<a>" * 999, b"<a>" * 999 + b"</a>" * 999,
             b'<?xml version="1.0" encoding="nonsense"?><a/>',
             "<a>ä</a>".encode("latin-1")]
)  # fmt: skip
def test_what_is_no_xml_is_an_error_of_ours(data):
    with pytest.raises(IngestError, match=r"x\.xml: no XML"):
        parsed(data, "x.xml")


def test_text():
    root = parsed(b"\xef\xbb\xbf<a> x\n y <b>z</b> &amp; </a>", "x.xml")
    assert text_of(root) == "x y" and text_of(root, "b") == "z" and text_of(root, "c") == ""
    assert deep_text(root) == "x y z &" and deep_text(None) == ""
