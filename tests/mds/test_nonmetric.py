"""Nonmetric MDS: only the ranks of the distances matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu import reference
from mmphate_gpu.mds import metric_mds
from mmphate_gpu.mds.nonmetric import nonmetric

from .distance_cases import DISTANCES, RNG, with_duplicates


def test_nonmetric_continues_from_smacof():
    distances = DISTANCES["walk"]()
    metric, further = metric_mds(distances), metric_mds(distances, solver="nonmetric")
    assert further.n_iter > metric.n_iter
    assert rank_error(distances, further.coordinates) < rank_error(distances, metric.coordinates)
    # The embedding keeps its size.
    assert np.linalg.norm(further.coordinates) == pytest.approx(np.linalg.norm(metric.coordinates), rel=0.2)


def rank_error(distances: np.ndarray, coordinates: np.ndarray) -> float:
    """Kruskal's stress against the monotone regression of the embedded distances on ``distances``."""
    isotonic = pytest.importorskip("scipy.optimize").isotonic_regression
    upper = np.triu_indices(len(distances), 1)
    embedded = cdist(coordinates, coordinates)[upper][np.argsort(distances[upper], kind="stable")]
    return float(np.linalg.norm(embedded - isotonic(embedded).x) / np.linalg.norm(embedded))


def test_nonmetric_matches_reference(distances, device):
    """The same start gives the same steps. The reference pools violators in Python; the package uses SciPy."""
    distances = distances[:60, :60]
    init = distances.mean() * RNG(0).normal(size=(len(distances), 2))
    result = nonmetric(*(torch.from_numpy(part.copy()).to(device) for part in (distances, init)), max_iter=4, eps=0)
    wanted, sweeps = reference.mds._nonmetric(distances, init, 4, 0)
    if np.unique(distances).size > 2:  # with only one value off the diagonal the sweeps end at once
        assert result.n_iter == sweeps == 4
    scale = np.abs(init).max()
    # Measured: 1.5e-15.
    np.testing.assert_allclose(result.coordinates.cpu().numpy() / scale, wanted / scale, rtol=0, atol=1e-13)


def test_the_order_of_landmarks_does_not_matter_with_equal_distances():
    """Distances between places on a grid have many ties."""
    distances, order = with_duplicates()[:40, :40], RNG(1).permutation(40)
    init = RNG(0).normal(size=(40, 2))
    first, renamed = (
        nonmetric(torch.from_numpy(distances[np.ix_(rows, rows)]), torch.from_numpy(init[rows]), max_iter=5)
        for rows in (np.arange(40), order)
    )
    # Measured: 1.8e-15; it would be 0.05 and more with ties in the order of their indices.
    torch.testing.assert_close(renamed.coordinates, first.coordinates[order], rtol=0, atol=1e-12)


def test_nonmetric_sees_ranks_only():
    """Points in a plane cannot have the squares of planar distances, but their distances can have the same order."""
    points = RNG(3).normal(size=(30, 2))
    squared = cdist(points, points) ** 2
    end = nonmetric(torch.from_numpy(squared), torch.from_numpy(metric_mds(squared).coordinates), max_iter=300)
    assert rank_error(squared, end.coordinates.numpy()) < 0.01  # measured: 6e-5, from 0.16
    assert 1 <= end.n_iter <= 300


def test_nonmetric_of_equal_distances_is_finite():
    result = metric_mds(1 - np.eye(12), solver="nonmetric")
    assert np.isfinite(result.coordinates).all()
