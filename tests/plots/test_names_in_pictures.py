"""Names of any sort are drawn as text in every picture, at one column, the default size and full width."""

import pytest

from .pictures import NAMES, PICTURES, WIDTHS, assert_plain, picture_of

# The kinds that differ most, drawn in a column of a paper, where there is least room.
FREQUENT = ("controls", "both ends alike", "wide", "hours", "unix nanoseconds", "near floats", "500 names")


def rotated():
    """Every picture at every size, and all kinds of names: `slow` draws each picture with each kind at each size."""
    kinds = list(NAMES)
    for row, picture in enumerate(PICTURES):
        yield picture, FREQUENT[row % len(FREQUENT)], 3.35
        yield picture, kinds[2 * row % len(kinds)], None
        yield picture, kinds[(2 * row + 1) % len(kinds)], 7.2


@pytest.mark.parametrize("picture, names, width", list(rotated()))
def test_names_are_plain_text(picture, names, width):
    assert_plain(picture_of(picture, names, width))


def test_every_kind_of_names_is_drawn():
    assert {names for _, names, _ in rotated()} == NAMES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("picture", PICTURES)
def test_all_names_are_plain_text_at_all_sizes(picture, names, width):
    assert_plain(picture_of(picture, names, width))
