import json
from dataclasses import asdict
from pathlib import Path

import pytest

from thalweg.almanac import IngestError
from thalweg.almanac.intake import read_document

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"
OAI = '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">{}</OAI-PMH>'


def test_records_deletions_and_the_token():
    found = read_document((VECTORS / "oai_listrecords.xml").read_bytes(), "oai.xml")
    expected = json.loads((VECTORS / "oai_expected.json").read_text())
    assert found.next == expected["resumption_token"]
    assert found.total == expected["complete_list_size"]
    kept, gone = expected["records"]
    assert gone["deleted"] and found.deleted == (gone["id"],) and not found.errors
    plain = asdict(found.papers[0])
    plain["created"] = plain["published"]
    for key, value in kept.items():
        if key != "deleted":
            assert plain[key] == (tuple(value) if isinstance(value, list) else value), key


def test_errors_of_the_archive():
    none = OAI.format('<error code="noRecordsMatch">none</error>').encode()
    assert read_document(none, "oai.xml").papers == ()
    bad = OAI.format('<error code="badResumptionToken">gone</error>').encode()
    with pytest.raises(IngestError, match="badResumptionToken: gone"):
        read_document(bad, "oai.xml")


def test_an_empty_token_is_the_end_and_other_metadata_are_reported():
    body = (
        "<ListRecords><record><header/><metadata><dc/></metadata></record>"
        "<resumptionToken/></ListRecords>"
    )
    found = read_document(OAI.format(body).encode(), "oai.xml")
    assert found.next == "" and "metadataPrefix=arXiv" in str(found.errors[0])
