"""A grid of pictures of one trace by several methods, with their table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import Baselines
from ..errors import InputTypeError, check_choice
from .axis import LINE
from .canvas import FAINT, INK, LABEL_SIZE, TICK_SIZE, check_path, new_figure, plain_style, save_figure
from .colors import Coloring, categorical, ordered
from .grids import cells, check_room, columns_for, titles_above
from .keys import draw_key
from .layout import Margins, Place, check_figsize, widest
from .names import texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, CELL = 6.4, 1.15  # inches of the figure, and the least of a picture with its margins
AROUND = Margins(0.06, 0.06, 0.28, 0.04)  # each picture
LEAST = 0.6  # inches of the height of a picture
BAR = 0.3  # inches of the key beside its texts
TABLE_LINE, GAP = 0.17, 0.12  # inches of a line of the table, and between its columns
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
COLORS = {"epoch": "Epoch", "timestep": "Time step", "unit": "Unit"}


@plain_style()
def baselines(
    result: Baselines,
    *,
    color_by: str = "epoch",
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the picture of each method in one grid, with a table of their metrics beneath.

    Of more than 20,000 nodes a fixed random sample is drawn. The best values of a column, as rounded in the table, are
    bold (`Baselines.best`). A dash stands for a value that is not defined, and for the seconds of a picture that was
    passed in.

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
    check_choice("color_by", color_by, tuple(COLORS))
    path = check_path(path)
    shown = np.random.default_rng(0).permutation(result.layout.n_nodes)[:MAX_DOTS]
    coloring = _coloring(result, color_by, shown)
    figure, columns, around = _page(result, [COLORS[color_by], *coloring.names], figsize)
    places = cells(figure, len(result.methods), columns, AROUND, around)
    for name, place in zip(result.methods, places, strict=True):
        _draw_picture(figure, place, name, result.coordinates[name][shown], coloring)
    titles_above(figure, places, [TITLES[name] for name in result.methods])
    _draw_key(figure, places, around, coloring, COLORS[color_by])
    _draw_table(figure, result, around.bottom - LINE)
    save_figure(figure, path)
    return figure


def _page(result: Baselines, names: list[str], figsize: Any) -> tuple[Figure, int, Margins]:
    """A figure for the pictures, the number of their columns, and the inches around them for the key and the table."""
    size = None if figsize is None else check_figsize(figsize, (2.5, 2.5))
    figure = new_figure((WIDTH, WIDTH) if size is None else size)
    around = Margins(0, BAR + widest(figure, names, TICK_SIZE), 0, TABLE_LINE * (len(result.methods) + 1) + 2 * LINE)
    width = figure.get_figwidth() - around.right
    columns = columns_for(width, CELL, len(result.methods))
    rows, frame = -(-len(result.methods) // columns), AROUND.top + AROUND.bottom
    if size is None:
        square = width / columns - AROUND.left - AROUND.right
        figure.set_size_inches(WIDTH, rows * (square + frame) + around.bottom)
    check_room(size, figure.get_figheight(), rows * (LEAST + frame) + around.bottom)
    return figure, columns, around


def _coloring(result: Baselines, name: str, shown: np.ndarray) -> Coloring:
    index = result.layout.indices(shown)[list(COLORS).index(name)]
    labels = getattr(result.layout, name)
    if name == "unit":
        return categorical(index, labels)
    return ordered(index, labels, "viridis" if name == "epoch" else "plasma", 0.0, 0.93)


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


def _draw_table(figure: Figure, result: Baselines, inches: float) -> None:
    """Write the table in ``inches`` at the bottom; the numbers of a column end where its name ends."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.08 / width, 0.06 / height, 1 - 0.16 / width, inches / height), label="table")
    axes.set_axis_off()
    heads = texts(np.array([HEADS.get(name, name) for name in result.metrics], dtype=object), 14)
    lines = [["", *heads, "seconds"]]
    lines += [_line(result, row) for row in range(len(result.methods))]
    axes.set(xlim=(0, width - 0.16), ylim=(len(lines), 0))
    best = [[], *(result.best(name) for name in result.metrics), []]
    widths = np.array([widest(figure, column, TICK_SIZE) for column in zip(*lines, strict=True)])
    scale = min(1.0, (width - 0.16) / (widths + GAP).sum())
    free = (width - 0.16 - scale * widths.sum()) / (len(widths) - 1)
    ends = np.cumsum(scale * widths + free) - free
    ends[0] = 0  # names start at the left edge
    axes.axhline(1, color=FAINT, linewidth=0.5)
    for row, line in enumerate(lines):
        bold = [row > 0 and result.methods[row - 1] in names for names in best]
        _write_line(axes, row, line, ends, bold, TICK_SIZE * scale)


def _line(result: Baselines, row: int) -> list[str]:
    seconds = result.seconds[row]
    numbers = [f"{value:.2f}" if np.isfinite(value) else "–" for value in result.table[row]]
    return [TITLES[result.methods[row]], *numbers, f"{seconds:.1f}" if np.isfinite(seconds) else "–"]


def _write_line(axes: Axes, row: int, line: Sequence[str], ends: np.ndarray, bold: Sequence[bool], size: float) -> None:
    for column, (text, end) in enumerate(zip(line, ends, strict=True)):
        weight = "bold" if bold[column] else "normal"
        side = "left" if column == 0 else "right"
        axes.text(end, row + 0.5, text, fontsize=size, weight=weight, color=INK, ha=side, va="center")
