"""Inputs of every op at a small shape of n points, for the smoke test of `first_light`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from mmphate_gpu.mds.smacof import SmacofRun, one_sweep
from mmphate_gpu.ops import gaussian_product as gaussian
from mmphate_gpu.ops.csr import Csr, indptr_of_counts
from mmphate_gpu.ops.launch.twins import PORTABLE
from mmphate_gpu.ops.radius_affinity import SMALLEST, cut_radius
from mmphate_gpu.ops.tile_layout import TILE, TileLayout, point_tiles, stored_pairs, tile_layout

Arguments = tuple[Any, ...]
SETS, FEATURES, COLUMNS, K = 2, 10, 110, 25
BANDWIDTH, REACH = 0.7, 1.6


def _normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def _walks(n: int) -> torch.Tensor:  # (B, n, p)
    """Walks whose neighbors in time are near; one point is a duplicate of another."""
    points = _normal(SETS, n, FEATURES).cumsum(1) / (4 * FEATURES**0.5)
    points[:, n // 2] = points[:, 0]
    return points


def _csr(n: int, dtype: torch.dtype = torch.float32) -> Csr:
    """A matrix (n, n), about a tenth of it filled, some rows empty, made without torch's CSR tensors."""
    kept = torch.rand(n, n, generator=torch.Generator().manual_seed(n)) < 0.1
    kept[:: max(2, n // 7)] = False
    rows, columns = torch.nonzero(kept, as_tuple=True)
    indptr = indptr_of_counts(kept.sum(1))
    return Csr(indptr.int(), columns.int(), _normal(len(rows), dtype=dtype).abs(), (n, n))


def radius_counts(n: int) -> Arguments:
    return _walks(n), REACH


def radius_fill(n: int) -> Arguments:
    points = _walks(n)
    counts = PORTABLE["radius_counts"](points, REACH).T.reshape(-1)
    gap = torch.arange(counts.numel()) % 3
    indptr = indptr_of_counts(counts + gap)
    nnz = int(indptr[-1])
    targets = torch.zeros(nnz, dtype=torch.int32), torch.zeros(nnz, dtype=torch.float32)
    return points, BANDWIDTH, 2.0, REACH, 0, n, indptr, gap, *targets


def symmetrized_affinity(n: int) -> Arguments:
    points = _walks(n)
    bandwidth = PORTABLE["kth_neighbor_distance"](points, 5).clamp_min(1e-300)
    return points, bandwidth, 5.0, 1e-4, SMALLEST, cut_radius(5, 1e-4) * (1 + 1e-9), torch.float32


def kth_neighbor_distance(n: int) -> Arguments:
    return _walks(n), min(K, n - 1)


def csr_matmul(n: int) -> Arguments:
    csr = _csr(n)
    return csr.indptr, csr.indices, csr.values, _normal(n, COLUMNS), 1


def landmark_aggregate(n: int) -> Arguments:
    csr, n_labels = _csr(n), max(2, n // 10)
    return csr.indptr, csr.indices, csr.values, torch.arange(n) * n_labels // n, n_labels


def _distances(n: int) -> torch.Tensor:
    high = _normal(n, 12, dtype=torch.float32)
    return torch.cdist(high, high).fill_diagonal_(0)


def guttman_transform(n: int) -> Arguments:
    """The arguments that a sweep of the library passes to the op."""
    points, spy = _normal(n, 3), mock.Mock(return_value=(None, None))
    with mock.patch.dict(one_sweep.__globals__, guttman_transform=spy):
        one_sweep(_distances(n), points - points.mean(0))
    return spy.call_args.args


def descent_step(n: int) -> Arguments:
    points = _normal(n, 2)
    way = SmacofRun(_distances(n), points - points.mean(0), 2**40, 0.0)
    for _ in range(3):
        way.advance()
    swept = way.sweep(way.distances, way.trial)
    return *swept, *way.places, way.eps, way.max_iter


def assign_nearest(n: int) -> Arguments:
    points = _normal(4 * n, 100, dtype=torch.float32)
    return points, points[:: max(4, 4 * n // 300)].clone()


def _layout(n: int, reach: float = REACH) -> tuple[torch.Tensor, TileLayout]:
    points = _walks(n)
    return points, tile_layout(points, reach)


def _halves(layout: TileLayout, n: int) -> torch.Tensor:  # (tiles, TILE, C)
    """A block in the form that the products take: 0 in places without a point, and a multiple of 16 columns."""
    return point_tiles(layout, torch.nn.functional.pad(_normal(SETS, n, COLUMNS), (0, -COLUMNS % 16)), 0).half()


def tile_reached(n: int) -> Arguments:
    points, layout = _layout(n)
    return point_tiles(layout, points, torch.nan), *stored_pairs(layout)[:2], REACH


def tile_entries(n: int) -> Arguments:
    points, layout = _layout(n)
    return point_tiles(layout, points, torch.nan), *stored_pairs(layout)[:2], BANDWIDTH, REACH


def tile_matmul(n: int) -> Arguments:
    _, layout = _layout(n)
    tiles = torch.rand(layout.n_stored, TILE, TILE, generator=torch.Generator().manual_seed(n)).half()
    _, *pairs = layout
    return tiles, stored_pairs(layout)[2], *pairs, _halves(layout, n)


def gaussian_product(n: int) -> Arguments:
    points, layout = _layout(n)
    scaled = gaussian.scaled_points(points, torch.tensor(BANDWIDTH, dtype=torch.float64))
    made = gaussian.points_by_feature(point_tiles(layout, scaled, None))
    limit = gaussian.scaled_limit(REACH, BANDWIDTH)
    return *made, limit, layout.indptr, layout.columns, _halves(layout, n)


def tile_block(n: int) -> Arguments:
    _, layout = _layout(n)
    scale = torch.full((SETS, COLUMNS), 2.0**12, dtype=torch.float64)
    return _normal(n * SETS, COLUMNS), scale, layout.order


def tile_rows(n: int) -> Arguments:
    """Every node has one entry, with the other set at its point."""
    _, layout = _layout(n)
    nodes = torch.arange(n * SETS + 1)
    entries = nodes.int(), ((nodes[:-1] + 1) % SETS).int(), _normal(n * SETS, dtype=torch.float32)
    inverse = torch.full((SETS, COLUMNS), 2.0**-12, dtype=torch.float64)
    return _halves(layout, n).float(), inverse, layout.order, *entries, _normal(n * SETS, COLUMNS)


# Every op of the registry has a case; a test compares the two lists.
CASES: dict[str, Callable[[int], Arguments]] = {
    "radius_counts": radius_counts,
    "radius_fill": radius_fill,
    "symmetrized_affinity": symmetrized_affinity,
    "kth_neighbor_distance": kth_neighbor_distance,
    "median_kth_neighbor_distance": kth_neighbor_distance,
    "csr_matmul": csr_matmul,
    "landmark_aggregate": landmark_aggregate,
    "guttman_transform": guttman_transform,
    "descent_step": descent_step,
    "assign_nearest": assign_nearest,
    "tile_block": tile_block,
    "tile_rows": tile_rows,
    "tile_reached": tile_reached,
    "tile_entries": tile_entries,
    "tile_matmul": tile_matmul,
    "gaussian_product": gaussian_product,
}
# The largest allowed difference of floats, relative to the largest; 0 if the CUDA twins promise the bits of the C++
# twins. Sums in another order round to 1e-16 a term in float64 and to 1e-7 in float32. Products in half precision are
# exact in float32. Entries of tiles are rounded to half precision (2^-11) after different exponentials.
MOST_ERROR = {
    "assign_nearest": 1e-5,
    "radius_fill": 1e-6,
    "symmetrized_affinity": 1e-6,
    "kth_neighbor_distance": 1e-12,
    "median_kth_neighbor_distance": 1e-12,
    "csr_matmul": 1e-12,
    "landmark_aggregate": 1e-6,
    "guttman_transform": 1e-5,
    "descent_step": 1e-4,
    "tile_entries": 1e-3,
    "tile_matmul": 1e-5,
    "tile_rows": 1e-12,
    "gaussian_product": 2e-3,
}
# Share of the integers that may differ: of two centers whose distances differ by rounding only, either is right.
MOST_DIFFERENT = {"assign_nearest": 1e-3}
