"""Null models against the data, and what smaller traces lose."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import NullModels, SubsampleStudy
from ..errors import InputTypeError
from .axis import Ticks, across, along_epochs, set_across, set_upward, value_ticks
from .canvas import INK, TICK_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .colors import PALETTE
from .grids import cells, columns_for
from .keys import dot, draw_names
from .layout import Margins, Place, beside, check_figsize, title_above, widest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.4
CELL = 2.0  # least inches of a panel with its texts
DATA, NULL = "#c44e20", "#31688e"
NAMES = {
    "intra": "Units kept (intra)",
    "inter": "Slices kept (inter)",
    "trustworthiness": "Trustworthiness",
    "continuity": "Continuity",
    "geodesic_spearman": "Geodesic Spearman",
    "stress": "Stress",
    "entropy": "Intra-step entropy",
    "spread": "Share of spread",
    "silhouette": "Silhouette",
    "procrustes": "Procrustes disparity",
}


@plain_style()
def null_models(
    result: NullModels,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw each metric of the data as a line, and those of the null models as dots, a row for each sort of null.

    The number beside a row is p. The dots of a null that destroys the structure lie away from the line.

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
        No `NullModels`, or a bad ``path`` or ``figsize``.
    """
    if not isinstance(result, NullModels):
        raise InputTypeError(f"result is a {type(result).__name__}; accepted: NullModels")
    path = check_path(path)
    row = 0.74 + 0.24 * len(result.kinds)
    figure, columns = _grid_figure(figsize, len(result.metrics), row, 0.0)
    left = 0.2 + widest(figure, result.kinds, TICK_SIZE)
    places = cells(figure, len(result.metrics), columns, Margins(left, 0.5, 0.34, 0.3))
    for index, (metric, place) in enumerate(zip(result.metrics, places, strict=True)):
        axes = figure.add_axes(place, label=metric)
        open_frame(axes)
        _draw_nulls(axes, result, index, place[2] * figure.get_figwidth())
        title_above(figure, place, NAMES.get(metric, metric), 0.06)
    save_figure(figure, path)
    return figure


def _grid_figure(figsize: Any, n: int, row: float, below: float) -> tuple[Figure, int]:
    """A figure for ``n`` panels with rows of ``row`` inches, and its number of columns."""
    width = WIDTH if figsize is None else check_figsize(figsize, (2.5, 2.0))[0]
    columns = columns_for(width, CELL, n)
    height = -(-n // columns) * row + below if figsize is None else check_figsize(figsize, (2.5, 2.0))[1]
    return new_figure((width, height)), columns


def _draw_nulls(axes: Axes, result: NullModels, index: int, inches: float) -> None:
    nulls, value = result.null[:, :, index], float(result.data[index])
    n = len(result.kinds)
    for row, values in enumerate(nulls):
        lift = 0.5 * (np.arange(len(values)) / max(1, len(values) - 1) - 0.5)
        axes.plot(values, row + lift, "o", color=NULL, markersize=2.6, markeredgewidth=0, alpha=0.8)
        p = result.p[row, index]
        if np.isfinite(p):
            axes.annotate(
                f"p {p:.2f}", (1.02, row), xycoords=("axes fraction", "data"), fontsize=TICK_SIZE - 1.5,
                color=INK, va="center", annotation_clip=False,
            )  # fmt: skip
    if np.isfinite(value):
        axes.axvline(value, color=DATA, linewidth=1.4)
    _few_ticks(axes, np.append(nulls.ravel(), value), inches)
    set_upward(axes, Ticks(np.arange(n), (n - 0.5, -0.5), np.arange(n), list(result.kinds)), "")


def _few_ticks(axes: Any, values: np.ndarray, inches: float) -> None:
    """A horizontal axis for ``values`` with as many ticks as fit."""
    for most in (4, 3, 2, 1):
        ticks = value_ticks(values, most)
        if across(axes.figure, inches, ticks.limits)(ticks.ticks, ticks.names):
            break
    set_across(axes, ticks, "")


# ---------------------------------------------------------------- smaller traces


@plain_style()
def subsampling(
    result: SubsampleStudy,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw what smaller traces lose: each metric against the size, and the entropy over epochs for each size.

    Dots are means over the repeats, and bars one standard deviation in each direction. The dashed line is the value of
    the whole trace; for the Procrustes disparity it is that of another seed.

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
        No `SubsampleStudy`, or a bad ``path`` or ``figsize``.
    """
    if not isinstance(result, SubsampleStudy):
        raise InputTypeError(f"result is a {type(result).__name__}; accepted: SubsampleStudy")
    path = check_path(path)
    curves = 2.1
    figure, columns = _grid_figure(figsize, len(result.metrics), 1.75, curves)
    below = curves if figsize is None else figure.get_figheight() * 0.5
    margins = Margins(0.55, 0.12, 0.34, 0.42)
    places = cells(figure, len(result.metrics), columns, margins, below)
    for index, (metric, place) in enumerate(zip(result.metrics, places, strict=True)):
        axes = figure.add_axes(place, label=metric)
        open_frame(axes)
        _draw_sizes(axes, result, index)
        title_above(figure, place, NAMES.get(metric, metric), 0.06)
    _draw_curves(figure, result, below)
    save_figure(figure, path)
    return figure


def _draw_sizes(axes: Axes, result: SubsampleStudy, index: int) -> None:
    values, whole = result.values[:, :, index], float(result.full[index])
    means, deviations = _moments(values)
    axes.errorbar(
        np.arange(len(means)), means, yerr=deviations, fmt="o-", color=NULL, markersize=4, linewidth=1.2,
        elinewidth=1, capsize=2.5,
    )  # fmt: skip
    if np.isfinite(whole):
        axes.axhline(whole, color=DATA, linewidth=1, linestyle=(0, (4, 3)))
    limits = (-0.5, len(means) - 0.5)
    names = [f"{size:,}" for size in result.sizes]
    set_across(axes, Ticks(np.arange(len(means)), limits, np.arange(len(means)), names), _unit_of(result))
    drawn = np.concatenate([means - deviations, means + deviations, [whole]])
    set_upward(axes, value_ticks(drawn, 4), "")


def _unit_of(result: SubsampleStudy) -> str:
    return f"Number of {'time steps' if result.over == 'timesteps' else result.over}"


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (R, repeats) -> (R,), (R,)
    """Means and standard deviations over the finite repeats; 0 is the deviation of a single one."""
    masked = np.ma.masked_invalid(values)
    deviations = np.ma.masked_invalid(masked.std(axis=1, ddof=1)) if values.shape[1] > 1 else np.ma.zeros(len(values))
    return masked.mean(axis=1).filled(np.nan), deviations.filled(0.0)


def _draw_curves(figure: Figure, result: SubsampleStudy, height: float) -> None:
    width = figure.get_figwidth()
    names = ["all", *(f"{size:,}" for size in result.sizes)]
    key = 0.35 + widest(figure, names, TICK_SIZE)
    whole = figure.get_figheight()
    place: Place = (0.55 / width, 0.42 / whole, (width - 0.55 - key - 0.1) / width, (height - 0.42 - 0.4) / whole)
    axes = figure.add_axes(place, label="entropy")
    open_frame(axes)
    columns = along_epochs(figure, np.asarray(result.epoch), place[2] * width)
    axes.plot(columns.places, result.full_curve, color=INK, linewidth=1.6)
    drawn = [result.full_curve]
    for index, curves in enumerate(result.curves):
        means, deviations = _moments(curves.T)
        style: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)]}
        axes.fill_between(columns.places, means - deviations, means + deviations, alpha=0.2, linewidth=0, **style)
        axes.plot(columns.places, means, linewidth=1.2, **style)
        drawn += [means - deviations, means + deviations]
    set_across(axes, columns, "Epoch")
    set_upward(axes, value_ticks(np.concatenate(drawn), 4), "Entropy (bits)")
    title_above(figure, place, "Intra-step entropy of the picture", 0.06)
    colors = [INK, *(PALETTE[index % len(PALETTE)] for index in range(len(result.sizes)))]
    draw_names(figure, beside(figure, place, 0.1, key), [dot(color) for color in colors], names)
