"""Spectral landmarks: the leading singular vectors of the diffusion affinity, and their clusters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.landmarks import landmark_diffusion
from mmphate_gpu.landmarks.spectral import diffusion_features, spectral_clusters
from mmphate_gpu.linalg.random import seeded_generator

from .cases import DTYPES, affinity, of_dense


def features(case, dense, n_svd, dtype, device):
    """Z = P V computed and exact, each (N, n_svd). Z is unique up to a rotation, which k-means does not see."""
    operator = affinity(case, dtype, device)
    actual = diffusion_features(operator, operator.row_sums(), n_svd, seeded_generator(0)).cpu().double().numpy()
    diff_op, diff_aff = reference.diffusion_operators(dense)
    values, vectors = np.linalg.eigh(diff_aff)  # symmetric: singular vectors are eigenvectors, singular values |values|
    return actual, diff_op @ vectors[:, np.abs(values).argsort()[::-1][:n_svd]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_features_of_few_nodes_are_exact(get_case, dtype, device):
    """5 blocks of 30 columns span all 150 nodes: the singular vectors are the exact ones."""
    actual, expected = features(*get_case("walk"), 20, dtype, device)
    # Features are in float32, whatever the affinity is in. Measured: 3.5e-8 and 2.2e-8, of entries up to 0.086.
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["hopf", "hopf and pitchfork"])
def test_features_hold_nearly_all_of_the_operator(get_case, name, dtype, device):
    """1008 nodes, a randomized subspace: the share of |P V|^2 that it holds. Measured: 0.999995 and 0.999979."""
    actual, expected = features(*get_case(name), 100, dtype, device)
    assert actual.shape == expected.shape
    assert 0.9999 < (actual**2).sum() / (expected**2).sum() < 1.0001


@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_clusters_are_contiguous_and_seeded(get_case, storage, device):
    operator = affinity(get_case("hopf and pitchfork")[0], torch.float32, device, storage)
    first, again, other = (landmark_diffusion(operator, n_landmark=100, random_state=seed) for seed in (0, 0, 1))
    for landmarks in (first, other):
        n = landmarks.landmark_op.shape[0]
        assert 80 <= n <= 100  # empty ones are dropped, and they are few
        assert torch.equal(torch.unique(landmarks.clusters).cpu(), torch.arange(n))
    assert torch.equal(first.clusters, again.clusters) and torch.equal(first.landmark_op, again.landmark_op)
    assert not torch.equal(first.clusters, other.clusters)


def test_disconnected_blocks_become_landmarks():
    """Three blocks without a tie between them: three landmarks, each a block, and nothing moves between them."""
    dense = np.kron(np.eye(3), np.ones((20, 20)))
    landmarks = landmark_diffusion(of_dense(dense), n_landmark=3, n_svd=3, random_state=0)
    blocks = landmarks.clusters.view(3, 20)
    assert bool((blocks == blocks[:, :1]).all()) and len(blocks[:, 0].unique()) == 3
    np.testing.assert_allclose(landmarks.landmark_op.numpy(), np.eye(3), atol=1e-15)


def test_duplicates_leave_fewer_landmarks_than_asked_for(get_case):
    """45 slices of which 15 differ, 5 units: at most 75 nodes differ, so there are fewer clusters than 150."""
    landmarks = landmark_diffusion(affinity(get_case("repeated slices")[0]), n_landmark=150, random_state=0)
    assert landmarks.landmark_op.shape[0] <= 150
    assert bool(torch.isfinite(landmarks.landmark_op).all())


def test_more_singular_vectors_than_nodes(get_case):
    operator = affinity(get_case("walk")[0])
    labels = spectral_clusters(operator, operator.row_sums(), 20, n_svd=400, generator=seeded_generator(0))
    assert len(labels) == 150 and int(labels.max()) < 20
