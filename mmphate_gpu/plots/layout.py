"""Panels above one another, or in rows and columns, with margins and texts in inches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError, InputTypeError, check_number
from .canvas import INK, SMALLEST, TITLE_SIZE
from .names import texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Place = tuple[float, float, float, float]  # left, bottom, width, height, in fractions of the figure


class Margins(NamedTuple):
    """Inches around the panels, and between them."""

    left: float
    right: float
    top: float
    bottom: float
    gap: float = 0.0


NONE = Margins(0, 0, 0, 0)


def check_figsize(figsize: Any, least: tuple[float, float]) -> tuple[float, float]:
    """``figsize`` as two numbers of inches; raises `InputError` below ``least``, which has room for the texts."""
    if isinstance(figsize, str) or not hasattr(figsize, "__len__"):
        raise InputTypeError(f"figsize={figsize!r} is a {type(figsize).__name__}; accepted: (width, height) in inches")
    if len(figsize) != 2:
        raise InputError(f"figsize={figsize!r} has {len(figsize)} numbers; accepted: (width, height) in inches")
    sides = enumerate(zip(figsize, least, strict=True))
    width, height = (check_number(f"figsize[{side}]", size, low=low) for side, (size, low) in sides)
    return width, height


def stacked(figure: Figure, shares: Sequence[float], margins: Margins) -> list[Place]:
    """Places of panels above one another, the highest first, with heights in proportion to ``shares``."""
    width, height = figure.get_size_inches()
    inside = height - margins.top - margins.bottom - margins.gap * (len(shares) - 1)
    heights = [inside * share / sum(shares) for share in shares]
    upper, places = height - margins.top, []
    for size in heights:
        panel = margins.left, upper - size, width - margins.left - margins.right, size
        places.append((panel[0] / width, panel[1] / height, panel[2] / width, panel[3] / height))
        upper -= size + margins.gap
    return places


def columns_for(width: float, cell: float, n: int) -> int:
    """The columns of ``n`` panels of at least ``cell`` inches in ``width`` inches: no more than the rows need."""
    most = max(1, min(n, int(width / cell)))
    rows = -(-n // most)
    return -(-n // rows)


def cells(figure: Figure, n: int, columns: int, margins: Margins, around: Margins = NONE) -> list[Place]:
    """Places of ``n`` panels, row by row, each within ``margins``; ``around`` all of them, inches stay free."""
    width, height = figure.get_size_inches()
    rows = -(-n // columns)
    across, up = (width - around.left - around.right) / columns, (height - around.bottom - around.top) / rows
    places = []
    for index in range(n):
        row, column = divmod(index, columns)
        left = around.left + column * across + margins.left
        bottom = around.bottom + (rows - 1 - row) * up + margins.bottom
        size = across - margins.left - margins.right, up - margins.top - margins.bottom
        places.append((left / width, bottom / height, size[0] / width, size[1] / height))
    return places


def check_room(figsize: tuple[float, float] | None, height: float, least: float) -> None:
    """Refuse a figure of ``height`` inches if its texts need ``least`` of them."""
    if height < least:
        enough = math.ceil(10 * least) / 10
        raise InputError(
            f"figsize={figsize!r} has no room for the panels; accepted: a height of {enough} or more at this width"
        )


def beside(figure: Figure, place: Place, gap: float, width: float) -> Place:
    """The place of ``width`` inches on the right of ``place``, after ``gap`` inches."""
    total = figure.get_figwidth()
    return place[0] + place[2] + gap / total, place[1], width / total, place[3]


def title_above(figure: Figure, place: Place, title: str, inches: float = 0.1) -> None:
    """Write ``title`` at the left edge of ``place``, ``inches`` above it, as large as the figure is wide."""
    bottom = place[1] + place[3] + inches / figure.get_figheight()
    room = (1 - place[0]) * figure.get_figwidth() - 0.08
    size = fitted_size(figure, [title], TITLE_SIZE, room)
    figure.text(place[0], bottom, title, fontsize=size, color=INK, ha="left", va="bottom")


def titles_above(figure: Figure, places: Sequence[Place], titles: Sequence[str], beyond: float = 0.0) -> None:
    """Write a title above each place, all as large as fits the widest, which may end ``beyond`` inches to the right.

    Where they would be too small, they are cut.
    """
    room = places[0][2] * figure.get_figwidth() + beyond
    labels = np.array(titles, dtype=object)
    names, size = fitted_names(figure, labels, max(map(len, titles)), TITLE_SIZE - 1, room)
    for place, title in zip(places, names, strict=True):
        bottom = place[1] + place[3] + 0.05 / figure.get_figheight()
        figure.text(place[0], bottom, title, fontsize=size, color=INK, ha="left", va="bottom")


def square_inches(figure: Figure, place: Place) -> float:
    """The area of ``place``."""
    return float(np.prod(figure.get_size_inches()) * place[2] * place[3])


def text_width(figure: Figure, text: str, size: float) -> float:
    """The inches that ``text`` takes in a font of ``size`` points."""
    drawn = figure.text(0, 0, text, fontsize=size)
    width = drawn.get_window_extent().width
    drawn.remove()
    return width / figure.dpi


def widest(figure: Figure, texts: Sequence[str], size: float) -> float:
    """The inches that the widest of ``texts`` takes."""
    return max((text_width(figure, text, size) for text in set(texts)), default=0.0)


def fitted_names(figure: Figure, labels: np.ndarray, width: int, size: float, room: float) -> tuple[list[str], float]:
    """``labels`` in at most ``width`` characters, and the points of size at which they take at most ``room`` inches.

    Where the size would be less than `SMALLEST`, names are cut to fewer characters.
    """
    for characters in range(width, 1, -1):
        names = texts(labels, characters)
        fitted = fitted_size(figure, names, size, room)
        if fitted >= SMALLEST:
            break
    return names, max(fitted, SMALLEST)


def fitted_size(figure: Figure, texts: Sequence[str], size: float, room: float) -> float:
    """``size`` in points, or less if the widest of ``texts`` would take more than ``room`` inches."""
    return size * min(1.0, room / max(widest(figure, texts, size), 0.01))
