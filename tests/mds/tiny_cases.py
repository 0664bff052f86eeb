"""Distances of a few points, of many types, on which local minima are the rule."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist

SIZES = (3, 4, 5, 6, 8, 10, 13, 17, 22, 30, 40, 60)
REPEATS = 6


def symmetric(values: np.ndarray) -> np.ndarray:
    result = (values + values.T) / 2
    np.fill_diagonal(result, 0)
    return result


def groups(n: int, n_groups: int) -> np.ndarray:
    """Distance 0.3 within a group and 1 between groups, so that classical MDS has one place for each group."""
    group = np.arange(n) * n_groups // n
    return (group[:, None] != group) * 0.7 + 0.3 * (1 - np.eye(n))


def of_graph(n: int, rng: np.random.Generator) -> np.ndarray:
    edges = np.where(rng.random((n, n)) < 3 / n, rng.integers(1, 4, (n, n)), 0).astype(float)
    paths = shortest_path(np.maximum(edges, edges.T))
    joined = np.isfinite(paths)
    return symmetric(np.where(joined, paths, paths[joined].max() + 1))


def drawn(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    normal, places = rng.normal(size=(n, 5)), 3 * rng.normal(size=(max(2, n // 6), 4))
    clustered = places[rng.integers(0, len(places), n)] + 0.05 * rng.normal(size=(n, 4))
    tied = rng.integers(0, 3, (n, 3)).astype(float)
    return {
        "random": symmetric(rng.random((n, n))),
        "rounded": symmetric(np.round(1 + 3 * rng.random((n, n)))),
        "normal": cdist(normal, normal),
        "clustered": cdist(clustered, clustered),
        "tied": cdist(tied, tied),
        "graph": of_graph(n, rng),
    }


def regular(n: int) -> dict[str, np.ndarray]:
    angles = 2 * np.pi * np.arange(n) / n
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    steps = np.abs(np.arange(n)[:, None] - np.arange(n))
    star = 2.0 * (1 - np.eye(n))
    star[0, 1:] = star[1:, 0] = 1
    shapes = {"simplex": 1 - np.eye(n), "circle": cdist(circle, circle), "star": star}
    shapes["ring"] = np.minimum(steps, n - steps).astype(float)
    return shapes | {f"{k} groups": groups(n, k) for k in (2, 3, 6) if k < n}


def tiny_cases() -> Iterator[tuple[str, np.ndarray, int]]:
    """(name, distances (L, L), n_components) of 1,492 fits."""
    for n in SIZES:
        for n_components in range(1, min(4, n)):
            shapes = [regular(n)]
            shapes += [drawn(n, np.random.default_rng([n, n_components, repeat])) for repeat in range(REPEATS)]
            for name, distances in (item for part in shapes for item in part.items()):
                yield f"{name}, {n} points", distances, n_components
