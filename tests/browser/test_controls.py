"""The controls of the interactive picture, by mouse and by keyboard."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import image

from mmphate_gpu import Embedding

from .results import board, cloud, nearest

pytestmark = pytest.mark.browser
WHITE = (255, 255, 255)


def drawn(page, n_nodes: int) -> list[int]:
    """The nodes that have a place in the picture."""
    return np.flatnonzero(np.isfinite(page.projected(np.arange(n_nodes))).all(axis=1)).tolist()


def test_every_entry_of_the_color_menu_changes_colors_and_legend(show):
    embedding = board()
    columns = {"loss": ("epoch", np.array([0.9, 0.5, np.nan, 0.1])), "layer": ("unit", np.array(list("aabbb")))}
    page = show(embedding, columns=columns, size=(1000, 600))
    entries = page.texts("#color-by option")
    assert entries == ["Epoch", "Time step", "Unit", "Most active class", "loss", "layer"]
    seen = set()
    for name in entries:
        page.choose(name)
        assert page.state["color"] == name
        assert name.lower() in page.text("#status").lower()
        seen.add((page.text("#legend"), page.colors(np.arange(embedding.n_nodes)).tobytes()))
    assert len(seen) == len(entries)
    epoch, _, unit = embedding.layout.indices()
    page.choose("layer")
    assert nearest(page.colors(np.arange(60)), np.array([*page.legend().values()])) == [int(m > 1) for m in unit]
    page.choose("loss")  # missing at the third epoch: gray, and in the legend
    (gray,) = page.legend().values()
    assert {tuple(color) for color in page.colors(np.flatnonzero(epoch == 2))} == {
        tuple(np.rint(0.85 * np.array(gray) + 0.15 * 255).astype(int))
    }
    assert page.hover(page.projected(31)[0])["loss"] == "missing"
    assert page.hover(page.projected(1)[0])["loss"] == "0.9"


def test_the_epoch_slider_with_a_trail_shows_these_epochs(show):
    embedding = board()
    epoch, _, _ = embedding.layout.indices()
    page = show(embedding)
    everywhere = page.projected(np.arange(embedding.n_nodes))
    page.slide("#epoch", 2)
    page.slide("#trail", 1)
    assert (page.state["epoch"], page.state["trail"]) == (2, 1)
    visible = np.flatnonzero((epoch == 1) | (epoch == 2))
    assert drawn(page, embedding.n_nodes) == visible.tolist()
    pixels = page.pixels()
    places = np.rint(everywhere - 0.5).astype(int)
    inked = (pixels[places[:, 1], places[:, 0]] != 255).any(axis=1)
    assert np.flatnonzero(inked).tolist() == visible.tolist()
    # Older epochs fade toward the ground.
    contrast = 255 - pixels[places[:, 1], places[:, 0]].min(axis=1)
    assert contrast[epoch == 1].mean() < contrast[epoch == 2].mean()
    assert "10" in page.text("#status") and "20" in page.text("#epoch-shown")


def test_play_advances_and_stops_at_the_end(show):
    page = show(board(4, 2, 5))
    page.click("#play")
    first = page.state
    assert first["playing"] and first["epoch"] < 3
    page.until("return mmphate.state().epoch >= 2")
    page.until("return !mmphate.state().playing", 30)
    assert page.state["epoch"] == 3
    page.click("#play")
    page.press(".")  # a key of the picture, while the focus is on a button
    assert not page.state["playing"] and 0 < page.state["epoch"] < 3


def test_the_time_step_slider_shows_one_or_all(show):
    embedding = board()
    page = show(embedding)
    assert page.text("#timestep-shown") == "all"
    page.slide("#timestep", 1)
    expected = np.flatnonzero(embedding.layout.indices()[1] == 1).tolist()
    assert drawn(page, embedding.n_nodes) == expected
    page.slide("#timestep", -1)
    assert drawn(page, embedding.n_nodes) == [*range(embedding.n_nodes)]


def test_search_highlights_a_unit_and_draws_its_path(show):
    embedding = board(n_units=12)
    page = show(embedding)
    plain = page.pixels()
    page.search("UNIT 1")
    assert page.texts("#matches button") == ["unit 1", "unit 10", "unit 11"]
    page.click("#matches button")
    assert page.state["highlighted"] == [1]
    page.mouse("Moved", (3, 3))
    _, timestep, unit = embedding.layout.indices()
    # The path goes through the epochs at the last time step: there is ink halfway between two of its nodes.
    a, b = page.projected(np.flatnonzero((timestep == 2) & (unit == 1)))[:2]
    x, y = np.rint((a + b) / 2 + [0, 4]).astype(int)
    beside = (plain[y, x - 1 : x + 2] == 255).all()
    assert beside and (page.pixels()[y, x - 1 : x + 2] != 255).any()
    # Others are pale.
    contrast = 255 - page.colors(np.arange(embedding.n_nodes)).min(axis=1)
    assert contrast[unit == 1].min() > 2 * contrast[unit == 2].max()
    page.search("nobody")
    assert page.texts("#matches button") == [] and page.text("#matches") != ""
    page.press("Escape")
    assert page.state["highlighted"] == []
    assert np.abs(page.pixels() - plain)[:300, :900].max() == 0


def test_a_click_on_a_node_highlights_its_unit_and_on_the_ground_none(show):
    page = show(board())
    page.click(page.projected(23)[0])
    assert page.state["highlighted"] == [23 % 5]
    page.click((10, 10))
    assert page.state["highlighted"] == []


def test_the_legend_hides_and_shows_a_class(show):
    embedding = board()
    page = show(embedding)
    of_dog = embedding.layout.indices()[2] % 3 == 1
    page.click("#legend .entry:nth-child(2)")
    assert drawn(page, embedding.n_nodes) == np.flatnonzero(~of_dog).tolist()
    assert page.run("return document.querySelectorAll('#legend .entry')[1].getAttribute('aria-pressed')") == "false"
    page.click("#legend .entry:nth-child(2)")
    assert len(drawn(page, embedding.n_nodes)) == embedding.n_nodes
    page.click("#legend .entry:nth-child(2)", modifiers=8)  # with shift: alone
    assert drawn(page, embedding.n_nodes) == np.flatnonzero(of_dog).tolist()


def test_a_class_alone_is_without_missing_ones(show):
    unit = board().layout.indices()[2]
    page = show(board(most_active=np.where(unit < 2, unit, np.nan)))
    assert [*page.legend()] == ["0", "1", "missing"]
    page.click("#legend .entry:nth-child(2)", modifiers=8)
    assert drawn(page, 60) == np.flatnonzero(unit == 1).tolist()
    page.click("#legend .entry:nth-child(2)", modifiers=8)
    assert len(drawn(page, 60)) == 60


def test_dimension_turns_pans_zooms_and_resets(show):
    page = show(cloud())
    nodes = np.arange(60)
    first = page.projected(nodes)
    assert page.state["dimension"] == 3
    page.click("#dimension")
    assert page.state["dimension"] == 2
    flat = page.projected(nodes)
    page.drag((400, 300), (460, 330))  # moves all nodes alike
    assert np.allclose(page.projected(nodes) - flat, [60, 30], atol=0.5)
    page.mouse("Wheel", (400, 300), deltaX=0, deltaY=-240)
    page.until("return mmphate.state().camera.zoom > 1")
    zoom = page.state["camera"]["zoom"]
    assert np.allclose(page.projected(nodes) - [400, 300], zoom * (flat + [60, 30] - [400, 300]), atol=1)
    page.click("#reset")
    page.click("#dimension")
    assert np.allclose(page.projected(nodes), first, atol=0.01)
    assert page.state["camera"]["zoom"] == 1


def test_two_fingers_zoom_and_a_tap_highlights(show):
    page = show(board(), size=(390, 844))
    nodes = np.arange(60)
    before = page.projected(nodes)
    page.touch([(150, 150), (210, 150)], [(120, 150), (240, 150)])
    assert page.state["camera"]["zoom"] == pytest.approx(2)
    assert np.allclose(page.projected(nodes) - [180, 150], 2 * (before - [180, 150]), atol=1)
    page.touch([(180, 150)], [(190, 160)])
    assert np.allclose(page.projected(nodes) - [190, 160], 2 * (before - [180, 150]), atol=1)
    page.click("#reset")
    x, y = page.projected(23)[0]
    page.touch([(x, y)], [(x + 4, y - 3)])  # a finger is not still
    assert page.state["highlighted"] == [23 % 5]
    assert page.tooltip()["Unit"] == "unit 3"  # and it is read after the finger has been lifted


def test_a_finger_turns_the_picture_in_space(show):
    page = show(cloud(), size=(390, 844))
    page.touch([(180, 150)], [(230, 150)])
    assert page.state["camera"]["azimuth"] == pytest.approx(np.radians(-58) - 0.4)
    assert page.state["highlighted"] == [] and page.state["camera"]["center"] == [0, 0, 0]


def test_reset_shows_everything_again(show):
    page = show(board())
    before = page.state
    page.slide("#epoch", 1)
    page.slide("#timestep", 0)
    page.click("#legend .entry")
    page.click(page.projected(1)[0])
    page.click("#reset")
    assert page.state == before


def test_colors_of_the_page_are_as_the_system_or_as_chosen(show):
    page = show(board())
    ground = {"light": WHITE, "dark": (21, 23, 27)}
    for scheme in ("dark", "light"):
        page.prefers(scheme=scheme)
        page.until(f"return mmphate.state().dark === {str(scheme == 'dark').lower()}")
        assert tuple(page.pixels()[10, 10]) == ground[scheme]
    page.click("#theme")
    page.click("#theme")
    assert page.state["theme"] == "dark" and tuple(page.pixels()[10, 10]) == ground["dark"]
    legend = page.legend()
    assert nearest(page.colors([0, 1, 2]), np.array([*legend.values(), ground["dark"]])) == [0, 1, 2]


def test_export_saves_a_picture_that_is_not_blank(show):
    page = show(board(), size=(1280, 500))
    page.click("#export")
    picture = image.imread(page.downloaded())
    box = page.box("#canvas")
    assert picture.shape[0] == 2 * box["height"] and picture.shape[1] >= 2 * box["width"]
    places = np.rint(2 * page.projected(np.arange(60)) - 0.5).astype(int)
    colors = np.rint(255 * picture[places[:, 1], places[:, 0], :3])
    assert nearest(colors, np.array([*page.legend().values(), WHITE])) == [m % 3 for m in np.arange(60) % 5]


def test_the_keyboard_alone_does_everything(show):
    embedding = cloud()
    page = show(embedding)
    visited = []
    while visited.count("canvas") < 2:  # no trap: the focus comes around
        assert len(visited) < 40
        page.press("Tab")
        visited.append(page.focused())
    controls = {"canvas", "play", "epoch", "trail", "timestep", "color-by", "search", "dimension", "reset", "export"}
    assert controls | {"theme", "entry"} <= {*visited}
    page.focus("#canvas")
    nodes = np.arange(embedding.n_nodes)
    for keys, moves in ((["ArrowLeft"], True), (["+"], True), (["-"], True), (["Home"], True), (["x"], False)):
        before = page.projected(nodes)
        page.press(*keys)
        assert (np.abs(page.projected(nodes) - before).max() > 1) == moves, keys
    page.press(" ")
    assert page.state["playing"]
    page.press(" ", "/")
    assert not page.state["playing"] and page.focused() == "search"
    page.search("3")
    page.press("Tab", "Enter")
    assert page.state["highlighted"] == [3]
    page.press("Escape")
    assert page.state["highlighted"] == []
    page.focus("#canvas")
    page.press("?")
    assert "zoom" in page.text("#keys")
    page.focus("#color-by")
    page.press("ArrowUp")
    page.until("return mmphate.state().color === 'Unit'")


def test_frames_and_pauses_of_a_picture_that_moves(show):
    """While the picture moves, fewer dots may be drawn; all of them are drawn when it stands still."""
    embedding = Embedding(board().coordinates, board().layout)
    page = show(embedding)
    page.drag((400, 300), (430, 310))
    page.until("return mmphate.state().drawn === mmphate.state().total")
