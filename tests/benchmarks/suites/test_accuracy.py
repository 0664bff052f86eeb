"""The accuracy of a run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.suites import accuracy
from mmphate_gpu import multislice_affinity, reference, to_scipy
from mmphate_gpu.datasets import random_walk


def test_affinity_errors_count_entries_that_only_one_side_has():
    operator = multislice_affinity(np.random.default_rng(0).normal(size=(30, 3, 6)).cumsum(0), device="cpu")
    expected = to_scipy(operator).toarray()
    assert accuracy.affinity_errors(operator, expected)["affinity_error_max"] == 0
    expected[0, 0] += 1e-3
    i, j = np.argwhere(expected == 0)[0]
    expected[i, j] = 2e-4
    result = accuracy.affinity_errors(operator, expected)
    assert result["affinity_error_max"] == pytest.approx(1e-3)
    assert result["pattern_differences"] == 1


def test_sampled_rows_are_those_of_the_dense_reference():
    walk = random_walk(60, 5, 6)
    expected = reference.multislice_affinity(walk.data.numpy())
    nodes = accuracy.SampledNodes(walk, bandwidth=-1.0)
    assert nodes.exact and len(nodes.nodes) == accuracy.SAMPLED_NODES
    # Sums of squares in another order than cdist's: 4e-16 was seen.
    assert all(np.allclose(nodes.row(node), expected[node], rtol=0, atol=1e-14) for node in nodes.nodes)


def test_errors_of_a_sample_are_seen_as_the_operator_applies_them():
    walk = random_walk(60, 5, 6)
    nodes = accuracy.SampledNodes(walk, bandwidth=-1.0)
    operator = multislice_affinity(walk, device="cpu")
    assert nodes.errors(operator)["affinity_error_max"] < 1e-7  # rounding to float32: 3e-8

    class Twice:
        def __matmul__(self, block):
            return 2 * (operator @ block)

    assert nodes.errors(Twice())["affinity_error_max"] == pytest.approx(1, abs=1e-6)  # the diagonal


def test_statistics_of_an_input():
    points = np.zeros((40, 2, 3))
    points[:, 0] = np.random.default_rng(0).normal(size=(40, 3))
    points[:, 1] = [0.0, 1.0, 3.0]  # the same at all slices
    points[0, 1] = [9.0, 0.0, 1.0]  # but one
    trace = SimpleNamespace(data=torch.from_numpy(points), n_slices=40, n_units=2, n_nodes=80)
    nodes = accuracy.SampledNodes(trace, bandwidth=-1.0)
    nodes.bandwidth = 1e-6  # no two random slices are neighbors now
    result = nodes.statistics()
    assert result["interslice_share"] == pytest.approx(39 * 38 / (80 * 39))
    assert result["without_interslice"] == pytest.approx(41 / 80)


def test_the_bandwidth_of_the_kd_trees_is_that_of_the_reference():
    points = np.random.default_rng(0).normal(size=(60, 4, 5))
    points[10:50, 0] = points[10, 0]  # more duplicates than neighbors
    expected = reference.interslice_bandwidth(points, knn=25)
    assert accuracy.exact_bandwidth(points, 25) == pytest.approx(expected, rel=1e-12)


def test_preservation_of_some_units_is_that_of_these_units(monkeypatch):
    walk = random_walk(30, 6, 8)
    places = SimpleNamespace(coordinates=np.random.default_rng(0).normal(size=(180, 2)))
    whole = accuracy.preserved(places, walk, (5, 40))
    assert list(whole) == ["preservation"] and list(whole["preservation"]) == ["5"]  # 40 is more than there are
    monkeypatch.setattr(accuracy, "MOST_PAIRS", 2 * 30**2)
    part = accuracy.preserved(places, walk, (5,))
    assert part["statistics"] == {"preservation_units": 2}
    chosen = accuracy.units_for(walk, accuracy.MOST_PAIRS)
    embedding = places.coordinates.reshape(30, 6, 2)[:, chosen].reshape(-1, 2)
    expected = reference.neighborhood_preservation(walk.data.numpy()[:, :, chosen], embedding, 5)[1]
    assert part["preservation"]["5"] == pytest.approx(expected)
