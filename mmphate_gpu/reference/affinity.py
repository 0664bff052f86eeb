"""Steps 3 to 6 of docs/method.md: the affinities. All distances come from differences of coordinates.

NaN is a missing sample. A node without any sample is left out of the graph: its rows and columns are 0.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.spatial.distance import cdist

from .points import flat_points, reduce, resolution
from .points import normalize as normalized

_EPS = np.finfo(np.float64).eps


def distances_between(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # (n, p), (k, p) -> (n, k)
    """Euclidean distances, over the samples that both points have and scaled to all; infinite without such a sample."""
    if not (np.isnan(x).any() or np.isnan(y).any()):
        return cdist(x, y)
    differences = x[:, None] - y[None]  # (n, k, p)
    common = ~np.isnan(differences)
    count = common.sum(axis=-1)
    squares = np.where(common, differences, 0.0) ** 2
    scale = x.shape[1] / np.maximum(count, 1)
    return np.where(count > 0, np.sqrt(squares.sum(axis=-1) * scale), np.inf)


def in_graph(points: np.ndarray) -> np.ndarray:  # (..., p) -> (...) bool
    """Whether a node has a sample."""
    return ~np.isnan(points).all(axis=-1)


def intraslice_affinity(
    points: np.ndarray,
    *,
    knn: int = 2,
    decay: float | None = 5,
    thresh: float = 1e-4,
    resolution: np.ndarray | None = None,
) -> np.ndarray:  # (S, M, D) -> (S, M, M)
    """Step 3, for every slice: a(i,j) = exp(-(d(i,j)/sigma_i)^decay), cut at thresh, then (a + a^T)/2."""
    floor = np.full(points.shape[:2], _EPS) if resolution is None else resolution
    knn = min(knn, points.shape[1] - 1)
    return np.stack(
        [_slice_affinity(*pair, knn, decay, thresh, resolution is not None) for pair in zip(points, floor, strict=True)]
    )


@np.errstate(under="ignore")
def _slice_affinity(
    units: np.ndarray, floor: np.ndarray, knn: int, decay: float | None, thresh: float, merge: bool
) -> np.ndarray:  # (M, D), (M,) -> (M, M)
    affinity = np.zeros((len(units), len(units)))
    inside = np.flatnonzero(in_graph(units))
    units, floor = units[inside], floor[inside]
    distances = distances_between(units, units)
    if decay is None:
        one_sided = _nearest(np.where(distances <= floor[:, None], 0, distances) if merge else distances, knn)
    else:
        kth = _kth_other(distances, knn)
        rounded = kth <= 2 * floor
        if merge and (rounded & (kth > 0)).any():
            units = _merged(units, floor, rounded)
        one_sided = np.exp(-((distances_between(units, units) / np.maximum(kth, floor)[:, None]) ** decay))
        one_sided[one_sided < thresh] = 0
    affinity[np.ix_(inside, inside)] = (one_sided + one_sided.T) / 2
    return affinity


def _merged(points: np.ndarray, resolution: np.ndarray, moving: np.ndarray) -> np.ndarray:  # (n, D), 2 x (n,)
    """``points`` with points that differ only by rounding moved to the same place, so that their affinity is 1.

    Each of the ``moving`` points is replaced by the point with the least resolution within its ``resolution``. Points
    with other samples are not the same.
    """
    merged, missing = points.copy(), np.isnan(points)
    for row in np.flatnonzero(moving):
        in_reach = distances_between(points[row : row + 1], points)[0] <= resolution[row]
        in_reach &= (missing == missing[row]).all(axis=1)
        merged[row] = points[np.argmin(np.where(in_reach, resolution, np.inf))]
    return merged


def _kth_other(distances: np.ndarray, k: int) -> np.ndarray:  # (n, n) -> (n,)
    """Distance to the k-th nearest other point, or to the farthest of fewer; 0 if no other is at a finite distance."""
    ascending = np.sort(_self_first(distances), axis=1)
    place = np.minimum(k, np.isfinite(ascending).sum(axis=1) - 1)
    return np.maximum(ascending[np.arange(len(distances)), place], 0)


def _nearest(distances: np.ndarray, k: int) -> np.ndarray:  # (n, n) of 0 and 1
    """1 for the point itself and for its k nearest others. Of equally near points the lower index counts as nearer.

    A point at an infinite distance is not near.
    """
    nearest = np.argsort(_self_first(distances), axis=1, kind="stable")[:, : k + 1]
    affinity = np.zeros_like(distances)
    np.put_along_axis(affinity, nearest, 1.0, axis=1)
    return np.where(np.isinf(distances), 0.0, affinity)


def _self_first(distances: np.ndarray) -> np.ndarray:  # (n, n) -> (n, n)
    """``distances`` whose rows sort the point itself before its duplicates, so that column k is the k-th other."""
    result = distances.copy()
    np.fill_diagonal(result, -1)
    return result


def interslice_bandwidth(
    points: np.ndarray, *, knn: int = 25, resolution: np.ndarray | None = None
) -> float:  # (S, M, D), (S, M)
    """Step 4: epsilon = mean over units of max(median over slices of r(s, i), median over slices of the resolution).

    Nodes that are left out of the graph do not count, and neither do units without any node.
    """
    n_slices, n_units, _ = points.shape
    if knn > n_slices - 1:
        warnings.warn(f"interslice_knn={knn} is clamped to {n_slices - 1}: {n_slices} slices", stacklevel=2)
        knn = n_slices - 1
    floor = np.full((n_slices, n_units), _EPS) if resolution is None else resolution
    widths = []
    for unit in range(n_units):
        inside = in_graph(points[:, unit])
        if inside.any():
            slices = points[inside, unit]
            radii = _kth_other(distances_between(slices, slices), knn)
            widths.append(max(np.median(radii), np.median(floor[inside, unit])))
    return float(np.mean(widths))


def _merged_slices(points: np.ndarray, resolution: np.ndarray, bandwidth: float) -> np.ndarray:  # (S, M, D), (S, M)
    """`_merged` slices of each unit, if their resolution is not small compared with the bandwidth."""
    pairs = zip(points.swapaxes(0, 1), resolution.T, strict=True)
    return np.stack([_merged(slices, floor, 8 * floor >= bandwidth) for slices, floor in pairs], axis=1)


def interslice_affinity(
    points: np.ndarray, bandwidth: float, *, thresh: float = 1e-4
) -> np.ndarray:  # (S, M, D) -> (M, S, S)
    """Step 5, for every unit: exp(-(d/epsilon)^2) between its slices, cut at thresh, with a zero diagonal."""
    return np.stack([_unit_affinity(points[:, i], bandwidth, thresh) for i in range(points.shape[1])])


@np.errstate(under="ignore")
def _unit_affinity(slices: np.ndarray, bandwidth: float, thresh: float) -> np.ndarray:  # (S, D) -> (S, S)
    affinity = np.exp(-((distances_between(slices, slices) / bandwidth) ** 2))
    affinity[affinity < thresh] = 0
    np.fill_diagonal(affinity, 0)
    return affinity


def multislice_affinity(
    trace: np.ndarray,
    *,
    intraslice_knn: int = 2,
    interslice_knn: int = 25,
    decay: float | None = 5,
    thresh: float = 1e-4,
    n_pca: int | None = 100,
    normalize: bool = True,
    mask: np.ndarray | None = None,
) -> np.ndarray:  # (N, N)
    """Steps 1 to 6: K = intraslice + interslice of a raw trace, entries below thresh 0. Symmetric.

    Of a masked trace the matrix has the rows and columns of `graph_nodes` only.
    """
    points = reduce((normalized if normalize else flat_points)(trace, mask=mask), n_pca)
    rounding = resolution(trace, normalize=normalize, mask=mask)
    n_slices, n_units, _ = points.shape
    intraslice = intraslice_affinity(points, knn=intraslice_knn, decay=decay, thresh=thresh, resolution=rounding)
    bandwidth = interslice_bandwidth(points, knn=interslice_knn, resolution=rounding)
    slices = _merged_slices(points, rounding, bandwidth)
    interslice = interslice_affinity(slices, bandwidth, thresh=thresh)
    affinity = np.zeros((n_slices, n_units, n_slices, n_units))
    for slice_id in range(n_slices):
        affinity[slice_id, :, slice_id, :] += intraslice[slice_id]
    for unit in range(n_units):
        affinity[:, unit, :, unit] += interslice[unit]
    affinity[affinity < thresh] = 0  # cuts one-sided intraslice edges, which the averaging has halved
    nodes = np.flatnonzero(in_graph(points))
    return affinity.reshape(n_slices * n_units, n_slices * n_units)[np.ix_(nodes, nodes)]


def graph_nodes(trace: np.ndarray, *, normalize: bool = True, mask: np.ndarray | None = None) -> np.ndarray:  # (N',)
    """The nodes with at least two present samples, or without normalization one. The others are left out."""
    return np.flatnonzero(in_graph((normalized if normalize else flat_points)(trace, mask=mask)))
