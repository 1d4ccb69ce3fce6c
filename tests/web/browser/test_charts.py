"""Charts under the mouse and the keyboard: what is asked for, and what is shown."""

import re

import pytest
from playwright.sync_api import expect

LAST = 19_999
SPIKE = 7_777


@pytest.fixture
def loss(visit, drawn):
    """The chart of the loss, and the answers that it has got."""
    page = visit("/runs/long?instrument=loss")
    answers = []
    page.on("response", lambda r: answers.append(r) if "series.json" in r.url else None)
    drawn(page)
    return page, page.locator(".live-chart"), answers


def _range(chart):
    said = re.search(r"Steps (\d+) to (\d+) of 0 to 19999", chart.locator(".note").inner_text())
    return (int(said[1]), int(said[2])) if said else (0, LAST)


def _drag(page, chart, first, last):
    """From one step to another with the mouse; waits for what comes."""
    low, high = _range(chart)
    box = chart.locator(".u-over").bounding_box()
    place = [box["x"] + box["width"] * (s - low) / (high - low) for s in (first, last)]
    _moved(chart, lambda: _press(page, place, box["y"] + box["height"] / 2))


def _press(page, place, y):
    page.mouse.move(place[0], y)
    page.mouse.down()
    page.mouse.move(sum(place) / 2, y)
    page.mouse.move(place[1], y)
    page.mouse.up()


def _moved(chart, act):
    before = int(chart.get_attribute("data-drawn"))
    act()
    expect(chart).to_have_attribute("data-drawn", str(before + 1))


def test_a_drag_zooms_until_every_step_is_there(loss):
    page, chart, answers = loss
    _drag(page, chart, 5_000, 10_000)
    first, last = _range(chart)
    assert abs(first - 5_000) < 100 and abs(last - 10_000) < 100
    _drag(page, chart, SPIKE - 200, SPIKE + 200)
    _drag(page, chart, SPIKE - 20, SPIKE + 20)
    first, last = _range(chart)
    assert SPIKE - 25 < first < SPIKE < last < SPIKE + 25
    assert f"from={first}&to={last}" in answers[-1].url
    [series] = answers[-1].json()["data"]["series"]
    assert series["low"] is None  # every step by itself
    assert set(range(first, last + 1)) <= set(series["steps"])
    assert series["middle"][series["steps"].index(SPIKE)] == 40
    words = chart.locator(".canvas").get_attribute("aria-label")
    assert f"steps {first} to {last}" in words
    box = chart.locator(".u-over").bounding_box()
    middle = box["x"] + box["width"] * (SPIKE - first) / (last - first)
    page.mouse.move(middle, box["y"] + 20)
    expect(chart.locator(".note")).to_have_text(f"step {SPIKE}: loss 40.00")
    _moved(chart, lambda: page.mouse.dblclick(middle, box["y"] + 20))
    page.mouse.move(0, 0)
    assert _range(chart) == (0, LAST)


def test_a_spike_of_one_step_shows_in_the_whole(loss):
    _, chart, _ = loss
    again = chart.page.request.get(chart.get_attribute("data-series") + "&columns=400")
    [series] = again.json()["data"]["series"]
    assert len(series["steps"]) <= 400 and max(series["high"]) == 40
    expect(chart.locator(".note")).to_contain_text("least and greatest")


def test_a_click_is_no_zoom(loss):
    page, chart, _ = loss
    chart.locator(".u-over").click()
    page.wait_for_timeout(300)
    assert _range(chart) == (0, LAST) and chart.get_attribute("data-drawn") == "1"


def test_the_keyboard_zooms_and_moves(loss):
    page, chart, _ = loss

    def press(name):
        page.get_by_role("button", name=name).focus()
        _moved(chart, lambda: page.keyboard.press("Enter"))
        return _range(chart)

    assert press("zoom in: loss") == (4_999, 15_000)
    assert press("later: loss") == (9_998, LAST)
    assert press("later: loss") == (9_998, LAST)  # no further
    assert press("zoom in: loss") == (12_498, 17_499)
    assert press("earlier: loss") == (9_997, 14_999)
    press("zoom out: loss")
    assert press("show all: loss") == (0, LAST)


def test_a_chart_fits_its_window(visit, drawn):
    page = visit("/runs/long", height=3000)
    drawn(page)
    page.set_viewport_size({"width": 500, "height": 3000})
    page.wait_for_function(
        "() => [...document.querySelectorAll('.live-chart')].every(chart => "
        "Math.abs(chart.querySelector('.uplot').offsetWidth "
        "- chart.querySelector('.canvas').clientWidth) <= 1)"
    )


def test_no_two_lines_look_the_same(visit, drawn):
    page = visit("/runs/long?instrument=grad_norm")
    drawn(page)
    marks = page.locator(".legend path")
    looks = marks.evaluate_all(
        "all => all.map((p) => getComputedStyle(p).stroke + getComputedStyle(p).strokeDasharray)"
    )
    assert len(looks) == 12 == len(set(looks))


def test_what_was_not_measured_is_said(visit, drawn):
    page = visit("/runs/short")
    drawn(page)
    note = page.locator(".live-chart", has=page.get_by_role("heading", name="loss")).locator(
        ".note"
    )
    expect(note).to_contain_text("Not finite at or after step 150")
