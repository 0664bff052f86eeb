"""Null models compared with the data, and what smaller traces lose."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import NullModels, SubsampleStudy
from ..errors import InputTypeError
from .axis import (
    MOST,
    Ticks,
    across,
    along_epochs,
    by_rank,
    set_across,
    set_upward,
    ticks_within,
    value_limits,
    value_ticks,
)
from .canvas import INK, TICK_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .keys import columns_of, dot, draw_names, width_of
from .layout import Margins, Place, beside, cells, check_figsize, check_room, columns_for, titles_above, widest
from .names import texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.4
LEAST, LEFT = 0.4, 0.52  # inches of the height of a panel, and the least beside it
DATA, NULL = "#c44e20", "#31688e"
TITLES = {
    "intra": "Units kept (intra)",
    "inter": "Slices kept (inter)",
    "trustworthiness": "Trustworthiness",
    "continuity": "Continuity",
    "geodesic_spearman": "Geodesic Spearman",
    "stress": "Stress",
    "entropy": "Intra-step entropy",
    "spread": "Spread within epochs",
    "silhouette": "Silhouette",
    "procrustes": "Procrustes disparity",
}
AXES = {"timesteps": "Time steps", "epochs": "Epochs", "units": "Units", "samples": "Samples"}


@plain_style()
def null_models(
    result: NullModels,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw each metric of the data as a line, and that of the null models as dots, in a row for each null.

    The number beside a row is the p-value. If the dots of a null lie away from the line, the null destroys what the
    metric measures.

    Parameters
    ----------
    result : NullModels
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced.
    figsize : (width, height), optional
        In inches; None fits the number of metrics.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes have the names of the metrics as labels.

    Raises
    ------
    InputError, InputTypeError
        Something other than a `NullModels`, or a bad ``path`` or ``figsize``.
    """
    if not isinstance(result, NullModels):
        raise InputTypeError(f"result is a {type(result).__name__}; accepted: NullModels")
    path = check_path(path)
    margins, row = Margins(0.1, 0.44, 0.32, 0.3), 0.2 * len(result.kinds)
    figure, columns, around = _null_page(result, row + margins.top + margins.bottom, figsize)
    places = cells(figure, len(result.metrics), columns, margins, around)
    for index, (metric, place) in enumerate(zip(result.metrics, places, strict=True)):
        axes = figure.add_axes(place, label=metric)
        open_frame(axes)
        _draw_nulls(axes, result, index, place[2] * figure.get_figwidth(), named=index % columns == 0)
    titles_above(figure, places, _titles(result.metrics), margins.right - 0.06)
    save_figure(figure, path)
    return figure


def _null_page(result: NullModels, row: float, figsize: Any) -> tuple[Figure, int, Margins]:
    """A figure for rows of panels of ``row`` inches, the number of columns, and the room for the names of nulls."""
    size = None if figsize is None else check_figsize(figsize, (2.5, 1.0))
    figure = new_figure((WIDTH, WIDTH) if size is None else size)
    around = Margins(0.12 + widest(figure, _null_names(result), TICK_SIZE), 0, 0, 0)
    columns = columns_for(figure.get_figwidth() - around.left, 1.25, len(result.metrics))
    rows = -(-len(result.metrics) // columns)
    if size is None:
        figure.set_size_inches(WIDTH, rows * row)
    # A line of a null takes at least as much room as its name.
    check_room(size, figure.get_figheight(), rows * (row - 0.06 * len(result.kinds)))
    return figure, columns, around


def _null_names(result: NullModels) -> list[str]:
    names = [AXES.get(name, name).lower() for name in result.kinds]
    return texts(np.array(names, dtype=object), 12)


def _titles(metrics: list[str]) -> list[str]:
    return texts(np.array([TITLES.get(name, name) for name in metrics], dtype=object), 20)


def _draw_nulls(axes: Axes, result: NullModels, index: int, inches: float, *, named: bool) -> None:
    nulls, value = result.null[:, :, index], float(result.data[index])
    n = len(result.kinds)
    for row, values in enumerate(nulls):
        lift = 0.5 * (np.arange(len(values)) / max(1, len(values) - 1) - 0.5)
        axes.plot(values, row + lift, "o", color=NULL, markersize=2.6, markeredgewidth=0, alpha=0.8)
        _write_p(axes, row, result.p[row, index])
    if np.isfinite(value):
        axes.axvline(value, color=DATA, linewidth=1.4)
    set_across(axes, _few_ticks(axes.figure, np.append(nulls.ravel(), value), inches), "")
    names = _null_names(result) if named else [""] * n
    set_upward(axes, Ticks(np.arange(n), (n - 0.5, -0.5), np.arange(n), names), "")


def _write_p(axes: Axes, row: int, p: float) -> None:
    """Write the p-value of a row on the right of the panel."""
    if np.isfinite(p):
        text = f"p {p:.2f}" if p >= 0.01 else f"p {p:.1g}"
        axes.annotate(
            text, (1.0, row), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=TICK_SIZE - 1.5, color=INK, va="center", annotation_clip=False,
        )  # fmt: skip


def _few_ticks(figure: Any, values: np.ndarray, inches: float) -> Ticks:
    """A horizontal axis for ``values`` with as many ticks as fit."""
    low, high = value_limits(values)
    options = [ticks_within(low, high, most).ticks for most in (4, 3, 2, 1)]
    options += [options[-1][[0, -1]], options[-1][:1]]
    fits = across(figure, inches, (low, high))
    ticks = next(ticks for ticks in options if len(ticks) == 1 or fits(ticks, texts(ticks)))
    return Ticks(ticks, (low, high), ticks, texts(ticks))


# ---------------------------------------------------------------- smaller traces


@plain_style()
def subsampling(
    result: SubsampleStudy,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw what smaller traces lose: each metric against the size, and the entropy over epochs for each size.

    Dots and lines are means over the repeats, and bars and bands are one standard deviation in each direction. The
    dashed line is the value of the whole trace; for the Procrustes disparity it is that of a fit with another seed. The
    color of a curve is the darker, the larger the size; the curve of the whole trace is black.

    Parameters
    ----------
    result : SubsampleStudy
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced.
    figsize : (width, height), optional
        In inches; None fits the number of metrics.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes have the names of the metrics as labels; that of the curves is "entropy".

    Raises
    ------
    InputError, InputTypeError
        Something other than a `SubsampleStudy`, or a bad ``path`` or ``figsize``.
    """
    if not isinstance(result, SubsampleStudy):
        raise InputTypeError(f"result is a {type(result).__name__}; accepted: SubsampleStudy")
    path = check_path(path)
    figure, columns, around = _study_page(result, figsize)
    levels = [_level(result, index) for index in range(len(result.metrics))]
    left = max(LEFT, 0.12 + widest(figure, [name for level in levels for name in level.names], TICK_SIZE))
    places = cells(figure, len(result.metrics), columns, Margins(left, 0.12, 0.32, 0.42), around)
    for index, (metric, place) in enumerate(zip(result.metrics, places, strict=True)):
        axes = figure.add_axes(place, label=metric)
        open_frame(axes)
        _draw_sizes(axes, result, index, place[2] * figure.get_figwidth())
        set_upward(axes, levels[index], "")
    titles_above(figure, places, _titles(result.metrics), 0.1)
    _draw_curves(figure, result, around.bottom, left)
    save_figure(figure, path)
    return figure


def _study_page(result: SubsampleStudy, figsize: Any) -> tuple[Figure, int, Margins]:
    """A figure for the panels, the number of their columns, and the room below them for the curves."""
    size = None if figsize is None else check_figsize(figsize, (2.5, 2.0))
    width = WIDTH if size is None else size[0]
    columns = columns_for(width, 1.6, len(result.metrics))
    rows = -(-len(result.metrics) // columns)
    height = rows * 1.75 + 2.1 if size is None else size[1]
    check_room(size, height, (rows + 1) * (LEAST + 0.82))
    return new_figure((width, height)), columns, Margins(0, 0, 0, height * 1.2 / (rows + 1.2))


def _level(result: SubsampleStudy, index: int) -> Ticks:
    """The vertical axis of a metric, with room for its bars and for the whole trace."""
    means, deviations = _moments(result.values[:, :, index])
    return value_ticks(np.concatenate([means - deviations, means + deviations, result.full[index, None]]), 4)


def _draw_sizes(axes: Any, result: SubsampleStudy, index: int, inches: float) -> None:
    means, deviations = _moments(result.values[:, :, index])
    whole = float(result.full[index])
    axes.errorbar(
        np.arange(len(means)), means, yerr=deviations, fmt="o-", color=NULL, markersize=4, linewidth=1.2,
        elinewidth=1, capsize=2.5,
    )  # fmt: skip
    if np.isfinite(whole):
        axes.axhline(whole, color=DATA, linewidth=1, linestyle=(0, (4, 3)))
    limits = (-0.5, len(means) - 0.5)
    set_across(axes, by_rank(result.sizes, limits, across(axes.figure, inches, limits), MOST), AXES[result.over])


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (n, repeats) -> (n,), (n,)
    """Means and standard deviations over the finite repeats: NaN without any, and a deviation of 0 for a single one."""
    finite = np.isfinite(values)
    n = finite.sum(1)
    means = np.where(finite, values, 0).sum(1) / np.where(n > 0, n, np.nan)
    squares = np.where(finite, values - means[:, None], 0) ** 2
    return means, np.sqrt(squares.sum(1) / np.maximum(n - 1, 1))


def _draw_curves(figure: Figure, result: SubsampleStudy, inches: float, left: float) -> None:
    """Draw the entropy over epochs in ``inches`` at the bottom, with at least ``left`` inches beside it."""
    width, height = figure.get_size_inches()
    names = ["all", *(f"{size:,}" for size in result.sizes)]
    columns = columns_of(names, inches - 0.78)
    key = width_of(figure, columns)
    bands = [_moments(curves.T) for curves in [result.full_curve[None], *result.curves]]
    ends = [edge for means, deviations in bands for edge in (means - deviations, means + deviations)]
    level = value_ticks(np.concatenate(ends), 4)
    left = max(left, 0.3 + widest(figure, level.names, TICK_SIZE))
    place: Place = (left / width, 0.42 / height, (width - left - key - 0.1) / width, (inches - 0.78) / height)
    axes: Any = figure.add_axes(place, label="entropy")
    open_frame(axes)
    epochs = along_epochs(figure, np.asarray(result.epoch), place[2] * width)
    colors = _size_colors(result.sizes)
    for color, (means, deviations) in zip(colors, bands, strict=True):
        _draw_band(axes, epochs.places, means, deviations, color, min(0.2, 0.6 / len(colors)))
    set_across(axes, epochs, "Epoch")
    set_upward(axes, level, "Entropy (bits)")
    titles_above(figure, [place], ["Intra-step entropy of the picture"])
    draw_names(figure, beside(figure, place, 0.1, key), [dot(color) for color in colors], names, len(columns))


def _size_colors(sizes: np.ndarray) -> list[Any]:
    """The color of the whole trace, and those of the sizes: a ramp that shows their order."""
    from matplotlib import colormaps

    smaller = np.unique(-sizes, return_inverse=True)[1]
    # The ends of the map are too near the color of the whole trace, and too pale.
    return [INK, *colormaps["plasma"](0.1 + 0.7 * smaller / max(1, smaller.max()))]


def _draw_band(
    axes: Axes, places: np.ndarray, means: np.ndarray, deviations: np.ndarray, color: Any, alpha: float
) -> None:
    """Draw a curve with its band, without the epochs that no part of the size has."""
    shown = np.isfinite(means)
    places, means, deviations = places[shown], means[shown], deviations[shown]
    if len(places) == 1:  # lines and bands need two epochs
        axes.errorbar(places, means, yerr=deviations, fmt="o", markersize=4, linewidth=1, capsize=2.5, color=color)
        return
    axes.fill_between(places, means - deviations, means + deviations, alpha=alpha, linewidth=0, color=color)
    axes.plot(places, means, linewidth=1.3, color=color)
