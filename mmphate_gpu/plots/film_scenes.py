"""What moves in a film: nodes that travel through snapshots, or a cloud that turns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .film_frames import Stage, add_time_line, add_title, fitted_title, fitted_titles
from .film_motion import places_at, seen, trails
from .nodes import flat_frame, set_equal_limits

if TYPE_CHECKING:
    from matplotlib.artist import Artist

GROUND, WALL, EDGE = "#e9e9e9", "#f6f6f6", "#d2d2d2"
MOST_RINGS = 3_000  # dots that have a white ring, which parts them from one another
FACES = np.array([[0, 1, 3, 2], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [4, 6, 7, 5]])  # of a box, without the lid
TURN_TITLE = "MM-PHATE in three components"


@dataclass(frozen=True, eq=False)
class Journey:
    """Places and colors of n nodes at each snapshot, with what a snapshot is, and the names of all."""

    places: np.ndarray  # (snapshots, n, 2)
    colors: np.ndarray  # (snapshots, n, 4)
    word: str
    labels: np.ndarray  # (snapshots,)


class Travel:
    """Nodes that travel from snapshot to snapshot, ``gap`` frames each, before the faint cloud of all places."""

    def __init__(self, stage: Stage, journey: Journey, gap: int, trail: float) -> None:
        self.stage, self.journey, self.gap, self.trail = stage, journey, gap, trail
        axes = stage.figure.add_axes(stage.panel, label="film")
        everywhere = journey.places[np.isfinite(journey.places[..., 0])]
        flat_frame(axes, everywhere, "MM-PHATE")
        _draw_ground(axes, everywhere, stage.square_inches)
        self.lines = _empty_lines(axes, journey.places.shape[1])
        self.dots = _empty_dots(axes, journey.places.shape[1], stage.square_inches)
        self.titles, size = fitted_titles(stage, journey.word, journey.labels)
        self.title = add_title(stage, self.titles[0], size)
        self.over = add_time_line(stage)

    @property
    def artists(self) -> list[Artist]:
        return [self.lines, self.dots, self.title, self.over]

    def __call__(self, number: int) -> None:
        """Move everything to where it is in the frame of this number."""
        time = number / self.gap
        nearest = math.floor(time + 0.5)
        self._move_dots(places_at(self.journey.places, time), self.journey.colors[nearest])
        if self.trail:
            lines, shades = trails(self.journey.places, self.journey.colors, time, self.trail)
            self.lines.set_segments(lines)
            self.lines.set_color(shades)
        self.title.set_text(self.titles[nearest])
        left, _, width, _ = self.stage.panel
        self.over.set_xdata([left, left + width * time / (len(self.journey.places) - 1)])

    def _move_dots(self, places: np.ndarray, colors: np.ndarray) -> None:
        placed = np.isfinite(places[:, 0])
        self.dots.set_offsets(places[placed])
        self.dots.set_facecolor(colors[placed])


class Turn:
    """A cloud in a box that makes a full turn in ``n_frames`` frames, after which the first frame follows again."""

    def __init__(self, stage: Stage, points: np.ndarray, colors: np.ndarray, n_frames: int) -> None:  # (n, 3), (n, 4)
        self.points, self.corners = _boxed(points)
        self.colors = colors * [1, 1, 1, np.clip((6_000 / len(points)) ** 0.25, 0.5, 0.9)]
        self.angles = 2 * np.pi * np.arange(n_frames) / n_frames
        axes = stage.figure.add_axes(stage.panel, label="film")
        axes.set_axis_off()
        extent = np.concatenate([seen(self.corners, angle)[0] for angle in self.angles])
        set_equal_limits(axes, extent, 0.51)
        self.walls = _empty_walls(axes)
        self.dots = axes.scatter([], [], linewidths=0, zorder=2)
        self.area = float(np.clip(2_500 * stage.square_inches / len(points), 0.6, 2 * stage.square_inches))
        add_title(stage, TURN_TITLE, fitted_title(stage, TURN_TITLE))

    @property
    def artists(self) -> list[Artist]:
        return [self.walls, self.dots]

    def __call__(self, number: int) -> None:
        """Turn everything to where it is in the frame of this number."""
        places, sizes = seen(self.points, self.angles[number])
        order = np.argsort(sizes, kind="stable")  # near dots hide distant dots
        self.dots.set_offsets(places[order])
        self.dots.set_sizes(self.area * sizes[order] ** 2)
        self.dots.set_facecolor(self.colors[order])
        faces = seen(self.corners, self.angles[number])[0][FACES]
        self.walls.set_verts([face for face in faces if _is_seen_from_inside(face)])


# ---------------------------------------------------------------- in the plane


def _draw_ground(axes: Any, everywhere: np.ndarray, square_inches: float) -> None:
    area = float(np.clip(1_800 * square_inches / len(everywhere), 0.8, 5))
    axes.scatter(*everywhere.T, s=area, c=GROUND, linewidths=0, zorder=0)


def _empty_lines(axes: Any, n: int) -> Any:
    from matplotlib.collections import LineCollection

    width = float(np.clip(1.4 * (300 / n) ** 0.25, 0.5, 1.4))
    return axes.add_collection(LineCollection([], linewidths=width, zorder=2, capstyle="butt"), autolim=False)


def _empty_dots(axes: Any, n: int, square_inches: float) -> Any:
    area = float(np.clip(1_500 * square_inches / n, 2, min(6 * square_inches, 36)))
    return axes.scatter([], [], s=area, zorder=3, linewidths=0.4 * (n <= MOST_RINGS), edgecolors="white")


# ---------------------------------------------------------------- in space


def _boxed(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (n, 3) -> (n, 3), (8, 3)
    """``points`` around the origin, and the corners of their box, whose half diagonal is 1.

    No side of the box is shorter than a quarter of the longest.
    """
    half = np.ptp(points, axis=0) / 2
    half = 1.04 * np.maximum(half, 0.25 * half.max()) if half.max() > 0 else np.ones(3)
    diagonal = np.linalg.norm(half)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T
    return (points - middle) / diagonal, signs * half / diagonal


def _empty_walls(axes: Any) -> Any:
    from matplotlib.collections import PolyCollection

    return axes.add_collection(PolyCollection([], facecolors=WALL, edgecolors=EDGE, linewidths=0.6), autolim=False)


def _is_seen_from_inside(face: np.ndarray) -> bool:  # (4, 2)
    """Whether the corners of a face run clockwise; seen from outside the box, those of `FACES` do not."""
    x, y = face.T
    return bool(x @ np.roll(y, -1) < y @ np.roll(x, -1))
