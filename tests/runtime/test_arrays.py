"""Which kind of array comes back from the stage functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.diffusion import diffuse, knee

LANDMARK_OP = np.array([[0.8, 0.2, 0.0], [0.3, 0.5, 0.2], [0.1, 0.1, 0.8]])
DISTANCES = np.array([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]])
STAGES = {
    "von_neumann_entropy": (mp.von_neumann_entropy, LANDMARK_OP),
    "diffuse": (lambda values: diffuse(values, 3), LANDMARK_OP),
    "diffusion_potential": (lambda values: mp.diffusion_potential(values, 3), LANDMARK_OP),
    "potential_distances": (mp.potential_distances, LANDMARK_OP),
    "metric_mds": (lambda values: mp.metric_mds(values, random_state=0).coordinates, DISTANCES),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_function_answers_in_the_kind_it_was_asked_in(name):
    """And NumPy where it was a DataArray: rows of landmarks have no coordinates worth naming."""
    xarray = pytest.importorskip("xarray")
    function, values = STAGES[name]
    array = function(values)
    tensor = function(torch.from_numpy(values))
    named = function(xarray.DataArray(values, dims=("landmark", "other"), coords={"landmark": list("abc")}))
    assert type(array) is type(named) is np.ndarray and isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(array, tensor.numpy())
    np.testing.assert_array_equal(named, array)


def test_numbers_are_plain_whatever_they_come_from():
    xarray = pytest.importorskip("xarray")
    curve = np.linspace(5, 1, 20) ** 2
    for make in (np.asarray, torch.from_numpy, xarray.DataArray):
        assert type(knee(make(curve))) is type(mp.optimal_t(make(LANDMARK_OP))) is int
        assert type(mp.stress(make(DISTANCES), make(DISTANCES[:, :2].copy()))) is float
