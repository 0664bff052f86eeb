"""Steps 7 and 8: the landmark operator against the reference, and what it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.landmarks import Landmarks, landmark_diffusion
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.operators import SparseAffinity
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.params import Labels

from .cases import DTYPES, TOLERANCE, affinity

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("golden_*x*.npz"))
CASES = ["walk", "walk, four axes", "hopf and pitchfork", "repeated slices", "repeated units", "three dead units"]
CLUSTERS = {
    "random": lambda n: np.random.default_rng(0).integers(0, 30, n),
    "two": lambda n: np.arange(n) % 2,
    "many": lambda n: np.arange(n) // 2,
    "with gaps": lambda n: 5 * np.random.default_rng(1).integers(0, 9, n) + 3,
    "all nodes": lambda n: np.zeros(n, dtype=int),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("storage", ["sparse", "lazy"])
@pytest.mark.parametrize("name", CASES)
def test_operator_of_clusters_matches_reference(get_case, name, storage, dtype, device):
    case, dense = get_case(name)
    operator = affinity(case, dtype, device, storage)
    for case_name, make in CLUSTERS.items():
        clusters = make(len(dense))
        expected_op, expected_transitions, expected_clusters = reference.landmark_diffusion(dense, clusters=clusters)
        landmarks = landmark_diffusion(operator, clusters=torch.from_numpy(clusters))
        assert isinstance(landmarks, Landmarks) and landmarks.landmark_op.dtype == torch.float64
        assert landmarks.transitions.layout == torch.sparse_csr and landmarks.transitions.dtype == dtype
        np.testing.assert_array_equal(landmarks.clusters.cpu().numpy(), expected_clusters, err_msg=case_name)
        pairs = [(landmarks.landmark_op, expected_op), (landmarks.transitions.to_dense(), expected_transitions)]
        for actual, expected in pairs:
            np.testing.assert_allclose(actual.cpu().numpy(), expected, rtol=0, atol=TOLERANCE[dtype], err_msg=case_name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_sum_to_one(case_and_reference, dtype):
    case, dense = case_and_reference
    landmarks = landmark_diffusion(_quietly(affinity, case, dtype), clusters=torch.arange(len(dense)) // 3)
    assert bool((landmarks.landmark_op >= 0).all())
    ones = torch.ones(landmarks.landmark_op.shape[1], dtype=torch.float64)
    # Normalized in float64: measured 7e-16. Transitions are rounded to the dtype afterwards: measured 1.8e-7 and 4e-16.
    torch.testing.assert_close(landmarks.landmark_op @ ones, ones, rtol=0, atol=1e-14)
    sums = landmarks.transitions.to_dense().double().sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


def _quietly(make, *args):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="interslice_knn=.* is clamped")
        return make(*args)


def test_detailed_balance(get_case):
    """Times the masses of the landmarks the operator is symmetric, and the masses are stationary."""
    case, dense = get_case("hopf and pitchfork")
    clusters = CLUSTERS["random"](len(dense))
    landmark_op = landmark_diffusion(affinity(case), clusters=torch.from_numpy(clusters)).landmark_op.numpy()
    masses = np.array([dense[:, clusters == label].sum() for label in range(30)])
    flow = masses[:, None] * landmark_op
    np.testing.assert_allclose(flow, flow.T, rtol=1e-12)
    np.testing.assert_allclose(masses @ landmark_op, masses, rtol=1e-12)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_published_clusters_give_published_operator(path):
    golden = np.load(path)
    parts = (torch.from_numpy(golden[key]) for key in ("indptr", "indices", "values"))
    operator = SparseAffinity(Csr(*parts, (len(golden["clusters"]),) * 2))
    landmarks = landmark_diffusion(operator, clusters=torch.from_numpy(golden["clusters"]))
    # Measured: 1.5e-16 and 5e-16.
    np.testing.assert_allclose(landmarks.landmark_op.numpy(), golden["landmark_op"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_landmark", [None, 150, 151, 4000])
def test_without_landmarks_it_is_the_diffusion_operator(get_case, n_landmark):
    case, dense = get_case("walk")
    landmarks = landmark_diffusion(affinity(case), n_landmark=n_landmark)
    assert len(dense) == 150
    np.testing.assert_allclose(landmarks.landmark_op.numpy(), dense / dense.sum(1, keepdims=True), rtol=0, atol=1e-15)
    assert torch.equal(landmarks.transitions.to_dense(), torch.eye(150, dtype=torch.float64))
    assert torch.equal(landmarks.clusters, torch.arange(150))


def test_dense_operator_that_does_not_fit_is_refused(get_case, monkeypatch):
    operator = affinity(get_case("walk")[0])
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1e5")
    with pytest.raises(
        InputError, match="dense diffusion operator of 150 nodes needs .* available .*; a smaller n_landmark"
    ):
        landmark_diffusion(operator, n_landmark=None)


@pytest.mark.parametrize(
    ("clusters", "error", "message"),
    [
        (torch.zeros(149, dtype=torch.int64), InputError, r"clusters has shape \(149,\); accepted: \(150,\)"),
        (torch.zeros(150, 1, dtype=torch.int64), InputError, r"clusters has shape \(150, 1\)"),
        (torch.full((150,), -1), InputError, "clusters contains -1; accepted: numbers from 0"),
        (torch.zeros(150), InputTypeError, "clusters has dtype torch.float32; accepted: integers"),
        (torch.zeros(150, dtype=torch.bool), InputTypeError, "clusters has dtype torch.bool; accepted: integers"),
    ],
    ids=["short", "two axes", "negative", "float", "bool"],
)
def test_bad_clusters(get_case, clusters, error, message):
    with pytest.raises(error, match=message):
        landmark_diffusion(affinity(get_case("walk")[0]), clusters=clusters)


@pytest.mark.parametrize("option", [{"n_landmark": 1}, {"n_landmark": 2.5}, {"n_svd": 0}, {"n_landmark": True}])
def test_bad_numbers(get_case, option):
    with pytest.raises(InputError, match=f"{next(iter(option))}="):
        landmark_diffusion(affinity(get_case("walk")[0]), **option)


@pytest.mark.parametrize("number", [np.int32, np.int64, np.uint8, list])
def test_clusters_of_many_types(get_case, number):
    operator = affinity(get_case("walk")[0])
    clusters = np.arange(150) % 7
    argument = clusters.tolist() if number is list else clusters.astype(number)
    assert torch.equal(landmark_diffusion(operator, clusters=argument).clusters, torch.from_numpy(clusters))


def test_landmarks_that_are_numbers_are_clusters(get_case):
    operator, labels = affinity(get_case("walk")[0]), np.arange(150) % 7
    expected = landmark_diffusion(operator, clusters=labels)
    for argument in (labels, torch.from_numpy(labels), labels.tolist(), Labels(labels)):
        landmarks = landmark_diffusion(operator, landmarks=argument)
        assert torch.equal(landmarks.clusters, expected.clusters)
        assert torch.equal(landmarks.landmark_op, expected.landmark_op)


@pytest.mark.parametrize(
    ("landmarks", "error", "message"),
    [
        ("random", InputError, "landmarks='random' is unknown; accepted: 'spectral', 'stratified'"),
        (None, InputTypeError, "landmarks is a NoneType; accepted: one whole number from 0 per node, or 'spectral'"),
        (["a"] * 150, InputTypeError, "landmarks has dtype <U1; accepted"),
        (np.zeros(149, int), InputError, r"landmarks has shape \(149,\); accepted: \(150,\), one per node"),
        (np.zeros((150, 1), int), InputError, r"landmarks has shape \(150, 1\); accepted: \(N,\)"),
        (7, InputError, r"landmarks has shape \(\); accepted: \(N,\)"),
        (-np.ones(150, int), InputError, "landmarks contains -1; accepted: numbers from 0"),
        (np.zeros(150), InputTypeError, "landmarks has dtype float64; accepted: integers"),
        (np.zeros(150, bool), InputTypeError, "landmarks has dtype bool; accepted: integers"),
    ],
    ids=["word", "none", "words", "short", "two axes", "scalar", "negative", "float", "bool"],
)
def test_bad_landmarks(get_case, landmarks, error, message):
    with pytest.raises(error, match=message):
        landmark_diffusion(affinity(get_case("walk")[0]), landmarks=landmarks)


def test_landmarks_and_clusters_together(get_case):
    operator, labels = affinity(get_case("walk")[0]), torch.arange(150) % 7
    for landmarks in ("stratified", labels):
        with pytest.raises(InputError, match="landmarks and clusters are both given"):
            landmark_diffusion(operator, landmarks=landmarks, clusters=labels)


def test_to_torch_transitions_interpolate(get_case):
    """Step 13: weighted means stay within the box of the landmarks."""
    landmarks = landmark_diffusion(affinity(get_case("walk")[0]), n_landmark=20, random_state=0)
    places = torch.randn(landmarks.landmark_op.shape[0], 2, dtype=torch.float64, generator=seeded_generator(1))
    nodes = landmarks.transitions @ places
    assert bool((nodes <= places.amax(0) + 1e-12).all()) and bool((nodes >= places.amin(0) - 1e-12).all())
