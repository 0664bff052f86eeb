"""Step 5 by hand and against the reference: affinities between the slices of one unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.affinities import Interslice
from mmphate_gpu.ops.csr import Csr, indptr_of_counts
from mmphate_gpu.slices import unit_major


def dense(interslice: Interslice, gap: int = 0) -> np.ndarray:  # (S M, S M)
    """All entries in node order, by `fill`; every row has ``gap`` places more, which stay 0."""
    n_units, n_slices = interslice.counts.shape
    n_nodes = n_units * n_slices
    gaps = torch.full((n_nodes,), gap)
    indptr = indptr_of_counts(interslice.counts.T.flatten() + gaps)
    indices, values = torch.zeros(int(indptr[-1]), dtype=torch.int64), torch.zeros(int(indptr[-1]), dtype=torch.float64)
    interslice.fill(slice(0, n_slices), indptr, gaps, indices, values)
    csr = Csr(indptr, indices, values, (n_nodes, n_nodes))
    matrix = np.zeros(csr.shape)
    np.add.at(matrix, (csr.row_of_entry().numpy(), indices.numpy()), values.numpy())
    return matrix


def test_three_slices_by_hand():
    """One unit at 0, 1 and 3, bandwidth 1: exp(-1), exp(-4), and exp(-9) just above thresh; the diagonal is empty."""
    points = torch.tensor([[[0.0], [1.0], [3.0]]], dtype=torch.float64)
    bandwidth = torch.tensor(1.0, dtype=torch.float64)
    interslice = Interslice(points, bandwidth, 1e-4)
    expected = np.exp(-np.array([[np.inf, 1, 9], [1, np.inf, 4], [9, 4, np.inf]]))
    np.testing.assert_allclose(dense(interslice), expected, rtol=1e-15)
    assert interslice.counts.tolist() == [[2, 2, 2]] and 3 <= interslice.reach < 3.04
    assert Interslice(points, bandwidth, 1.3e-4).counts.tolist() == [[1, 2, 1]]


@pytest.mark.parametrize("gap", [0, 3])
def test_entries_match_reference(get_case, gap):
    points = get_case("hopf")[0].points()
    interslice = Interslice(unit_major(points), torch.tensor(0.8, dtype=torch.float64), 1e-4)
    blocks = dense(interslice, gap).reshape(*points.shape[:2], *points.shape[:2])
    expected = reference.interslice_affinity(points.numpy(), 0.8, thresh=1e-4)  # (M, S, S)
    for unit in range(points.shape[1]):
        np.testing.assert_allclose(blocks[:, unit, :, unit], expected[unit], rtol=0, atol=1e-14)
        blocks[:, unit, :, unit] = 0
    assert not blocks.any()  # slices of other units have no affinity


def test_reach_is_the_last_distance_above_thresh():
    interslice = Interslice(torch.zeros(1, 2, 1, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64), 1e-3)
    # 1e-13 is several hundred times the rounding of the exponential, in which libraries may differ.
    below, above = (math.exp(-((interslice.reach * factor / 0.7) ** 2)) for factor in (1 - 1e-13, 1 + 1e-13))
    assert below > 1e-3 > above
