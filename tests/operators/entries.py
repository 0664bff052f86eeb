"""Affinities of the cases of conftest.py, and their entries."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from mmphate_gpu.operators import AffinityOperator, MultisliceAffinity, affinity_of_points

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("golden_*x*.npz"))
DTYPES = [torch.float32, torch.float64]


def walk(*shape: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(0).normal(size=shape), axis=0)


def quietly_affinity(points: torch.Tensor, **options) -> MultisliceAffinity:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="interslice_knn=.* is clamped")
        return affinity_of_points(points, **options)


def affinity_of_case(case, device: torch.device, **options) -> AffinityOperator:
    points, resolution = case.points(device), case.resolution(device)
    masked = case.mask is not None
    return quietly_affinity(points, resolution=resolution, masked=masked, **options, **case.options).operator


def by_products(operator: AffinityOperator, width: int = 16) -> np.ndarray:
    """All entries of an operator, as it multiplies: K @ identity, ``width`` columns at a time."""
    n = operator.shape[0]
    eye = torch.eye(n, -(-n // width) * width, dtype=operator.dtype, device=operator.device)  # one width, one kernel
    return torch.cat([operator @ part for part in eye.split(width, dim=1)], 1)[:, :n].cpu().numpy()


def assert_same_entries(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_array_equal(actual != 0, expected != 0, err_msg="sparsity pattern")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
