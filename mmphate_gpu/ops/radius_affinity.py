"""Affinities above a threshold between the points of each set of a stack, for both parts of the multislice affinity.

Whether a pair has an entry is decided in float64 from distances by differences, whatever the dtype of the result. So
the sparsity pattern is that of the float64 reference, ties and duplicates included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch

from .chunks import pair_chunks
from .csr import Csr, csr_of_counts, room_for_entries
from .distances import chunk_distances
from .launch import native
from .launch.cuda import Gpu, storage_types
from .launch.kernel import blocks_of
from .launch.twins import cpp_twin, cuda_twin, twins
from .pair_stack import ORDERED_ABOVE, TILE, stack_of

# Smaller affinities are 0 in every dtype stored.
SMALLEST = torch.finfo(torch.float32).tiny


def cut_radius(decay: float, thresh: float) -> float:
    """The distance u, in bandwidths, at which exp(-u^decay) is ``thresh``, or `SMALLEST` if that is larger."""
    try:
        return (-math.log(max(thresh, SMALLEST))) ** (1 / decay)
    except OverflowError:  # a decay near 0: no distance is so large
        return math.inf


def cut_distance(bandwidth: torch.Tensor, *, decay: float, thresh: float) -> torch.Tensor:  # () -> ()
    """The largest distance whose affinity is at least ``thresh``, to the last bit.

    By it a pair is decided from its distance, without an exponential; `cut_radius` times ``bandwidth`` is rounded.
    """
    approximate = (cut_radius(decay, thresh) * bandwidth).double()
    # The floats around it; the rounding of the kernel is a few of them.
    nearest = torch.arange(-64, 65, device=approximate.device)
    candidates = (approximate.view(torch.int64) + nearest).view(torch.float64)
    kept = kernel(candidates, bandwidth, decay=decay, dtype=torch.float64) >= max(thresh, SMALLEST)
    return candidates[kept].max()


def kernel(
    distances: torch.Tensor, bandwidth: torch.Tensor | float, *, decay: float, dtype: torch.dtype
) -> torch.Tensor:
    """exp(-(d / bandwidth)^decay) with the exponent in float64 and the exponential in ``dtype``, that of the result."""
    return ((distances / bandwidth) ** decay).neg_().to(dtype).exp_()


@twins("(Tensor points, float reach, bool masked=False) -> Tensor")
def radius_counts(
    points: torch.Tensor, reach: float, masked: bool = False
) -> torch.Tensor:  # (B, n, p) float64 -> (B, n) int64
    """The number of other points of its set within ``reach`` of each point.

    ``masked`` points may lack features (`distances_by_difference`); two that share none are within no reach. O(B n^2 p)
    time, chunks of memory. Deterministic; the versions differ at most in the last bit of a distance.
    """
    counts = torch.zeros(points.shape[:2], dtype=torch.int64, device=points.device)
    for chunk in pair_chunks(*points.shape[:2]):
        distances = chunk_distances(points, chunk, to_itself=math.nan, masked=masked, apart=math.nan)
        counts[chunk.sets, chunk.rows] = (distances <= reach).sum(-1)  # NaN is within no reach
    return counts


@cpp_twin(radius_counts)
def radius_counts_cpp(points, reach, masked=False):
    points = points.contiguous()
    counts = points.new_empty(points.shape[:2], dtype=torch.int64)
    native.call("radius_count", "dl", points, *points.shape, masked, float(reach), counts)
    return counts


@cuda_twin(radius_counts, rehearse=lambda sizes: [(sizes.large_set(), 1, sizes.masked)])
def radius_counts_cuda(gpu: Gpu, points, reach, masked=False):
    points = points.contiguous()
    stack = stack_of(gpu, points, ordered=points.shape[1] > ORDERED_ABOVE, masked=masked)
    counts = torch.zeros(points.shape[:2], dtype=torch.int64, device=points.device)
    arguments = (*stack.inputs(points), float(reach), counts)
    types = storage_types(torch.int32, torch.float64)  # a kernel that only counts uses neither
    stack.run(gpu, "radius_affinity", "radius_count", stack.blocks, arguments, **types)
    return counts if stack.order is None else torch.empty_like(counts).scatter_(1, stack.order.long(), counts)


@twins(
    "(Tensor points, float bandwidth, float decay, float reach, int first, int last, Tensor indptr, Tensor gap, "
    "Tensor(a!) indices, Tensor(b!) values, bool masked=False) -> Tensor"
)
def radius_fill(
    points: torch.Tensor,  # (B, n, p) float64
    bandwidth: float,
    decay: float,
    reach: float,
    first: int,
    last: int,
    indptr: torch.Tensor,  # ((last - first) B + 1,) int64
    gap: torch.Tensor,  # ((last - first) B,) int64
    indices: torch.Tensor,  # (nnz,) int32 or int64
    values: torch.Tensor,  # (nnz,) float32 or float64
    masked: bool = False,
) -> torch.Tensor:
    """Write the entries exp(-(d_ij / bandwidth)^decay), d_ij <= reach, of the points i from ``first`` to ``last`` - 1.

    Rows and columns interleave the sets: point i of set b is number i B + b. So a unit-major stack fills the rows of a
    matrix in node order. The columns of a row ascend, and ``gap`` places stay free between those before the point
    itself and those after it. ``indptr`` has the offsets of rows with `radius_counts` plus ``gap`` places. ``masked``
    points may lack features.

    Returns
    -------
    gap_at : ((last - first) B,) int64
        Where the gap of every row begins.
    """
    n_sets, n_points, _ = points.shape
    gap_at = indptr[:-1].clone()
    for chunk in pair_chunks(n_sets, n_points, rows=slice(first, last)):
        distances = chunk_distances(points, chunk, to_itself=math.nan, masked=masked, apart=math.nan)
        flat = torch.nonzero((distances <= reach).view(-1)).squeeze(1)
        row, column = flat // n_points, flat % n_points
        n_rows = distances.shape[1]
        sets, point = row // n_rows + chunk.sets.start, row % n_rows + chunk.rows.start
        row = (point - first) * n_sets + sets
        later = column > point
        # The entries of a row lie in one chunk, one after the other, so counting from the first gives their ranks.
        place = indptr[row] + _rank_within_runs(row) + torch.where(later, gap[row], 0)
        indices[place] = (column * n_sets + sets).to(indices.dtype)
        values[place] = kernel(distances.view(-1)[flat], bandwidth, decay=decay, dtype=values.dtype)
        gap_at += torch.bincount(row[~later], minlength=gap_at.numel())
    return gap_at


@cpp_twin(radius_fill)
def radius_fill_cpp(points, bandwidth, decay, reach, first, last, indptr, gap, indices, values, masked=False):
    points = points.contiguous()
    gap_at = torch.empty_like(gap)
    inputs = (points, *points.shape, masked, first, last, float(reach), float(bandwidth), float(decay), indptr, gap)
    native.call("radius_fill", "dlllif", *inputs, gap_at, indices, indices.dtype, values, values.dtype)
    return gap_at


@cuda_twin(
    radius_fill,
    rehearse=lambda sizes: [
        (sizes.large_set(), 1, 2, 1, 0, sizes.n_points)
        + (*sizes.zeros(2, sizes.n_points + 1, dtype=torch.int64), *sizes.entries(), sizes.masked)
    ],
)
def radius_fill_cuda(
    gpu: Gpu, points, bandwidth, decay, reach, first, last, indptr, gap, indices, values, masked=False
):
    points, indptr, gap = points.contiguous(), indptr.contiguous(), gap.contiguous()
    stack = stack_of(gpu, points, masked=masked)
    gap_at = torch.empty_like(gap)
    status = torch.zeros((), dtype=torch.int64, device=points.device)
    inputs = (points, *stack.arguments, *points.shape, stack.passes, first, last)
    numbers = (float(reach), float(bandwidth), float(decay))
    arguments = (*inputs, *numbers, indptr, gap, gap_at, indices, values, status)
    blocks = points.shape[0] * blocks_of(last - first, TILE)
    types = storage_types(indices.dtype, values.dtype)
    stack.run(gpu, "radius_affinity", "radius_fill", blocks, arguments, **types)
    if int(status):
        raise native.NativeError("radius_fill: a row does not have the entries it was counted to have")
    return gap_at


def _rank_within_runs(keys: torch.Tensor) -> torch.Tensor:  # (k,) -> (k,) int64
    """The position of every key within its run of equal keys."""
    _, lengths = torch.unique_consecutive(keys, return_counts=True)
    starts = torch.cumsum(lengths, 0) - lengths
    return torch.arange(keys.numel(), device=keys.device) - torch.repeat_interleave(starts, lengths)


@twins(
    "(Tensor points, Tensor bandwidth, float decay, float thresh, float smallest, float cut, ScalarType dtype, "
    "bool masked=False) -> (Tensor, Tensor, Tensor)"
)
def symmetrized_affinity(
    points: torch.Tensor,  # (B, n, p) float64
    bandwidth: torch.Tensor,  # (B, n) float64
    decay: float,
    thresh: float,
    smallest: float,
    cut: float,
    dtype: torch.dtype,
    masked: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The CSR tensors indptr, indices and values of (a_ij + a_ji) / 2, the diagonal included.

    a_ij is exp(-(d_ij / bandwidth_i)^decay), or 0 if that is below ``thresh``. Averages below ``thresh`` or
    ``smallest`` have no entry, and neither have pairs farther apart than ``cut`` times the larger bandwidth. There are
    B n rows, and column indices count within the set. ``masked`` points may lack features. Two that share none have no
    entry, whatever their bandwidths; a point without any feature has no entry on the diagonal either.
    """
    n_sets, n_points, _ = points.shape
    counts, columns, values = [], [], []
    for row, column, value in _symmetrized_entries(points, bandwidth, decay, thresh, smallest, cut, masked):
        counts.append(torch.bincount(row, minlength=n_sets * n_points))
        columns.append(column)
        values.append(value.to(dtype))
    return csr_of_counts(torch.stack(counts).sum(0), torch.cat(columns), torch.cat(values), n_points)[:3]


def _symmetrized_entries(
    points: torch.Tensor,
    bandwidth: torch.Tensor,
    decay: float,
    thresh: float,
    smallest: float,
    cut: float,
    masked: bool,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Rows (counted over all sets), columns and values, chunk by chunk in the order of the rows."""
    n_points = points.shape[1]
    for chunk in pair_chunks(*points.shape[:2]):
        distances = chunk_distances(points, chunk, masked=masked, apart=math.nan)
        width = bandwidth[chunk.sets]
        ends = width[:, chunk.rows, None], width[:, None, :]
        near = distances <= cut * torch.maximum(*ends)
        flat = torch.nonzero(near.view(-1)).squeeze(1)
        near_distances = distances.view(-1)[flat]
        total = torch.zeros_like(near_distances)
        for end in ends:
            one_sided = kernel(near_distances, end.expand_as(near).reshape(-1)[flat], decay=decay, dtype=torch.float64)
            total += one_sided.masked_fill_(one_sided < thresh, 0) / 2
        kept = total >= max(thresh, smallest)
        flat, n_rows = flat[kept], near.shape[1]
        row = flat // n_points
        row = (row // n_rows + chunk.sets.start) * n_points + row % n_rows + chunk.rows.start
        yield row, flat % n_points, total[kept]


def radius_affinity(
    points: torch.Tensor,  # (B, n, p) float64
    bandwidth: torch.Tensor,  # (B, n) float64
    *,
    decay: float,
    thresh: float,
    dtype: torch.dtype,
    masked: bool = False,
) -> Csr:
    """`symmetrized_affinity` as one matrix of B n rows and n columns, which count within the set of the row."""
    n_sets, n_points, _ = points.shape
    # Slightly beyond the cut, because the average decides.
    cut = cut_radius(decay, thresh) * (1 + 1e-9)
    indptr, indices, values = symmetrized_affinity(points, bandwidth, decay, thresh, SMALLEST, cut, dtype, masked)
    return Csr(indptr, indices, values, (n_sets * n_points, n_points))


@cpp_twin(symmetrized_affinity)
def symmetrized_affinity_cpp(points, bandwidth, decay, thresh, smallest, cut, dtype, masked=False):
    points, bandwidth = points.contiguous(), bandwidth.contiguous()
    numbers = (float(decay), float(thresh), float(smallest), float(cut))
    inputs = (points, bandwidth, *points.shape, masked, *numbers)
    counts = points.new_empty(bandwidth.numel(), dtype=torch.int64)
    run = partial(native.call, "symmetrized_affinity", "ddllif", *inputs)
    run(None, counts, None, torch.int32, None, dtype)
    indptr, indices, values = room_for_entries(counts, points.shape[1], dtype)
    run(indptr, None, indices, indices.dtype, values, dtype)
    return indptr.to(indices.dtype), indices, values


@cuda_twin(
    symmetrized_affinity,
    rehearse=lambda sizes: [(sizes.small_set(), sizes.small_set()[..., 0], 1, 0, 0, 1, sizes.dtype, sizes.masked)],
)
def symmetrized_affinity_cuda(gpu: Gpu, points, bandwidth, decay, thresh, smallest, cut, dtype, masked=False):
    points, bandwidth = points.contiguous(), bandwidth.contiguous()
    stack = stack_of(gpu, points, masked=masked)
    numbers = (float(decay), float(thresh), float(smallest), float(cut))
    inputs = (points, *stack.arguments, bandwidth, *points.shape[1:], stack.passes, *numbers)
    counts = torch.empty(bandwidth.numel(), dtype=torch.int64, device=points.device)
    run = partial(stack.run, gpu, "radius_affinity", "symmetrized_affinity", stack.blocks)
    # Counting stores nothing, so any types will do. Those that filling will most likely use save a compilation.
    run((*inputs, None, counts, None, None), **storage_types(torch.int32, dtype))
    indptr, indices, values = room_for_entries(counts, points.shape[1], dtype)
    run((*inputs, indptr, None, indices, values), **storage_types(indices.dtype, dtype))
    return indptr.to(indices.dtype), indices, values
