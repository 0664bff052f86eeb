"""Neighborhood preservation: the share of nearest neighbors that an embedding keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import torch

from ..errors import InputError, check_number
from ..ops.chunks import Chunk, pair_chunks
from ..ops.distances import chunk_distances
from ..ops.scatter_sum import scatter_sum
from ..runtime.arrays import to_numpy
from ..runtime.isolation import isolated
from ..trace import as_trace
from .node_sets import NodeSets, Sets, node_sets

# Pairs per chunk. A pair takes at most 60 bytes for two float64 distances, copies of them for ties, and masks, so a
# chunk stays under 64 MiB.
_CHUNK_PAIRS = 2**20


@overload
def neighborhood_preservation(trace: Any, embedding: Any, k: int, *, normalize: bool = True) -> tuple[float, float]: ...


@overload
def neighborhood_preservation(
    trace: Any, embedding: Any, k: Sequence[int], *, normalize: bool = True
) -> list[tuple[float, float]]: ...


@isolated()
def neighborhood_preservation(
    trace: Any, embedding: Any, k: int | Sequence[int], *, normalize: bool = True
) -> tuple[float, float] | list[tuple[float, float]]:
    """Share of the k nearest neighbors in sample space that are also the k nearest in the embedding.

    *Inter* compares the slices of each unit. *Intra* compares the units of each slice, with k at most n_units - 1. Both
    are means over all nodes. Sample space is the trace z-scored over samples (ddof 1, 1e-8 added to the deviation).
    Both distances are Euclidean. The neighbors are exact; of equally near points the one with the lower index counts
    as nearer.

    In sample space of a masked trace a distance is over the samples that both nodes have, scaled to all. In both
    spaces the neighbors of a node are then among the nodes that share a sample with it, and k is at most their number.
    Nodes without such a node, or with a row of NaN in the embedding, do not count.

    Parameters
    ----------
    trace : anything `as_trace` accepts
        S slices, M units and P samples.
    embedding : (S M, C) array or tensor, or an object with such ``.coordinates``
        Row ``slice * n_units + unit`` has the node of this slice and unit, or NaN if the node has no place.
    k : int or sequence of int
        1 to S - 1; several are computed in one pass.
    normalize : bool
        Whether sample space is z-scored, as in the table of the MM-PHATE paper. False takes the samples as they were
        recorded, as M-PHATE does.

    Returns
    -------
    (intra, inter) : tuple of float, or a list of tuples for a sequence ``k``
        ``intra`` is NaN for a single unit, and both are if no node counts.

    Raises
    ------
    InputError, InputTypeError
        A k out of range, an embedding of another shape, with infinity or with NaN in a part of a row, or a bad trace.

    Notes
    -----
    Runs on the trace's device in float64: O(M S^2 (P + C)) time, a few hundred MiB of temporaries and no copy of the
    trace, which may be read block by block. Deterministic.

    Examples
    --------
    >>> from mmphate_gpu.datasets import random_walk
    >>> walk = random_walk(20, 4, 6)
    >>> intra, inter = neighborhood_preservation(walk, walk.data.reshape(80, 6)[:, :2], k=3)
    """
    trace = as_trace(trace)
    sets = node_sets(trace, embedding, normalize=normalize)
    pairs = preserved(sets, checked_ks(k, trace.n_slices))
    return pairs if np.ndim(k) else pairs[0]


def checked_ks(k: int | Sequence[int], n_slices: int) -> list[int]:
    values = to_numpy("k", k).tolist() if isinstance(k, np.ndarray | torch.Tensor) else k
    values = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if not values:
        raise InputError("k is empty; accepted: an integer, or a sequence of at least one")
    # A slice has n_slices - 1 others.
    return [int(check_number("k", value, low=1, high=n_slices - 1, integer=True)) for value in values]


def preserved(sets: NodeSets, ks: list[int]) -> list[tuple[float, float]]:
    """(intra, inter) for each of ``ks``, over the query nodes."""
    return list(zip(intra_preserved(sets, ks), inter_preserved(sets, ks), strict=True))


def intra_preserved(sets: NodeSets, ks: list[int]) -> list[float]:
    """The share of the units of a slice that stay neighbors, for each of ``ks``; NaN without a neighbor."""
    others = sets.trace.n_units - 1
    return _shares(sets.of_slices(), [min(k, others) for k in ks])


def inter_preserved(sets: NodeSets, ks: list[int]) -> list[float]:
    """The share of the slices of a unit that stay neighbors, for each of ``ks``; NaN without a neighbor."""
    return _shares(sets.of_units(), ks, sets.n_queries)


def _shares(groups: Iterable[Sets], ks: list[int], n_queries: int | None = None) -> list[float]:
    """For each k, the mean of |common k nearest| / k over the first ``n_queries`` nodes (default: all) of every set.

    Only nodes with neighbors count. k is at most the number of nodes that a node can be compared with.
    """
    if max(ks) == 0:
        return [float("nan")] * len(ks)
    totals, counted = np.zeros((len(ks), max(ks) + 1)), 0  # common neighbors, by the number of neighbors
    for points, places in groups:
        masked = any(bool(stack.isnan().any()) for stack in (points, places))
        n_sets, n_points, _ = points.shape
        for chunk in pair_chunks(n_sets, n_points, _CHUNK_PAIRS, rows=slice(0, n_queries or n_points)):
            common, some = _common(distance_pair(Sets(points, places), chunk, masked), ks)
            totals, counted = totals + common, counted + some
    means = (totals[:, 1:] / np.arange(1, totals.shape[1])).sum(1) / max(counted, 1)
    return means.tolist() if counted else [float("nan")] * len(ks)


def _common(pair: list[torch.Tensor], ks: list[int]) -> tuple[np.ndarray, int]:
    """Common neighbors of the nodes of a chunk, added up by their number of neighbors, and how many nodes have some."""
    others = pair[0].isfinite().sum(-1, keepdim=True)  # (B, r, 1)
    near = [_Nearest(distances, max(ks)) for distances in pair]
    sums = []
    for k in ks:
        most = others.clamp(max=k)
        common = (near[0].mask(most) & near[1].mask(most)).sum(-1).double()
        sums.append(scatter_sum(most.flatten(), common.flatten(), max(ks) + 1))
    return torch.stack(sums).cpu().numpy(), int((others > 0).sum())


def distance_pair(sets: Sets, chunk: Chunk, masked: bool) -> list[torch.Tensor]:
    """Distances in both spaces (B, r, n) of the points of ``chunk``; infinite to itself, and in both spaces to points
    that share no sample or have no place."""
    near = chunk_distances(sets.points, chunk, to_itself=torch.inf, masked=masked)
    pair = [near, chunk_distances(sets.places, chunk)]
    if masked:
        pair[0].masked_fill_(pair[1].isnan(), torch.inf)
    pair[1].masked_fill_(pair[0].isinf(), torch.inf)
    return pair


class _Nearest:
    """The distances of points to all points of their set, (B, r, n), and the ``k`` smallest in order."""

    def __init__(self, distances: torch.Tensor, k: int) -> None:
        self.distances = distances
        self.smallest = torch.topk(distances, k, dim=-1, largest=False, sorted=True).values

    def mask(self, k: torch.Tensor) -> torch.Tensor:  # (B, r, 1) int64 -> (B, r, n) bool
        """True at the k nearest. Of the points as far away as the k-th, those with the lowest indices count."""
        reach = self.smallest.gather(-1, (k - 1).clamp_min(0))
        near = (self.distances <= reach) & (k > 0)
        tied = near.sum(-1) > k[..., 0]
        if bool(tied.any()):
            distances, reach = self.distances[tied], reach[tied]
            closer, level = distances < reach, distances == reach
            free = k[tied] - closer.sum(-1, keepdim=True)
            near[tied] = closer | (level & (level.cumsum(-1, dtype=torch.int32) <= free))
        return near
