"""The main states of the picture. MMPHATE_SCREENSHOTS names a folder to keep them in, where a person looks at them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import image

from mmphate_gpu import Embedding
from mmphate_gpu.slices import SliceLayout

pytestmark = pytest.mark.browser


def spirals(n_components: int) -> Embedding:
    """Sixteen units that spiral outward through the epochs, a fourth of them in each direction."""
    layout = SliceLayout(np.arange(60), np.arange(8), np.array([f"unit {m}" for m in range(16)]))
    epoch, timestep, unit = layout.indices()
    angle = 0.08 * epoch + 0.06 * timestep + np.pi / 2 * (unit % 4) + 0.05 * unit
    radius = 1 + 0.1 * epoch
    places = [radius * np.cos(angle), radius * np.sin(angle), 0.12 * epoch + 0.4 * (unit // 4)]
    active = np.array(["north", "east", "south", "west"])[unit % 4]
    return Embedding(np.column_stack(places[:n_components]), layout, most_active=active)


@pytest.mark.parametrize("scheme, size", [("light", (1280, 800)), ("dark", (1280, 800)), ("light", (390, 844))])
def test_the_main_states_have_ink_and_differ(show, scheme, size):
    page = show(spirals(3), size=size, columns={"loss": ("epoch", 0.9 ** np.arange(60))})
    page.prefers(scheme=scheme)
    page.until(f"return mmphate.state().dark === {str(scheme == 'dark').lower()}")
    box = page.box("#canvas")
    seen = set()

    def look(name: str) -> None:
        picture = page.pixels()[: int(box["height"]), : int(box["width"])]
        assert 0.01 < (picture != picture[3, 3]).any(axis=2).mean() < 0.7, name
        seen.add(picture.tobytes())
        page.keep(f"{size[0]}-{scheme}-{name}")

    look("space")
    page.choose("loss")
    look("space-by-loss")
    page.choose("Most active class")
    page.search("unit 1")
    page.click("#matches button")
    page.run("scrollTo(0, 0)")
    look("space-path")
    page.click("#dimension")
    page.run("scrollTo(0, 0)")
    look("plane-path")
    page.press("Escape")
    for slider, value in (("epoch", 45), ("trail", 10)):
        page.run(
            "const [name, value] = arguments, item = document.getElementById(name);"
            "item.value = value; item.dispatchEvent(new Event('input'))",
            slider,
            value,
        )
    page.run("scrollTo(0, 0)")
    nodes = np.arange(60 * 8 * 16)
    visible = nodes[np.isfinite(page.projected(nodes)[:, 0])]
    page.hover(page.projected(visible[-1])[0])
    look("plane-trail")
    assert len(seen) == 5


def test_the_axis_of_a_single_component_has_its_labels_also_in_the_file(show):
    page = show(spirals(1))
    page.keep("1280-light-one-component")
    assert page.texts("#ticks span") == ["0", "12", "24", "35", "47", "59"]
    page.click("#export")
    picture = image.imread(page.downloaded())
    for box in page.run(
        "return [...document.querySelectorAll('#ticks span')].map((item) => item.getBoundingClientRect())"
    ):
        left, right, top, bottom = (int(2 * box[side]) for side in ("left", "right", "top", "bottom"))
        assert (picture[top:bottom, left : right + 1, 0] < 0.6).any()
