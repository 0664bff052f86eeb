"""The colors of paths of units, and the key that explains them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .canvas import INK, LABEL_SIZE, TICK_SIZE
from .colors import Coloring, categorical
from .keys import ENTRY, dot, draw_key, draw_names, short_names, with_short_names
from .layout import Place, widest
from .names import texts
from .nodes import TITLES, ordered_by
from .path_lines import HEAD_SIZE, Mark, turned_head

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..slices import SliceLayout
    from .unit_paths import UnitPaths

PALE = 0.6  # share of white in the color of a unit where its path begins
SHARE = 0.22  # of the width of the figure, the most that names take
SHAPES = "os^DvPX*"  # at the ends of the paths, if the color shows the time
LINE, GAP, EDGE = 0.2, 0.1, 0.08  # inches: a title, the space below a part, the edge of the figure
NOTE = 0.1  # inches that a note at the lower edge takes
MARK = 0.24  # inches of a mark or a bar before its names
LEAST_BAR, BAR = 1.0, 1.8  # inches of the height of a bar of colors with its margins


@dataclass(frozen=True, eq=False)
class PathKey:
    """What the colors and the ends of the paths mean."""

    units: Coloring  # numbered as the paths are
    times: dict[str, Coloring]  # by axis; empty if the color shows the unit
    ends: dict[str, list[str]]  # by axis: its first and its last label

    @classmethod
    def of(
        cls, figure: Figure, layout: SliceLayout, panels: list[UnitPaths], units: np.ndarray, color_by: str
    ) -> PathKey:
        """The key of ``units``, with names that take at most `SHARE` of the width of ``figure``."""
        room = SHARE * figure.get_figwidth()
        labels = {panel.axis: getattr(layout, panel.axis) for panel in panels}
        times = {
            axis: with_short_names(figure, ordered_by(layout, axis, np.arange(len(each))), room)
            for axis, each in labels.items()
        }
        ends = {axis: short_names(figure, texts(each[[0, -1]]), room) for axis, each in labels.items() if len(each) > 1}
        colors = with_short_names(figure, categorical(np.arange(len(units)), units), room)
        return cls(colors, times if color_by == "time" else {}, ends)

    @property
    def scale(self) -> float:
        """The size of lines and marks, which falls with the number of paths."""
        return float(np.clip((8 / len(self.units.values)) ** 0.5, 0.25, 1))

    def colors(self, panel: UnitPaths, number: int) -> np.ndarray:  # (v, 4)
        """The colors of the places of a path."""
        if self.times:
            time = self.times[panel.axis]
            return time.cmap(time.norm(time.values))
        color = np.array(self.units.cmap(self.units.norm(number)))
        return color + np.linspace(0, PALE, panel.places.shape[1])[::-1, None] * (1 - color)

    def end(self, number: int) -> Mark | None:
        """The mark at the end of a path, or None for an arrow head."""
        return Mark(SHAPES[number], INK, "white") if self.times else None

    def parts(self) -> list[Part]:
        """From the top: the units, and the colors or the ends of epochs and time steps."""
        if not self.times:
            return [
                _units(self.units),
                *(Names(TITLES[axis], [_ring(), _head()], ends) for axis, ends in self.ends.items()),
            ]
        units = Names("Unit", [dot(INK, shape) for shape in SHAPES[: len(self.units.values)]], self.units.names)
        bars = [Bar(TITLES[axis], coloring) for axis, coloring in self.times.items()]
        return [units, *bars, Names("", [_ring()], ["begin"])]

    def width(self, figure: Figure) -> float:
        """The inches that the key takes."""
        names = [name for part in self.parts() for name in part.names]
        titles = [part.title for part in self.parts()]
        return max(MARK + widest(figure, names, TICK_SIZE), widest(figure, titles, LABEL_SIZE)) + EDGE

    def least_height(self) -> float:
        return sum(part.heights[0] + _line(part) for part in self.parts()) + EDGE + NOTE

    def draw(self, figure: Figure, width: float) -> None:
        """Draw the parts above one another at the right edge, in ``width`` inches. The first take what is spare."""
        total, height = figure.get_size_inches()
        spare, top = height - self.least_height(), height - EDGE
        for part in self.parts():
            least, most = part.heights
            inches = min(most, least + spare)
            spare -= inches - least
            left = 1 - width / total
            figure.text(left, top / height, part.title, fontsize=LABEL_SIZE, color=INK, va="top")
            top -= _line(part) + inches
            part.draw(figure, (left, (top + GAP) / height, (width - EDGE) / total, (inches - GAP) / height))


def _line(part: Part) -> float:
    return LINE if part.title else 0.0


class Names(NamedTuple):
    """Marks with names."""

    title: str
    handles: list[Any]
    names: list[str]

    @property
    def heights(self) -> tuple[float, float]:
        """The least and the largest height with the space below, in inches."""
        inches = ENTRY * len(self.names)
        return 0.85 * inches + GAP, inches + GAP

    def draw(self, figure: Figure, place: Place) -> None:
        draw_names(figure, place, self.handles, self.names)


class Bar(NamedTuple):
    """A bar of colors."""

    title: str
    coloring: Coloring

    @property
    def names(self) -> list[str]:
        return self.coloring.names

    @property
    def heights(self) -> tuple[float, float]:
        return LEAST_BAR + GAP, BAR + GAP

    def draw(self, figure: Figure, place: Place) -> None:
        draw_key(figure, place, self.coloring)


Part = Names | Bar


def _units(coloring: Coloring) -> Part:
    if not coloring.swatches:
        return Bar("Unit", coloring)
    colors = coloring.cmap(coloring.norm(coloring.ticks))
    return Names("Unit", [dot(color) for color in colors], coloring.names)


def _ring() -> Any:
    ring = dot("white")
    ring.set(markeredgecolor=INK, markeredgewidth=1.2, markersize=5)
    return ring


def _head() -> Any:
    return dot(INK, turned_head(np.array([1.0, 0.0]), 0.5), HEAD_SIZE / 2)
