"""Where nodes are between two snapshots, what trails they draw, and how a box is seen from an angle."""

from __future__ import annotations

import math

import numpy as np

OPACITY = 0.75  # of a trail at its node; it falls to zero along the trail
ELEVATION = math.radians(24)  # of the eye above the floor, as in `panels`
DISTANCE = 6.0  # of the eye, in half diagonals of the box


def places_at(places: np.ndarray, time: float) -> np.ndarray:  # (snapshots, n, 2) -> (n, 2)
    """The places at ``time``: those of a snapshot at a whole number, and on straight lines between two snapshots."""
    before = int(time)
    share = time - before
    return (1 - share) * places[before] + share * places[before + 1] if share else places[before]


def trails(
    places: np.ndarray, colors: np.ndarray, time: float, length: float
) -> tuple[np.ndarray, np.ndarray]:  # (snapshots, n, 2), (snapshots, n, 4) -> (m, 2, 2), (m, 4)
    """The lines that the nodes have drawn from ``time - length`` to ``time``, and their colors.

    A line has the color of the snapshot that it leads to. Its opacity falls with its age. A node without a place at
    either end of a line has no such line.
    """
    first = max(0.0, time - length)
    corners = np.array([first, *range(math.floor(first) + 1, math.ceil(time)), time])
    if first == time:
        return np.empty((0, 2, 2)), np.empty((0, 4))
    points = np.stack([places_at(places, corner) for corner in corners])
    lines = np.stack([points[:-1], points[1:]], axis=2)  # (j, n, 2, 2)
    shades = colors[np.ceil(corners[1:]).astype(int)].copy()  # (j, n, 4)
    age = time - (corners[1:] + corners[:-1]) / 2
    shades[..., 3] = OPACITY * (1 - age / length)[:, None]
    whole = np.isfinite(lines).all((2, 3))
    return lines[whole], shades[whole]


def seen(points: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:  # (n, 3) -> (n, 2), (n,)
    """``points`` around the origin, turned by ``angle`` about the third axis: where they are seen, and how large.

    The eye is `DISTANCE` away and looks down at `ELEVATION`. A nearer point is larger; the size at the origin is 1.
    """
    right, away, z = _turned(points, angle)
    up = math.cos(ELEVATION) * z + math.sin(ELEVATION) * away
    depth = math.cos(ELEVATION) * away - math.sin(ELEVATION) * z
    size = DISTANCE / (DISTANCE + depth)
    return np.column_stack([right * size, up * size]), size


def _turned(points: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The coordinates of ``points`` (n, 3) after a turn by ``angle`` about the third axis."""
    x, y, z = points.T
    return math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y, z
