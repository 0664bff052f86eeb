"""What a page says where something is missing, and how it comes back after the graphics were lost."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.measure.chromium import chromium

from .page import Page
from .results import board, cloud, nearest

pytestmark = pytest.mark.browser


@pytest.fixture
def without(browser):
    """A function that runs a script in each new page, before the scripts of the page."""
    added = []

    def run(script: str) -> None:
        answer = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        added.append(answer["identifier"])

    yield run
    for identifier in added:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": identifier})


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("HTMLCanvasElement.prototype.getContext = () => null", "WebGL2"),
        ("delete window.DecompressionStream", "too old"),
    ],
)
def test_a_sentence_says_what_the_browser_lacks(show, without, script, word):
    without(script)
    page = show(board())
    assert word in page.text("#failure")
    box = page.box("#failure")
    assert 0 < box["left"] < box["right"] < 1280 and 0 < box["top"] < box["bottom"] < 800
    page.choose("Unit")  # the controls raise no error
    page.click("#reset")
    page.click("#export")


def test_a_browser_without_graphics_says_so(browser, tmp_path):
    with chromium("--disable-3d-apis") as driver:
        page = Page(driver, tmp_path / "page.html").show(board())
        assert "WebGL2" in page.text("#failure")
        assert page.messages() == []


def test_without_scripts_a_sentence_says_that_they_are_needed(show):
    page = show("<!DOCTYPE html><link rel=icon href=data:,>", ready=False)
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.show(board(), ready=False)
        assert "JavaScript" in page.driver.find_element("id", "no-script").text
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_picture_by_a_graphics_card_stays_on_the_screen(show, without):
    """A page that takes the software renderer for a card draws with several samples a pixel."""
    without("""const old = WebGL2RenderingContext.prototype.getExtension;
        WebGL2RenderingContext.prototype.getExtension = function (name) {
          return name === "WEBGL_debug_renderer_info" ? null : old.call(this, name); }""")
    # A slow card: its first picture takes half a second, so that later ones come in several frames.
    without("""const state = WebGL2RenderingContext.prototype.getSyncParameter;
        WebGL2RenderingContext.prototype.getSyncParameter = function (...of) {
          window.first ??= performance.now();
          return performance.now() < window.first + 500 ? this.UNSIGNALED : state.apply(this, of); }""")
    embedding = board()
    page = show(embedding)
    places = np.rint(page.projected(np.arange(embedding.n_nodes)) - 0.5).astype(int)
    table = np.array([*page.legend().values(), (255, 255, 255), (0, 0, 0)])
    for _ in range(2):
        page.run("return new Promise((done) => setTimeout(done, 300))")  # no frame is left to be drawn
        screen = page.screen()
        assert screen[20, 20].tolist() == [255, 255, 255]
        assert nearest(screen[places[:, 1], places[:, 0]], table) == [m % 3 for m in embedding.layout.indices()[2]]
        page.drag((500, 300), (500, 310))
        places[:, 1] += 10
    page = show(board(60, 20, 20))  # more dots than a frame always has
    page.choose("Epoch")
    page.until("return mmphate.state().drawn === mmphate.state().total")
    page.run("return new Promise((done) => setTimeout(done, 300))")
    left = page.screen()
    assert np.array_equal(left, page.pixels())


@pytest.mark.parametrize("embedding", [board, cloud])
def test_the_picture_comes_back_after_the_context_was_lost(show, embedding):
    page = show(embedding())
    page.slide("#epoch", 2)
    page.choose("Unit")
    before = page.pixels()
    page.run(
        "window.loss = document.getElementById('canvas').getContext('webgl2').getExtension('WEBGL_lose_context');"
        "loss.loseContext()"
    )
    page.until("return document.getElementById('canvas').getContext('webgl2').isContextLost()")
    page.choose("Epoch")  # meanwhile changes and questions raise no error
    assert page.hover((400, 300)) == {} and np.isnan(page.projected([0])).all()
    page.run("loss.restoreContext()")
    page.until("return !document.getElementById('canvas').getContext('webgl2').isContextLost()")
    page.choose("Unit")
    assert np.array_equal(page.pixels(), before)
    # Chromium itself writes that a context was lost.
    assert [line for line in page.messages() if "CONTEXT_LOST_WEBGL" not in line] == []
