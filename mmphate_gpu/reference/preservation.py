"""Neighborhood preservation: the share of nearest neighbors that an embedding keeps."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from .points import _constant, _stacked


@np.errstate(under="ignore")
def neighborhood_preservation(
    trace: np.ndarray, embedding: np.ndarray, k: int, *, mask: np.ndarray | None = None
) -> tuple[float, float]:
    """(intra, inter): share of the k nearest neighbors in sample space that are also the k nearest in the embedding.

    Inter compares the slices of each unit. Intra compares the units of each slice, with k at most M - 1; it is nan for
    a single unit. Of equally near points the lower index counts as nearer.
    """
    points = _z_scored(*_stacked(trace, mask))  # (S, M, P)
    n_slices, n_units, _ = points.shape
    places = np.asarray(embedding, dtype=np.float64).reshape(n_slices, n_units, -1)
    capped = min(k, n_units - 1)
    intra = [_share(points[s], places[s], capped) for s in range(n_slices)]
    inter = [_share(points[:, i], places[:, i], k) for i in range(n_units)]
    return float(np.mean(intra)), float(np.mean(inter))


def _z_scored(values: np.ndarray, present: np.ndarray) -> np.ndarray:  # (S, M, P)
    """(x - mean) / (deviation + 1e-8) over the present samples, with ddof 1; 0 for masked samples and dead units."""
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
