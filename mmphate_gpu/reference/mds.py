"""Steps 12 and 13: the picture of the landmarks, and the nodes' places in it."""

from __future__ import annotations

import numpy as np
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist


def classical_mds(distances: np.ndarray, n_components: int = 2) -> np.ndarray:  # (J, J) -> (J, C)
    """Principal coordinates: axes by falling variance, each with its entry of largest magnitude positive."""
    n = len(distances)
    centering = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centering @ distances**2 @ centering)
    values, vectors = values[::-1][:n_components], vectors[:, ::-1][:, :n_components]
    lead = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return vectors * np.where(lead < 0, -1, 1) * np.sqrt(np.maximum(values, 0))


def stress(distances: np.ndarray, coordinates: np.ndarray) -> float:
    """Kruskal's stress-1: sqrt(sum (D - d)^2 / sum D^2)."""
    total = (distances**2).sum()
    found = cdist(coordinates, coordinates)
    return float(np.sqrt(((distances - found) ** 2).sum() / total)) if total > 0 else 0.0


def smacof(
    distances: np.ndarray,
    n_components: int = 2,
    *,
    init: np.ndarray | None = None,
    max_iter: int = 3000,
    eps: float = 1e-6,
) -> np.ndarray:  # (J, J) -> (J, C)
    """Metric MDS from the classical one (or ``init``), turned back onto its start.

    Plain sweeps, until the stress falls by less than ``eps`` of itself, at most ``max_iter``.
    """
    start = classical_mds(distances, n_components) if init is None else init - init.mean(axis=0)
    coordinates, before = start, stress(distances, start)
    for _ in range(max_iter):
        coordinates = _guttman(distances, coordinates)
        after = stress(distances, coordinates)
        if before - after <= eps * before:
            break
        before = after
    # The start has its axes and signs fixed, so the result does too: one seed, one picture.
    return coordinates @ orthogonal_procrustes(coordinates, start)[0]


def _guttman(distances: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """One sweep: X <- B(X) X / n, where B has -D/d off the diagonal and rows that sum to 0."""
    found = cdist(coordinates, coordinates)
    ratio = np.divide(distances, found, out=np.zeros_like(found), where=found > 0)
    return (ratio.sum(axis=1)[:, None] * coordinates - ratio @ coordinates) / len(distances)


def interpolate(transitions: np.ndarray, landmark_embedding: np.ndarray) -> np.ndarray:  # (N, J), (J, C) -> (N, C)
    """Step 13: every node at the mean of the landmarks, weighted by its transitions to them."""
    return transitions @ landmark_embedding
