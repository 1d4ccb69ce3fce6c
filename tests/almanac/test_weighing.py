from dataclasses import replace

import pytest

from thalweg.almanac import entries, importance, importance_of, standing
from thalweg.almanac.evidence import user_folder, write_evidence
from thalweg.almanac.weighing import EVIDENCE, importances, uses, verdicts
from thalweg.errors import ThalwegError


def test_every_entry_has_an_importance_that_follows_from_its_parts():
    found, judged = importances(), verdicts()
    assert set(found) == {e.slug for e in entries()}
    for slug, weighed in found.items():
        parts = weighed.parts
        computed = importance(parts["centrality"], parts["use"], parts["evidence"])
        assert weighed.computed == computed
        assert weighed.score == (weighed.score if weighed.reason else computed)
        assert parts["evidence"] == EVIDENCE[judged[slug]]
    assert max(w.parts["centrality"] for w in found.values()) == 1.0
    assert max(w.parts["use"] for w in found.values()) == 1.0


def test_what_is_not_implemented_is_used_by_nothing():
    used = uses()
    assert all(used[e.slug] == len(e.guides) for e in entries() if not e.symbols)
    assert used["conservation-laws"] > 0


def test_verdicts_are_those_of_the_standings_and_follow_new_evidence(evidence):
    entry = next(e for e in entries() if e.slug == evidence.entry)
    assert verdicts()[entry.slug] == standing(entry).verdict
    bad = replace(evidence, samples={"recursion_exact": (1.0, 1.0, 1.0)}, run_at="2099-01-01T00:00")
    bad = replace(bad, verdict=bad.computed_verdict())
    before = importance_of(entry.slug).parts["evidence"]
    write_evidence(replace(bad), user_folder() / "evidence")
    assert verdicts()[entry.slug] == standing(entry).verdict
    assert importance_of(entry.slug).parts["evidence"] <= before


def test_an_unknown_entry_is_named_with_the_nearest():
    with pytest.raises(ThalwegError, match="nearest: 'grokalign'"):
        importance_of("grokaligm")
