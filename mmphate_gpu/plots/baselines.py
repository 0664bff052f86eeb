"""A grid of pictures of one trace by several methods, with their table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import Baselines
from ..errors import InputError, InputTypeError, check_choice
from .canvas import FAINT, INK, TICK_SIZE, check_path, new_figure, plain_style, save_figure
from .colors import Coloring, categorical, ordered
from .grids import cells, columns_for
from .keys import draw_key
from .layout import Margins, check_figsize, title_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, CELL = 6.4, 1.55
MAX_DOTS = 20_000  # a small panel shows no more
LINE = 0.19  # inches of a line of the table
KEY = 0.9  # inches of the key
TITLES = {
    "mm_phate": "MM-PHATE",
    "pca": "PCA",
    "tsne": "t-SNE",
    "umap": "UMAP",
    "isomap": "Isomap",
    "m_phate_per_step": "M-PHATE per step",
}
HEADS = {
    "intra": "intra",
    "inter": "inter",
    "trustworthiness": "trust.",
    "continuity": "contin.",
    "geodesic_spearman": "geodesic",
}
COLORS = ("epoch", "timestep", "unit")


@plain_style()
def baselines(
    result: Baselines,
    *,
    color_by: str = "epoch",
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the picture of each method in one grid, with the table of what each of them keeps beneath.

    Of more than 20,000 nodes a fixed random sample is drawn. The best value of a column is bold.

    Parameters
    ----------
    result : Baselines
        With at least one picture. `heatmap` draws its similarities.
    color_by : {"epoch", "timestep", "unit"}
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. Dots are pixels in all three formats.
    figsize : (width, height), optional
        In inches; None fits the number of methods.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes have the names of the methods as labels; that of the table is "table".

    Raises
    ------
    InputError, InputTypeError
        No `Baselines`, an unknown ``color_by``, or a bad ``path`` or ``figsize``.
    """
    if not isinstance(result, Baselines):
        raise InputTypeError(f"result is a {type(result).__name__}; accepted: Baselines")
    check_choice("color_by", color_by, COLORS)
    path = check_path(path)
    n = len(result.methods)
    below = LINE * (n + 1) + 0.25
    width = WIDTH if figsize is None else check_figsize(figsize, (2.5, 2.5))[0]
    columns = columns_for(width - KEY, CELL, n)
    height = -(-n // columns) * 1.75 + below if figsize is None else check_figsize(figsize, (2.5, 2.5))[1]
    if height - below < 0.8 * -(-n // columns):
        raise InputError(
            f"figsize={figsize!r} has no room for {n} pictures; accepted: a height of {below + 0.8 * n:.1f}"
        )
    figure = new_figure((width, height))
    shown = np.random.default_rng(0).permutation(result.layout.n_nodes)[:MAX_DOTS]
    coloring = _coloring(result, color_by, shown)
    inner = Margins(0.06, 0.06, 0.3, 0.04)
    share = (width - KEY) / width
    for name, place in zip(result.methods, cells(figure, n, columns, inner, below), strict=True):
        panel = place[0] * share, place[1], place[2] * share, place[3]
        _draw_picture(figure, panel, name, result.coordinates[name][shown], coloring)
        title_above(figure, panel, TITLES.get(name, name), 0.05)
    key = (width - KEY + 0.1) / width, below / height, (KEY - 0.1) / width, 1 - below / height - 0.3 / height
    draw_key(figure, key, coloring)
    _draw_table(figure, result, below)
    save_figure(figure, path)
    return figure


def _coloring(result: Baselines, name: str, shown: np.ndarray) -> Coloring:
    index = result.layout.indices(shown)[COLORS.index(name)]
    labels = getattr(result.layout, name)
    if name == "unit":
        return categorical(index, labels)
    return ordered(index, labels, "viridis" if name == "epoch" else "plasma", 0.0, 0.93)


def _draw_picture(figure: Figure, place: Any, name: str, points: np.ndarray, coloring: Coloring) -> None:
    axes = figure.add_axes(place, label=name)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=FAINT, linewidth=0.5)
    area = float(np.clip(900 / len(points), 0.3, 6))
    colors: dict[str, Any] = {"c": coloring.values, "cmap": coloring.cmap, "norm": coloring.norm}
    axes.scatter(points[:, 0], points[:, 1], s=area, linewidths=0, alpha=0.7, rasterized=True, **colors)


def _draw_table(figure: Figure, result: Baselines, below: float) -> None:
    place = (0.08 / figure.get_figwidth(), 0.06 / figure.get_figheight(), 1 - 0.16 / figure.get_figwidth(), 0)
    axes = figure.add_axes((*place[:3], (below - 0.12) / figure.get_figheight()), label="table")
    axes.set_axis_off()
    lines = len(result.methods) + 1
    axes.set(xlim=(0, 1), ylim=(lines, 0))
    heads = ["", *(HEADS.get(name, name) for name in result.metrics), "seconds"]
    columns = np.concatenate([[0.0], np.linspace(0.36, 1.0, len(heads) - 1)])
    best = [int(np.nanargmax(column)) if np.isfinite(column).any() else -1 for column in result.table.T]
    _write_line(axes, 0, heads, columns, set())
    for row, name in enumerate(result.methods):
        seconds = result.seconds[row]
        numbers = [*(f"{value:.2f}" for value in result.table[row]), f"{seconds:.1f}" if np.isfinite(seconds) else ""]
        bold = {column + 1 for column, leader in enumerate(best) if leader == row}
        _write_line(axes, row + 1, [TITLES.get(name, name), *numbers], columns, bold)


def _write_line(axes: Any, row: int, texts: Sequence[str], columns: np.ndarray, bold: set[int]) -> None:
    size = TICK_SIZE * min(1.0, axes.figure.get_figwidth() / 4.6)
    for column, (text, x) in enumerate(zip(texts, columns, strict=True)):
        style: dict[str, Any] = {"ha": "left" if column == 0 else "right", "va": "center", "color": INK}
        axes.text(x, row + 0.5, text, fontsize=size, weight="bold" if column in bold else "normal", **style)
