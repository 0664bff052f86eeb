"""Keys beside panels and below columns of panels: names with their colors, bars of colors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .axis import LINE
from .canvas import FAINT, INK, SMALLEST, TICK_SIZE
from .colors import Coloring, with_last
from .layout import Place, fitted_names, text_width, widest
from .names import texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = "#c4c4c4"
ENTRY = 0.165  # inches of a line of a legend
BAR = 0.1  # inches of the shorter side of a bar
# Inches in keys below columns: a color with its space, between two columns of names; the ticks of a bar, their texts,
# and the space between these.
SWATCH, BETWEEN = 0.19, 0.1
TICK, TEXT, SPACE = 0.04, 0.13, 0.06


def draw_key(figure: Figure, place: Place, coloring: Coloring) -> None:
    """Draw a legend of names or a bar of colors in ``place``, whatever ``coloring`` has."""
    (_legend if coloring.swatches else _bar)(figure, place, coloring)


def _legend(figure: Figure, place: Place, coloring: Coloring) -> None:
    colors = coloring.cmap(coloring.norm(coloring.ticks))
    draw_names(figure, place, [dot(color) for color in colors], coloring.names)


def dot(color: Any, marker: Any = "o", size: float = 5.5) -> Any:
    """A dot, or another marker, for a key."""
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"marker": marker, "linestyle": "", "markersize": size, "markeredgewidth": 0}
    return Line2D([], [], color=color, **style)


def columns_of(names: list[str], inches: float) -> list[list[str]]:
    """The names of a key in as many columns as fit a height of ``inches``, if texts shrink to 85 % at most."""
    return [list(column) for column in np.array_split(names, math.ceil(0.85 * ENTRY * len(names) / inches))]


def width_of(figure: Figure, columns: list[list[str]]) -> float:
    """The inches that a key of these columns takes."""
    return sum(0.3 + widest(figure, column, TICK_SIZE) for column in columns)


def draw_names(figure: Figure, place: Place, handles: list[Any], names: list[str], n_columns: int = 1) -> None:
    """Draw a legend of ``handles``, centered in ``place``, with smaller texts if it would be higher than the place.

    If it is too high even with the smallest texts, the last entry counts the names that are left out.
    """
    inches = place[3] * figure.get_figheight()
    most = n_columns * max(2, int(inches / (ENTRY * SMALLEST / TICK_SIZE)))
    if len(names) > most:
        handles, names = [*handles[: most - 1], dot("none")], [*names[: most - 1], f"{len(names) - most + 1} more"]
    axes = figure.add_axes(place, label="key")
    axes.set_axis_off()
    size = TICK_SIZE * min(1.0, inches / (ENTRY * -(-len(handles) // n_columns)))
    # A legend omits names that start with an underscore, so the names are set afterwards.
    legend = axes.legend(
        handles, ["?"] * len(handles), loc="center left", bbox_to_anchor=(0, 0.5), frameon=False, fontsize=size,
        labelcolor=INK, handletextpad=0.2, labelspacing=0.45, borderpad=0, borderaxespad=0, handlelength=1.2,
        ncols=n_columns, columnspacing=0.8,
    )  # fmt: skip
    for entry, name in zip(legend.get_texts(), names, strict=True):
        entry.set_text(name)


def show_missing(axes: Axes) -> None:
    """Make the ground of ``axes`` gray and hatched, which shows where cells have no value."""
    axes.set_facecolor(MISSING)
    axes.patch.set(hatch="////", edgecolor="white", linewidth=0)


def missing_patch() -> Any:
    """The ground of `show_missing` for a key."""
    from matplotlib.patches import Patch

    return Patch(facecolor=MISSING, edgecolor="white", hatch="////", linewidth=0)


def _bar(figure: Figure, place: Place, coloring: Coloring) -> None:
    left, bottom, _, height = place
    shape = left, bottom + 0.12 * height, BAR / figure.get_figwidth(), 0.76 * height
    bar = draw_bar(figure, shape, coloring.norm, coloring.cmap)
    shown = _apart(coloring.norm(coloring.ticks) * 0.76 * height * figure.get_figheight())
    bar.set_ticks(coloring.ticks[shown], labels=[coloring.names[index] for index in shown])


def _apart(inches: np.ndarray) -> list[int]:
    """The ticks at these rising places that leave a line of text between neighbors; the first and the last stay."""
    shown = [0]
    for index in range(1, len(inches)):
        if inches[index] - inches[shown[-1]] >= LINE:
            shown.append(index)
    last = len(inches) - 1
    if shown[-1] != last and len(shown) > 1:
        shown[-1] = last
    return shown


def with_short_names(figure: Figure, coloring: Coloring, inches: float) -> Coloring:
    """``coloring`` with names that take at most ``inches``, if four characters do."""
    return replace(coloring, names=short_names(figure, coloring.names, inches))


def short_names(figure: Figure, names: list[str], inches: float) -> list[str]:
    """``names``, or fewer characters of them until they take at most ``inches``, but four at least."""
    for width in range(max(4, *map(len, names)), 3, -1):
        short = texts(np.array(names, dtype=object), width)
        if widest(figure, short, TICK_SIZE) <= inches:
            break
    return short


def draw_bar(figure: Figure, place: Place, norm: Any, cmap: Any, orientation: str = "vertical") -> Any:
    """Draw a bar of colors that fills ``place``, and return it."""
    from matplotlib.cm import ScalarMappable

    axes = figure.add_axes(place, label="key")
    bar: Any = figure.colorbar(ScalarMappable(norm, cmap), cax=axes, spacing="proportional", orientation=orientation)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=TICK_SIZE, labelcolor=INK, color=FAINT, width=0.7, length=2.5, pad=2)
    return bar


# ---------------------------------------------------------------- below a column


def key_inches(figure: Figure, coloring: Coloring, inches: float) -> float:
    """The height of the key of ``coloring`` below a column of ``inches``."""
    coloring = with_short_names(figure, coloring, inches - SWATCH)
    if not coloring.swatches:
        return BAR + TICK + TEXT
    return ENTRY * -(-len(coloring.names) // _n_columns(figure, coloring, inches))


def _n_columns(figure: Figure, coloring: Coloring, inches: float) -> int:
    entry = SWATCH + widest(figure, coloring.names, TICK_SIZE) + BETWEEN
    return max(1, min(len(coloring.names), int((inches + BETWEEN) / entry)))


def draw_key_below(figure: Figure, left: float, top: float, inches: float, coloring: Coloring) -> None:
    """Draw the key of ``coloring`` below ``top``, in a column of ``inches``; positions are in inches."""
    height = key_inches(figure, coloring, inches)
    coloring = with_short_names(figure, coloring, inches - SWATCH)
    total = figure.get_size_inches()
    place = (left / total[0], (top - height) / total[1], inches / total[0], height / total[1])
    if coloring.swatches:
        _draw_swatches(figure, place, inches, coloring)
    else:
        _draw_flat_bar(figure, left, top, inches, coloring)


def _draw_swatches(figure: Figure, place: Place, inches: float, coloring: Coloring) -> None:
    columns = _n_columns(figure, coloring, inches)
    handles = [dot(color) for color in coloring.cmap(coloring.norm(coloring.ticks))]
    draw_names(figure, place, handles, coloring.names, columns)


def _draw_flat_bar(figure: Figure, left: float, top: float, inches: float, coloring: Coloring) -> None:
    width, height = figure.get_size_inches()
    place = (left / width, (top - BAR) / height, inches / width, BAR / height)
    bar = draw_bar(figure, place, coloring.norm, coloring.cmap, "horizontal")
    ticks, names, middles, size = _fitting(figure, coloring, inches)
    bar.set_ticks(ticks, labels=[""] * len(ticks))
    for name, middle in zip(names, middles, strict=True):
        x, y = (left + middle) / width, (top - BAR - TICK) / height
        figure.text(x, y, name, fontsize=size, color=INK, ha="center", va="top")


def _fitting(figure: Figure, coloring: Coloring, inches: float) -> tuple[np.ndarray, list[str], np.ndarray, float]:
    """The ticks of a bar whose texts do not touch, their names, the middles of these in inches, and their size.

    All ticks are taken if they fit, else every second, third, ... of them and the last. If not even both ends fit, they
    are smaller and cut. Texts near the ends are moved to lie within ``inches``.
    """
    n = len(coloring.ticks)
    middles, widths = _middles(figure, coloring, coloring.names, TICK_SIZE, inches)
    for step in range(1, n):
        index = with_last(np.arange(0, n, step), n - 1)
        gaps = np.diff(middles[index]) - (widths[index][1:] + widths[index][:-1]) / 2
        if (gaps >= SPACE).all():
            return coloring.ticks[index], [coloring.names[i] for i in index], middles[index], TICK_SIZE
    longest = max(map(len, coloring.names))
    names, size = fitted_names(
        figure, np.array(coloring.names, dtype=object)[[0, -1]], longest, TICK_SIZE, (inches - SPACE) / 2
    )
    ends = replace(coloring, ticks=coloring.ticks[[0, -1]])
    return ends.ticks, names, _middles(figure, ends, names, size, inches)[0], size


def _middles(
    figure: Figure, coloring: Coloring, names: list[str], size: float, inches: float
) -> tuple[np.ndarray, np.ndarray]:
    """The middles of ``names`` beside a bar of ``inches``, moved to lie within it, and their widths."""
    norm: Any = coloring.norm
    widths = np.array([text_width(figure, name, size) for name in names])
    places = (coloring.ticks - norm.vmin) / (norm.vmax - norm.vmin) * inches
    return np.clip(places, widths / 2, inches - widths / 2), widths
