"""A page of 487,680 nodes: 127 epochs, 128 time steps and 30 units in three dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.suites.interactive import MOST_BYTES, SIZE, nodes
from mmphate_gpu import Embedding
from mmphate_gpu.slices import SliceLayout

from .results import CLASSES

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("motion", ["walk", "noise"])
def test_a_page_of_487680_nodes_is_small_and_answers(show, motion):
    layout = SliceLayout.of_shape(*SIZE)
    coordinates = nodes(motion, layout)
    far = 345_678
    coordinates[far] = 1.2 * np.abs(coordinates).max(axis=0)  # alone in its corner
    page = show(Embedding(coordinates, layout, most_active=CLASSES[np.arange(layout.n_nodes) % 3]))
    assert page.path.stat().st_size <= MOST_BYTES
    assert page.state["total"] == layout.n_nodes == 487_680
    page.until("return mmphate.state().drawn === 487680", 60)
    (place,) = page.projected(far)
    epoch, timestep, unit = (str(indices[far]) for indices in layout.indices())
    page.mouse("Moved", place + 3)
    page.until("return !document.getElementById('tooltip').hidden")
    said = page.tooltip()
    assert (said["Epoch"], said["Time step"], said["Unit"]) == (epoch, timestep, unit)
    x, y = np.rint(place - 0.5).astype(int)
    color = page.legend()[CLASSES[far % 3]]
    assert np.abs(page.pixels()[y, x] - color).max() <= 2  # the graphics round
    # It turns and plays, with a part of the dots where all are too slow.
    page.drag((400, 300), (450, 320))
    page.click("#play")
    page.until("return mmphate.state().epoch > 5", 60)
    page.click("#play")
    page.until("return mmphate.state().drawn === 487680", 60)
