"""Searching, filtering, comparing: with the mouse, with the keyboard alone, without JavaScript."""

import re

import pytest
from playwright.sync_api import expect

QUESTION = "what does gradient flow conserve"


def test_search_finds_and_filters(visit):
    page = visit("/")
    page.get_by_label("Search the almanac").fill(QUESTION)
    page.get_by_role("search", name="Search", exact=True).get_by_role("button").click()
    expect(page).to_have_url(re.compile(r"/search\?q=what\+does"))
    first = page.locator("ol.entries h3 a").first
    expect(first).to_have_text("Conservation Laws from Data Symmetry in Neural Networks")
    page.get_by_role("combobox", name="Kind").select_option("paper")
    page.get_by_role("search", name="Search with filters").get_by_role("button").click()
    expect(page.get_by_label("In plain words")).to_have_value(QUESTION)
    expect(page.locator("ol.entries .about").first).to_have_text(re.compile("^paper · "))
    assert page.locator("ol.entries .about").count() > 5
    for said in page.locator("ol.entries .about").all_inner_texts():
        assert said.startswith("paper · ")
    page.get_by_label("In plain words").fill("<script>alert(1)</script>")
    page.keyboard.press("Enter")
    expect(page.get_by_label("In plain words")).to_have_value("<script>alert(1)</script>")


@pytest.mark.parametrize("scripts", [True, False])
def test_the_list_is_filtered_and_sorted(visit, scripts):
    page = visit("/", java_script_enabled=scripts)
    everything = page.locator("ul.entries li").count()
    page.get_by_role("combobox", name="Kind").select_option("law")
    page.get_by_label("Sort by").select_option("date")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile(r"kind=law.*sort=date"))
    expect(page.locator("#count")).not_to_have_text(f"{everything} entries")
    assert 1 <= page.locator("ul.entries li").count() < everything
    for said in page.locator("ul.entries .about").all_inner_texts():
        assert " · law · " in said
    page.get_by_role("link", name="show all").click()
    expect(page.locator("ul.entries li")).to_have_count(everything)
    page.get_by_role("link", name=re.compile("untested")).click()
    assert set(page.locator("ul.entries .mark").all_inner_texts()) == {"untested"}


def test_the_ticked_are_compared(visit):
    page = visit("/")
    for name in ("Compare GrokAlign", "Compare Conservation Laws"):
        page.get_by_role("checkbox", name=re.compile(name)).check()
    page.get_by_role("button", name="Compare the ticked").click()
    expect(page.locator("table.compared thead th")).to_have_count(3)
    page.get_by_label("Entry 3").select_option("ska")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("table.compared thead th")).to_have_count(4)
    page.goto("/runs")
    for name in ("long", "short"):
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("button", name="Compare the ticked").click()
    expect(page.locator(".legend li")).to_have_text(["long", "short"])


def test_digests_lead_from_one_to_the_next(visit):
    page = visit("/digest/2026-06")
    page.get_by_role("link", name="← 2026-05").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("2026-05")
    page.get_by_role("link", name="2026-06 →").click()
    page.get_by_role("link", name="week 2026-W23").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("2026-W23")
    current = page.get_by_role("navigation", name="Pages").locator("[aria-current]")
    expect(current).to_have_text("Digest")


def _focused(page):
    return page.evaluate("document.activeElement.textContent.trim().slice(0, 60)")


def _tab_to(page, what, most=300):
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches({what!r})"):
            return
    raise AssertionError(f"no way to {what}")


def test_the_keyboard_is_enough(visit):
    page = visit("/")
    page.keyboard.press("Tab")
    assert _focused(page) == "Skip to the content"
    expect(page.locator(":focus")).to_be_in_viewport()
    page.keyboard.press("Enter")
    _tab_to(page, "main a, main select", most=1)  # past the navigation
    _tab_to(page, "select[name=kind]")
    page.keyboard.type("law")
    _tab_to(page, ".filters button")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("kind=law"))
    _tab_to(page, "input[name=q]")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/search"))
    _tab_to(page, "ol.entries a")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/e/conservation-laws"))
    _tab_to(page, "summary")
    page.keyboard.press("Enter")
    assert page.locator("details").first.evaluate("el => el.open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_where_the_keyboard_is_shows(visit, scheme):
    page = visit("/runs/long", color_scheme=scheme)
    for _ in range(25):
        page.keyboard.press("Tab")
        width, style = page.locator(":focus").evaluate(
            "el => { const s = getComputedStyle(el);"
            " return [parseFloat(s.outlineWidth), s.outlineStyle]; }"
        )
        assert width >= 2 and style == "solid", _focused(page)
        expect(page.locator(":focus")).to_be_in_viewport()


def test_without_scripts_charts_are_pictures(visit):
    page = visit("/runs/long", java_script_enabled=False, height=3000)
    page.wait_for_load_state("networkidle")
    shown = page.locator(".live-chart img")
    expect(shown).to_have_count(3)
    for picture in shown.all():
        box = picture.bounding_box()
        assert box["width"] > 300 and box["height"] > 80
        assert picture.get_attribute("alt").endswith("against the step")
    expect(page.locator(".tools").first).to_be_hidden()
    page.get_by_role("link", name="more grad_norm").click()
    expect(page.locator(".live-chart img")).to_have_count(1)
    page.get_by_role("link", name="Diagnosis").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What the doctor says")


def test_who_wants_no_motion_gets_none(visit):
    page = visit("/e/conservation-laws", reduced_motion="reduce")
    moves = """() => [document.documentElement, ...document.querySelectorAll("*")].filter((el) => {
      const s = getComputedStyle(el);
      return s.scrollBehavior === "smooth" || parseFloat(s.animationDuration) > 0
        || parseFloat(s.transitionDuration) > 0;
    }).length"""
    assert page.evaluate(moves) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moves) > 0


def test_what_is_asked_for_comes_at_once(visit):
    """The list and the search change while one chooses and types; the address goes along."""
    page = visit("/")
    page.evaluate("window.mark = 'not loaded again'")
    everything = page.locator("ul.entries li").count()
    page.get_by_role("combobox", name="Kind").select_option("law")
    expect(page).to_have_url(re.compile("kind=law"))
    expect(page.locator("#count")).not_to_have_text(f"{everything} entries")
    shown = page.locator("ul.entries li").count()
    assert page.locator("#count").inner_text().startswith(f"{shown} ") and shown < everything
    expect(page.get_by_role("link", name="this page as JSON")).to_have_attribute(
        "href", re.compile("kind=law")
    )
    assert page.evaluate("window.mark") == "not loaded again"
    page.go_back()
    expect(page.locator("ul.entries li")).to_have_count(everything)
    page.goto("/search")
    page.evaluate("window.mark = 'not loaded again'")
    page.get_by_label("In plain words").press_sequentially(QUESTION, delay=20)
    expect(page.locator("ol.entries h3 a").first).to_have_attribute("href", "/e/conservation-laws")
    expect(page.get_by_label("In plain words")).to_be_focused()
    expect(page).to_have_url(re.compile("q=what"))
    page.get_by_label("Year").fill("no")
    page.keyboard.press("Tab")
    expect(page.locator("#found .said")).to_contain_text("year: expected a number")
    assert all("404" in said for said in page.watch.found) and page.watch.found
    page.watch.found.clear()
    page.get_by_label("Year").fill("2026")
    page.keyboard.press("Tab")
    expect(page.locator("ol.entries li").first).to_contain_text("2026")
    assert page.evaluate("window.mark") == "not loaded again"
