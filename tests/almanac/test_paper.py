import copy
import datetime
import pickle
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from thalweg.almanac import IngestError, Paper
from thalweg.almanac.paper import Near, merged

PAPER = Paper("arxiv:2401.00001", "Title", "Abstract", ("A",), version=1, published="2024-01-01")


def test_an_error_names_document_record_and_field():
    error = IngestError("a.xml", "there is none", record="arxiv:1", field="title")
    assert str(error) == "a.xml, record arxiv:1, title: there is none"
    assert (error.document, error.record, error.field) == ("a.xml", "arxiv:1", "title")
    assert str(copy.deepcopy(error)) == str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(IngestError("a.xml", "is empty")) == "a.xml: is empty"


def test_a_newer_version_replaces_and_keeps_what_it_does_not_say():
    third = Paper("arxiv:2401.00001", "New title", version=3, published="2025-01-01")
    both = merged(PAPER, third)
    assert (both.version, both.title, both.abstract) == (3, "New title", "Abstract")
    assert both.published == "2024-01-01"
    assert merged(both, PAPER) == both  # the older one again changes nothing


def test_a_source_without_versions_fills_gaps_and_brings_counts():
    liked = Paper("arxiv:2401.00001", "Other title", upvotes=3, code_url="https://e.org/c")
    both = merged(PAPER, liked)
    assert (both.title, both.upvotes, both.code_url) == ("Title", 3, "https://e.org/c")
    assert merged(both, replace(liked, upvotes=0)).upvotes == 0
    assert merged(both, replace(liked, upvotes=None)).upvotes == 3
    unversioned = replace(PAPER, version=None)
    assert merged(unversioned, replace(unversioned, title="Revised")).title == "Revised"


@given(st.sampled_from([None, 1, 2]), st.sampled_from([None, 1, 2]))
def test_the_same_twice_adds_nothing(first, second):
    one = replace(PAPER, version=first, near=(Near("a", 1.0, "x"),))
    two = replace(PAPER, version=second, title="Second", upvotes=2)
    both = merged(one, two)
    assert merged(both, two) == both and both.near == one.near


def test_dates_topics_and_heat():
    assert PAPER.date == "2024-01-01" and PAPER.topics == ()
    assert replace(PAPER, published=None, announced="2024-02-01T05:00:00Z").date == "2024-02-01"
    near = replace(PAPER, near=(Near("grokalign", 1.0, "x"),), importance=8)
    assert "grokking" in near.topics
    assert near.hot(datetime.date(2024, 1, 31)) == 4.0
    assert replace(near, published="").hot(datetime.date(2024, 1, 31)) == 8.0
