"""Neighborhood preservation: the share of nearest neighbors that an embedding keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch

from ..errors import InputError, check_number
from ..linalg.safe_scale import safe_scale
from ..ops.chunks import Chunk, pair_chunks
from ..ops.distances import chunk_distances
from ..ops.scatter_sum import scatter_sum
from ..runtime.arrays import real_tensor, to_numpy
from ..runtime.isolation import isolated
from ..slices import unit_major
from ..trace import Trace, as_trace, flat_points, normalize

# Pairs per chunk. A pair takes at most 60 bytes for two float64 distances, copies of them for ties, and masks, so a
# chunk stays under 64 MiB.
_CHUNK_PAIRS = 2**20


@overload
def neighborhood_preservation(trace: Any, embedding: Any, k: int) -> tuple[float, float]: ...


@overload
def neighborhood_preservation(trace: Any, embedding: Any, k: Sequence[int]) -> list[tuple[float, float]]: ...


@isolated()
def neighborhood_preservation(
    trace: Any, embedding: Any, k: int | Sequence[int]
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

    Returns
    -------
    (intra, inter) : tuple of float, or a list of tuples for a sequence ``k``
        ``intra`` is nan for a single unit, and both are if no node counts.

    Raises
    ------
    InputError, InputTypeError
        A k out of range, an embedding of another shape, with infinity or with NaN in a part of a row, or a bad trace.

    Notes
    -----
    Runs on the trace's device in float64: O(M S^2 (P + C)) time, about 64 MiB of temporaries. Deterministic.

    Examples
    --------
    >>> from mmphate_gpu.datasets import random_walk
    >>> walk = random_walk(20, 4, 6)
    >>> intra, inter = neighborhood_preservation(walk, walk.data.reshape(80, 6)[:, :2], k=3)
    """
    trace = as_trace(trace)
    ks = _checked_ks(k, trace.n_slices)
    points = _z_scored(trace)  # (S, M, P)
    places = _places(embedding, trace)  # (S, M, C)
    intra = _intra(points, places, ks)
    inter = _shares(unit_major(points), unit_major(places), ks)
    pairs = list(zip(intra, inter, strict=True))
    return pairs if np.ndim(k) else pairs[0]


def _checked_ks(k: int | Sequence[int], n_slices: int) -> list[int]:
    values = to_numpy("k", k).tolist() if isinstance(k, np.ndarray | torch.Tensor) else k
    values = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if not values:
        raise InputError("k is empty; accepted: an integer, or a sequence of at least one")
    # A slice has n_slices - 1 others.
    return [int(check_number("k", value, low=1, high=n_slices - 1, integer=True)) for value in values]


def _places(embedding: Any, trace: Trace) -> torch.Tensor:  # (S, M, C)
    coordinates = real_tensor("embedding", getattr(embedding, "coordinates", embedding))
    if coordinates.ndim != 2 or coordinates.shape[0] != trace.n_nodes or coordinates.shape[1] == 0:
        raise InputError(
            f"embedding has shape {tuple(coordinates.shape)}; accepted: ({trace.n_nodes}, n_components), "
            "one row per (slice, unit) of the trace"
        )
    good = coordinates.isfinite() | coordinates.isnan().all(1, keepdim=True)
    if not bool(good.all()):
        row = int(torch.nonzero(~good)[0, 0])
        accepted = "finite numbers, or NaN in the whole row"
        raise InputError(f"embedding is not finite in row {row} (the first such row); accepted: {accepted}")
    coordinates = coordinates.to(trace.data.device, torch.float64)
    coordinates = coordinates * safe_scale(coordinates.nan_to_num(0))  # neighbors do not depend on the scale
    return coordinates.reshape(trace.n_slices, trace.n_units, -1)


def _z_scored(trace: Trace) -> torch.Tensor:  # (S, M, P)
    """(x - mean) / (deviation + 1e-8) over the present samples, with ddof 1; 0 for dead units.

    Masked samples are NaN, and so are all samples of a node with fewer than two.
    """
    values = flat_points(trace)
    count = (~values.isnan()).sum(-1, keepdim=True)
    values -= values.nansum(-1, keepdim=True) / count
    squares = values.square_().nansum(-1, keepdim=True)
    population, sample = (squares / count).sqrt(), (squares / (count - 1).clamp_min(1)).sqrt()
    return normalize(trace).mul_(population / (sample + 1e-8))


def _intra(points: torch.Tensor, places: torch.Tensor, ks: list[int]) -> list[float]:
    others = points.shape[1] - 1
    if others == 0:
        return [float("nan")] * len(ks)
    return _shares(points, places, [min(k, others) for k in ks])


def _shares(points: torch.Tensor, places: torch.Tensor, ks: list[int]) -> list[float]:
    """For each k, the mean of |common k nearest| / k over the points of (B, n, p) and (B, n, C) with neighbors.

    k is at most the number of points that a point can be compared with.
    """
    n_sets, n_points, _ = points.shape
    totals, counted = points.new_zeros(len(ks), max(ks) + 1), 0  # common neighbors, by the number of neighbors
    masked = any(bool(stack.isnan().any()) for stack in (points, places))
    for chunk in pair_chunks(n_sets, n_points, _CHUNK_PAIRS):
        pair = _distances(points, places, chunk, masked)
        others = pair[0].isfinite().sum(-1, keepdim=True)  # (B, r, 1)
        near = [_Nearest(distances, max(ks)) for distances in pair]
        counted += int((others > 0).sum())
        for i, k in enumerate(ks):
            most = others.clamp(max=k)
            common = (near[0].mask(most) & near[1].mask(most)).sum(-1).double()
            totals[i] += scatter_sum(most.flatten(), common.flatten(), totals.shape[1])
    sums = (totals[:, 1:] / torch.arange(1, totals.shape[1], device=totals.device)).sum(1)
    return [total / counted if counted else float("nan") for total in sums.tolist()]


def _distances(points: torch.Tensor, places: torch.Tensor, chunk: Chunk, masked: bool) -> list[torch.Tensor]:
    """Distances in both spaces (B, r, n) of the points of ``chunk``; infinite to itself, and in both spaces to points
    that share no sample or have no place."""
    pair = [chunk_distances(points, chunk, to_itself=torch.inf, masked=masked), chunk_distances(places, chunk)]
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
