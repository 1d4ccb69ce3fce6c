import pytest

from thalweg import ThalwegError
from thalweg.almanac import Claim, Entry
from thalweg.almanac.catalogue import check_links
from thalweg.almanac.entry import parse_entry, sentences

GOOD = """
slug = "catapult"
title = "Catapults"
kind = "optimizer"
summary = "It throws. It is said to throw far. Nobody knows why."
topics = ["optimizers"]
[source]
arxiv = "2401.00001"
authors = ["Ann Author", "Bo Coauthor", "Cy Third"]
date = "2024-01-01"
[[links]]
rel = "contrasts"
slug = "trebuchet"
[[claims]]
id = "far"
statement = "It throws far."
op = ">="
threshold = 2
study = "thalweg.studies.catapult:run"
baseline = { name = "a sling" }
control = { name = "no stone", op = "<=", threshold = 0.1 }
"""


def test_an_entry_is_read_whole():
    entry = parse_entry(GOOD, "catapult.toml")
    assert entry.source.short == "Author et al. 2024, arXiv 2401.00001"
    claim = entry.claim("far")
    assert isinstance(entry, Entry) and isinstance(claim, Claim)
    assert (claim.bound, claim.study_name, claim.seeds) == (">= 2", "catapult", 3)
    assert claim.control is not None and claim.control.threshold == 0.1
    assert entry.studies == ("catapult",) and not entry.implemented
    assert entry.verdict == "untested"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("slug =", "slag =", "slug is missing"),
        ('kind = "optimizer"', 'kind = "optimiser"', "nearest: 'optimizer'"),
        ("topics =", "topic =", "unknown key 'topic'; nearest: 'topics'"),
        ("It is said to throw far. ", "", "exactly 3 sentences, it has 2"),
        ('date = "2024-01-01"', 'date = "January"', "source.date is not valid"),
        ("threshold = 2", "threshold = [1, 2]", r"claims\[0\].threshold: op '>=' needs a number"),
        ("threshold = 2", 'threshold = "2"', "must be int or float or list"),
        ("threshold = 2", "threshold = 2\nseeds = 2", "at least 3"),
        ('id = "far"', 'id = "Far"', r"claims\[0\].id is not valid"),
        ("thalweg.studies.catapult:run", "catapult", "study is not valid"),
        ('rel = "contrasts"', 'rel = "likes"', "unknown choice"),
        ('slug = "catapult"', 'slug = "sling"', "must be the name of the file"),
        ("[source]", "[source", "no valid TOML"),
        ('authors = ["Ann Author", "Bo Coauthor", "Cy Third"]', "authors = []", "list of strings"),
        ("[[links]]", "[importance]\noverride = 9\n[[links]]", "go together"),
        ("[[claims]]", '[[claims]]\nid="far"\nstatement="x"\nop=">="\nthreshold=1\n'
         'study="thalweg.studies.catapult:run"\n[[claims]]', "same id"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(old, new, said):
    assert old in GOOD
    with pytest.raises(ThalwegError, match=said):
        parse_entry(GOOD.replace(old, new), "catapult.toml")


def test_links_lead_somewhere():
    entry = parse_entry(GOOD, "catapult.toml")
    with pytest.raises(ThalwegError, match="unknown link 'trebuchet'"):
        check_links([entry])
    itself = parse_entry(GOOD.replace('slug = "trebuchet"', 'slug = "catapult"'), "catapult.toml")
    with pytest.raises(ThalwegError, match="link to itself"):
        check_links([itself])


def test_an_unknown_claim_lists_the_nearest():
    with pytest.raises(ThalwegError, match="unknown claim of catapult 'fur'; nearest: 'far'"):
        parse_entry(GOOD, "catapult.toml").claim("fur")


def test_sentences_end_before_a_capital():
    assert len(sentences("A holds for 0.5 of x, i.e. half. Next one. Third.")) == 3
