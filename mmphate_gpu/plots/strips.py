"""Communities of units over the epochs, with the evidence for them above."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import UnitCommunities
from ..errors import InputError, InputTypeError
from .axis import LINE, Ticks, across, by_rank, set_across, set_upward, ticks_within, upward
from .canvas import FAINT, TICK_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .colors import Coloring, categorical
from .keys import columns_of, dot, draw_names, missing_patch, show_missing, width_of
from .layout import Margins, Place, beside, check_figsize, stacked, title_above, widest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.4, 4.8
TOP, BOTTOM, GAP = 0.34, 0.42, 0.32  # inches above, below and between the panels
MOST_MARKERS = 30  # epochs that are dots
# The title of each panel, and its share of the height.
PANELS = {
    "silhouette": ("Silhouette", 0.24),
    "stability": ("Stability (adjusted Rand index)", 0.24),
    "communities": ("Communities of the units", 0.52),
}
CURVES = ["data", "null", "seeds", "epochs"]
Names = tuple[list[Any], list[str]]  # handles of a key, and their texts
SILHOUETTE, SEEDS, EPOCHS = "#262626", "#0072b2", "#e69f00"


@plain_style()
def community_strips(
    communities: UnitCommunities,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the community of every unit at every epoch as a strip of colors, with silhouette and stability above.

    Units are ordered by their community at the last epoch, and then at the epochs before. The band behind the
    silhouette holds 95 % of the silhouettes of the null draws; within it, the communities are no better than those of
    data without structure. The stability is the adjusted Rand index over seeds and of consecutive epochs. A single
    partition is a strip of one column.

    Parameters
    ----------
    communities : UnitCommunities
        Partitions of M units, one for each epoch or a single one.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. The strip is made of pixels in all three.
    figsize : (width, height), optional
        In inches; None is 6.4 x 4.8.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes are labeled "silhouette", "stability", "communities" and "key".

    Raises
    ------
    InputError, InputTypeError
        Something other than a `UnitCommunities`, one in which every unit is noise, or a bad ``path`` or ``figsize``.
    """
    if not isinstance(communities, UnitCommunities):
        raise InputTypeError(f"communities is a {type(communities).__name__}; accepted: UnitCommunities")
    if not (communities.community >= 0).any():
        raise InputError("communities has only noise; accepted: at least one community")
    path = check_path(path)
    figure = new_figure(check_figsize((WIDTH, HEIGHT) if figsize is None else figsize, (2.5, 3.0)))
    order = _order(communities.community)
    coloring = _coloring(communities.community)
    shown = [name for name in PANELS if name != "stability" or _has_stability(communities)]
    noise = ["none"] if (communities.community < 0).any() else []
    names = [*coloring.names, *noise]
    units = np.asarray(communities.unit)[order]
    rows, places, n_columns = _places(figure, units, names, [PANELS[name][1] for name in shown])
    columns = _columns(figure, communities, places[0])
    for name, place in zip(shown, places, strict=True):
        axes = figure.add_axes(place, label=name)
        open_frame(axes)
        if name == "communities":
            handles = [*_draw_strip(axes, communities.community[:, order], coloring), *(missing_patch() for _ in noise)]
            draw_names(figure, beside(figure, place, 0.12, 1), handles, names, n_columns)
        else:
            draw_names(figure, beside(figure, place, 0.12, 1), *DRAWN[name](axes, communities))
        set_across(axes, columns, ("" if communities.epoch is None else "Epoch") if name == "communities" else None)
        title_above(figure, place, PANELS[name][0], 0.05)
    set_upward(axes, rows, "Unit")
    save_figure(figure, path)
    return figure


def _has_stability(communities: UnitCommunities) -> bool:
    return _any(np.concatenate([communities.seed_stability, communities.epoch_stability]))


def _order(community: np.ndarray) -> np.ndarray:  # (M,)
    """Units by their community at the last epoch, then at the epochs before; those without a community come last."""
    return np.lexsort(np.where(community < 0, community.max() + 1, community))


def _coloring(community: np.ndarray) -> Coloring:
    names = np.unique(community[community >= 0])
    return categorical(names, names)


def _places(figure: Figure, units: np.ndarray, names: list[str], shares: list[float]) -> tuple[Ticks, list[Place], int]:
    """The ticks of the units, the places of the panels, and the columns of the key of the communities."""
    margins = Margins(0, 0, TOP, BOTTOM, GAP)
    height = stacked(figure, shares, margins)[-1][3] * figure.get_figheight()
    limits = (-0.5, len(units) - 0.5)
    rows = by_rank(units, limits, upward(height, limits), max(2, int(height / LINE)))
    left = 0.32 + max(widest(figure, rows.names, TICK_SIZE), 0.25)
    columns = columns_of(names, height)
    right = 0.12 + max(width_of(figure, columns), width_of(figure, [CURVES]))
    return rows, stacked(figure, shares, margins._replace(left=left, right=right)), len(columns)


def _columns(figure: Figure, communities: UnitCommunities, place: Place) -> Ticks:
    limits = (-0.5, len(communities.community) - 0.5)
    if communities.epoch is None:
        return Ticks(np.zeros(1), limits, np.zeros(0), [])
    fits = across(figure, place[2] * figure.get_figwidth(), limits)
    return by_rank(np.asarray(communities.epoch), limits, fits, 12)


def _draw_silhouette(axes: Axes, communities: UnitCommunities) -> Names:
    """Draw the silhouette with the band of the null, and return what the key names."""
    from matplotlib.patches import Patch

    data = _line(axes, np.arange(len(communities.silhouette)), communities.silhouette, SILHOUETTE, "silhouette")
    bands = [np.quantile(row[np.isfinite(row)], (0.025, 0.975)) for row in communities.null_silhouette if _any(row)]
    if len(bands) < len(communities.null_silhouette) or not bands:
        _index_axis(axes, communities.silhouette)
        return [data], ["data"]
    low, high = np.repeat(bands, 2, axis=0).T
    edges = np.repeat(np.arange(len(bands)), 2) + np.tile([-0.5, 0.5], len(bands))
    axes.fill_between(edges, low, high, color=FAINT, alpha=0.45, linewidth=0, label="null")
    _index_axis(axes, np.concatenate([communities.silhouette, low, high]))
    return [data, Patch(facecolor=FAINT, alpha=0.45)], ["data", "null"]


def _any(row: np.ndarray) -> bool:
    return bool(np.isfinite(row).any())


def _draw_stability(axes: Axes, communities: UnitCommunities) -> Names:
    curves = {"seeds": (communities.seed_stability, 0.0, SEEDS), "epochs": (communities.epoch_stability, 0.5, EPOCHS)}
    curves = {name: curve for name, curve in curves.items() if _any(curve[0])}
    lines = [
        _line(axes, np.arange(len(values)) + shift, values, color, name)
        for name, (values, shift, color) in curves.items()
    ]
    _index_axis(axes, np.concatenate([values for values, _, _ in curves.values()]))
    return lines, list(curves)


def _line(axes: Axes, places: np.ndarray, values: np.ndarray, color: str, name: str) -> Any:
    marker = "o" if len(values) <= MOST_MARKERS or not np.isfinite(values).all() else ""
    return axes.plot(places, values, color=color, linewidth=1.4, marker=marker, markersize=3, label=name)[0]


def _index_axis(axes: Axes, values: np.ndarray) -> None:
    """Show 0 to 1, and values below zero if the curves have any."""
    low = min(0.0, float(values[np.isfinite(values)].min(initial=0)))
    set_upward(axes, ticks_within(low - 0.04, 1.04, 3), "")
    if low < 0:  # otherwise the frame is beside this line
        axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)


def _draw_strip(axes: Axes, community: np.ndarray, coloring: Coloring) -> list[Any]:  # (epochs, M)
    """Draw the strip, and return the handles of its colors for a key."""
    show_missing(axes)
    values = np.where(community < 0, np.nan, np.searchsorted(coloring.values, community))
    image = axes.imshow(values.T, cmap=coloring.cmap, norm=coloring.norm, aspect="auto", origin="lower", label="cells")
    image.set(rasterized=True, interpolation="nearest")
    return [dot(color, "s") for color in coloring.cmap(coloring.norm(coloring.ticks))]


DRAWN: dict[str, Callable[[Axes, UnitCommunities], Names]] = {
    "silhouette": _draw_silhouette,
    "stability": _draw_stability,
}
