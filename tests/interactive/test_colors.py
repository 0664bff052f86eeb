"""Colors of names stay apart for everybody, on light and on dark ground, and so does the gray of missing values."""

import numpy as np
import pytest

from mmphate_gpu.interactive.colors import DARK_PALETTE, GROUND, MISSING_GRAY, PALETTE, PARTS, color_facts
from mmphate_gpu.plots import colors

from .color_vision import VIEWS, ciede2000, lab, least_difference, linear, seen

PALETTES = {"light": PALETTE, "dark": DARK_PALETTE}


@pytest.mark.parametrize("ground", PALETTES)
@pytest.mark.parametrize("view", VIEWS)
def test_all_pairs_of_names_and_missing_differ(ground, view):
    """The palette before had 2.1 in deuteranopia. 2.3 is a difference that is just visible side by side."""
    hexes = [*PALETTES[ground], MISSING_GRAY[ground]]
    assert len(PALETTES[ground]) == 12
    assert least_difference(hexes, view) >= (19 if view == "normal" else 11)


@pytest.mark.parametrize("ground", PALETTES)
@pytest.mark.parametrize("view", VIEWS)
def test_names_differ_from_the_ground(ground, view):
    drawn = seen([*PALETTES[ground]], view)
    below = np.broadcast_to(seen([GROUND[ground]], view), drawn.shape)
    assert ciede2000(drawn, below).min() >= 20


def test_all_pictures_have_the_same_palette():
    assert colors.PALETTE is PALETTE


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_differences_are_the_published_ones(first, second, expected):
    difference = ciede2000(np.array([first], dtype=float), np.array([second], dtype=float))
    assert difference == pytest.approx(expected, abs=6e-5)  # four digits are published


def test_white_and_gray_have_no_color_in_any_view():
    for view in VIEWS:
        assert np.abs(seen(["#ffffff", "#777777"], view)[:, 1:]).max() < 0.02  # the matrices have six digits
    assert lab(linear(["#ffffff"]))[0] == pytest.approx([100, 0, 0], abs=0.02)


def test_maps_are_those_of_matplotlib():
    from matplotlib import colormaps

    facts = color_facts()
    assert facts["maps"].keys() == PARTS.keys()
    for name, hexes in facts["maps"].items():
        numbers = np.frombuffer(bytes.fromhex(hexes), np.uint8).reshape(-1, 3) / 255
        assert np.abs(numbers - colormaps[name](np.linspace(0, 1, 64))[:, :3]).max() <= 0.5 / 255 + 1e-12
