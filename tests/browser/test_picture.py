"""The interactive picture in a browser: what it draws, and what a pointer over it says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.measure import chromium
from mmphate_gpu import Embedding
from mmphate_gpu.slices import SliceLayout

from .results import CLASSES, alone, board, cloud, nearest

pytestmark = pytest.mark.browser


def test_it_opens_from_a_file_and_draws_every_node_in_its_color(show):
    embedding = board()
    page = show(embedding)
    assert page.state["drawn"] == page.state["total"] == embedding.n_nodes
    legend = page.legend()
    assert [*legend] == CLASSES.tolist()
    table = np.array([*legend.values(), (255, 255, 255)])
    colors = page.colors(np.arange(embedding.n_nodes))
    assert nearest(colors, table) == [m % 3 for m in embedding.layout.indices()[2]]
    corner = page.pixels()[20, 20]  # the ground
    assert corner.tolist() == [255, 255, 255]


def test_opening_and_hovering_writes_nothing_at_all_to_the_console(show):
    page = show(cloud())
    page.hover(page.projected(7)[0])
    page.slide("#epoch", 1)
    page.click("#export")
    page.downloaded()
    assert chromium.messages(page.driver) == []


def test_hover_names_each_node_of_two_components(show):
    embedding = board()
    page = show(embedding)
    for node in (0, 17, 33, embedding.n_nodes - 1):
        (place,) = page.projected(node)
        epoch, timestep, unit = (indices[node] for indices in embedding.layout.indices())
        expected = {"Epoch": str(10 * epoch), "Time step": str(timestep), "Unit": f"unit {unit}"}
        assert page.hover(place) == {**expected, "Most active class": CLASSES[unit % 3]}
        assert page.picked(place) == node
    assert page.hover((8, 8)) == {}


def test_hover_names_nodes_in_space_also_after_a_turn(show):
    embedding = cloud()
    page = show(embedding)
    before = page.projected(np.arange(embedding.n_nodes))
    page.drag((400, 300), (520, 340))
    places = page.projected(np.arange(embedding.n_nodes))
    assert np.linalg.norm(places - before, axis=1).max() > 20
    single = alone(places)
    assert len(single) > 20
    for node in single[:4]:
        said = page.hover(places[node])
        assert [said[name] for name in ("Epoch", "Time step", "Unit")] == [
            str(indices[node]) for indices in embedding.layout.indices()
        ]


def test_nodes_in_space_hide_those_behind_them(show):
    layout = SliceLayout.of_shape(2, 1, 1)
    # In the first view the eye is at azimuth -58 degrees and elevation 24 degrees, far from the box.
    azimuth, elevation = np.radians([-58, 24])
    toward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    page = show(Embedding(np.outer([-1, 1], toward), layout, most_active=np.array(["far", "near"])))
    near, far = page.projected([1, 0])
    assert np.linalg.norm(near - far) < 2
    assert nearest(page.colors([1]), np.array([*page.legend().values()])) == [1]
    assert page.hover(near)["Most active class"] == "near"


def test_a_highlighted_unit_lies_above_the_others_also_for_the_pointer(show):
    azimuth, elevation = np.radians([-58, 24])
    toward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    page = show(Embedding(np.outer([-1, 1], toward), SliceLayout.of_shape(1, 1, 2)))
    place = page.projected(0)[0]
    assert page.picked(place) == 1
    page.search("0")
    page.click("#matches button")
    assert page.picked(place) == 0 and page.hover(place)["Unit"] == "0"


@pytest.mark.parametrize("trail", [7, 6])
def test_of_dots_at_one_place_the_pointer_names_the_one_on_top(show, trail):
    layout = SliceLayout.of_shape(8, 1, 1)
    page = show(Embedding(np.array([[0.0, 0]] * 7 + [[1, 1]]), layout, most_active=np.array(list("abcdefgh"))))
    page.slide("#trail", trail)
    top = nearest(page.colors([1]), np.array([*page.legend().values()]))
    assert [page.picked(page.projected(1)[0])] == top


def test_left_out_slices_keep_the_rows_of_the_embedding(show):
    embedding = board(9, 9, 5)
    page = show(embedding, max_nodes=60)
    shown = np.flatnonzero(np.isfinite(page.projected(np.arange(embedding.n_nodes))).all(axis=1))
    assert len(shown) == page.state["total"] == 60 - 60 % 5
    for node in shown[:: len(shown) // 4]:
        (place,) = page.projected(node)
        assert page.picked(place) == node
        epoch, timestep, unit = (indices[node] for indices in embedding.layout.indices())
        assert [*page.hover(place).values()][:3] == [str(10 * epoch), str(timestep), f"unit {unit}"]
    assert page.text("#notes").startswith("60 of 405 nodes are drawn: all units at")


def test_nodes_without_a_place_are_not_drawn_and_are_counted(show):
    embedding = board()
    coordinates = embedding.coordinates.copy()
    place = show(embedding).projected(31)[0]
    coordinates[[3, 31]] = np.nan
    page = show(Embedding(coordinates, embedding.layout, most_active=embedding.most_active))
    assert np.isnan(page.projected([3, 31])).all() and np.isfinite(page.projected([4, 30])).all()
    assert page.hover(place) == {}
    x, y = place.astype(int)
    assert (page.pixels()[y - 3 : y + 4, x - 3 : x + 4] == 255).all()
    assert page.text("#notes") == "2 of 60 nodes have no place and are not drawn."


def test_one_component_is_drawn_over_the_epochs(show):
    layout = SliceLayout.of_shape(4, 1, 2)
    page = show(Embedding(np.arange(8.0)[:, None], layout))
    places = page.projected(np.arange(8))
    assert np.allclose(np.diff(places[::2, 0]), np.diff(places[::2, 0])[0], atol=0.1)
    assert np.allclose(places[::2, 0], places[1::2, 0], atol=0.1) and (np.diff(places[:, 1]) < 0).all()
    assert page.run("return document.getElementById('dimension').hidden")
    assert page.hover(places[5])["Epoch"] == "2"


def test_a_single_unit_and_five_thousand_units(show):
    page = show(board(3, 2, 1))
    assert page.hover(page.projected(2)[0])["Unit"] == "unit 0"
    layout = SliceLayout.of_shape(2, 2, 5000)
    coordinates = np.random.default_rng(0).normal(size=(layout.n_nodes, 2))
    coordinates[12_345] = 9, 9
    numbers = np.where(np.arange(layout.n_nodes) % 2, np.nan, np.arange(layout.n_nodes))
    page = show(Embedding(coordinates, layout), columns={"number": numbers})
    assert page.hover(page.projected(12_345)[0])["Unit"] == "2345"
    page.choose("number")
    page.click("#legend .entry", modifiers=8)  # what is missing, beside a bar of colors
    assert page.state["hidden"] == [65535]
    page.choose("Unit")
    page.search("4999")
    assert page.texts("#matches button") == ["4999"]
    page.search("1")
    assert len(page.texts("#matches button")) == 200
    assert page.texts("#matches p") == [f"and {sum('1' in str(unit) for unit in range(5000)) - 200:,} more"]


def test_five_hundred_classes_have_a_legend_that_scrolls(show):
    layout = SliceLayout.of_shape(2, 5, 100)
    coordinates = np.random.default_rng(0).normal(size=(layout.n_nodes, 2))
    page = show(Embedding(coordinates, layout, most_active=np.array([f"class {i % 500:03}" for i in range(1000)])))
    legend = page.legend()
    assert len(legend) == 500 and len({*legend.values()}) > 100
    box = page.box("#legend")
    assert box["height"] < 500
    scroll = page.run(
        "const {scrollHeight, clientHeight} = document.querySelector('#legend'); return scrollHeight > clientHeight"
    )
    assert scroll


def test_dates_are_written_out(show):
    layout = SliceLayout(np.array(["2026-01-31", "2026-02-01"], dtype="datetime64[D]"), np.arange(1), np.arange(2))
    page = show(Embedding(np.arange(8.0).reshape(4, 2), layout))
    assert page.hover(page.projected(3)[0])["Epoch"] == "2026-02-01"
    page.choose("Epoch")
    assert "2026-01-31" in page.text("#legend")
