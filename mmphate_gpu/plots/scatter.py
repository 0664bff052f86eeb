"""The embedding in four panels: epoch, time step, unit and most active class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputTypeError
from .canvas import TICK_SIZE, check_path, new_figure, plain_style, save_figure
from .colors import Coloring
from .keys import draw_key, with_short_names
from .layout import Margins, beside, cells, check_figsize, check_room, columns_for, square_inches, title_above, widest
from .nodes import (
    TITLES,
    add_frame,
    chosen_colorings,
    dot_style,
    draw_dots,
    draw_order,
    node_colorings,
    node_points,
    note_nodes,
    panel_shape,
    placed_nodes,
    time_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_DOTS = 200_000  # more dots than fit into a panel only take time


@plain_style()
def panels(
    embedding: Embedding,
    *,
    color_by: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
    point_size: float | str = "auto",
) -> Figure:
    """Draw the embedding in one panel each for epoch, time step, unit and most active class.

    Two components are drawn in the plane, and three or more in space (the first three). A single component is drawn
    against the epoch, or against the time step of a single epoch. Without a most active class there are three panels in
    a row. Dots are drawn in a fixed random order, so that no label hides another. Of more than 200,000 nodes, a fixed
    random sample of 200,000 is drawn, and a note on the figure gives both numbers. Nodes without a place (a row of NaN)
    are not drawn, and another note counts them.

    Parameters
    ----------
    embedding : Embedding
        The nodes to draw.
    color_by : sequence of "epoch", "timestep", "unit" and "most_active", optional
        The panels, in this order; None draws all.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. Dots are pixels in all three formats.
    figsize : (width, height), optional
        In inches; None fits the number of panels and the shape of the embedding.
    point_size : float or "auto"
        Squared diameter of a dot, in square points; "auto" falls with the number of nodes.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes of the panels are labeled "epoch", "timestep", "unit" and "most_active".

    Raises
    ------
    InputError, InputTypeError
        No `Embedding`, one in which no node has a place, or a bad ``path``, ``figsize`` or ``point_size``.
    """
    if not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding")
    path = check_path(path)
    placed = placed_nodes(embedding)
    shown = placed[draw_order(len(placed), MAX_DOTS)]
    axis = time_axis(embedding.layout)
    points = node_points(embedding, shown, axis)
    colorings = chosen_colorings(node_colorings(embedding.layout, embedding.most_active, shown), color_by)
    figure = new_figure((1, 1))
    colorings = {name: with_short_names(figure, coloring, NAMES) for name, coloring in colorings.items()}
    margins = _margins(figure, embedding, colorings)
    size, columns = _page(figsize, points, len(colorings), margins)
    figure.set_size_inches(size)
    panels = cells(figure, len(colorings), columns, margins)
    places = [(panel, beside(figure, panel, 0.12, margins.right - 0.13)) for panel in panels]
    style = dot_style(point_size, len(shown), square_inches(figure, places[0][0]))
    for (name, coloring), (panel, key) in zip(colorings.items(), places, strict=True):
        axes = add_frame(figure, panel, name, points, embedding, axis)
        draw_dots(axes, points, coloring, style)
        title_above(figure, panel, TITLES[name])
        draw_key(figure, key, coloring)
    note_nodes(figure, len(shown), len(placed), embedding.n_nodes)
    save_figure(figure, path)
    return figure


# Inches around a panel: left for the axis name, right at least for the key, above for the title.
LEFT, RIGHT, TOP, BOTTOM = 0.38, 1.05, 0.42, 0.34
NAMES = 1.1  # inches that the names of a key take at most, so that a panel fits into a column of a paper


def _margins(figure: Figure, embedding: Embedding, colorings: dict[str, Coloring]) -> Margins:
    """Room around a panel for its key, and on the axis of a single component for labels at its left end."""
    right = max(RIGHT, *(0.48 + widest(figure, coloring.names, TICK_SIZE) for coloring in colorings.values()))
    if embedding.n_components > 1:
        return Margins(LEFT, right, TOP, BOTTOM)
    axis = time_axis(embedding.layout)
    names = colorings[axis].names if axis in colorings else []
    return Margins(max(LEFT, 0.1 + widest(figure, names, TICK_SIZE) / 2), right, TOP, BOTTOM + 0.1)


def _page(figsize: Any, points: np.ndarray, n_panels: int, margins: Margins) -> tuple[tuple[float, float], int]:
    """The size of the figure, and the columns of panels: two for four panels, otherwise one row, if the width allows
    it."""
    columns = 2 if n_panels == 4 else n_panels
    around = margins.left + margins.right, margins.top + margins.bottom
    if figsize is None:
        height = 3.4
        width = height * panel_shape(points)
        return (columns * (width + around[0]), -(-n_panels // columns) * (height + around[1])), columns
    size = check_figsize(figsize, (1 + around[0], 1 + around[1]))
    columns = columns_for(size[0], 1 + around[0], columns)
    check_room(figsize, size[1], -(-n_panels // columns) * (1 + around[1]))
    return size, columns
