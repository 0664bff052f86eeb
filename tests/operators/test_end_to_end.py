"""What follows from the forms: landmarks, diffusion times, pictures and subspaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes

from mmphate_gpu import diffusion_potential, landmark_diffusion, metric_mds, optimal_t, potential_distances
from mmphate_gpu.linalg.top_eigenpairs import top_eigenpairs
from mmphate_gpu.operators import AffinityOperator, LazyAffinity, SparseAffinity, TiledAffinity, affinity_of_points
from mmphate_gpu.operators.lazy_fused import LazyFusedAffinity
from mmphate_gpu.pipeline import interpolate
from mmphate_gpu.trace import as_trace, normalize

from .entries import DTYPES, GOLDEN, walk


def test_forms_agree_end_to_end(path_or_walk):
    """The same diffusion time and picture, given the same clusters."""
    points, n_landmark = path_or_walk
    lazy = affinity_of_points(points, storage="lazy").operator
    t, expected = _run(SparseAffinity.of_parts(lazy.intraslice, lazy.interslice), n_landmark)
    for form in (TiledAffinity, LazyAffinity, LazyFusedAffinity):
        actual_t, actual = _run(form(lazy.intraslice, lazy.interslice), n_landmark)
        assert actual_t == t, form
        # Measured: 0 for all, since `aggregate` is exact in every form.
        assert procrustes(expected, actual)[2] < 1e-3, form


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("storage", ["tiles", "lazy"])
def test_without_landmarks_every_form_is_exact(storage, dtype):
    points = normalize(as_trace(walk(40, 5, 5)))
    expected, actual = (
        landmark_diffusion(affinity_of_points(points, storage=name, dtype=dtype).operator, n_landmark=None)
        for name in ("sparse", storage)
    )
    assert torch.equal(actual.landmark_op, expected.landmark_op)


@pytest.fixture(params=[*GOLDEN, "walk"], ids=lambda param: getattr(param, "stem", param))
def path_or_walk(request) -> tuple[torch.Tensor, int]:
    if request.param == "walk":
        return normalize(as_trace(walk(60, 5, 5))), 60
    return normalize(as_trace(np.load(request.param)["trace"])), 120


def _run(operator: AffinityOperator, n_landmark: int) -> tuple[int, np.ndarray]:
    clusters = torch.arange(operator.shape[0]) * n_landmark // operator.shape[0]
    landmarks = landmark_diffusion(operator, clusters=clusters)
    t = optimal_t(landmarks.landmark_op)
    distances = potential_distances(diffusion_potential(landmarks.landmark_op, t))
    return t, interpolate(landmarks.transitions, metric_mds(distances, random_state=0).coordinates).numpy()


@pytest.mark.parametrize("form", [TiledAffinity, LazyFusedAffinity])
def test_half_precision_finds_as_good_a_subspace(form):
    """How much of D^-1/2 K D^-1/2 the 50 vectors hold from which clusters are made."""
    points = normalize(as_trace(walk(200, 5, 5)))
    exact = affinity_of_points(points, storage="sparse").operator
    lazy = affinity_of_points(points, storage="lazy").operator
    half = form(lazy.intraslice, lazy.interslice)
    root = exact.row_sums().rsqrt().diag()
    diff_aff = root @ exact.to_dense() @ root
    held = []
    for operator in (exact, half):
        values, vectors = _leading(operator, 50)
        assert float(values.max()) < 1 + 1e-5  # measured: below 1 in all three
        held.append(float(torch.einsum("ij,ij->", vectors, diff_aff @ vectors)))
    # Of 35.5930, by eigh. Measured: 35.590832 exact, 35.590831 both others.
    assert abs(held[0] - held[1]) < 1e-4


def _leading(operator: AffinityOperator, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    root, generator = operator.row_sums().rsqrt()[:, None], torch.Generator().manual_seed(0)
    return top_eigenpairs(
        lambda block: operator.product(root * block) * root, operator.shape[0], k, generator=generator
    )
