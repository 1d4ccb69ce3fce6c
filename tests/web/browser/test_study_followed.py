"""A study is started from its entry, followed, and cancelled; its server may go and come back."""

import re

import pytest
from playwright.sync_api import expect


def _start(page, name):
    page.get_by_role("button", name=f"Run {name}").click()
    expect(page).to_have_url(re.compile(r"/jobs/\w+-" + name))


@pytest.mark.parametrize("scripts", [True, False])
def test_a_study_is_followed_and_cancelled(own_server, visit, scripts):
    # One that takes minutes: it must not be over before it is cancelled.
    page = visit("/e/intrinsic-dimension", of=own_server, java_script_enabled=scripts)
    _start(page, "intrinsic_dimension")
    log = page.get_by_role("log")
    expect(log).to_contain_text("intrinsic_dimension")
    if scripts:  # one at a time
        other = visit("/e/almanac", of=own_server)
        other.get_by_role("button", name="Run almanac_verdicts").click()
        expect(other.locator(".said")).to_contain_text("A study is running")
        assert all("409" in said for said in other.watch.found)
        other.watch.found.clear()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".verdict")).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_log_goes_on_after_the_server_was_away(own_server, visit):
    page = visit("/e/almanac", of=own_server)
    _start(page, "almanac_verdicts")
    expect(page.get_by_role("log")).to_contain_text("almanac_verdicts")
    before = page.get_by_role("log").inner_text()
    own_server.stop()
    expect(page.get_by_role("status")).to_contain_text("The study goes on")
    own_server.start()
    expect(page.get_by_role("status")).to_have_text("")
    assert page.get_by_role("log").inner_text().startswith(before)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".verdict")).to_have_text(re.compile("cancelled|done"))
    page.watch.found.clear()
