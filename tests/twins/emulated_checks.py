"""Comparisons of emulated CUDA kernels over pairs with plain float64 and with the C++ twins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch

from mmphate_gpu.ops.kth_neighbor_distance import median
from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.twins import CPP
from mmphate_gpu.ops.radius_affinity import SMALLEST, cut_radius

from .cases import assert_same, duplicates, lattice, normal
from .emulation import Twins

# Sizes around those of a warp (32) and of a tile (64), and a little more than two tiles, which are put into the order
# of a kd-tree.
POINTS = (1, 2, 31, 32, 33, 127, 129)
# Numbers of features for one, two and four passes, where rows stay in shared memory or not. Every other number would be
# compiled anew, so all tests use these.
FEATURES = (1, 6, 10, 33, 100)
SETS = (1, 3)
# The types of indices and values that kernels which only count are compiled with.
COUNTED = (torch.int32, torch.float64)


def has_cpp() -> bool:
    return native.why_no_native() is None


POINT_SETS: dict[str, Callable[..., torch.Tensor]] = {
    "normal": normal,
    "lattice": lattice,
    "duplicates": duplicates,
    "all equal": lambda *shape: torch.full(shape, 0.1, dtype=torch.float64),
    "zeros": lambda *shape: torch.zeros(shape, dtype=torch.float64),
    "huge": lambda *shape: 1e150 * normal(*shape),
    "tiny": lambda *shape: 1e-150 * normal(*shape),
    "far from 0": lambda *shape: 1e8 + normal(*shape),
    "some zero vectors": lambda *shape: normal(*shape) * (torch.arange(shape[1]) % 2)[:, None],
}


def squared_distances(points: torch.Tensor, masked: bool = False) -> torch.Tensor:  # (B, n, p) -> (B, n, n)
    """The sum over the features in order, where every operation rounds, as in all twins.

    Of ``masked`` points it is the sum over the features that both have, times p over their number; NaN if they have
    none in common.
    """
    squares, counts = torch.zeros(2, *points.shape[:2], points.shape[1], dtype=torch.float64)
    for feature in points.unbind(-1):
        difference = feature[:, :, None] - feature[:, None, :]
        lacking = difference.isnan() & masked
        squares += torch.where(lacking, 0, difference * difference)
        counts += ~lacking
    return squares * torch.full_like(counts, points.shape[2]).div(counts)  # p / counts would take a reciprocal


def distances_of(points: torch.Tensor, masked: bool = False) -> torch.Tensor:
    """Distances by NumPy's square root, which rounds correctly like those of C++ and CUDA. torch's does not always."""
    return torch.from_numpy(np.sqrt(squared_distances(points, masked).numpy()))


def others(points: torch.Tensor, masked: bool = False) -> torch.Tensor:
    """Distances, where that of a point from itself is infinite."""
    return distances_of(points, masked) + torch.diag(torch.full((points.shape[1],), math.inf))


def middle_distance(points: torch.Tensor, masked: bool = False) -> float:
    """The distance of some pair, near the median, so that pairs lie exactly on the cut."""
    distances = others(points, masked)
    distances = distances[distances.isfinite() & (distances > 0)].sort().values
    return float(distances[distances.numel() // 2]) if distances.numel() else 1.0


def check_radius(
    cuda: Twins, points: torch.Tensor, decay: float, index: torch.dtype, value: torch.dtype, masked: bool = False
) -> None:
    distances, reach = others(points, masked), middle_distance(points, masked)
    bandwidth = reach / 2
    near = distances <= reach
    counts = cuda.radius_counts(points, reach, masked)
    assert torch.equal(counts, near.sum(-1))
    n_sets, n = counts.shape
    first, last = (0, n) if n < 32 else (n // 3, n - 1)
    gap = torch.arange(n_sets * (last - first)) % 3
    rows = counts[:, first:last].T.reshape(-1) + gap
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), rows.cumsum(0)])

    def fill(twins: Twins) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        nnz = int(indptr[-1])
        indices, values = torch.full((nnz,), -7, dtype=index), torch.full((nnz,), -7, dtype=value)
        arguments = (bandwidth, decay, reach, first, last, indptr, gap)
        return twins.radius_fill(points, *arguments, indices, values, masked), indices, values

    gap_at, indices, values = fill(cuda)
    affinity = torch.exp(-((distances / bandwidth) ** decay)).to(value)
    expected = _fill_by_rows(near, affinity, first, last, indptr, gap)
    assert_same((gap_at, indices), (expected[0], expected[1].to(index)))
    torch.testing.assert_close(values, expected[2], rtol=2e-7 if value == torch.float32 else 1e-13, atol=0)
    if has_cpp():
        assert_same((counts,), (CPP["radius_counts"](points, reach, masked),))
        assert_same((gap_at, indices, values), fill(SimpleNamespace(**CPP)))


def _fill_by_rows(
    near: torch.Tensor, affinity: torch.Tensor, first: int, last: int, indptr: torch.Tensor, gap: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The expected output of radius_fill, row by row; -7 where it writes nothing."""
    n_sets = near.shape[0]
    gap_at = torch.empty_like(gap)
    indices, values = torch.full((int(indptr[-1]),), -7), torch.full((int(indptr[-1]),), -7, dtype=affinity.dtype)
    for row, (i, s) in enumerate(itertools.product(range(first, last), range(n_sets))):
        columns = torch.nonzero(near[s, i]).squeeze(1)
        place = indptr[row] + torch.arange(columns.numel()) + torch.where(columns > i, gap[row], 0)
        indices[place], values[place] = columns * n_sets + s, affinity[s, i, columns]
        gap_at[row] = indptr[row] + (columns < i).sum()
    return gap_at, indices, values


def check_symmetrized(
    cuda: Twins, points: torch.Tensor, decay: float, thresh: float, value: torch.dtype, masked: bool = False
) -> None:
    n_sets, n, _ = points.shape
    bandwidth = middle_distance(points, masked) / 3 * (1 + torch.arange(n_sets * n).view(n_sets, n) % 3).double()
    bandwidth[0, 0] = 5e-324
    cut = cut_radius(decay, thresh) * (1 + 1e-9)
    arguments = (points, bandwidth, decay, thresh, SMALLEST, cut, value, masked)
    indptr, indices, values = cuda.symmetrized_affinity(*arguments)
    distances = distances_of(points, masked)
    one_sided = torch.exp(-((distances / bandwidth[:, :, None]) ** decay))
    one_sided[one_sided < thresh] = 0
    dense = ((one_sided + one_sided.mT) / 2).nan_to_num(0)
    dense[dense < max(thresh, SMALLEST)] = 0
    rows, columns = torch.nonzero(dense.view(n_sets * n, n), as_tuple=True)
    assert torch.equal(indptr.long(), torch.searchsorted(rows, torch.arange(n_sets * n + 1)))
    assert torch.equal(indices.long(), columns)
    expected = dense.view(n_sets * n, n)[rows, columns].to(value)
    torch.testing.assert_close(values, expected, rtol=2e-7 if value == torch.float32 else 1e-12, atol=0)
    if has_cpp():
        assert_same((indptr, indices, values), CPP["symmetrized_affinity"](*arguments))


def check_kth(cuda: Twins, points: torch.Tensor, k: int, masked: bool = False) -> None:
    distances = others(points, masked)
    if masked:
        distances[distances.isnan()] = math.inf
    expected = distances.sort(-1).values[..., k - 1]
    arguments = (points, k, masked)
    result, medians = cuda.kth_neighbor_distance(*arguments), cuda.median_kth_neighbor_distance(*arguments)
    assert_same((result, medians), (expected, median(expected)))
    if has_cpp():
        assert_same((result,), (CPP["kth_neighbor_distance"](*arguments),))
        assert_same((medians,), (CPP["median_kth_neighbor_distance"](*arguments),))
