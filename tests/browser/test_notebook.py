"""The picture in a notebook: a page within a frame that can touch nothing of the notebook."""

from __future__ import annotations

import numpy as np
import pytest

from mmphate_gpu import Embedding

from .results import board, cloud

pytestmark = pytest.mark.browser
NOTEBOOK = '<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><title>Notebook</title><body>{}</body>'


def cells(*embeddings: Embedding) -> str:
    return NOTEBOOK.format("".join(f"<div>{embedding._repr_html_()}</div>" for embedding in embeddings))


def within(page, number: int = 0):
    """Go into a frame and wait for its first picture."""
    page.driver.switch_to.default_content()
    page.driver.switch_to.frame(number)
    return page.ready()


def test_the_picture_works_within_a_sandbox(show):
    embedding = board()
    page = within(show(cells(embedding), ready=False))
    assert page.state["total"] == embedding.n_nodes
    frame = page.run("return [innerWidth, innerHeight]")
    page.choose("Unit")
    page.search("unit 3")
    page.run("document.querySelector('#matches button').click()")
    assert page.state["highlighted"] == [3]
    node = 31
    x, y = page.projected(node)[0]
    assert 0 < x < frame[0] and 0 < y < frame[1]
    assert page.picked((x, y)) == node
    page.driver.switch_to.default_content()
    frame = page.box("iframe")
    page.mouse("Moved", (frame["x"] + x + 1, frame["y"] + y + 1))
    within(page)
    page.until("return !document.getElementById('tooltip').hidden")
    assert page.tooltip()["Unit"] == "unit 1"


def test_two_pictures_do_not_touch_each_other_or_the_notebook(show):
    page = show(cells(board(), cloud()), ready=False)
    within(page, 0).choose("Unit")
    assert within(page, 1).state["color"] == "Most active class"
    assert page.run("try { return parent.document.title } catch (error) { return error.name }") == "SecurityError"
    page.driver.switch_to.default_content()
    assert page.run("return window.mmphate") is None


def test_the_caption_and_the_text_of_an_embedding_without_a_place(show):
    embedding = board(t=27, stress=0.125)
    page = show(cells(embedding), ready=False)
    assert all(fact in page.text("p") for fact in ("60 nodes", "2 components", "t = 27", "stress 0.125"))
    nowhere = Embedding(np.full((60, 2), np.nan), embedding.layout)
    assert nowhere._repr_html_() is None and "60 nodes" in nowhere._repr_mimebundle_()["text/plain"]
