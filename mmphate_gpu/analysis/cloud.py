"""Distances among some nodes of a trace, whatever their slice and unit: geodesics, and the stress of a picture."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ..ops.distances import distances_by_difference
from .node_sets import NodeSets, node_points

N_NEIGHBORS = 10  # of a node in the graph whose shortest paths are the geodesics


class Cloud(NamedTuple):
    """Distances among n nodes of each of B sets, in both spaces; infinite or NaN where two cannot be compared."""

    near: np.ndarray  # (B, n, n) in sample space
    far: np.ndarray  # (B, n, n) in the picture


def cloud_of(sets: NodeSets, nodes: np.ndarray) -> Cloud:  # (B, n)
    """The distances among ``nodes``, set by set. O(N P) time for a pass over the trace, and O(B n^2 P)."""
    points = node_points(sets.trace, nodes.ravel(), sets.normalize).unflatten(0, nodes.shape)
    places = sets.places.flatten(0, 1)[torch.from_numpy(nodes).to(sets.places.device)]
    near = [distances_by_difference(one_set, one_set, bool(one_set.isnan().any())) for one_set in points]
    far = distances_by_difference(places, places)
    return Cloud(torch.stack(near).cpu().numpy(), far.cpu().numpy())


def placed_nodes(sets: NodeSets) -> np.ndarray:  # (n,)
    """The nodes that have a place in the picture."""
    return np.flatnonzero(sets.places.isfinite().all(-1).flatten().cpu().numpy())


def geodesic_spearman(cloud: Cloud, n_sources: int = 100) -> tuple[float, float]:
    """Spearman correlation of geodesic distances in sample space with distances in the picture, for a single set.

    Geodesics are shortest paths in the graph of each node's 10 nearest nodes, from the first ``n_sources`` nodes to all
    others. Also returned is the share of these pairs that a path connects; the others do not count. The idea is that of
    DEMaP (Moon et al., Nature Biotechnology 37, 2019), which takes the geodesics of data without noise. nan means
    that no correlation is defined.
    """
    from scipy.sparse.csgraph import dijkstra
    from scipy.stats import spearmanr

    near, far = cloud.near[0], cloud.far[0]
    sources = np.arange(min(n_sources, len(near)))
    paths = dijkstra(_neighbor_graph(near), directed=False, indices=sources)
    pairs = np.isfinite(paths) & np.isfinite(far[sources])
    pairs[sources, sources] = False
    share = pairs.sum() / max(pairs.size - len(sources), 1)
    x, y = paths[pairs], far[sources][pairs]
    defined = len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
    return (float(spearmanr(x, y).statistic) if defined else float("nan")), float(share)


def _neighbor_graph(near: np.ndarray) -> Any:  # (n, n), sparse
    from scipy.sparse import csr_array

    n = len(near)
    distances = near.copy()
    np.fill_diagonal(distances, np.inf)
    k = min(N_NEIGHBORS, n - 1)
    columns = np.argpartition(distances, k - 1, axis=1)[:, :k].ravel()
    rows = np.repeat(np.arange(n), k)
    lengths = distances[rows, columns]
    joined = np.isfinite(lengths)
    # An edge of length 0 is none, and equal points are joined.
    lengths = np.maximum(lengths[joined], np.finfo(float).tiny)
    return csr_array((lengths, (rows[joined], columns[joined])), shape=(n, n))


def picture_scale(cloud: Cloud) -> float:
    """The number by which distances in the picture are multiplied: the least squares fit to sample space."""
    pairs = _comparable(cloud)
    near, far = cloud.near[pairs], cloud.far[pairs]
    squares = float((far * far).sum())
    return float((near * far).sum()) / squares if squares > 0 else 0.0


def stress_of(cloud: Cloud, scale: float) -> np.ndarray:  # (B,)
    """sqrt(sum (near - scale far)^2 / sum near^2) over the pairs of each set; nan where no pair has a distance."""
    pairs = _comparable(cloud)
    near = np.where(pairs, cloud.near, 0.0)
    residual = near - np.where(pairs, scale * cloud.far, 0.0)
    squares, total = (residual**2).sum((1, 2)), (near**2).sum((1, 2))
    return np.sqrt(np.divide(squares, total, out=np.full(len(total), np.nan), where=total > 0))


def _comparable(cloud: Cloud) -> np.ndarray:  # (B, n, n) bool
    return np.isfinite(cloud.near) & np.isfinite(cloud.far)
