"""Stacks of points that lack features, which are NaN there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from .cases import duplicates, lattice, normal

# Time steps of a sequence, in sets whose points are slices.
STEPS = 10


def _rng(n: int, p: int) -> np.random.Generator:
    return np.random.default_rng(1000 * n + p)


def _lengths(n: int, p: int) -> np.ndarray:
    """Sequences that end at different steps: every pattern contains that of the next step."""
    return np.arange(n)[:, None] % STEPS >= _rng(n, p).integers(STEPS // 2, STEPS + 1, p)


def _few_patterns(n: int, p: int) -> np.ndarray:
    """Five patterns, which need not be nested and may have no feature in common."""
    rng = _rng(n, p)
    return (rng.random((5, p)) < 0.5)[rng.integers(0, 5, n)]


def _empty_points(n: int, p: int) -> np.ndarray:
    """Every third point lacks all features."""
    return np.broadcast_to(np.arange(n)[:, None] % 3 == 1, (n, p))


# (n points, p features) -> which features are lacking, (n, p) bool
MASKS: dict[str, Callable[[int, int], np.ndarray]] = {
    "lengths": _lengths,
    "few patterns": _few_patterns,
    "one pattern": lambda n, p: np.broadcast_to(np.arange(p) % 3 == 1, (n, p)),
    "random": lambda n, p: _rng(n, p).random((n, p)) < 0.3,
    "mostly random": lambda n, p: (_rng(n, p).random((n, p)) < 0.5) & (np.arange(n)[:, None] % 3 > 0),
    "one feature each": lambda n, p: np.arange(p) != _rng(n, p).integers(0, p, (n, 1)),
    "empty points": _empty_points,
    "all empty": lambda n, p: np.ones((n, p), dtype=bool),
    "nothing": lambda n, p: np.zeros((n, p), dtype=bool),
}
# Sizes around the lanes of a register, the smallest set with a screen (32) and the smallest that threads share (512);
# features around a word of 64 bits.
SHAPES = [(2, 5, 3), (1, 31, 1), (1, 32, 64), (2, 33, 1), (1, 40, 10), (1, 130, 70), (1, 520, 4)]
VALUES = {"normal": normal, "ties": lattice, "duplicates": duplicates}


def lacking(points: torch.Tensor, name: str) -> torch.Tensor:
    """The points (B, n, p) with NaN at the features that a mask of `MASKS` leaves out."""
    return points.masked_fill(torch.from_numpy(MASKS[name](*points.shape[1:]).copy()), math.nan)


def stacks_lacking(name: str) -> Iterator[torch.Tensor]:
    """Stacks of every shape and kind of values."""
    yield from (lacking(make(*shape), name) for shape in SHAPES for make in VALUES.values())


def distances_by_loops(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # (n, p), (k, p) -> (n, k)
    """The distances of masked points, pair by pair and feature by feature."""
    result = np.full((len(x), len(y)), np.inf)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            square, count = 0.0, 0
            for f in range(len(a)):
                difference = a[f] - b[f]
                if not np.isnan(difference):
                    square, count = square + difference * difference, count + 1
            if count:
                result[i, j] = math.sqrt(square * (len(a) / count))
    return result
