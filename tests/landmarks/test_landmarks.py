"""METHOD steps 7 and 8: the landmark operator against the reference, and the spectral clusters behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from mmphate_gpu import reference
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.landmarks import Landmarks, landmark_diffusion
from mmphate_gpu.landmarks.spectral import diffusion_features, spectral_clusters
from mmphate_gpu.landmarks.stratified import stratified_clusters
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.operators import SparseAffinity, affinity_of_points
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.params import Labels

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("golden_*x*.npz"))
CASES = ["walk", "walk, four axes", "hopf and pitchfork", "repeated slices", "repeated units", "three dead units"]

# Required: 1e-6, and 1e-12 where all is float64. Worst measured over CASES and CLUSTERS: landmark_op 1e-8 and 3e-15,
# transitions (rounded to the dtype) 1.4e-7 and 3e-16.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = [torch.float32, torch.float64]


def affinity(case, dtype=torch.float64, device="cpu", storage="sparse"):
    options = {"storage": storage, "dtype": dtype, "resolution": case.resolution(device)} | case.options
    return affinity_of_points(case.points(device), **options).operator


def of_dense(dense: np.ndarray) -> SparseAffinity:
    matrix = csr_matrix(dense)
    return SparseAffinity(
        Csr(*(torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data)), dense.shape)
    )


CLUSTERS = {
    "random": lambda n: np.random.default_rng(0).integers(0, 30, n),
    "two": lambda n: np.arange(n) % 2,
    "many": lambda n: np.arange(n) // 2,
    "with gaps": lambda n: 5 * np.random.default_rng(1).integers(0, 9, n) + 3,
    "one": lambda n: np.zeros(n, dtype=int),
}


# ---------------------------------------------------------------- against the reference


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("storage", ["sparse", "lazy"])
@pytest.mark.parametrize("name", CASES)
def test_given_clusters_match_reference(get_case, name, storage, dtype, device):
    case, dense = get_case(name)
    operator = affinity(case, dtype, device, storage)
    for kind, make in CLUSTERS.items():
        clusters = make(len(dense))
        wanted_op, wanted_transitions, wanted_clusters = reference.landmark_diffusion(dense, clusters=clusters)
        found = landmark_diffusion(operator, clusters=torch.from_numpy(clusters))
        assert isinstance(found, Landmarks) and found.landmark_op.dtype == torch.float64
        assert found.transitions.layout == torch.sparse_csr and found.transitions.dtype == dtype
        np.testing.assert_array_equal(found.clusters.cpu().numpy(), wanted_clusters, err_msg=kind)
        for one, other in [(found.landmark_op, wanted_op), (found.transitions.to_dense(), wanted_transitions)]:
            np.testing.assert_allclose(one.cpu().numpy(), other, rtol=0, atol=TOLERANCE[dtype], err_msg=kind)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_sum_to_one(case_and_reference, dtype):
    case, dense = case_and_reference
    found = landmark_diffusion(_quietly(affinity, case, dtype), clusters=torch.arange(len(dense)) // 3)
    assert bool((found.landmark_op >= 0).all())
    ones = torch.ones(found.landmark_op.shape[1], dtype=torch.float64)
    # Normalised in float64: measured 7e-16. Transitions are rounded to the dtype afterwards: measured 1.8e-7 and 4e-16.
    torch.testing.assert_close(found.landmark_op @ ones, ones, rtol=0, atol=1e-14)
    sums = found.transitions.to_dense().double().sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


def _quietly(make, *args):
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="interslice_knn=.* is clamped")
        return make(*args)


def test_detailed_balance(get_case):
    """landmark_op = D_c^-1 M^T D^-1 M: with the landmarks' masses it is symmetric, and the masses are stationary."""
    case, dense = get_case("hopf and pitchfork")
    clusters = CLUSTERS["random"](len(dense))
    found = landmark_diffusion(affinity(case), clusters=torch.from_numpy(clusters)).landmark_op.numpy()
    masses = np.array([dense[:, clusters == label].sum() for label in range(30)])
    flow = masses[:, None] * found
    np.testing.assert_allclose(flow, flow.T, rtol=1e-12)
    np.testing.assert_allclose(masses @ found, masses, rtol=1e-12)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_published_clusters_give_published_operator(path):
    golden = np.load(path)
    parts = (torch.from_numpy(golden[key]) for key in ("indptr", "indices", "values"))
    operator = SparseAffinity(Csr(*parts, (len(golden["clusters"]),) * 2))
    found = landmark_diffusion(operator, clusters=torch.from_numpy(golden["clusters"]))
    # Measured: 1.5e-16 and 5e-16.
    np.testing.assert_allclose(found.landmark_op.numpy(), golden["landmark_op"], rtol=0, atol=1e-12)


# ---------------------------------------------------------------- without landmarks


@pytest.mark.parametrize("n_landmark", [None, 150, 151, 4000])
def test_without_landmarks_it_is_the_diffusion_operator(get_case, n_landmark):
    case, dense = get_case("walk")
    found = landmark_diffusion(affinity(case), n_landmark=n_landmark)
    assert len(dense) == 150
    np.testing.assert_allclose(found.landmark_op.numpy(), dense / dense.sum(1, keepdims=True), rtol=0, atol=1e-15)
    assert torch.equal(found.transitions.to_dense(), torch.eye(150, dtype=torch.float64))
    assert torch.equal(found.clusters, torch.arange(150))


def test_dense_operator_that_does_not_fit_is_refused(get_case, monkeypatch):
    operator = affinity(get_case("walk")[0])
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1e5")
    with pytest.raises(
        InputError, match="dense diffusion operator of 150 nodes needs .* available .*; a smaller n_landmark"
    ):
        landmark_diffusion(operator, n_landmark=None)


# ---------------------------------------------------------------- bad input


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


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, list])
def test_clusters_of_many_kinds(get_case, kind):
    operator = affinity(get_case("walk")[0])
    clusters = np.arange(150) % 7
    given = clusters.tolist() if kind is list else clusters.astype(kind)
    assert torch.equal(landmark_diffusion(operator, clusters=given).clusters, torch.from_numpy(clusters))


# ---------------------------------------------------------------- stratified clusters


def own_unit(labels: torch.Tensor, n_units: int) -> list[torch.Tensor]:
    """The landmarks of every unit."""
    return [labels.view(-1, n_units)[:, unit].unique() for unit in range(n_units)]


@pytest.mark.parametrize("n_landmark", [5, 17, 60, 149])
def test_every_unit_gets_its_share(get_case, n_landmark, device):
    """150 nodes, 5 units: the first n_landmark % 5 of them have one landmark more; none is shared or empty."""
    labels = stratified_clusters(get_case("walk")[0].points(device), n_landmark, generator=seeded_generator(0)).cpu()
    found = own_unit(labels, 5)
    assert [len(own) for own in found] == [n_landmark // 5 + (unit < n_landmark % 5) for unit in range(5)]
    assert torch.equal(torch.cat(found).sort().values, torch.arange(n_landmark))


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    flat = points.reshape(-1, points.shape[-1])
    return sum(((flat[labels == one] - flat[labels == one].mean(0)) ** 2).sum() for one in np.unique(labels))


@pytest.mark.parametrize("name", ["walk", "hopf and pitchfork"])
@pytest.mark.parametrize("n_landmark", [23, 60])
def test_stratified_clusters_are_as_tight_as_the_references(get_case, name, n_landmark):
    """Against k-means++ with 50 Lloyd steps, unit by unit. Measured over 10 seeds: 0.84 to 1.28 of theirs."""
    case, dense = get_case(name)
    points = case.points()
    labels = stratified_clusters(points, n_landmark, generator=seeded_generator(0)).numpy()
    options = {"n_landmark": n_landmark, "landmarks": "stratified", "random_state": 0}
    theirs = reference.landmark_diffusion(dense, **options, points=points.numpy()).clusters
    assert [len(own) for own in own_unit(torch.from_numpy(theirs), points.shape[1])] == [
        len(own) for own in own_unit(torch.from_numpy(labels), points.shape[1])
    ]
    assert inertia(points.numpy(), labels) < 1.4 * inertia(points.numpy(), theirs)


@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_stratified_landmarks_are_clusters_of_the_points(get_case, storage, device):
    case, dense = get_case("hopf and pitchfork")
    operator, points = affinity(case, torch.float32, device, storage), case.points(device)
    options = {"n_landmark": 50, "landmarks": "stratified"}
    first, again, other = (
        landmark_diffusion(operator, **options, points=points, random_state=seed) for seed in (0, 0, 1)
    )
    labels = stratified_clusters(points, 50, generator=seeded_generator(0))
    assert torch.equal(first.clusters, labels)
    wanted = reference.landmark_diffusion(dense, landmarks=labels.cpu().numpy())[0]
    np.testing.assert_allclose(first.landmark_op.cpu().numpy(), wanted, rtol=0, atol=TOLERANCE[torch.float32])
    assert torch.equal(first.landmark_op, again.landmark_op) and not torch.equal(first.clusters, other.clusters)
    as_numpy = landmark_diffusion(operator, **options, points=points.cpu().numpy(), random_state=0)
    assert torch.equal(as_numpy.clusters, labels)


def test_stratified_landmarks_of_duplicates(get_case):
    """15 slices of which each occurs three times: landmarks without a node are dropped, of 30 a unit about half."""
    labels = stratified_clusters(get_case("repeated slices")[0].points(), 149, generator=seeded_generator(0))
    # Rounding parts some of the equal ones. Measured over 5 seeds: 15 to 18.
    assert all(15 <= len(own) <= 20 for own in own_unit(labels, 5))
    assert int(labels.max()) + 1 == len(labels.unique())


def test_stratified_without_landmarks(get_case):
    operator, points = affinity(get_case("walk")[0]), get_case("walk")[0].points()
    for n_landmark in (None, 150):
        found = landmark_diffusion(operator, n_landmark=n_landmark, landmarks="stratified", points=points)
        assert torch.equal(found.clusters, torch.arange(150))


def not_finite(value):
    points = torch.zeros(30, 5, 6)
    points[2, 3, 1] = points[4, 0, 0] = value
    return points


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "landmarks='stratified' needs points"),
        ({"points": torch.zeros(30, 4, 5)}, r"points has shape \(30, 4, 5\); .* = 150 nodes"),
        ({"points": torch.zeros(150, 5)}, r"points has shape \(150, 5\)"),
        ({"points": torch.zeros(30, 5, 5), "n_landmark": 4}, "n_landmark=4 is less than one for each of 5 units"),
        ({"points": "points"}, "points has dtype <U6"),
        ({"points": torch.zeros(30, 5, 0)}, r"points has shape \(30, 5, 0\)"),
        ({"points": not_finite(np.nan)}, r"points is not finite at \(2, 3, 1\) \(the first such place\)"),
        ({"points": not_finite(-np.inf)}, r"points is not finite at \(2, 3, 1\)"),
        ({"n_landmark": None}, "landmarks='stratified' needs points"),
        ({"n_landmark": 150, "points": torch.zeros(30, 4, 5)}, r"points has shape \(30, 4, 5\)"),
        ({"n_landmark": 150, "points": not_finite(np.nan)}, r"points is not finite at \(2, 3, 1\)"),
    ],
    ids=["none", "other units", "two axes", "too few", "text", "no samples", "nan", "inf"]
    + ["none, no landmarks", "other units, no landmarks", "nan, no landmarks"],
)
def test_bad_stratified(get_case, options, message):
    with pytest.raises(InputError, match=message):
        landmark_diffusion(affinity(get_case("walk")[0]), **{"n_landmark": 20, "landmarks": "stratified"} | options)


# ---------------------------------------------------------------- given landmarks


def test_given_landmarks_are_clusters(get_case):
    operator, labels = affinity(get_case("walk")[0]), np.arange(150) % 7
    wanted = landmark_diffusion(operator, clusters=labels)
    for given in (labels, torch.from_numpy(labels), labels.tolist(), Labels(labels)):
        found = landmark_diffusion(operator, landmarks=given)
        assert torch.equal(found.clusters, wanted.clusters) and torch.equal(found.landmark_op, wanted.landmark_op)


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


# ---------------------------------------------------------------- spectral clusters


def features(case, dense, n_svd, dtype, device):
    """Z = P V as found and exactly, each (N, n_svd); known up to a rotation, which k-means does not see."""
    operator = affinity(case, dtype, device)
    found = diffusion_features(operator, operator.row_sums(), n_svd, seeded_generator(0)).cpu().double().numpy()
    diff_op, diff_aff = reference.diffusion_operators(dense)
    values, vectors = np.linalg.eigh(diff_aff)  # symmetric: singular vectors are eigenvectors, singular values |values|
    return found, diff_op @ vectors[:, np.abs(values).argsort()[::-1][:n_svd]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_features_of_few_nodes_are_exact(get_case, dtype, device):
    """5 blocks of 30 columns span all 150 nodes: the singular vectors are the exact ones."""
    found, wanted = features(*get_case("walk"), 20, dtype, device)
    # Features are in float32, whatever the affinity is in. Measured: 3.5e-8 and 2.2e-8, of entries up to 0.086.
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["hopf", "hopf and pitchfork"])
def test_features_hold_nearly_all_of_the_operator(get_case, name, dtype, device):
    """1008 nodes, a randomised subspace: the share of |P V|^2 it finds. Measured: 0.999995 and 0.999979."""
    found, wanted = features(*get_case(name), 100, dtype, device)
    assert found.shape == wanted.shape
    assert 0.9999 < (found**2).sum() / (wanted**2).sum() < 1.0001


@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_clusters_are_contiguous_and_seeded(get_case, storage, device):
    operator = affinity(get_case("hopf and pitchfork")[0], torch.float32, device, storage)
    first, again, other = (landmark_diffusion(operator, n_landmark=100, random_state=seed) for seed in (0, 0, 1))
    for found in (first, other):
        n = found.landmark_op.shape[0]
        assert 80 <= n <= 100  # empty ones are dropped, and they are few
        assert torch.equal(torch.unique(found.clusters).cpu(), torch.arange(n))
    assert torch.equal(first.clusters, again.clusters) and torch.equal(first.landmark_op, again.landmark_op)
    assert not torch.equal(first.clusters, other.clusters)


def test_disconnected_blocks_become_landmarks():
    """Three blocks without a tie between them: as many landmarks, each one block, and nothing moves."""
    dense = np.kron(np.eye(3), np.ones((20, 20)))
    found = landmark_diffusion(of_dense(dense), n_landmark=3, n_svd=3, random_state=0)
    blocks = found.clusters.view(3, 20)
    assert bool((blocks == blocks[:, :1]).all()) and len(blocks[:, 0].unique()) == 3
    np.testing.assert_allclose(found.landmark_op.numpy(), np.eye(3), atol=1e-15)


def test_duplicates_leave_fewer_landmarks_than_asked_for(get_case):
    """45 slices of which 15 differ, 5 units: no more than 75 nodes differ, so no more clusters."""
    found = landmark_diffusion(affinity(get_case("repeated slices")[0]), n_landmark=150, random_state=0)
    assert found.landmark_op.shape[0] <= 150
    assert bool(torch.isfinite(found.landmark_op).all())


def test_more_singular_vectors_than_nodes(get_case):
    operator = affinity(get_case("walk")[0])
    labels = spectral_clusters(operator, operator.row_sums(), 20, n_svd=400, generator=seeded_generator(0))
    assert len(labels) == 150 and int(labels.max()) < 20


def test_to_torch_transitions_interpolate(get_case):
    """Step 13 with the transitions as they come: weighted means stay within the landmarks' box."""
    found = landmark_diffusion(affinity(get_case("walk")[0]), n_landmark=20, random_state=0)
    places = torch.randn(found.landmark_op.shape[0], 2, dtype=torch.float64, generator=seeded_generator(1))
    nodes = found.transitions @ places
    assert bool((nodes <= places.amax(0) + 1e-12).all()) and bool((nodes >= places.amin(0) - 1e-12).all())
