"""Affinities above a threshold between the points of each set of a stack: the primitive under both affinities.

Every decision (is this pair above the threshold?) is taken in float64 from distances by differences, whatever the
dtype of the result: so the sparsity pattern is that of the float64 reference, ties and duplicates included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from .chunks import CHUNK_ELEMENTS, Chunk, pair_chunks
from .csr import Csr, index_dtype, indptr_of_counts
from .distances import distances_by_difference

# Smaller affinities are 0 in every dtype stored.
SMALLEST = torch.finfo(torch.float32).tiny


class Entries(NamedTuple):
    """The affinity entries of one chunk of rows, in (set, row, column) order; a row is never split."""

    chunk: Chunk
    sets: torch.Tensor  # (k,) int64
    rows: torch.Tensor  # (k,) int64
    columns: torch.Tensor  # (k,) int64
    values: torch.Tensor  # (k,)

    def row_in_chunk(self) -> torch.Tensor:  # (k,) int64
        """The row of every entry, counted from the chunk's first."""
        per_set = self.chunk.rows.stop - self.chunk.rows.start
        return (self.sets - self.chunk.sets.start) * per_set + self.rows - self.chunk.rows.start

    def row_counts(self) -> torch.Tensor:  # (sets of the chunk, rows of the chunk) int64
        n_sets, n_rows = self.chunk.sets.stop - self.chunk.sets.start, self.chunk.rows.stop - self.chunk.rows.start
        return torch.bincount(self.row_in_chunk(), minlength=n_sets * n_rows).view(n_sets, n_rows)


def cut_radius(decay: float, thresh: float) -> float:
    """Distance in bandwidths where exp(-u^decay) = thresh.

    A ``thresh`` below the smallest normal float32 is that float: smaller affinities are 0 in every dtype stored.
    """
    try:
        return (-math.log(max(thresh, SMALLEST))) ** (1 / decay)
    except OverflowError:  # a decay near 0: beyond every distance there is
        return math.inf


def cut_distance(bandwidth: torch.Tensor, *, decay: float, thresh: float) -> torch.Tensor:  # () -> ()
    """The largest distance whose affinity is at least ``thresh``, to the last bit.

    `cut_radius` times ``bandwidth`` is off by rounding. With it a pair is decided by its distance, before any
    exponential.
    """
    about = torch.as_tensor(cut_radius(decay, thresh) * bandwidth, dtype=torch.float64)
    nearest = torch.arange(
        -64, 65, device=about.device
    )  # neighbouring floats; the kernel's rounding is a handful of them
    candidates = (about.view(torch.int64) + nearest).view(torch.float64)
    kept = kernel(candidates, bandwidth, decay=decay, dtype=torch.float64) >= max(thresh, SMALLEST)
    return candidates[kept].max()


def kernel(distances: torch.Tensor, bandwidth: torch.Tensor, *, decay: float, dtype: torch.dtype) -> torch.Tensor:
    """exp(-(d / bandwidth)^decay); the exponent in float64, the exponential in ``dtype``, which is all it ends in."""
    return ((distances / bandwidth) ** decay).neg_().to(dtype).exp_()


def radius_entries(
    points: torch.Tensor,  # (B, n, p) float64
    bandwidth: torch.Tensor,  # (B, n) a bandwidth per point, or () one for all
    *,
    decay: float,
    thresh: float,
    diagonal: bool,
    dtype: torch.dtype = torch.float64,
    elements: int = CHUNK_ELEMENTS,
) -> Iterator[Entries]:
    """Entries with affinity at least ``thresh``, chunk by chunk.

    With one bandwidth: a_ij = exp(-(d_ij / bandwidth)^decay). With a bandwidth per point the two one-sided values are
    cut, averaged, and cut again: (a_ij + a_ji) / 2, so that the result is symmetric. The diagonal is 1 or left out.
    O(B n^2 p) time; memory of a few chunks (`chunks.CHUNK_ELEMENTS`).
    """
    n_sets, n_points, _ = points.shape
    bandwidth = bandwidth.to(points.dtype)
    reach = _reach(bandwidth, decay, thresh)
    for chunk in pair_chunks(n_sets, n_points, elements):
        near, distances = _near(points, reach, chunk, diagonal)
        flat = torch.nonzero(near.view(-1)).squeeze(1)
        row, columns = flat // n_points, flat % n_points
        n_rows = near.shape[1]
        entries = Entries(chunk, row // n_rows + chunk.sets.start, row % n_rows + chunk.rows.start, columns, flat)
        distances = distances.view(-1)[flat]
        if bandwidth.ndim == 0:
            yield entries._replace(values=kernel(distances, bandwidth, decay=decay, dtype=dtype))
        else:
            yield _symmetrised(entries, distances, bandwidth, decay, thresh, dtype)


def _reach(bandwidth: torch.Tensor, decay: float, thresh: float) -> torch.Tensor:  # like the bandwidth
    """How far a pair may lie apart: exact for one bandwidth; for one per point a hair more, as the averaged value
    decides."""
    if bandwidth.ndim == 0:
        return cut_distance(bandwidth, decay=decay, thresh=thresh)
    return cut_radius(decay, thresh) * (1 + 1e-9) * bandwidth


def _near(
    points: torch.Tensor, reach: torch.Tensor, chunk: Chunk, diagonal: bool
) -> tuple[torch.Tensor, torch.Tensor]:  # (sets, rows, n) bool and float64
    """Which pairs of the chunk lie within the reach (of the farther reaching of the two), and their distances."""
    distances = distances_by_difference(points[chunk.sets, chunk.rows], points[chunk.sets])
    if not diagonal:
        rows = torch.arange(chunk.rows.start, chunk.rows.stop, device=points.device)
        distances[:, rows - chunk.rows.start, rows] = math.inf
    if reach.ndim:
        reach = torch.maximum(reach[chunk.sets, chunk.rows, None], reach[chunk.sets, None, :])
    return distances <= reach, distances


def _symmetrised(
    entries: Entries,
    distances: torch.Tensor,
    bandwidth: torch.Tensor,
    decay: float,
    thresh: float,
    dtype: torch.dtype,
) -> Entries:
    values = torch.zeros_like(distances)
    for end in (entries.rows, entries.columns):
        one_sided = kernel(distances, bandwidth[entries.sets, end], decay=decay, dtype=torch.float64)
        values += one_sided.masked_fill_(one_sided < thresh, 0) / 2
    keep = values >= max(thresh, SMALLEST)
    return Entries(entries.chunk, *(part[keep] for part in entries[1:4]), values[keep].to(dtype))


def radius_counts(
    points: torch.Tensor, bandwidth: torch.Tensor, *, decay: float, thresh: float
) -> torch.Tensor:  # (B, n, p), () -> (B, n) int64
    """How many entries each row has under one bandwidth, without the diagonal; nothing is stored."""
    n_sets, n_points, _ = points.shape
    counts = torch.zeros(n_sets, n_points, dtype=torch.int64, device=points.device)
    reach = _reach(bandwidth.to(points.dtype), decay, thresh)
    for chunk in pair_chunks(n_sets, n_points):
        near, _ = _near(points, reach, chunk, diagonal=False)
        counts[chunk.sets, chunk.rows] = near.sum(-1)
    return counts


def radius_affinity(
    points: torch.Tensor,  # (B, n, p)
    bandwidth: torch.Tensor,  # (B, n) or ()
    *,
    decay: float,
    thresh: float,
    diagonal: bool,
    dtype: torch.dtype,
) -> Csr:
    """All entries as one CSR of B*n rows whose column indices count within the row's own set (n columns)."""
    n_sets, n_points, _ = points.shape
    counts, columns, values = [], [], []
    for entries in radius_entries(points, bandwidth, decay=decay, thresh=thresh, diagonal=diagonal, dtype=dtype):
        counts.append(entries.row_counts().flatten())
        columns.append(entries.columns.to(torch.int32))
        values.append(entries.values)
    indptr = indptr_of_counts(torch.cat(counts))
    kind = index_dtype(int(indptr[-1]), n_points)
    return Csr(indptr.to(kind), torch.cat(columns).to(kind), torch.cat(values), (n_sets * n_points, n_points))
