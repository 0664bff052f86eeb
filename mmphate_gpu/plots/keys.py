"""Keys beside panels: names with their colors, bars of colors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .canvas import FAINT, INK, TICK_SIZE
from .colors import Coloring
from .layout import Place, widest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = "#c4c4c4"
ENTRY = 0.165  # inches of a line of a legend


def draw_key(figure: Figure, place: Place, coloring: Coloring) -> None:
    """Draw a legend of names or a bar of colors in ``place``, whatever ``coloring`` has."""
    (_legend if coloring.swatches else _bar)(figure, place, coloring)


def _legend(figure: Figure, place: Place, coloring: Coloring) -> None:
    colors = coloring.cmap(coloring.norm(coloring.ticks))
    draw_names(figure, place, [dot(color) for color in colors], coloring.names)


def dot(color: Any, marker: str = "o") -> Any:
    """A dot, or another marker, for a key."""
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"marker": marker, "linestyle": "", "markersize": 5.5, "markeredgewidth": 0}
    return Line2D([], [], color=color, **style)


def columns_of(names: list[str], inches: float) -> list[list[str]]:
    """The names of a key in as many columns as fit a height of ``inches``, if texts shrink to 85 % at most."""
    return [list(column) for column in np.array_split(names, math.ceil(0.85 * ENTRY * len(names) / inches))]


def width_of(figure: Figure, columns: list[list[str]]) -> float:
    """The inches that a key of these columns takes."""
    return sum(0.3 + widest(figure, column, TICK_SIZE) for column in columns)


def draw_names(figure: Figure, place: Place, handles: list[Any], names: list[str], n_columns: int = 1) -> None:
    """Draw a legend of ``handles``, centered in ``place``, with smaller texts if it would be higher than the place."""
    axes = figure.add_axes(place, label="key")
    axes.set_axis_off()
    size = TICK_SIZE * min(1.0, place[3] * figure.get_figheight() / (ENTRY * -(-len(handles) // n_columns)))
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
    left, bottom, width, height = place
    bar = draw_bar(figure, (left, bottom + 0.12 * height, 0.12 * width, 0.76 * height), coloring.norm, coloring.cmap)
    bar.set_ticks(coloring.ticks, labels=coloring.names)


def draw_bar(figure: Figure, place: Place, norm: Any, cmap: Any) -> Any:
    """Draw a bar of colors that fills ``place``, and return it."""
    from matplotlib.cm import ScalarMappable

    axes = figure.add_axes(place, label="key")
    bar: Any = figure.colorbar(ScalarMappable(norm, cmap), cax=axes, spacing="proportional")
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=TICK_SIZE, labelcolor=INK, color=FAINT, width=0.7, length=2.5, pad=2)
    return bar
