"""Rankings of units side by side."""

from __future__ import annotations

import os
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import UnitImportance
from ..errors import InputError, InputTypeError
from .axis import LINE
from .canvas import (
    FAINT,
    INK,
    LABEL_SIZE,
    SMALLEST,
    TICK_SIZE,
    check_path,
    new_figure,
    open_frame,
    plain_style,
    save_figure,
)
from .colors import round_ticks
from .layout import (
    Margins,
    Place,
    cells,
    check_figsize,
    check_room,
    columns_for,
    fitted_names,
    fitted_size,
    stacked,
    title_above,
    widest,
)
from .names import texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINKED = 60  # more units are dots in a plane of two rankings
WIDTH = 6.4
NAMES = 0.22  # the most of the width that the names of units take on each side
TITLE = "Ranks of the units (1 is the most important)"
TOP = 0.42  # inches of the title
NOTE = 0.1  # inches of the note at the bottom
LEAST, APART = 0.8, 0.1  # inches of the height of the columns, and between the texts of neighboring columns
CELL = 1.95  # least inches of a plane with its texts
DOT = "#31688e"


@plain_style()
def unit_rankings(
    importance: UnitImportance,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw how the scores rank the units, with the Spearman correlation of every pair of scores.

    Up to 60 units are names in a column for each score, the most important at the top, and lines link the places of a
    unit. Its color is the rank by the first score. Units of equal rank follow one another in the order of their axis.
    More units are dots, in a panel for each pair of scores. Units that a score does not rank are left out, and a note
    counts them.

    Parameters
    ----------
    importance : UnitImportance
        The ranks of M units by one or more scores.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced.
    figsize : (width, height), optional
        In inches; None fits the number of units and of pairs.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes are labeled "rankings", or "0", "1", ... for the pairs.

    Raises
    ------
    InputError, InputTypeError
        Something other than a `UnitImportance`, one that ranks no unit by all scores, or a bad ``path`` or ``figsize``.
    """
    if not isinstance(importance, UnitImportance):
        raise InputTypeError(f"importance is a {type(importance).__name__}; accepted: UnitImportance")
    path = check_path(path)
    ranks = np.array([importance.ranks[name] for name in importance.ranks], dtype=float)  # scores x units
    ranked = np.isfinite(ranks).all(axis=0)
    if not ranked.any():
        raise InputError("importance has no unit that all scores rank; accepted: at least one")
    draw = _linked if ranked.sum() <= MOST_LINKED or len(ranks) == 1 else _planes
    figure = draw(importance, ranks[:, ranked], ranked, figsize)
    if not ranked.all():
        note = f"{(~ranked).sum():,} of {len(ranked):,} units have no rank by some score"
        figure.text(0.995, 0.006, note, ha="right", va="bottom", fontsize=TICK_SIZE - 1.5, color=FAINT)
    save_figure(figure, path)
    return figure


def _agreements(importance: UnitImportance) -> dict[tuple[str, str], str]:
    """The Spearman correlation of each pair of scores, with its p."""
    rows = zip(importance.pairs, importance.spearman, importance.p, strict=True)
    return {
        (pair[0], pair[1]): f"ρ = {rho:.2f}, p = {p:.2g}" if np.isfinite(rho) else "no correlation"
        for pair, rho, p in rows
    }


# ---------------------------------------------------------------- linked names


def _linked(importance: UnitImportance, ranks: np.ndarray, ranked: np.ndarray, figsize: Any) -> Figure:
    n = ranks.shape[1]
    figure = new_figure((WIDTH, 1.0) if figsize is None else check_figsize(figsize, (2.5, 2.5)))
    scores = list(importance.ranks)
    units = np.asarray(importance.unit)[ranked]
    names, _ = fitted_names(figure, units, 10, SMALLEST, NAMES * figure.get_figwidth() * SMALLEST / TICK_SIZE)
    room = max(0.5, 0.24 + widest(figure, names, TICK_SIZE))
    gap = (figure.get_figwidth() - 2 * room) / max(1, len(scores) - 1) - APART
    beside, apart = _by_distance(figure, _agreements(importance), scores, gap)
    margins = Margins(room, room, TOP + 2.5 * LINE, NOTE + LINE * (2 * bool(beside) + len(apart)))
    frame = margins.top + margins.bottom
    if figsize is None:
        figure.set_size_inches(WIDTH, frame + max(1.6, 0.13 * n))
    check_room(figsize, figure.get_figheight(), frame + LEAST)
    place = stacked(figure, [1], margins)[0]
    axes = figure.add_axes(place, label="rankings")
    axes.set_axis_off()
    axes.set(xlim=(-0.04, len(ranks) - 0.96), ylim=(n - 0.5, -0.5))
    order = np.argsort(ranks, axis=1, kind="stable")
    _draw_links(axes, np.argsort(order, axis=1))
    _write_units(axes, names, order, place[3] * figure.get_figheight())
    _write_scores(axes, scores, beside, min(2 * room, gap))
    for index, line in enumerate(apart):
        level = (NOTE + LINE * (len(apart) - index - 0.5)) / figure.get_figheight()
        figure.text(0.5, level, line, fontsize=TICK_SIZE - 1, color=INK, ha="center", va="center")
    title_above(figure, (0.08 / figure.get_figwidth(), *place[1:]), TITLE, 2.5 * LINE + 0.05)
    return figure


def _by_distance(
    figure: Figure, agreements: dict[tuple[str, str], str], scores: list[str], gap: float
) -> tuple[dict[int, str], list[str]]:
    """The agreements of neighboring columns by the number of the left column, and lines for all others.

    If those of neighbors have no room in a ``gap`` of so many inches, they have lines as well. Lines are as
    wide as the figure at most, with names cut to as few as three characters.
    """
    columns = {pair: sorted(map(scores.index, pair)) for pair in agreements}
    near = [pair for pair, (low, high) in columns.items() if high == low + 1]
    beside = {columns[pair][0]: agreements[pair].replace(", ", "\n") for pair in near}
    if fitted_size(figure, list(beside.values()), TICK_SIZE - 1, gap) < SMALLEST:
        beside, near = {}, []
    others = {pair: text for pair, text in agreements.items() if pair not in near}
    for width in range(18, 2, -1):
        lines = [f"{' – '.join(texts(np.array(pair, dtype=object), width))}: {text}" for pair, text in others.items()]
        if widest(figure, lines, TICK_SIZE - 1) <= figure.get_figwidth() - 0.16:
            break
    return beside, lines


def _draw_links(axes: Axes, positions: np.ndarray) -> None:  # scores x units
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    columns = np.arange(len(positions))
    colors = colormaps["viridis"](0.9 * positions[0] / max(1, positions.shape[1] - 1))
    segments = [np.column_stack([columns, path]) for path in positions.T]
    axes.add_collection(LineCollection(segments, colors=colors, linewidths=1.2, alpha=0.85, label="links"))
    for column, places in zip(columns, positions, strict=True):
        axes.scatter(np.full(len(places), column), places, c=colors, s=12, linewidths=0, zorder=2)


def _write_units(axes: Axes, names: list[str], order: np.ndarray, inches: float) -> None:
    """Write the units beside the first and the last column, or every few of them where they have no room."""
    row = 72 * inches / len(names)
    size = float(np.clip(0.85 * row, SMALLEST, TICK_SIZE))
    step = int(np.ceil(size / row))
    sides = [(0, order[0], "right", -7), (len(order) - 1, order[-1], "left", 7)]
    for column, ordered, align, shift in sides[: len(order)]:
        for place in range(0, len(names), step):
            axes.annotate(
                names[ordered[place]], (column, place), (shift, 0), textcoords="offset points",
                fontsize=size, color=INK, ha=align, va="center",
            )  # fmt: skip


def _write_scores(axes: Axes, scores: list[str], beside: dict[int, str], room: float) -> None:
    """Write the names of the scores above their columns, and the agreement of neighbors below and between.

    Names have two lines at most, broken between words. All texts are as large as fits into ``room`` inches.
    """
    figure: Any = axes.figure
    across = axes.get_xaxis_transform()
    style: dict[str, Any] = {"xycoords": across, "textcoords": "offset points", "color": INK, "ha": "center"}
    names, size = _score_names(figure, scores, room)
    for column, name in enumerate(names):
        axes.annotate(name, (column, 1), (0, 4), fontsize=size, va="bottom", **style)
    size = fitted_size(figure, list(beside.values()), TICK_SIZE - 1, room)
    for column, text in beside.items():
        axes.annotate(text, (column + 0.5, 0), (0, -2), fontsize=size, va="top", **style)


def _score_names(figure: Figure, scores: list[str], room: float) -> tuple[list[str], float]:
    """Names in one or two lines, and the size at which they take at most ``room`` inches; cut if it were too small."""
    for width in range(24, 2, -1):
        short = texts(np.array(scores, dtype=object), width)
        names = ["\n".join(wrap(name, 12, break_long_words=False, max_lines=2, placeholder="…")) for name in short]
        size = fitted_size(figure, names, LABEL_SIZE, room)
        if size >= SMALLEST:
            break
    return names, max(size, SMALLEST)


# ---------------------------------------------------------------- planes of two rankings


def _planes(importance: UnitImportance, ranks: np.ndarray, ranked: np.ndarray, figsize: Any) -> Figure:
    agreements = _agreements(importance)
    figure, places = _grid(len(agreements), figsize)
    scores = list(importance.ranks)
    for index, ((pair, text), place) in enumerate(zip(agreements.items(), places, strict=True)):
        axes = figure.add_axes(place, label=str(index))
        open_frame(axes)
        _draw_plane(axes, *(ranks[scores.index(name)] for name in pair))
        names = texts(np.array(pair, dtype=object), 18)
        axes.set_xlabel(names[0], fontsize=LABEL_SIZE, color=INK, labelpad=2)
        axes.set_ylabel(names[1], fontsize=LABEL_SIZE, color=INK, labelpad=2)
        axes.set_title(text, loc="left", fontsize=TICK_SIZE, color=INK, pad=4)
    top = 1 - TOP / figure.get_figheight()
    title_above(figure, (0.08 / figure.get_figwidth(), 0, 1, top), TITLE, 0.1)
    return figure


def _grid(n: int, figsize: Any) -> tuple[Figure, list[Place]]:
    """A figure with ``n`` places in rows of as many as are at least `CELL` inches wide."""
    width = min(3, n) * 2.6 if figsize is None else check_figsize(figsize, (2.5, TOP + 1.5))[0]
    columns = columns_for(width, CELL, n)
    rows = -(-n // columns)
    size = (width, TOP + rows * 2.6) if figsize is None else check_figsize(figsize, (2.5, TOP + rows * 1.5))
    figure = new_figure(size)
    return figure, cells(figure, n, columns, Margins(0.66, 0.14, 0.24, 0.42 + NOTE), Margins(0, 0, TOP, 0))


def _draw_plane(axes: Axes, first: np.ndarray, second: np.ndarray) -> None:
    n = len(first)
    area = float(np.clip(1500 / n, 1.5, 12))
    axes.scatter(first, second, s=area, color=DOT, alpha=0.6, linewidths=0, rasterized=True)
    ticks = round_ticks(np.array([1, n]), 3)
    for name in "xy":
        axes.set(
            **{f"{name}lim": (1 - 0.03 * n, n + 0.03 * n), f"{name}ticks": ticks, f"{name}ticklabels": texts(ticks)}
        )
