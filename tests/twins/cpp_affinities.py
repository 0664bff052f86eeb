"""Calls of the ops of the affinities, and comparisons of their C++ twins with the portable versions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from mmphate_gpu.ops.csr import indptr_of_counts
from mmphate_gpu.ops.launch.twins import CPP, PORTABLE
from mmphate_gpu.ops.radius_affinity import SMALLEST, cut_radius

from .cases import assert_same
from .cpp_points import all_distances


def filled(
    fill: Callable[..., torch.Tensor],
    points: torch.Tensor,
    reach: float,
    *,
    decay: float = 2.0,
    rows: tuple[int, int] | None = None,
    index: torch.dtype = torch.int32,
    value: torch.dtype = torch.float64,
    masked: bool = False,
) -> tuple[torch.Tensor, ...]:
    """gap_at, indices and values of radius_fill, with gaps of 0 to 3 entries. The gaps remain -1 and NaN."""
    first, last = rows or (0, points.shape[1])
    counts = PORTABLE["radius_counts"](points, reach, masked)[:, first:last].T.reshape(-1)
    gap = torch.arange(counts.numel()) % 4
    indptr = indptr_of_counts(counts + gap)
    indices, values = torch.full((int(indptr[-1]),), -1, dtype=index), torch.full((int(indptr[-1]),), math.nan)
    values = values.to(value)
    bandwidth = reach / 2 or 1.0
    gap_at = fill(points, bandwidth, decay, reach, first, last, indptr, gap, indices, values, masked)
    return gap_at, indices, values


def assert_filled_alike(isas: Iterator[str], points: torch.Tensor, reach: float, **options) -> None:
    expected = filled(PORTABLE["radius_fill"], points, reach, **options)
    free = expected[1] == -1
    # Float64: exp(-u^decay), with u up to 2, multiplies the error of the distance by decay u^decay. Measured: 8e-15 for
    # decay 5, 2e-15 for decay 2. Float32: the portable version also rounds the exponent. Measured: 6e-8 of 1.
    tolerance = {"rtol": 1e-13, "atol": 0} if expected[2].dtype == torch.float64 else {"rtol": 0, "atol": 1.2e-7}
    for _ in isas:
        result = filled(CPP["radius_fill"], points, reach, **options)
        assert_same(result[:2], expected[:2])
        assert bool(result[2][free].isnan().all())
        torch.testing.assert_close(result[2][~free], expected[2][~free], **tolerance)


def symmetrized(function: Callable[..., tuple], points: torch.Tensor, **options) -> tuple[torch.Tensor, ...]:
    settings = {"decay": 5.0, "thresh": 1e-4, "dtype": torch.float64, "masked": False} | options
    scale = float(all_distances(points.nan_to_num(0))[-1]) or 1.0
    rng = np.random.default_rng(points.shape[1])
    bandwidth = scale * torch.from_numpy(rng.uniform(0.05, 0.5, points.shape[:2]))
    cut = cut_radius(settings["decay"], settings["thresh"]) * (1 + 1e-9)
    numbers = (settings["decay"], settings["thresh"], SMALLEST, cut)
    return function(points, bandwidth, *numbers, settings["dtype"], settings["masked"])


def assert_symmetrized_alike(isas: Iterator[str], points: torch.Tensor, **options) -> None:
    expected = symmetrized(PORTABLE["symmetrized_affinity"], points, **options)
    # Above the threshold, (d / bandwidth)^decay is at most 88, and the exponential multiplies its rounding by this.
    # Measured: 2.9e-14 (decay 40). Float32: no difference.
    tolerance = 1e-12 if expected[2].dtype == torch.float64 else 2e-7
    for _ in isas:
        result = symmetrized(CPP["symmetrized_affinity"], points, **options)
        assert_same(result[:2], expected[:2])
        torch.testing.assert_close(result[2], expected[2], rtol=tolerance, atol=0)
