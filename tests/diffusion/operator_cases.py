"""Landmark operators with many types of spectra."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmphate_gpu import reference


def markov(affinity: np.ndarray) -> np.ndarray:
    return affinity / affinity.sum(1, keepdims=True)


def gaussian(rng: np.random.Generator, n: int) -> np.ndarray:
    """Diffusion among scattered points, from well mixed to nearly disconnected."""
    points = rng.normal(size=(n, 3)) * rng.uniform(0.2, 4)
    return markov(np.exp(-((points[:, None] - points) ** 2).sum(-1)))


def uneven(rng: np.random.Generator, n: int) -> np.ndarray:
    """Far from symmetric: eigenvalues in place of singular values would give another time."""
    return markov(rng.random((n, n)) ** rng.integers(1, 30))


def lazy_walk(rng: np.random.Generator, n: int) -> np.ndarray:
    """Slow mixing by a heavy diagonal."""
    return markov(rng.uniform(1, 50) * np.eye(n) + rng.random((n, n)) / n)


def hubs(rng: np.random.Generator, n: int) -> np.ndarray:
    """Very uneven degrees; the largest singular value is far above 1."""
    return markov(rng.gamma(0.05, size=(n, n)) + 1e-3 * np.eye(n))


def blocks(rng: np.random.Generator, n: int) -> np.ndarray:
    """Groups with weak links, which give a plateau of the entropy."""
    group = rng.integers(0, 6, n)
    return markov((group[:, None] == group) * rng.random((n, n)) + 10 ** rng.uniform(-6, -2) * rng.random((n, n)))


def landmarks_of_walks(rng: np.random.Generator, n: int) -> np.ndarray:
    """The landmark operators of small random walks."""
    trace = np.cumsum(rng.normal(size=(int(rng.integers(26, 40)), 5, 6)), axis=0)
    affinity = reference.multislice_affinity(trace)
    return reference.landmark_diffusion(affinity, clusters=rng.integers(0, n, len(affinity)))[0]


def walk_in_the_plane(rng: np.random.Generator, n: int) -> np.ndarray:
    """Diffusion along a walk, between points within its longest steps, as between the landmarks of one unit."""
    points = np.cumsum(rng.normal(size=(n, 2)), axis=0)
    return markov(np.exp(-((points[:, None] - points) ** 2).sum(-1) / 8))


FAMILIES = (gaussian, uneven, lazy_walk, hubs, blocks, landmarks_of_walks)


def operators() -> Iterator[tuple[str, np.ndarray]]:
    """48 operators of 12 to 140 landmarks."""
    for family in FAMILIES:
        for seed in range(8):
            rng = np.random.default_rng(seed)
            yield f"{family.__name__} {seed}", family(rng, int(rng.integers(12, 140)))


OPERATORS = dict(operators())


FLAT = {
    "identity": np.eye(50),
    "rank one": np.full((50, 50), 1 / 50),
    "blocks": np.kron(np.eye(4), np.full((3, 3), 1 / 3)),
    "one landmark": np.ones((1, 1)),
    "two states": np.array([[0.0, 1.0], [1.0, 0.0]]),
}
