"""Names of any text are text: no element is made of them, and nothing runs."""

from __future__ import annotations

import numpy as np
import pytest

from mmphate_gpu import Embedding
from mmphate_gpu.slices import SliceLayout

pytestmark = pytest.mark.browser
HOSTILE = {
    "script": "<script>window.hurt = 1</script>",
    "end of script": "</script><script>window.hurt = 2</script>",
    "comment": "<!--<script>",
    "image": "<img src=x onerror='window.hurt = 3'>",
    "entity": "&lt;b&gt; &amp; &quot;",
    "template": "{{data}} ${window.hurt = 4} \\u0041",
    "right to left": "יחידה \u202e123",
    "emoji": "👩‍🔬 🧠",
    "long": "x" * 10_000,
    "quotes": "\"'`",
    "line separator": "a\u2028b",
    "control": "a\x00\tb",
    "half of a pair": "a\ud800b",
    "empty": "",
    "dollar": "$\\frac{x}$_1",
}
NAMES = np.array(list(HOSTILE.values()))
# Characters that no page can show are written out.
WRITTEN = {"a\u2028b": "a\\u2028b", "a\x00\tb": "a\\x00\\tb", "a\ud800b": "a\\ud800b", "": "(empty)"}


@pytest.fixture
def hostile(show):
    layout = SliceLayout(np.array([*HOSTILE.values()][:3]), np.array([*HOSTILE.values()][3:5]), NAMES)
    epoch, timestep, unit = layout.indices()
    coordinates = np.column_stack([unit, epoch * 2 + timestep]).astype(float)
    embedding = Embedding(coordinates, layout, most_active=NAMES[unit])
    columns = {HOSTILE["script"]: ("unit", NAMES), HOSTILE["image"]: ("epoch", NAMES[:3])}
    return show(embedding, title=HOSTILE["end of script"], columns=columns)


def test_hostile_names_are_shown_as_they_are(hostile):
    assert hostile.run("return document.title") == HOSTILE["end of script"]
    assert hostile.texts("#title") == [HOSTILE["end of script"]]
    for unit, name in enumerate(NAMES):
        said = hostile.hover(hostile.projected(2 * len(NAMES) + unit)[0])
        assert [*said.values()][2] == WRITTEN.get(name, name)
    assert hostile.texts("#color-by option")[-2:] == [HOSTILE["script"], HOSTILE["image"]]
    assert [*hostile.legend()] == [WRITTEN.get(name, name) for name in sorted(NAMES)]


def test_hostile_names_make_no_element_and_run_nothing(hostile):
    elements = hostile.run("return document.querySelectorAll('script, img, iframe, b').length")
    assert elements == 3  # two of data and one that runs
    hostile.search("<")
    assert hostile.texts("#matches button") == [name for name in NAMES if "<" in name]
    for name in hostile.texts("#color-by option"):
        hostile.choose(name)
    hostile.click("#matches button")
    hostile.hover(hostile.projected(3)[0])
    assert hostile.run("return window.hurt") is None
    assert hostile.run("return document.querySelectorAll('script, img, iframe, b').length") == elements


def test_long_names_stay_within_the_page(hostile):
    hostile.search("xxx")
    hostile.click("#matches button")
    hostile.hover(hostile.projected(8)[0])
    for selector in ("#tooltip", "#matches button", "#legend .entry:nth-child(3)", "#title", "#status"):
        box = hostile.box(selector)
        assert 0 <= box["left"] <= box["right"] <= 1280, selector
        assert box["bottom"] <= 800 or selector == "#status", selector
    assert hostile.run("return document.documentElement.scrollWidth") <= 1280
