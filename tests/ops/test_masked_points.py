"""The ops over pairs on points that lack features, against distances by loops in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops.chunks import Chunk
from mmphate_gpu.ops.csr import indptr_of_counts
from mmphate_gpu.ops.distances import chunk_distances, distances_by_difference
from mmphate_gpu.ops.kth_neighbor_distance import kth_neighbor_distance, median_kth_neighbor_distance, nearest_others
from mmphate_gpu.ops.launch.twins import PORTABLE
from mmphate_gpu.ops.point_tiles import TILE, in_tiles, kd_order
from mmphate_gpu.ops.radius_affinity import radius_affinity, radius_counts, radius_fill
from mmphate_gpu.ops.tile_entries import tile_entries, tile_reached
from mmphate_gpu.ops.tile_layout import active_share, tile_layout

from ..linalg.matrices import normal
from ..twins.cpp_masks import MASKS, distances_by_loops, lacking

NONE = math.nan
SOME_MASKS = ["lengths", "few patterns", "random", "empty points"]


def test_distances_by_hand(device):
    """Three of four common features with squares 1 + 4 + 4 scale to 9 * 4 / 3."""
    points = [[1.0, 2, 3, NONE], [2, 4, 5, 6], [NONE, NONE, NONE, 1], [NONE, 4, NONE, 6], [NONE] * 4]
    x = torch.tensor(points, dtype=torch.float64, device=device)
    expected = [
        [0, math.sqrt(12), math.inf, math.sqrt(16), math.inf],
        [math.sqrt(12), 0, math.sqrt(100), 0, math.inf],
        [math.inf, math.sqrt(100), 0, math.sqrt(100), math.inf],
        [math.sqrt(16), 0, math.sqrt(100), 0, math.inf],
        [math.inf] * 5,
    ]
    assert distances_by_difference(x, x, True).tolist() == expected
    to_itself = chunk_distances(x[None], Chunk(slice(0, 1), slice(1, 5)), to_itself=-1, masked=True)
    assert torch.equal(to_itself[0].diagonal(1), torch.full((4,), -1.0, dtype=torch.float64, device=device))


@pytest.mark.parametrize("mask", MASKS)
def test_distances_are_those_of_the_formula(mask, device):
    """To the last bit: every sum runs in the order of the features. The rounding is that of C++ and of CUDA."""
    for shape in ((2, 17, 1), (2, 17, 6), (1, 9, 70)):
        points = lacking(normal(*shape), mask)
        distances = distances_by_difference(points.to(device), points.to(device), True).cpu()
        for of_set, result in zip(points.numpy(), distances.numpy(), strict=True):
            np.testing.assert_array_equal(result, distances_by_loops(of_set, of_set))
        assert torch.equal(distances, distances.mT)


def test_points_that_lack_nothing_have_the_distances_of_no_mask():
    points = normal(3, 40, 9)
    # The sum of squares in another order. Measured: 2.2e-16.
    torch.testing.assert_close(
        distances_by_difference(points, points, True), distances_by_difference(points, points), rtol=1e-15, atol=0
    )


@pytest.mark.parametrize("mask", SOME_MASKS)
@pytest.mark.parametrize("portable", [True, False])
def test_neighbors_by_loops(portable, mask, device):
    points = lacking(normal(2, 23, 4), mask)
    by_rank = [distances_by_loops(of_set, of_set) for of_set in points.numpy()]
    for distances in by_rank:
        np.fill_diagonal(distances, -1)
    by_rank = np.sort(by_rank, axis=-1)[..., 1:]
    on_device = points.to(device)
    for k in (1, 9, 22):
        distances, indices = nearest_others(on_device, k, True)
        np.testing.assert_array_equal(distances.cpu().numpy(), by_rank[..., :k])
        again = distances_by_difference(on_device, on_device, True).gather(2, indices)
        assert torch.equal(distances, again)
        kth, median_kth = kth_neighbor_distance, median_kth_neighbor_distance
        if portable:
            kth, median_kth = PORTABLE["kth_neighbor_distance"], PORTABLE["median_kth_neighbor_distance"]
        np.testing.assert_array_equal(kth(on_device, k, True).cpu().numpy(), by_rank[..., k - 1])
        # The middle of 23 distances, which may be infinite.
        middle = np.sort(by_rank[..., k - 1])[:, 11]
        np.testing.assert_array_equal(median_kth(on_device, k, masked=True).cpu().numpy(), middle)


@pytest.mark.parametrize("mask", SOME_MASKS)
def test_entries_by_loops(mask, device):
    """Counts, filled rows and the symmetrized affinity; a point without features has no entry, not even its own."""
    points, reach = lacking(normal(2, 19, 4), mask), 2.5
    on_device = points.to(device)
    distances = np.stack([distances_by_loops(of_set, of_set) for of_set in points.numpy()])
    near = (distances <= reach) & ~np.eye(19, dtype=bool)
    counts = radius_counts(on_device, reach, True)
    np.testing.assert_array_equal(counts.cpu().numpy(), near.sum(-1))
    indptr = indptr_of_counts(counts.T.reshape(-1))
    indices = torch.zeros(int(indptr[-1]), dtype=torch.int64, device=device)
    values = torch.zeros(int(indptr[-1]), dtype=torch.float64, device=device)
    radius_fill(on_device, 1.5, 2.0, reach, 0, 19, indptr, torch.zeros_like(indptr[1:]), indices, values, True)
    rows = np.repeat(np.arange(2 * 19), np.diff(indptr.cpu().numpy()))
    dense = np.zeros((19, 2, 19, 2))
    dense.reshape(38, 38)[rows, indices.cpu().numpy()] = values.cpu().numpy()
    for b in range(2):
        expected = np.where(near[b], np.exp(-((distances[b] / 1.5) ** 2)), 0)
        # Measured: 2e-16, the last bit of exp.
        np.testing.assert_allclose(dense[:, b, :, b], expected, rtol=1e-14)
    width = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 2, (2, 19))).to(device)
    csr = radius_affinity(on_device, width, decay=5, thresh=1e-3, dtype=torch.float64, masked=True)
    one_sided = np.exp(-((distances / width.cpu().numpy()[..., None]) ** 5))
    one_sided[one_sided < 1e-3] = 0
    both = (one_sided + one_sided.swapaxes(1, 2)) / 2
    both[both < 1e-3] = 0
    result = csr_ops.to_torch(csr).to_dense()
    np.testing.assert_allclose(result.cpu().numpy().reshape(2, 19, 19), both, rtol=1e-13)  # measured: 2e-15


def test_order_of_a_tree_takes_missing_features_for_zero(device):
    points = lacking(normal(2, 300, 3), "random").to(device)
    assert torch.equal(kd_order(points, True), kd_order(points.nan_to_num(0)))


@pytest.mark.parametrize("mask", SOME_MASKS)
def test_tiles_hold_every_pair_within_reach(mask, device):
    """A pair is active exactly if a pair of different points lies within reach; boxes never hide one."""
    walk = 0.4 * np.random.default_rng(0).normal(size=(2, 300, 3)).cumsum(1)
    points, reach = lacking(torch.from_numpy(walk), mask).to(device), 1.8
    layout = tile_layout(points, reach, True)
    near = distances_by_difference(points, points, True) <= reach
    expected, n_tiles = [], -(-300 // TILE)
    for order, of_set in zip(layout.order, near, strict=True):
        in_order = of_set.fill_diagonal_(False)[order][:, order]
        in_order = torch.nn.functional.pad(in_order, (0, n_tiles * TILE - 300) * 2)
        expected.append(in_order.view(n_tiles, TILE, n_tiles, TILE).any(3).any(1))
    active = torch.zeros(2 * n_tiles, 2 * n_tiles, dtype=torch.bool, device=device)
    active[torch.arange(2 * n_tiles, device=device).repeat_interleave(layout.indptr.diff()), layout.columns.long()] = (
        True
    )
    assert torch.equal(active, torch.block_diag(*expected).bool())
    assert active_share(points, reach, n_tiles, True) == layout.n_active / (2 * n_tiles**2)


def test_boxes_leave_out_tiles_of_masked_points(monkeypatch, device):
    """Features that all points of two tiles have bound their distance, so that far tiles are not searched."""
    points = torch.zeros(1, 4 * TILE, 2, dtype=torch.float64, device=device)
    points[0, :, 0] = torch.arange(4 * TILE, device=device) // TILE * 10  # four places, ten apart
    points[0, ::2, 1] = NONE
    searched = []

    def counting(tiled, rows, columns, reach, masked):
        searched.append(rows.numel())
        return tile_reached(tiled, rows, columns, reach, masked)

    monkeypatch.setattr("mmphate_gpu.ops.tile_layout.tile_reached", counting)
    assert tile_layout(points, 12.0, True).n_active == 4 + 2 * 3
    assert searched[-1] == 4 + 3


def test_entries_of_tiles(device):
    points = lacking(normal(1, 200, 3), "random").to(device)
    tiles = in_tiles(points, torch.arange(200, device=device)[None], NONE)[0]
    rows, columns = torch.tensor([[0, 0, 1], [0, 1, 1]], device=device)
    entries = tile_entries(tiles, rows, columns, 1.3, 2.0, True)
    padded = torch.full((2 * TILE, 3), NONE, dtype=torch.float64, device=device)
    padded[:200] = points[0]
    distances = distances_by_difference(padded, padded, True).fill_diagonal_(math.inf)
    expected = torch.where(distances <= 2, torch.exp(-((distances / 1.3) ** 2)), 0).view(2, TILE, 2, TILE)
    expected = torch.stack([expected[0, :, 0], expected[0, :, 1], expected[1, :, 1]])
    torch.testing.assert_close(entries.double(), expected, rtol=2**-10, atol=2**-24)  # the rounding of half precision
