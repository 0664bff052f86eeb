"""An embedding at the end of a cell is the interactive picture."""

import html
import re

import numpy as np

from mmphate_gpu.embedding import NOTEBOOK_NODES, Embedding
from mmphate_gpu.slices import SliceLayout

from .pages import facts_of, fake


def framed_page(text):
    (inside,) = re.findall(r'srcdoc="(.*?)"', text, re.DOTALL)
    return html.unescape(inside)


def test_the_picture_is_in_a_frame_with_a_line_of_facts():
    text = fake()._repr_html_()
    assert facts_of(framed_page(text))["shape"] == [6, 5, 4]
    assert 'sandbox="allow-scripts allow-downloads"' in text
    assert "120 nodes, 3 components, t = 21, stress 0.123. plots.interactive(result, &#x27;picture.html&#x27;)" in text
    assert text.count("<iframe") == 1 and text.count("<script") == 0


def test_the_bundle_has_text_and_picture():
    embedding = fake()
    bundle = embedding._repr_mimebundle_(include=None, exclude=None)
    assert bundle == {"text/plain": repr(embedding), "text/html": embedding._repr_html_()}


def test_large_embeddings_lose_whole_slices():
    layout = SliceLayout.of_shape(60, 50, 20)
    facts = facts_of(framed_page(Embedding(np.zeros((60_000, 2)), layout)._repr_html_()))
    assert np.prod(facts["shape"]) <= NOTEBOOK_NODES and "60,000 nodes are drawn" in facts["notes"][0]


def test_what_cannot_be_drawn_is_text():
    nowhere = Embedding(np.full((4, 2), np.nan), SliceLayout.of_shape(2, 1, 2))
    large_slice = Embedding(np.zeros((50_001, 2)), SliceLayout.of_shape(1, 1, 50_001))
    for embedding in (nowhere, large_slice):
        assert embedding._repr_html_() is None
        assert embedding._repr_mimebundle_() == {"text/plain": repr(embedding)}


def test_a_part_without_places_is_text():
    coordinates = np.full((60_000, 2), np.nan)
    coordinates[5 * 50 * 20] = 0  # in an epoch that is left out
    embedding = Embedding(coordinates, SliceLayout.of_shape(60, 50, 20))
    assert embedding._repr_html_() is None
