"""Neighborhood preservation: which share of the nearest neighbors an embedding keeps."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from .points import _constant, _stacked


@np.errstate(under="ignore")
def neighborhood_preservation(
    trace: np.ndarray, embedding: np.ndarray, k: int, *, mask: np.ndarray | None = None
) -> tuple[float, float]:
    """(intra, inter): shares of common k nearest others, in sample space and in the embedding.

    Inter: among the slices of one unit; intra: among the units of one slice, k capped at M - 1 (nan for a
    single unit). Of equally near points the lower index counts as nearer.
    """
    points = _z_scored(*_stacked(trace, mask))  # (S, M, P)
    n_slices, n_units, _ = points.shape
    places = np.asarray(embedding, dtype=np.float64).reshape(n_slices, n_units, -1)
    capped = min(k, n_units - 1)
    intra = [_share(points[s], places[s], capped) for s in range(n_slices)]
    inter = [_share(points[:, i], places[:, i], k) for i in range(n_units)]
    return float(np.mean(intra)), float(np.mean(inter))


def _z_scored(values: np.ndarray, present: np.ndarray) -> np.ndarray:  # (S, M, P)
    """Over the present samples: (x - mean) / (deviation + 1e-8), ddof 1; 0 where masked or constant."""
    mean = values.mean(axis=-1, where=present, keepdims=True)
    squares = np.where(present, (values - mean) ** 2, 0.0).sum(axis=-1, keepdims=True)
    count = present.sum(axis=-1, keepdims=True)
    deviation = np.sqrt(squares / np.maximum(count - 1, 1))
    return np.where(present & ~_constant(values, present), (values - mean) / (deviation + 1e-8), 0.0)


def _share(points: np.ndarray, places: np.ndarray, k: int) -> float:
    """Mean over points of |common nearest| / k."""
    if k == 0:
        return float("nan")
    common = _nearest(points, k) & _nearest(places, k)
    return float(common.sum(axis=1).mean() / k)


def _nearest(points: np.ndarray, k: int) -> np.ndarray:  # (n, n) bool
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    near = np.zeros(distances.shape, dtype=bool)
    np.put_along_axis(near, np.argsort(distances, axis=1, kind="stable")[:, :k], True, axis=1)
    return near
