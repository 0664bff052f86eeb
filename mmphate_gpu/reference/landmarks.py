"""Steps 7 and 8 of docs/method.md: the diffusion operator and its landmarks."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.vq import kmeans2


class Landmarks(NamedTuple):
    """The operator of the landmarks, the transitions from nodes to landmarks, and the landmark of each node."""

    landmark_op: np.ndarray  # (L, L)
    transitions: np.ndarray  # (N, L)
    clusters: np.ndarray  # (N,)


def diffusion_operators(affinity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (N, N) -> 2 x (N, N)
    """Step 7: diff_op = diag(d)^-1 K and diff_aff = diag(d)^-1/2 K diag(d)^-1/2, where d are the row sums of K."""
    degrees = affinity.sum(axis=1)
    root = np.sqrt(degrees)
    return affinity / degrees[:, None], affinity / root[:, None] / root[None, :]


def spectral_clusters(
    affinity: np.ndarray, n_landmark: int = 4000, n_svd: int = 100, random_state: int | None = None
) -> np.ndarray:  # (N, N) -> (N,) int
    """Step 8, first half: k-means of the rows of diff_op V, where V are the leading right singular vectors of diff_aff.

    The vectors come from a full decomposition. Empty clusters are dropped, so the labels are 0, 1, ... without gaps.
    """
    diff_op, diff_aff = diffusion_operators(affinity)
    values, vectors = np.linalg.eigh(diff_aff)  # symmetric, so its singular values are |values|
    leading = np.argsort(-np.abs(values), kind="stable")[:n_svd]
    return _kmeans(diff_op @ vectors[:, leading], n_landmark, np.random.default_rng(random_state))


def stratified_clusters(
    points: np.ndarray, n_landmark: int, random_state: int | None = None
) -> np.ndarray:  # (S, M, D) -> (N,) int
    """k-means of the points of each unit, which may replace `spectral_clusters`.

    Every unit has the same number of landmarks; the first ``n_landmark % M`` units have one more. The labels are
    0, 1, ... without gaps. The mean of a point takes the place of its missing samples (NaN), and nodes without any
    sample have no label.
    """
    rng = np.random.default_rng(random_state)
    share, more = divmod(n_landmark, points.shape[1])
    labels = np.full(points.shape[:2], -1)
    for unit in range(points.shape[1]):
        inside = ~np.isnan(points[:, unit]).all(axis=1)
        if inside.any():
            rows = points[inside, unit]
            rows = np.where(np.isnan(rows), np.nanmean(rows, axis=1, keepdims=True), rows)
            labels[inside, unit] = labels.max() + 1 + _kmeans(rows, share + (unit < more), rng)
    return labels[labels >= 0]


def _kmeans(rows: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    start = _spread_seeds(rows, min(n_clusters, len(rows)), rng)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*clusters is empty.*")
        labels = kmeans2(rows, start, iter=50, minit="matrix", missing="warn")[1]
    return np.unique(labels, return_inverse=True)[1]


def _spread_seeds(rows: np.ndarray, n_seeds: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: draw each seed with a probability in proportion to its squared distance from the seeds before it.

    With uniformly drawn seeds the inertia is twice as large, and t is several steps lower.
    """
    seeds = [int(rng.integers(len(rows)))]
    nearest = ((rows - rows[seeds[0]]) ** 2).sum(axis=1)
    while len(seeds) < n_seeds and nearest.sum() > 0:
        seeds.append(int(rng.choice(len(rows), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, ((rows - rows[seeds[-1]]) ** 2).sum(axis=1))
    return rows[seeds]


@np.errstate(under="ignore")
def landmark_diffusion(
    affinity: np.ndarray,
    *,
    n_landmark: int | None = 4000,
    n_svd: int = 100,
    landmarks: str | np.ndarray = "spectral",
    points: Any = None,
    clusters: np.ndarray | None = None,
    random_state: int | None = None,
) -> Landmarks:
    """Step 8, second half: the operator of the landmarks, and the transitions from nodes to landmarks.

    An array of ``clusters`` (N,), or of ``landmarks``, is used as it is, and ``n_landmark`` is ignored. Otherwise
    ``landmarks`` is "spectral", or "stratified" with ``points`` (S, M, D). If ``n_landmark`` is None or at least N,
    every node is a landmark: landmark_op is P, and the transitions are the identity.
    """
    n_nodes = len(affinity)
    clusters = clusters if isinstance(landmarks, str) else landmarks
    if clusters is None:
        if n_landmark is None or n_landmark >= n_nodes:
            return Landmarks(diffusion_operators(affinity)[0], np.eye(n_nodes), np.arange(n_nodes))
        if landmarks == "stratified":
            clusters = stratified_clusters(points, n_landmark, random_state)
        else:
            clusters = spectral_clusters(affinity, n_landmark, n_svd, random_state)
    clusters = np.unique(clusters, return_inverse=True)[1]
    one_hot = np.eye(clusters.max() + 1)[clusters]  # (N, L)
    to_landmarks = affinity @ one_hot
    transitions = to_landmarks / to_landmarks.sum(axis=1, keepdims=True)
    landmark_op = (to_landmarks.T / to_landmarks.sum(axis=0)[:, None]) @ transitions
    return Landmarks(landmark_op, transitions, clusters)
