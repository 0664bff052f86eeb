"""Distances of many types for the tests of MDS."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu import reference
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.mds.classic import classic

RNG = np.random.default_rng


def points_5d(n: int, seed: int = 0) -> np.ndarray:
    points = RNG(seed).normal(size=(n, 5))
    return cdist(points, points)


def with_duplicates(seed: int = 0) -> np.ndarray:
    """60 points on 27 places, so many distances are 0."""
    points = RNG(seed).integers(0, 3, (60, 3)).astype(float)
    return cdist(points, points)


def planar() -> np.ndarray:
    points = RNG(3).normal(size=(50, 2))
    return cdist(points, points)


def not_a_metric(n: int, seed: int = 0) -> np.ndarray:
    distances = RNG(seed).random((n, n))
    distances = distances + distances.T
    np.fill_diagonal(distances, 0)
    return distances


def potential_distances_of(trace: np.ndarray, n_landmark: int) -> np.ndarray:
    affinity = reference.multislice_affinity(trace)
    clusters = RNG(0).integers(0, n_landmark, len(affinity))
    landmark_op = reference.landmark_diffusion(affinity, clusters=clusters)[0]
    t = reference.optimal_t(landmark_op)
    return reference.potential_distances(reference.diffusion_potential(landmark_op, t))


def bifurcation(scenario: str) -> np.ndarray:
    from mmphate_gpu.datasets import bifurcation as suite

    return potential_distances_of(suite(scenario, n_epochs=12, n_timesteps=14).data.double().numpy(), 150)


DISTANCES = {
    "5-D points, 10": lambda: points_5d(10),
    "5-D points, 60": lambda: points_5d(60, 1),
    "5-D points, 200": lambda: points_5d(200, 2),
    "planar": lambda: planar(),
    "duplicates": with_duplicates,
    "all at distance 1": lambda: 1 - np.eye(30),
    "not a metric": lambda: not_a_metric(40),
    "huge": lambda: 1e8 * points_5d(40, 5),
    "tiny": lambda: 1e-8 * points_5d(40, 5),
    "walk": lambda: potential_distances_of(np.cumsum(RNG(0).normal(size=(30, 5, 6)), axis=0), 100),
    "another walk": lambda: potential_distances_of(np.cumsum(RNG(1).normal(size=(40, 8, 6)), axis=0), 80),
    "hopf": lambda: bifurcation("hopf"),
    "hopf and pitchfork": lambda: bifurcation("hopf_pitchfork"),
}


def stress_by_hand(distances: np.ndarray, coordinates: np.ndarray) -> float:
    return float(np.sqrt(((distances - cdist(coordinates, coordinates)) ** 2).sum() / (distances**2).sum()))


def starts_of(distances: np.ndarray, n_components: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.from_numpy(distances)
    return values, classic(values, n_components, generator=seeded_generator(0))
