"""Neighborhood preservation: the share of nearest neighbors that an embedding keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch

from ..errors import InputError, check_number
from ..linalg.safe_scale import safe_scale
from ..ops.chunks import pair_chunks
from ..ops.distances import distances_by_difference
from ..runtime.arrays import real_tensor, to_numpy
from ..runtime.isolation import isolated
from ..slices import unit_major
from ..trace import Trace, as_trace, flat_points, normalize
from ..trace.stored import Array, blocks

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

    Parameters
    ----------
    trace : anything `as_trace` accepts
        S slices, M units and P samples.
    embedding : (S M, C) array or tensor, or an object with such ``.coordinates``
        Row ``slice * n_units + unit`` has the node of this slice and unit.
    k : int or sequence of int
        1 to S - 1; several are computed in one pass.

    Returns
    -------
    (intra, inter) : tuple of float, or a list of tuples for a sequence ``k``
        ``intra`` is nan for a single unit.

    Raises
    ------
    InputError, InputTypeError
        A k out of range, an embedding of another shape or with values that are not finite, or a bad trace.

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
    if not bool(coordinates.isfinite().all()):
        row = int(torch.nonzero(~coordinates.isfinite())[0, 0])
        raise InputError(f"embedding is not finite in row {row} (the first such row); accepted: finite numbers")
    coordinates = coordinates.to(trace.data.device, torch.float64)
    coordinates = coordinates * safe_scale(coordinates)  # neighbors do not depend on the scale
    return coordinates.reshape(trace.n_slices, trace.n_units, -1)


def _z_scored(trace: Trace) -> torch.Tensor:  # (S, M, P)
    """(x - mean) / (deviation + 1e-8) over the present samples, with ddof 1; 0 for masked samples and dead units."""
    count: Any = trace.n_samples
    if trace.mask is not None:
        count = _present(trace.mask)
    # `flat_points` replaces masked samples by the mean, so they add nothing to the squares.
    squares = flat_points(trace).var(-1, correction=0, keepdim=True) * trace.n_samples
    population = (squares / count).sqrt()
    sample = (squares / torch.as_tensor(count - 1, device=squares.device).clamp_min(1)).sqrt()
    return normalize(trace) * (population / (sample + 1e-8))


def _present(mask: Array) -> torch.Tensor:  # (E, T, M, P) -> (S, M, 1)
    """Number of present samples of each (slice, unit). Only one block of a mask in a file is in memory at a time."""
    n_epochs, n_timesteps, n_units, _ = mask.shape
    count = torch.empty(n_epochs * n_timesteps, n_units, 1, dtype=torch.int64, device=mask.device)
    for chunk, present, _ in blocks(mask, None):
        count[chunk.sets, chunk.rows] = present.sum(-1, keepdim=True)
    return count


def _intra(points: torch.Tensor, places: torch.Tensor, ks: list[int]) -> list[float]:
    others = points.shape[1] - 1
    if others == 0:
        return [float("nan")] * len(ks)
    return _shares(points, places, [min(k, others) for k in ks])


def _shares(points: torch.Tensor, places: torch.Tensor, ks: list[int]) -> list[float]:
    """For each k, the mean of |common k nearest| / k over all points of (B, n, p) and (B, n, C)."""
    n_sets, n_points, _ = points.shape
    common = torch.zeros(len(ks), dtype=torch.int64, device=points.device)
    for chunk in pair_chunks(n_sets, n_points, _CHUNK_PAIRS):
        rows = torch.arange(chunk.rows.start, chunk.rows.stop, device=points.device)
        near = [_Nearest(stack[chunk.sets], rows, max(ks)) for stack in (points, places)]
        common += torch.stack([(near[0].mask(k) & near[1].mask(k)).sum() for k in ks])
    return [int(count) / (n_sets * n_points * k) for count, k in zip(common.tolist(), ks, strict=True)]


class _Nearest:
    """Distances from the points ``rows`` of every set to all points of the set, and the ``k`` smallest in order."""

    def __init__(self, stack: torch.Tensor, rows: torch.Tensor, k: int) -> None:
        self.distances = distances_by_difference(stack[:, rows], stack)  # (B, r, n)
        self.distances[:, rows - rows[0], rows] = torch.inf  # a point is not its own neighbor
        self.smallest = torch.topk(self.distances, k, dim=-1, largest=False, sorted=True).values

    def mask(self, k: int) -> torch.Tensor:  # (B, r, n) bool
        """True at the k nearest. Of the points as far away as the k-th, those with the lowest indices count."""
        reach = self.smallest[..., k - 1 : k]
        near = self.distances <= reach
        tied = near.sum(-1) > k
        if bool(tied.any()):
            distances, reach = self.distances[tied], reach[tied]
            closer, level = distances < reach, distances == reach
            free = k - closer.sum(-1, keepdim=True)
            near[tied] = closer | (level & (level.cumsum(-1, dtype=torch.int32) <= free))
        return near
