"""Nothing overlaps at any width, text is legible on both grounds, and every control has a name."""

from __future__ import annotations

from itertools import combinations

import pytest

from benchmarks.measure import chromium

from .contrast import contrast, contrasts, faint
from .results import board, cloud

pytestmark = pytest.mark.browser
CONTROLS = "button, select, input, output, label, #legend, #title, #size, #status, #notes, #compass, #canvas, #keys"
OUTLINE = """
const item = document.activeElement, style = getComputedStyle(item);
return item === document.body ? 2 : style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth);
"""
# Every visible control, with its box and with which others are inside it or around it.
BOXES = """
const items = [...document.querySelectorAll(arguments[0])].filter((item) => item.checkVisibility());
return items.map((item) => [item.id || item.textContent || item.tagName, item.getBoundingClientRect().toJSON(),
  items.map((other) => other.contains(item) || item.contains(other))]);
"""


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    return a["left"] < b["right"] and b["left"] < a["right"] and a["top"] < b["bottom"] and b["top"] < a["bottom"]


def test_the_contrast_of_known_colors():
    assert contrast((255, 255, 255), (0, 0, 0)) == 21
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_on_both_grounds(show, scheme):
    page = show(board())
    page.prefers(scheme=scheme)
    page.until(f"return mmphate.state().dark === {str(scheme == 'dark').lower()}")
    page.focus("#canvas")
    page.press("?")
    page.search("unit")
    page.click("#matches button")
    page.click("#legend .entry")  # a hidden class
    page.hover(page.projected(7)[0])
    assert {"cat", "dog", "Find units", "unit 2", "zoom", "Name of a unit"} <= contrasts(page).keys()
    assert faint(page) == {}


@pytest.mark.parametrize("embedding", [board, cloud])
def test_nothing_overlaps_and_nothing_scrolls_sideways(show, embedding):
    page = show(embedding())
    page.focus("#canvas")
    page.press("?")
    page.search("1")
    for width, height in ((390, 844), (768, 1024), (1280, 800), (1920, 1080)):
        chromium.resize(page.driver, width, height)
        page.until(f"return innerWidth === {width} && innerHeight === {height}")
        root = page.run(
            "const {scrollWidth, clientWidth} = document.documentElement; return [scrollWidth, clientWidth]"
        )
        assert root[0] <= root[1] == width
        boxes = page.run(BOXES, CONTROLS)
        assert len(boxes) > 20
        for name, box, _ in boxes:
            assert 0 <= box["left"] <= box["right"] <= width, (name, width)
        pairs = [(boxes[i], boxes[j]) for i, j in combinations(range(len(boxes)), 2) if not boxes[i][2][j]]
        over = [{first[0], other[0]} for first, other in pairs if overlap(first[1], other[1])]
        assert [pair for pair in over if pair != {"canvas", "compass"}] == [], width


def test_the_canvas_has_most_of_the_room(show):
    page = show(board())
    box = page.box("#canvas")
    assert box["width"] * box["height"] > 0.6 * 1280 * 800
    page = show(board(), size=(390, 844))
    box = page.box("#canvas")
    assert box["width"] == 390 and box["height"] >= 390


def test_every_control_has_a_name_and_a_visible_focus(show):
    page = show(cloud())
    page.search("1")
    controls = page.driver.find_elements("css selector", "button, select, input, canvas")
    names = [control.accessible_name for control in controls if control.is_displayed()]
    assert len(names) > 12 and all(names) and {"Epoch", "Color by", "Reset"} <= {*names}
    page.focus("#export")
    widths = set()
    for _ in names:
        page.press("Tab")  # an outline is for the focus of a keyboard
        widths.add(page.run(OUTLINE))
    assert min(widths) >= 2


def test_a_slider_says_its_value_in_words(show):
    page = show(board())
    page.slide("#epoch", 2)
    assert page.run("return document.getElementById('epoch').getAttribute('aria-valuetext')") == "20"
    assert page.run("return document.getElementById('timestep').getAttribute('aria-valuetext')") == "all"
