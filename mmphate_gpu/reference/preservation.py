"""Neighborhood preservation: the share of nearest neighbors that an embedding keeps."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from .affinity import distances_between
from .points import _constant, _scored, _stacked


@np.errstate(under="ignore")
def neighborhood_preservation(
    trace: np.ndarray, embedding: np.ndarray, k: int, *, normalize: bool = True, mask: np.ndarray | None = None
) -> tuple[float, float]:
    """(intra, inter): share of the k nearest neighbors in sample space that are also the k nearest in the embedding.

    Inter compares the slices of each unit. Intra compares the units of each slice, with k at most M - 1; it is nan for
    a single unit. Of equally near points the lower index counts as nearer.

    A distance of masked points is over the samples that both have, scaled to all. The neighbors of a node are among the
    nodes that share a sample with it and have a place (a row of NaN is none), and k is at most their number. A node
    without such nodes does not count. Without ``normalize`` the samples are not z-scored.
    """
    stacked = _stacked(trace, mask)
    points = _z_scored(*stacked) if normalize else np.where(stacked[1], stacked[0], np.nan)  # (S, M, P)
    n_slices, n_units, _ = points.shape
    places = np.asarray(embedding, dtype=np.float64).reshape(n_slices, n_units, -1)
    intra = _shares(points, places, k)
    inter = _shares(points.swapaxes(0, 1), places.swapaxes(0, 1), k)
    return tuple(float(np.mean(shares)) if shares else float("nan") for shares in (intra, inter))  # type: ignore[return-value]


def _z_scored(values: np.ndarray, present: np.ndarray) -> np.ndarray:  # (S, M, P)
    """(x - mean) / (deviation + 1e-8) over the present samples, with ddof 1; 0 for dead units.

    NaN for masked samples, and for nodes with fewer than two samples.
    """
    count = present.sum(axis=-1, keepdims=True)
    mean = np.where(present, values, 0.0).sum(axis=-1, keepdims=True) / np.maximum(count, 1)
    squares = np.where(present, (values - mean) ** 2, 0.0).sum(axis=-1, keepdims=True)
    deviation = np.sqrt(squares / np.maximum(count - 1, 1))
    scores = np.where(_constant(values, present), 0.0, (values - mean) / (deviation + 1e-8))
    return np.where(present & _scored(present)[..., None], scores, np.nan)


def _shares(points: np.ndarray, places: np.ndarray, k: int) -> list[float]:  # (B, n, p), (B, n, C)
    """|common nearest| / k of every point that has neighbors."""
    shares = []
    for point_set, place_set in zip(points, places, strict=True):
        near, far = distances_between(point_set, point_set), cdist(place_set, place_set)
        for row in range(len(near)):
            others = np.flatnonzero(np.isfinite(near[row]) & np.isfinite(far[row]))
            others = others[others != row]
            nearest = [set(_nearest(distances[row, others], k)) for distances in (near, far)]
            if len(others):
                shares.append(len(nearest[0] & nearest[1]) / min(k, len(others)))
    return shares


def _nearest(distances: np.ndarray, k: int) -> list[int]:  # (n,)
    return np.argsort(distances, kind="stable")[:k].tolist()
