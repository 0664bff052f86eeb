"""Step 3 by hand: affinities between the units of one slice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmphate_gpu.affinities import intraslice as intraslice_module
from mmphate_gpu.affinities import intraslice_affinity
from mmphate_gpu.ops.chunks import pair_chunks
from mmphate_gpu.ops.csr import Csr


def _dense_blocks(csr: Csr) -> np.ndarray:  # (S*M, M) -> (S, M, M)
    dense = torch.zeros(csr.shape, dtype=csr.values.dtype)
    dense[csr.row_of_entry(), csr.indices.long()] = csr.values
    return dense.view(-1, csr.shape[1], csr.shape[1]).numpy()


def test_two_units_of_one_slice_by_hand():
    """Each is the nearest of the other: the bandwidth is the distance, the affinity exp(-1)."""
    points = torch.tensor([[[0.0], [3.0]]], dtype=torch.float64)
    dense = _dense_blocks(intraslice_affinity(points, knn=1))
    np.testing.assert_allclose(dense, [[[1, math.exp(-1)], [math.exp(-1), 1]]], rtol=1e-15)


def test_one_sided_entry_is_halved_by_hand():
    """Units at 0, 1 and 10, knn = 1: sigma = 1, 1, 9. Only the far unit reaches the others, they do not reach it."""
    points = torch.tensor([[[0.0], [1.0], [10.0]]], dtype=torch.float64)
    dense = _dense_blocks(intraslice_affinity(points, knn=1))[0]
    assert dense[0, 2] == dense[2, 0] == pytest.approx(math.exp(-((10 / 9) ** 5)) / 2, rel=1e-14)
    assert dense[1, 2] == dense[2, 1] == pytest.approx(math.exp(-1) / 2, rel=1e-14)
    assert dense[0, 1] == pytest.approx(math.exp(-1), rel=1e-14)


def test_halved_entry_below_thresh_goes():
    """Units at 0, 1 and x, a one-sided affinity between thresh and 2 thresh: the average is below thresh (step 6)."""
    # sigma of the far unit is x - 1, and exp(-(x / (x-1))^5) = 1.5e-4 for:
    u = (-math.log(1.5e-4)) ** 0.2
    far = u / (u - 1)
    points = torch.tensor([[[0.0], [1.0], [far]]], dtype=torch.float64)
    dense = _dense_blocks(intraslice_affinity(points, knn=1))[0]
    assert dense[0, 2] == dense[2, 0] == 0
    assert _dense_blocks(intraslice_affinity(points, knn=1, thresh=0.5e-4))[0][0, 2] == pytest.approx(0.75e-4, rel=1e-9)


def test_no_decay_by_hand():
    """Units at 0, 1 and 10, knn = 1: the first two are nearest to each other (1), the third is nearest to one (1/2)."""
    points = torch.tensor([[[0.0], [1.0], [10.0]]], dtype=torch.float64)
    dense = _dense_blocks(intraslice_affinity(points, knn=1, decay=None))
    np.testing.assert_array_equal(dense, [[[1, 1, 0], [1, 1, 0.5], [0, 0.5, 1]]])


def test_no_decay_in_chunks_of_rows(monkeypatch):
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 9, 4)))
    whole = intraslice_affinity(points, decay=None)
    monkeypatch.setattr(intraslice_module, "pair_chunks", lambda *shape: pair_chunks(*shape, elements=20))
    in_chunks = intraslice_affinity(points, decay=None)
    assert all(torch.equal(a, b) for a, b in zip(whole[:3], in_chunks[:3], strict=True))
