"""The nearest other points of every point within its set of a stack, exactly."""

from __future__ import annotations

import torch

from .chunks import pair_chunks
from .distances import chunk_distances
from .launch import native
from .launch.cuda import Gpu
from .launch.rehearsal import MOST_POINTS
from .launch.twins import cpp_twin, cuda_twin, twins
from .pair_stack import TILE, Stack, stack_of

# Points of a set whose k-th distances give the bracket: 256 of them bracket the median within 10 % of the ranks, at 3 %
# of the cost of all points of a set of 8000. Sets of up to 4 SAMPLED points start other kernels than larger ones.
SAMPLED = MOST_POINTS // 4
# The ends of a bracket, (B,) float64, and how many others of a point, (B, n) int64, lie below it and up to its end.
Bracket = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def nearest_others(
    points: torch.Tensor, k: int, masked: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """Distances, ascending, and indices of the ``k`` nearest other points, by chunks of distances and a partial sort.

    ``masked`` points may lack features (`distances_by_difference`). Where fewer than ``k`` others share a feature with
    a point, its last distances are infinite. O(B n^2 p) time, a few chunks of memory. Deterministic.
    """
    n_sets, n_points, _ = points.shape
    distances = points.new_empty(n_sets, n_points, k)
    indices = torch.empty(n_sets, n_points, k, dtype=torch.int64, device=points.device)
    for chunk in pair_chunks(n_sets, n_points):
        block = chunk_distances(points, chunk, to_itself=-1, masked=masked)  # a point comes before its duplicates
        near, where = torch.topk(block, k + 1, dim=-1, largest=False, sorted=True)
        distances[chunk.sets, chunk.rows] = near[..., 1:]
        indices[chunk.sets, chunk.rows] = where[..., 1:]
    return distances, indices


@twins("(Tensor points, int k, bool masked=False) -> Tensor")
def kth_neighbor_distance(
    points: torch.Tensor, k: int, masked: bool = False
) -> torch.Tensor:  # (B, n, p) float64 -> (B, n) float64
    """The distance of every point to its ``k``-th nearest other point, 1 <= k < n.

    It is infinite where fewer than ``k`` others share a feature with a ``masked`` point.
    """
    return nearest_others(points, k, masked)[0][..., -1].contiguous()


@twins("(Tensor points, int k, bool masked=False) -> Tensor")
def median_kth_neighbor_distance(
    points: torch.Tensor, k: int, masked: bool = False
) -> torch.Tensor:  # (B, n, p) float64 -> (B,) float64
    """The median of `kth_neighbor_distance` over each set: the mean of the middle two where n is even.

    It is infinite if a middle one is. The twins search only a bracket around the median, without the distances of all
    points; the result is the same.
    """
    return median(nearest_others(points, k, masked)[0][..., -1])


def median(values: torch.Tensor) -> torch.Tensor:  # (B, n) -> (B,)
    """The median of each row: the mean of the middle two where n is even, of which `torch.median` takes the lower."""
    ordered = values.sort(dim=-1).values
    n = values.shape[-1]
    return (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2


@cpp_twin(kth_neighbor_distance)
def kth_neighbor_distance_cpp(points, k, masked=False):
    points = points.contiguous()
    distances = points.new_empty(points.shape[:2])
    native.call("kth_neighbor_distance", "dd", points, *points.shape, masked, k, distances)
    return distances


@cpp_twin(median_kth_neighbor_distance)
def median_kth_neighbor_distance_cpp(points, k, masked=False):
    points = points.contiguous()
    medians = points.new_empty(points.shape[0])
    native.call("median_kth_neighbor_distance", "dd", points, *points.shape, masked, k, SAMPLED, medians)
    return medians


@cuda_twin(kth_neighbor_distance, rehearse=lambda sizes: [(sizes.small_set(), 1, sizes.masked)])
def kth_neighbor_distance_cuda(gpu: Gpu, points, k, masked=False):
    points = points.contiguous()
    return _kth_distances(gpu, points, stack_of(gpu, points, masked=masked), k)


@cuda_twin(median_kth_neighbor_distance, rehearse=lambda sizes: [(sizes.large_set(), 1, sizes.masked)])
def median_kth_neighbor_distance_cuda(gpu: Gpu, points, k, masked=False):
    points = points.contiguous()
    n_sets, n, _ = points.shape
    if n <= 4 * SAMPLED:
        return median(kth_neighbor_distance_cuda(gpu, points, k, masked))
    stack = stack_of(gpu, points, ordered=True, masked=masked)
    n_below, between, bracket = _around_median(gpu, points, stack, k)
    rows = torch.nonzero(between.view(-1)).squeeze(1)
    distances, order = _kth_distances_of(gpu, points, stack, k, rows, bracket).sort()
    distances = distances[torch.argsort(rows[order] // n, stable=True)]  # by set, ascending within each
    n_between = between.sum(1)
    rank_0 = torch.cumsum(n_between, 0) - n_between - n_below
    return (distances[rank_0 + (n - 1) // 2] + distances[rank_0 + n // 2]) / 2


def _kth_distances(
    gpu: Gpu,
    points: torch.Tensor,
    stack: Stack,
    k: int,
    rows: torch.Tensor | None = None,  # TILE places for each block; -1 for none
    bracket: Bracket | None = None,
) -> torch.Tensor:
    """The k-th distances of all points, or of those at the places ``rows``."""
    distances = torch.empty(points.shape[:2] if rows is None else rows.shape, dtype=points.dtype, device=points.device)
    blocks = stack.blocks if rows is None else rows.numel() // TILE
    arguments = (*stack.inputs(points), k, rows, *(bracket or (None,) * 4), distances)
    stack.run(gpu, "kth_neighbor_distance", "kth_neighbor_distance", blocks, arguments)
    return distances


def _kth_distances_of(
    gpu: Gpu, points: torch.Tensor, stack: Stack, k: int, rows: torch.Tensor, bracket: Bracket | None
) -> torch.Tensor:
    """The k-th distances of the places ``rows``, which ascend and are counted over the whole stack, in their order.

    A block has rows of a single set, so every set begins a new block. Blocks at the end may have no rows.
    """
    n_sets, n, _ = points.shape
    sets = rows // n
    sizes = torch.bincount(sets, minlength=n_sets)
    tiles = (sizes + TILE - 1) // TILE
    skipped = (tiles.cumsum(0) - tiles) * TILE - (sizes.cumsum(0) - sizes)
    at = torch.arange(rows.numel(), device=rows.device) + skipped[sets]
    blocks = rows.numel() // TILE + n_sets
    by_block = rows.new_full((blocks * TILE,), -1).index_copy_(0, at, rows)
    return _kth_distances(gpu, points, stack, k, by_block, bracket)[at]


def _around_median(
    gpu: Gpu, points: torch.Tensor, stack: Stack, k: int
) -> tuple[torch.Tensor, torch.Tensor, Bracket]:  # (B,) int64, (B, n) bool
    """How many points of each set lie below a bracket around the median, which lie in it, and the bracket.

    The bracket comes from a sample. Where it misses the median of a set, all points of the set count as within.
    """
    n_sets, n, _ = points.shape
    sample = (2 * torch.arange(SAMPLED, device=points.device) + 1) * n // (2 * SAMPLED)
    rows = (torch.arange(n_sets, device=points.device)[:, None] * n + sample).view(-1)
    sampled = _kth_distances_of(gpu, points, stack, k, rows, None).view(n_sets, SAMPLED).sort(1).values
    # Three standard deviations of the rank of the median in the sample: 1.5 sqrt(SAMPLED).
    spread = min(SAMPLED // 2 - 1, int(1.5 * SAMPLED**0.5) + 1)
    low, high = (sampled[:, SAMPLED // 2 + side].contiguous() for side in (-spread, spread))
    below, within = torch.zeros(2, n_sets, n, dtype=torch.int64, device=points.device)
    arguments = (*stack.inputs(points), low, high, below, within)
    stack.run(gpu, "kth_neighbor_distance", "bracket_count", stack.blocks, arguments)
    is_below = below >= k
    between = (within >= k) & ~is_below
    n_below = is_below.sum(1)
    holds = (n_below <= (n - 1) // 2) & (n_below + between.sum(1) > n // 2)
    return n_below * holds, between | ~holds[:, None], (low, high, below, within)
