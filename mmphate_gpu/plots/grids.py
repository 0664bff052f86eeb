"""Panels of one size in rows and columns, with margins in inches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .layout import Margins, Place

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def columns_for(width: float, cell: float, n: int) -> int:
    """How many cells of at least ``cell`` inches fit beside one another in a figure of ``width`` inches; at most n."""
    return max(1, min(n, int(width / cell)))


def cells(
    figure: Figure, n: int, columns: int, margins: Margins, below: float = 0.0, above: float = 0.0
) -> list[Place]:
    """Places of ``n`` panels, row by row. ``margins`` surround each; ``below`` and ``above`` all, inches stay free."""
    width, height = figure.get_size_inches()
    rows = -(-n // columns)
    across, up = width / columns, (height - below - above) / rows
    places = []
    for index in range(n):
        row, column = divmod(index, columns)
        left, bottom = column * across + margins.left, below + (rows - 1 - row) * up + margins.bottom
        size = across - margins.left - margins.right, up - margins.top - margins.bottom
        places.append((left / width, bottom / height, size[0] / width, size[1] / height))
    return places
