"""Affinities above a threshold against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops import radius_affinity as radius_module
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.ops.launch.twins import PORTABLE
from mmphate_gpu.ops.radius_affinity import cut_distance, cut_radius, radius_affinity, radius_counts, radius_fill

from ..linalg.matrices import normal


def brute_affinity(points, bandwidth, decay, thresh, diagonal):  # (n, p), (n,) or () -> (n, n)
    one_sided = np.exp(-((cdist(points, points) / np.broadcast_to(bandwidth, len(points))[:, None]) ** decay))
    one_sided[one_sided < thresh] = 0
    both = (one_sided + one_sided.T) / 2
    both[both < thresh] = 0
    np.fill_diagonal(both, float(diagonal))
    return both


def dense_blocks(csr: Csr, n_sets: int) -> np.ndarray:  # (B n rows, n columns) -> (B, n, n)
    return csr_ops.to_torch(csr).to_dense().view(n_sets, -1, csr.shape[1]).cpu().numpy()


@pytest.mark.parametrize("elements", [1, 50, 10**6])
@pytest.mark.parametrize("decay", [1, 2, 5, 0.7])
def test_radius_affinity_against_brute_force(decay, elements, monkeypatch, device):
    """By the version that runs here, and by the portable version in chunks of any size."""
    points = normal(3, 13, 4).numpy()
    bandwidth = np.random.default_rng(1).uniform(0.5, 1.5, (3, 13))
    args = torch.from_numpy(points).to(device), torch.from_numpy(bandwidth).to(device)
    expected = [brute_affinity(*pair, decay, 1e-3, True) for pair in zip(points, bandwidth, strict=True)]
    served = radius_affinity(*args, decay=decay, thresh=1e-3, dtype=torch.float64)
    small_chunks(monkeypatch, elements)
    monkeypatch.setattr(radius_module, "symmetrized_affinity", PORTABLE["symmetrized_affinity"])
    for csr in (served, radius_affinity(*args, decay=decay, thresh=1e-3, dtype=torch.float64)):
        result = dense_blocks(csr, 3)
        np.testing.assert_array_equal(result > 0, np.array(expected) > 0)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-14)  # measured: 3.4e-16


def small_chunks(monkeypatch, elements: int) -> None:
    chunks = radius_module.pair_chunks
    monkeypatch.setattr(radius_module, "pair_chunks", lambda *shape, **rows: chunks(*shape, elements, **rows))


@pytest.mark.parametrize("elements", [1, 50, 10**6])
@pytest.mark.parametrize("rows", [(0, 13), (4, 5), (5, 12), (7, 7)], ids=str)
@pytest.mark.parametrize("portable", [True, False])
def test_radius_fill_against_brute_force(portable, rows, elements, monkeypatch, device):
    """Rows and columns interleave the sets; every row leaves its gap free where the point itself would come."""
    first, last = rows
    points, decay, reach = normal(3, 13, 4), 2.0, 1.9
    fill, counts_of = radius_fill, radius_counts
    if portable:
        small_chunks(monkeypatch, elements)
        fill, counts_of = PORTABLE["radius_fill"], PORTABLE["radius_counts"]
    on_device = points.to(device)
    counts = counts_of(on_device, reach)
    gap = torch.arange(3 * (last - first), device=device) % 4
    indptr = csr_ops.indptr_of_counts(counts[:, first:last].T.reshape(-1) + gap)
    indices = torch.full((int(indptr[-1]),), -1, dtype=torch.int32, device=device)
    values = torch.full((int(indptr[-1]),), math.nan, dtype=torch.float64, device=device)
    gap_at = fill(on_device, 1.3, decay, reach, first, last, indptr, gap, indices, values)
    at = 0
    for i in range(first, last):
        for b in range(3):
            distances = cdist(points[b, i : i + 1], points[b])[0]
            others = [j for j in range(13) if j != i and distances[j] <= reach]
            own_gap = int(gap[(i - first) * 3 + b])
            before = sum(j < i for j in others)
            assert int(counts[b, i]) == len(others) and int(gap_at[(i - first) * 3 + b]) == at + before
            kept = [at + k + (own_gap if k >= before else 0) for k in range(len(others))]
            assert indices[kept].tolist() == [3 * j + b for j in others]
            # Measured: 2.2e-16.
            np.testing.assert_allclose(values[kept].cpu(), np.exp(-((distances[others] / 1.3) ** decay)), rtol=1e-14)
            free = slice(at + before, at + before + own_gap)
            assert bool((indices[free] == -1).all()) and bool(values[free].isnan().all())
            at += len(others) + own_gap
    assert at == int(indptr[-1])


def test_radius_counts_by_hand(device):
    """For points at 0, 1, 3 and 3, and for another set: a point itself does not count, its duplicate does."""
    points = torch.tensor([[[0.0], [1.0], [3.0], [3.0]], [[0.0], [0.0], [0.0], [9.0]]], dtype=torch.float64)
    assert radius_counts(points.to(device), 2.0).tolist() == [[1, 3, 2, 2], [2, 2, 2, 0]]
    assert radius_counts(points.to(device), 0.0).tolist() == [[0, 0, 1, 1], [2, 2, 2, 0]]
    assert radius_counts(points.to(device), math.inf).tolist() == [[3] * 4] * 2


def test_cut_radius():
    assert cut_radius(5, 1e-4) == pytest.approx(1.559, abs=1e-3)  # docs/method.md: about 1.56 sigma
    assert cut_radius(2, math.exp(-4)) == pytest.approx(2, rel=1e-15)
    assert cut_radius(2, 0) == cut_radius(2, torch.finfo(torch.float32).tiny) == pytest.approx(9.345, abs=1e-3)
    assert cut_radius(0.001, 1e-4) == math.inf


@pytest.mark.parametrize("bandwidth", [2.3e-16, 1e-9, 0.1, 0.3, 1.0, 7.7, 1e8])
@pytest.mark.parametrize("thresh", [math.exp(-1), math.exp(-9), 1e-4, 0.3, 0.0])
def test_cut_distance_is_the_last_kept(bandwidth, thresh):
    """At the next float exp(-(d / bandwidth)^2) is below thresh."""
    width = torch.tensor(bandwidth, dtype=torch.float64)
    last = cut_distance(width, decay=2, thresh=thresh)
    beyond = torch.nextafter(last, torch.tensor(math.inf, dtype=torch.float64))
    limit = max(thresh, torch.finfo(torch.float32).tiny)
    kept, dropped = (torch.exp(-((distance / width) ** 2)) for distance in (last, beyond))
    assert float(kept) >= limit > float(dropped)
