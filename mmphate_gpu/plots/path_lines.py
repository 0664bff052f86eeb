"""Paths as lines with a direction: colors that change along the path, and arrow heads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

INCH = 72  # points
REACH = 7.0  # points of a path whose chord is the direction of a head
HALO = 1.3  # points of white around a line, so that it is seen over dots and other lines
# The tip is at the origin, where a marker has its place.
HEAD = [(0.0, 0.0), (-1.0, 0.42), (-0.78, 0.0), (-1.0, -0.42), (0.0, 0.0)]
HEAD_SIZE = 13.0  # a marker of this size has a head of half as many points


class Mark(NamedTuple):
    """A shape, the color within it, and the color of its edge."""

    shape: str
    face: Any
    edge: Any


def draw_path(axes: Any, places: np.ndarray, colors: np.ndarray, scale: float, end: Mark | None = None) -> None:
    """Draw ``places`` (v, 2) or (v, 3) one after another; a place of NaN breaks the line.

    The line that ends at a place has its color. A ring is around the first place. An arrow head is halfway, and another
    at the last place, or ``end`` instead. A path that is too short for them is a dot. All sizes are multiplied by
    ``scale``.
    """
    placed = np.flatnonzero(np.isfinite(places[:, 0]))
    if not placed.size:
        return
    _draw_lines(axes, places, colors, scale)
    _draw_alone(axes, places, colors, scale)
    track = Track.of(axes, places)
    first, last = placed[0], placed[-1]
    short = track.length < 1.5 * REACH * scale
    if track.length > 4 * REACH * scale:
        _draw_head(axes, track, track.length / 2, colors, scale * 0.9)
    if not short:
        _draw_mark(axes, places[first], Mark("o", "white", colors[first]), scale)
    if end is not None or short:
        _draw_mark(axes, places[last], end or Mark("o", colors[last], "white"), scale)
    else:
        _draw_head(axes, track, track.length, colors, scale)


def _draw_lines(axes: Any, places: np.ndarray, colors: np.ndarray, scale: float) -> None:
    from matplotlib.collections import LineCollection
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    lines = np.stack([places[:-1], places[1:]], axis=1)
    whole = np.isfinite(lines).all(axis=(1, 2))
    collection: Any = Line3DCollection if axes.name == "3d" else LineCollection
    for label, color, width in (("halo", "white", 1.5 + HALO), ("path", colors[1:][whole], 1.5)):
        drawn = collection(lines[whole], colors=color, linewidths=width * scale, capstyle="round", label=label)
        drawn.set(zorder=3, rasterized=len(lines) > 2_000)
        axes.add_collection(drawn)


def _draw_alone(axes: Any, places: np.ndarray, colors: np.ndarray, scale: float) -> None:
    """Draw a dot at each place without a place before and after it."""
    placed = np.pad(np.isfinite(places[:, 0]), 1)
    alone = placed[1:-1] & ~placed[:-2] & ~placed[2:]
    for place, color in zip(places[alone], colors[alone], strict=True):
        _draw_mark(axes, place, Mark("o", color, color), 0.6 * scale)


def _draw_mark(axes: Any, place: np.ndarray, mark: Mark, scale: float) -> None:
    axes.plot(
        *place[:, None], marker=mark.shape, markersize=5 * scale, markerfacecolor=mark.face, markeredgecolor=mark.edge,
        markeredgewidth=1.2 * scale, linestyle="", zorder=4, clip_on=False,
    )  # fmt: skip


def _draw_head(axes: Any, track: Track, at: float, colors: np.ndarray, scale: float) -> None:
    place, direction, index = track.at(at, REACH * scale)
    axes.plot(
        *place[:, None], marker=turned_head(direction), markersize=HEAD_SIZE * scale, color=colors[index], linestyle="",
        markeredgecolor="white", markeredgewidth=0.5 * scale, zorder=4, clip_on=False,
    )  # fmt: skip


def turned_head(direction: np.ndarray, shift: float = 0.0) -> Any:
    """The marker of an arrow head that points into ``direction``, with its tip at its place, or ``shift`` ahead."""
    from matplotlib.markers import MarkerStyle
    from matplotlib.path import Path

    marker = MarkerStyle(Path(np.array(HEAD) + [shift, 0], closed=True))
    return marker.rotated(rad=float(np.arctan2(direction[1], direction[0])))


class Track(NamedTuple):
    """A path as it is drawn, in points of the figure."""

    places: np.ndarray  # (v, 2) or (v, 3)
    drawn: np.ndarray  # (v, 2)
    way: np.ndarray  # (v,) length up to each place

    @classmethod
    def of(cls, axes: Any, places: np.ndarray) -> Track:
        drawn = _drawn(axes, places)
        steps = np.linalg.norm(np.diff(drawn, axis=0), axis=1)
        return cls(places, drawn, np.concatenate([[0.0], np.cumsum(np.nan_to_num(steps))]))

    @property
    def length(self) -> float:
        return float(self.way[-1])

    def at(self, length: float, reach: float) -> tuple[np.ndarray, np.ndarray, int]:
        """The place after ``length``, the drawn direction of the ``reach`` before it, and the place that follows."""
        index, share = self._segment(length)
        place = self._between(self.places, index, share)
        before = self._between(self.drawn, *self._segment(max(length - reach, 0.0)))
        return place, self._between(self.drawn, index, share) - before, index

    def _segment(self, length: float) -> tuple[int, float]:
        """The index of the place that ends the segment with ``length``, and the share of the segment before it."""
        index = int(np.searchsorted(self.way, length, side="left" if length else "right"))
        step = self.way[index] - self.way[index - 1]
        return index, float((length - self.way[index - 1]) / step)

    @staticmethod
    def _between(places: np.ndarray, index: int, share: float) -> np.ndarray:
        return (1 - share) * places[index - 1] + share * places[index]


def _drawn(axes: Any, places: np.ndarray) -> np.ndarray:  # (v, 2)
    """Where ``places`` are drawn, in points of the figure."""
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    if axes.name == "3d":
        places = np.column_stack(proj_transform(*places.T, axes.get_proj())[:2])
    return axes.transData.transform(places) * (INCH / axes.figure.dpi)
