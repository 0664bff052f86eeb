"""Stacks of points and radii on which the C++ twins are compared with the portable versions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch

from .cases import duplicates, lattice, normal

# Sizes around the lanes of a register, the rows that are computed together (8) and the smallest set with a screen (32),
# and above the smallest set that threads share (512).
POINTS = (1, 2, 31, 32, 33, 127, 129, 1025)
FEATURES = (1, 2, 6, 10, 25, 100, 130)
SHAPES = [
    *((1, n, p) for n in POINTS[:-1] for p in FEATURES),
    *((1, POINTS[-1], p) for p in (1, 10, 130)),
    *((3, n, p) for n, p in itertools.product(POINTS[:-1], (2, 25))),
    *((200, n, p) for n, p in itertools.product((2, 5, 32), (1, 10))),
    (2, 520, 6),
]
# The shapes of all points that are not normal.
FEW_SHAPES = [(1, 2, 3), (3, 31, 6), (1, 33, 1), (2, 129, 25), (40, 9, 2), (1, 530, 26)]


def _outlier(*shape: int) -> torch.Tensor:
    points = normal(*shape)
    points[:, shape[1] // 2] += 1e6
    return points


# Sums of squares of whole numbers, times powers of two, are exact. So the twins agree to the last bit, and distances
# tie exactly.
EXACT_SETS: dict[str, Callable[..., torch.Tensor]] = {
    "lattice": lattice,
    "huge lattice": lambda *shape: 2.0**490 * lattice(*shape),
    "tiny lattice": lambda *shape: 2.0**-490 * lattice(*shape),
    "far lattice": lambda *shape: 2.0**40 + lattice(*shape),
    "zeros": lambda *shape: torch.zeros(shape, dtype=torch.float64),
    "all equal": lambda *shape: torch.full(shape, 0.1, dtype=torch.float64),
}
POINT_SETS: dict[str, Callable[..., torch.Tensor]] = {
    "duplicates": duplicates,
    "some zero vectors": lambda *shape: normal(*shape) * (torch.arange(shape[1]) % 2)[:, None],
    "huge": lambda *shape: 1e150 * normal(*shape),
    "tiny": lambda *shape: 1e-150 * normal(*shape),
    "far and close": lambda *shape: 1e4 + 1e-6 * normal(*shape),
    "farther and closer": lambda *shape: 1e8 + 1e-6 * normal(*shape),
    "an outlier": _outlier,
    "two groups": lambda *shape: normal(*shape) * 1e-3 + (torch.arange(shape[1]) % 2 * 1e3)[:, None],
    **EXACT_SETS,
}


def stacks() -> Iterator[torch.Tensor]:
    yield from (normal(*shape) for shape in SHAPES)


def stacks_of(name: str) -> Iterator[torch.Tensor]:
    yield from (POINT_SETS[name](*shape) for shape in FEW_SHAPES)


def all_distances(points: torch.Tensor) -> torch.Tensor:
    """The different distances of the first set, ascending."""
    return torch.unique(torch.cdist(points[0], points[0], compute_mode="donot_use_mm_for_euclid_dist"))


def reaches(points: torch.Tensor) -> list[float]:
    """Radii with no pair, one pair, some and all. None is so near a distance that rounding would decide."""
    distances = all_distances(points)
    if distances.numel() == 1:
        return [0.0, 1e-160, 1.0]
    gaps = torch.nonzero(distances[1:] > distances[:-1] * (1 + 1e-9)).flatten()
    middle = (distances[gaps] / 2 + distances[gaps + 1] / 2).tolist()
    return [0.0, middle[0], middle[len(middle) // 10], middle[len(middle) // 2], 1.1 * float(distances[-1])]


def ties(points: torch.Tensor) -> list[float]:
    """Radii that equal a distance, and the float64 numbers before them."""
    distances = all_distances(points)
    some = distances[[0, distances.numel() // 2, -1]].tolist()
    return [reach for distance in some for reach in (distance, np.nextafter(distance, 0))]
