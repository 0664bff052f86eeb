"""Distances among some nodes of a trace, whatever their slice and unit: geodesics, and the stress of a picture."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ..ops.distances import distances_by_difference
from .node_sets import NodeSets, node_points

N_NEIGHBORS = 10  # of a node in the graph whose shortest paths are the geodesics


class NodeDistances(NamedTuple):
    """Distances among n nodes of each of B sets, in both spaces; infinite or NaN where two cannot be compared."""

    in_samples: np.ndarray  # (B, n, n)
    in_picture: np.ndarray  # (B, n, n)


def node_distances(sets: NodeSets, *groups: np.ndarray) -> list[NodeDistances]:  # each (B, n)
    """The distances among the nodes of each group, set by set. All groups have one scale.

    O(N P) time for a pass over the trace, and O(B n^2 P) for a group.
    """
    points = node_points(sets.trace, np.concatenate([nodes.ravel() for nodes in groups]), sets.normalize)
    parts = points.split([nodes.size for nodes in groups])
    return [_among(sets, nodes, part.unflatten(0, nodes.shape)) for nodes, part in zip(groups, parts, strict=True)]


def _among(sets: NodeSets, nodes: np.ndarray, points: torch.Tensor) -> NodeDistances:  # (B, n), (B, n, P)
    places = sets.places.flatten(0, 1)[torch.from_numpy(nodes).to(sets.places.device)]
    in_samples = [distances_by_difference(one_set, one_set, bool(one_set.isnan().any())) for one_set in points]
    in_picture = distances_by_difference(places, places)
    return NodeDistances(torch.stack(in_samples).cpu().numpy(), in_picture.cpu().numpy())


def placed_nodes(sets: NodeSets) -> np.ndarray:  # (n,)
    """The nodes that have a place in the picture."""
    return np.flatnonzero(sets.places.isfinite().all(-1).flatten().cpu().numpy())


def geodesic_spearman(distances: NodeDistances, n_sources: int = 100) -> tuple[float, float]:
    """Spearman correlation of geodesic distances in sample space with distances in the picture, for a single set.

    Geodesics are shortest paths in the graph of each node's 10 nearest nodes, from the first ``n_sources`` nodes to all
    others. Also returned is the share of these pairs that a path connects; the others do not count. The idea is that of
    DEMaP (Moon et al., Nature Biotechnology 37, 2019), which takes the geodesics of data without noise. NaN means
    that no correlation is defined.
    """
    from scipy.sparse.csgraph import dijkstra
    from scipy.stats import spearmanr

    in_samples, in_picture = distances.in_samples[0], distances.in_picture[0]
    sources = np.arange(min(n_sources, len(in_samples)))
    paths = dijkstra(_neighbor_graph(in_samples), directed=False, indices=sources)
    pairs = np.isfinite(paths) & np.isfinite(in_picture[sources])
    pairs[sources, sources] = False
    share = pairs.sum() / max(pairs.size - len(sources), 1)
    x, y = paths[pairs], in_picture[sources][pairs]
    defined = len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
    return (float(spearmanr(x, y).statistic) if defined else float("nan")), float(share)


def _neighbor_graph(distances: np.ndarray) -> Any:  # (n, n), sparse
    from scipy.sparse import csr_array

    n = len(distances)
    distances = distances.copy()
    np.fill_diagonal(distances, np.inf)
    k = min(N_NEIGHBORS, n - 1)
    columns = np.argpartition(distances, k - 1, axis=1)[:, :k].ravel()
    rows = np.repeat(np.arange(n), k)
    lengths = distances[rows, columns]
    joined = np.isfinite(lengths)
    # An edge of length 0 is none, and equal points are joined.
    lengths = np.maximum(lengths[joined], np.finfo(float).tiny)
    return csr_array((lengths, (rows[joined], columns[joined])), shape=(n, n))


def picture_scale(distances: NodeDistances) -> float:
    """The number by which distances in the picture are multiplied: the least squares fit to sample space."""
    pairs = _comparable(distances)
    in_samples, in_picture = distances.in_samples[pairs], distances.in_picture[pairs]
    squares = float((in_picture * in_picture).sum())
    return float((in_samples * in_picture).sum()) / squares if squares > 0 else 0.0


def stress_of(distances: NodeDistances, scale: float) -> np.ndarray:  # (B,)
    """sqrt(sum (D - scale d)^2 / sum D^2) for distances D in samples and d in the picture; NaN without a pair."""
    pairs = _comparable(distances)
    in_samples = np.where(pairs, distances.in_samples, 0.0)
    residual = in_samples - np.where(pairs, scale * distances.in_picture, 0.0)
    squares, total = (residual**2).sum((1, 2)), (in_samples**2).sum((1, 2))
    return np.sqrt(np.divide(squares, total, out=np.full(len(total), np.nan), where=total > 0))


def _comparable(distances: NodeDistances) -> np.ndarray:  # (B, n, n) bool
    return np.isfinite(distances.in_samples) & np.isfinite(distances.in_picture)
