"""What is made ready ahead of the first question, and that readers go first."""

import pytest

from thalweg.almanac import entries
from thalweg.web import shelf as shelf_module
from thalweg.web import site as site_module
from thalweg.web.shelf import Shelf


def test_preparing_stands_still_while_somebody_waits(monkeypatch):
    judged, slept, answers = [], [], [False, True, True]
    monkeypatch.setattr(shelf_module, "standing", lambda entry: judged.append(entry.slug))
    monkeypatch.setattr(shelf_module.time, "sleep", lambda s: slept.append((s, len(judged))))
    Shelf().prepare(lambda: answers.pop(0) if answers else False)
    assert slept == [(shelf_module.PAUSE_S, 1)] * 2  # after the first entry, twice
    assert judged[: len(entries())] == [e.slug for e in entries()]


def test_a_server_prepares_templates_and_verdicts(client, monkeypatch):
    site, judged = client.app.app.state.site, []
    monkeypatch.setattr(site.shelf, "prepare", lambda busy: judged.append(busy()))
    site.prepare()
    assert judged == [False] and len(site._env.cache) >= 10


def test_a_page_makes_the_site_busy_for_a_while(client, monkeypatch):
    site = client.app.app.state.site
    assert not site.busy()
    for path in ("/runs", "/api/runs.json"):
        site._answered = -9.0
        client.get(path)
        assert site.busy(), path
    monkeypatch.setattr(site_module, "CALM_S", 0.0)
    assert not site.busy()
    with site.answering():
        assert site.busy()  # however long it takes
    with pytest.raises(KeyError), site.answering():
        raise KeyError
    assert not site.busy()
