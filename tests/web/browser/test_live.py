"""A run is followed while it is recorded: the page grows, and says what it knows."""

import json
import re

import numpy as np
import pytest
from playwright.sync_api import expect

NAMES = [("loss", ""), ("lr", ""), ("weight_norm", "")]


@pytest.fixture
def live(own_server, plant, visit, drawn):
    """A run that is being recorded, and its page."""
    folder = own_server.home / "runs" / "now"
    writer = plant(folder, _rows(100), status="running", close=False)
    page = visit("/runs/now", of=own_server, width=700, height=600)
    drawn(page)
    page.evaluate("window.mark = 'not loaded again'")
    yield page, writer, folder
    if writer is not None:
        writer.close()


def _rows(n):
    return {name: np.linspace(2, 1, n) for name in NAMES}


def _ends(header):
    facts = json.loads(header.read_text())
    header.write_text(json.dumps({**facts, "status": "closed"}))


def _shows(page, name, step):
    words = re.compile(rf"^{name}, steps 0 to {step}: ")
    expect(page.locator(f"[data-label={name}] .canvas")).to_have_attribute("aria-label", words)


def test_it_grows_without_being_loaded_again_and_says_when_it_ends(live, append):
    page, writer, folder = live
    _shows(page, "loss", 99)
    last, status = page.locator("[data-last-step]"), page.locator("[data-live]")
    expect(last).to_have_text("99")
    expect(status).to_have_text("running")
    for first in (100, 200):
        append(writer, _rows(100), first=first)
        expect(last).to_have_text(str(first + 99))
        _shows(page, "loss", first + 99)
    page.locator("[data-label=loss] [data-do=in]").click()
    note = page.locator("[data-label=loss] .note")
    expect(note).to_have_text("Steps 74 to 225 of 0 to 299.")
    append(writer, _rows(100), first=300)
    page.locator("[data-label=loss]").scroll_into_view_if_needed()
    page.locator("[data-label=loss] [data-do=all]").click()
    _shows(page, "loss", 399)
    writer.close()
    _ends(folder / "run.json")
    expect(status).to_have_text("closed")
    assert page.evaluate("window.mark") == "not loaded again"


def test_a_page_that_was_opened_too_early_gets_its_charts(own_server, plant, append, visit):
    writer = plant(own_server.home / "runs" / "now", {}, status="running", close=False)
    page = visit("/runs/now", of=own_server)
    expect(page.locator(".none")).to_have_text("No measurements yet.")
    page.wait_for_timeout(1500)  # the first sign of life changes nothing
    append(writer, _rows(10))
    _shows(page, "loss", 9)
    writer.close()


def test_what_is_out_of_sight_is_drawn_anew_when_it_comes_back(live, append):
    page, writer, _ = live
    lower = page.locator("[data-label=weight_norm]")
    lower.scroll_into_view_if_needed()
    _shows(page, "weight_norm", 99)
    page.locator("h1").scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, 0)")
    append(writer, _rows(100), first=100)
    _shows(page, "loss", 199)
    lower.scroll_into_view_if_needed()
    _shows(page, "weight_norm", 199)


def test_a_lost_connection_is_said_and_comes_back(live, own_server, append):
    page, writer, _ = live
    status = page.locator("[data-live]")
    expect(status).to_have_text("running")
    own_server.stop()
    expect(status).to_contain_text("the server does not answer, trying again")
    page.locator("[data-label=loss] [data-do=in]").click()
    expect(page.locator("[data-label=loss] .note")).to_have_text("The server does not answer.")
    page.locator("[data-label=loss] [data-do=all]").click()
    append(writer, _rows(50), first=100)
    assert page.watch.found
    own_server.start()
    expect(status).to_have_text("running")
    expect(page.locator("[data-last-step]")).to_have_text("149")
    _shows(page, "loss", 149)
    assert page.evaluate("window.mark") == "not loaded again"
    assert all("net::ERR" in said for said in page.watch.found), page.watch.found
    page.watch.found.clear()


def test_a_run_that_is_gone_is_said(live, own_server):
    page, _, folder = live
    expect(page.locator("[data-live]")).to_have_text("running")
    folder.rename(folder.parent / "other")
    own_server.stop()
    own_server.start()
    expect(page.locator("[data-live]")).to_contain_text("not followed any more")
    page.watch.found.clear()
