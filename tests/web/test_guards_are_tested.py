"""The record of the guards is of the guards that there are, and no removal went unnoticed."""

import json

from benchmarks.guards import GUARDS, RESULT, ROOT


def test_every_guard_is_where_the_record_says():
    for guard in GUARDS:
        source = (ROOT / "src" / "thalweg" / guard.file).read_text()
        assert source.count(guard.code) == 1, (guard.file, guard.code)
        assert (ROOT / guard.tests).is_file()


def test_no_guard_can_go_unnoticed():
    record = json.loads(RESULT.read_text())["guards"]
    assert [(r["kind"], r["guard"]) for r in record] == [(g.kind, g.guard) for g in GUARDS]
    assert all(r["noticed_by"] for r in record)
