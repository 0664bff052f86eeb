"""Steps 12 and 13 of docs/method.md: the coordinates of the landmarks and of the nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist

NONMETRIC_SWEEPS = 300  # most nonmetric sweeps, also if max_iter is larger


@dataclass(frozen=True, eq=False)
class MDSResult:
    """Coordinates of the landmarks and how well they fit."""

    coordinates: np.ndarray  # (L, C)
    stress: float  # stress-1 against the distances of the landmarks, also for the nonmetric solver
    n_iter: int  # sweeps, 0 for classical MDS


@np.errstate(under="ignore")
def metric_mds(
    distances: np.ndarray,
    n_components: int = 2,
    *,
    solver: str = "smacof",
    init: np.ndarray | None = None,
    max_iter: int = 3000,
    eps: float = 1e-6,
    random_state: int | None = None,
) -> MDSResult:  # (L, L) -> coordinates (L, C)
    """Step 12: "classic", then "smacof" from its result, then "nonmetric" from the result of that.

    The result is rotated and reflected onto the start, which is ``init`` (L, C) or the classical one. Nothing here is
    random: ``random_state`` has no effect, and exists because `mmphate_gpu.metric_mds` has it.
    """
    start = classical_mds(distances, n_components) if init is None else init - init.mean(axis=0)
    coordinates, sweeps = start, 0
    if solver != "classic":
        coordinates, sweeps = _descend(distances, start, max_iter, eps)
    if solver == "nonmetric":
        coordinates, further = _nonmetric(distances, coordinates, min(max_iter, NONMETRIC_SWEEPS), eps)
        sweeps += further
    if sweeps:
        # The axes and signs of the start are fixed, so those of the result are fixed too.
        coordinates = coordinates @ orthogonal_procrustes(coordinates, start)[0]
    return MDSResult(coordinates, stress(distances, coordinates), sweeps)


def classical_mds(distances: np.ndarray, n_components: int = 2) -> np.ndarray:  # (L, L) -> (L, C)
    """Principal coordinates, in the order of falling variance, each with its entry of largest magnitude positive."""
    n = len(distances)
    centering = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centering @ distances**2 @ centering)
    values, vectors = values[::-1][:n_components], vectors[:, ::-1][:, :n_components]
    lead = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return vectors * np.where(lead < 0, -1, 1) * np.sqrt(np.maximum(values, 0))


@np.errstate(under="ignore")
def stress(distances: np.ndarray, coordinates: np.ndarray) -> float:
    """Kruskal's stress-1: sqrt(sum (D - d)^2 / sum D^2)."""
    total = (distances**2).sum()
    embedded = cdist(coordinates, coordinates)
    return float(np.sqrt(((distances - embedded) ** 2).sum() / total)) if total > 0 else 0.0


def smacof(
    distances: np.ndarray,
    n_components: int = 2,
    *,
    init: np.ndarray | None = None,
    max_iter: int = 3000,
    eps: float = 1e-6,
) -> np.ndarray:  # (L, L) -> (L, C)
    """The coordinates of `metric_mds` with the solver "smacof"."""
    return metric_mds(distances, n_components, init=init, max_iter=max_iter, eps=eps).coordinates


def _descend(distances: np.ndarray, start: np.ndarray, max_iter: int, eps: float) -> tuple[np.ndarray, int]:
    """Coordinates and number of plain sweeps, which end when the stress falls by less than the share ``eps``."""
    coordinates, before, sweeps = start, stress(distances, start), 0
    while sweeps < max_iter:
        sweeps += 1
        coordinates = _guttman(distances, coordinates)
        after = stress(distances, coordinates)
        if before - after <= eps * before:
            break
        before = after
    return coordinates, sweeps


def _nonmetric(distances: np.ndarray, start: np.ndarray, max_iter: int, eps: float) -> tuple[np.ndarray, int]:
    """Coordinates and number of sweeps. Each sweep approaches the disparities of the coordinates before it.

    The sweeps end when the stress against the disparities falls by less than the share ``eps``.
    """
    coordinates, before, sweeps = start, np.inf, 0
    while sweeps < max_iter:
        sweeps += 1
        target = disparities(distances, coordinates)
        after = stress(target, coordinates)
        coordinates = _guttman(target, coordinates)
        if before - after <= eps * after:
            break
        before = after
    return coordinates, sweeps


def disparities(distances: np.ndarray, coordinates: np.ndarray) -> np.ndarray:  # (L, L), (L, C) -> (L, L)
    """The numbers in the order of ``distances`` that are nearest to the distances of ``coordinates``.

    Equal ``distances`` may have any order (Kruskal's primary approach to ties), so they are sorted by the distances of
    ``coordinates``. The result has the norm of ``distances``.
    """
    i, j = np.triu_indices(len(distances), 1)
    target, embedded = distances[i, j], cdist(coordinates, coordinates)[i, j]
    order = np.lexsort((embedded, target))  # by the target distances; ties by the embedded ones
    fitted = np.empty_like(embedded)
    fitted[order] = _monotone(embedded[order])
    norm = np.linalg.norm(fitted)
    result = np.zeros_like(distances)
    result[i, j] = result[j, i] = fitted * (np.linalg.norm(target) / norm if norm > 0 else 1)
    return result


def _monotone(values: np.ndarray) -> np.ndarray:  # (k,) -> (k,)
    """The nearest sequence that never falls. Neighbors in falling order are replaced by their mean (Kruskal 1964)."""
    pools: list[tuple[float, int]] = []  # (mean, size)
    for value in values:
        mean, size = float(value), 1
        while pools and pools[-1][0] >= mean:
            before, many = pools.pop()
            mean, size = (before * many + mean * size) / (many + size), many + size
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [size for _, size in pools])


def _guttman(distances: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """One sweep: X <- B(X) X / n, where B has -D/d off the diagonal and rows that sum to 0."""
    embedded = cdist(coordinates, coordinates)
    ratio = np.divide(distances, embedded, out=np.zeros_like(embedded), where=embedded > 0)
    return (ratio.sum(axis=1)[:, None] * coordinates - ratio @ coordinates) / len(distances)


def interpolate(transitions: np.ndarray, landmark_embedding: np.ndarray) -> np.ndarray:  # (N, L), (L, C) -> (N, C)
    """Step 13: coordinates of the nodes, which are means of the landmarks weighted by the transitions to them."""
    return transitions @ landmark_embedding
