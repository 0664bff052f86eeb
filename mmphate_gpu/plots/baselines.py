"""A grid of pictures of one trace by several methods, with their table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import Baselines
from ..embedding import AXES
from ..errors import InputTypeError, check_choice
from .axis import LINE
from .canvas import FAINT, INK, LABEL_SIZE, TICK_SIZE, check_path, new_figure, plain_style, save_figure
from .colors import Coloring
from .keys import draw_key, with_short_names
from .layout import Margins, Place, cells, check_figsize, check_room, columns_for, titles_above, widest
from .names import texts
from .nodes import TITLES as NODE_TITLES
from .nodes import draw_order, node_colorings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, CELL = 6.4, 1.15  # inches of the figure, and the least of a picture with its margins
AROUND = Margins(0.06, 0.06, 0.28, 0.04)  # each picture
LEAST = 0.6  # inches of the height of a picture
KEY = (
    0.22  # the most of the width that the names of the key take; in a column of a paper it leaves two pictures in a row
)
BAR = 0.3  # inches of the key beside its texts
TABLE_LINE, GAP, EDGE = 0.17, 0.12, 0.08  # inches of a line of the table, between its columns, and beside it
BETWEEN = 0.5  # lines between the blocks of the table
MAX_DOTS = 20_000  # a small panel shows no more
TITLES = {
    "mm_phate": "MM-PHATE",
    "pca": "PCA",
    "tsne": "t-SNE",
    "umap": "UMAP",
    "isomap": "Isomap",
    "m_phate_per_step": "M-PHATE per step",
}
HEADS = {
    "trustworthiness": "trust.",
    "continuity": "contin.",
    "geodesic_spearman": "geodesic",
}
Column = tuple[list[str], list[int]]  # lines of the table, and which of them are bold


@plain_style()
def baselines(
    result: Baselines,
    *,
    color_by: str = "epoch",
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the picture of each method in one grid, with a table of their metrics beneath.

    A table that is much wider than the figure is cut into blocks of columns. The best values of a column, as rounded in
    the table, are bold (`Baselines.best`). A dash stands for a value that is not defined, and for the seconds of a
    picture that was passed in. Of more than 20,000 nodes a fixed random sample is drawn.

    Parameters
    ----------
    result : Baselines
        With at least one picture. `heatmap` draws its similarities.
    color_by : {"epoch", "timestep", "unit"}
        What the color of a node shows.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. Dots are pixels in all three formats.
    figsize : (width, height), optional
        In inches; None is 6.4 wide, with square pictures. A width of 3.35 is a column of a paper.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes have the names of the methods as labels; that of the table is "table".

    Raises
    ------
    InputError, InputTypeError
        Something other than a `Baselines`, an unknown ``color_by``, a bad ``path``, or a ``figsize`` without room for
        the pictures.
    """
    if not isinstance(result, Baselines):
        raise InputTypeError(f"result is a {type(result).__name__}; accepted: Baselines")
    check_choice("color_by", color_by, AXES)
    path = check_path(path)
    shown = draw_order(result.layout.n_nodes, MAX_DOTS)
    figure = new_figure((WIDTH, WIDTH) if figsize is None else check_figsize(figsize, (2.5, 2.5)))
    coloring = node_colorings(result.layout, None, shown)[color_by]
    coloring = with_short_names(figure, coloring, KEY * figure.get_figwidth())
    columns, around, blocks = _page(figure, result, [NODE_TITLES[color_by], *coloring.names], figsize)
    places = cells(figure, len(result.methods), columns, AROUND, around)
    for name, place in zip(result.methods, places, strict=True):
        _draw_picture(figure, place, name, result.coordinates[name][shown], coloring)
    titles_above(figure, places, [TITLES[name] for name in result.methods])
    _draw_key(figure, places, around, coloring, NODE_TITLES[color_by])
    _draw_table(figure, blocks, around.bottom - LINE)
    save_figure(figure, path)
    return figure


def _page(figure: Figure, result: Baselines, names: list[str], figsize: Any) -> tuple[int, Margins, list[list[Column]]]:
    """The number of the columns of pictures, the inches around them, and the table; None makes ``figure`` fit."""
    blocks = _table(figure, result)
    n_lines = (len(result.methods) + 1 + BETWEEN) * len(blocks) - BETWEEN
    table = TABLE_LINE * n_lines + 2 * LINE
    around = Margins(0, BAR + widest(figure, names, TICK_SIZE), 0, table)
    width = figure.get_figwidth() - around.right
    columns = columns_for(width, CELL, len(result.methods))
    rows, frame = -(-len(result.methods) // columns), AROUND.top + AROUND.bottom
    if figsize is None:
        square = width / columns - AROUND.left - AROUND.right
        figure.set_size_inches(WIDTH, rows * (square + frame) + around.bottom)
    check_room(figsize, figure.get_figheight(), rows * (LEAST + frame) + around.bottom)
    return columns, around, blocks


def _draw_picture(figure: Figure, place: Place, name: str, points: np.ndarray, coloring: Coloring) -> None:
    axes = figure.add_axes(place, label=name)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=FAINT, linewidth=0.5)
    area = float(np.clip(900 / len(points), 0.3, 6))
    colors: dict[str, Any] = {"c": coloring.values, "cmap": coloring.cmap, "norm": coloring.norm}
    axes.scatter(points[:, 0], points[:, 1], s=area, linewidths=0, alpha=0.7, rasterized=True, **colors)


def _draw_key(figure: Figure, places: list[Place], around: Margins, coloring: Coloring, title: str) -> None:
    """Draw the key on the right of all rows of pictures."""
    width, height = figure.get_size_inches()
    left = 1 - (around.right - 0.06) / width
    bottom, top = places[-1][1], places[0][1] + places[0][3]
    place = left, bottom, (around.right - 0.06) / width, top - bottom
    figure.text(left, top + 0.05 / height, title, fontsize=LABEL_SIZE, color=INK, va="bottom")
    draw_key(figure, place, coloring)


# ---------------------------------------------------------------- the table


def _table(figure: Figure, result: Baselines) -> list[list[Column]]:
    """The table in blocks of columns: in two, if heads cut to as few as seven characters allow it."""
    for width in (14, 10, 7):
        blocks = _blocks(figure, _columns(result, width))
        if len(blocks) <= 2:
            break
    return blocks


def _columns(result: Baselines, width: int) -> list[Column]:
    """The names of the methods, a column for each metric with a head of ``width`` characters, and the seconds."""
    heads = texts(np.array([HEADS.get(name, name) for name in result.metrics], dtype=object), width)
    columns: list[Column] = [(["", *(TITLES[name] for name in result.methods)], [])]
    for head, metric, values in zip(heads, result.metrics, result.table.T, strict=True):
        bold = [1 + result.methods.index(name) for name in result.best(metric)]
        columns.append(([head, *_numbers(values, 2)], bold))
    return [*columns, (["seconds", *_numbers(result.seconds, 1)], [])]


def _numbers(values: np.ndarray, digits: int) -> list[str]:
    return [f"{value:.{digits}f}" if np.isfinite(value) else "–" for value in values]


def _blocks(figure: Figure, columns: list[Column]) -> list[list[Column]]:
    """The columns in blocks beneath one another, each after the names of the methods, with texts of 75 % or more."""
    widths = np.array([widest(figure, lines, TICK_SIZE) + GAP for lines, _ in columns])
    room = (figure.get_figwidth() - 2 * EDGE) / 0.75 - widths[0]
    n_blocks = int(np.ceil(widths[1:].sum() / room))
    return [[columns[0], *(columns[1:][i] for i in part)] for part in np.array_split(range(len(columns) - 1), n_blocks)]


def _draw_table(figure: Figure, blocks: list[list[Column]], inches: float) -> None:
    """Write the blocks of the table in ``inches`` at the bottom, in texts of one size."""
    width, height = figure.get_size_inches()
    room, step = width - 2 * EDGE, len(blocks[0][0][0]) + BETWEEN
    axes = figure.add_axes((EDGE / width, 0.06 / height, room / width, inches / height), label="table")
    axes.set_axis_off()
    axes.set(xlim=(0, room), ylim=(step * len(blocks) - BETWEEN, 0))
    widths = [np.array([widest(figure, lines, TICK_SIZE) for lines, _ in block]) for block in blocks]
    scale = min(1.0, *(room / (block + GAP).sum() for block in widths))
    for index, (block, wide) in enumerate(zip(blocks, widths, strict=True)):
        axes.axhline(index * step + 1, color=FAINT, linewidth=0.5)
        free = (room - scale * wide.sum()) / (len(wide) - 1)
        ends = np.cumsum(scale * wide + free) - free
        _write_block(axes, index * step, block, [0, *ends[1:]], TICK_SIZE * scale)


def _write_block(axes: Axes, top: float, block: list[Column], ends: list[float], size: float) -> None:
    """Write the lines of a block below ``top``; names start at the left edge, and numbers end at ``ends``."""
    for (lines, bold), end in zip(block, ends, strict=True):
        for row, text in enumerate(lines):
            axes.text(
                end, top + row + 0.5, text, fontsize=size, weight="bold" if row in bold else "normal",
                color=INK, ha="right" if end else "left", va="center",
            )  # fmt: skip
