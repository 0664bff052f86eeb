"""Panels of one size in rows and columns, with margins in inches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InputError
from .canvas import INK, TITLE_SIZE
from .layout import Margins, Place, fitted_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = Margins(0, 0, 0, 0)


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


def titles_above(figure: Figure, places: Sequence[Place], titles: Sequence[str], beyond: float = 0.0) -> None:
    """Write a title above each place, all as large as fits the widest, which may end ``beyond`` inches to the right."""
    room = places[0][2] * figure.get_figwidth() + beyond
    size = fitted_size(figure, titles, TITLE_SIZE - 1, room)
    for place, title in zip(places, titles, strict=True):
        bottom = place[1] + place[3] + 0.05 / figure.get_figheight()
        figure.text(place[0], bottom, title, fontsize=size, color=INK, ha="left", va="bottom")
