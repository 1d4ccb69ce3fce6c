"""A study is started from its entry and leaves evidence there."""

import re

from playwright.sync_api import expect


def test_a_study_ends_and_shows_its_evidence(own_server, visit):
    page = visit("/e/almanac", of=own_server)
    claim = page.locator("#claim-verdicts_follow")
    claim.get_by_text("Where the figures come from").click()
    expect(claim.locator("details")).to_contain_text("shipped")
    page.get_by_role("button", name="Run almanac_verdicts").click()
    expect(page).to_have_url(re.compile(r"/jobs/\w+-almanac_verdicts"))
    expect(page.locator(".verdict")).to_have_text("running")
    # The page is loaded again by itself when it has ended.
    expect(page.locator(".verdict")).to_have_text("done", timeout=120_000)
    expect(page.get_by_role("log")).to_contain_text("almanac/verdicts_follow: pass")
    page.locator(".said").get_by_role("link", name="almanac").click()
    claim.get_by_text("Where the figures come from").click()
    expect(claim.locator("details")).to_contain_text("user, quick preset")
    expect(claim.locator("details")).not_to_contain_text("shipped")
    page.get_by_role("link", name="Studies").click()
    expect(page.locator("ul.entries li")).to_have_count(1)
    expect(page.locator("ul.entries .verdict")).to_have_text("done")
