"""The dense reference against the output of the published implementation, and against closed forms."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist

import mmphate_gpu
from mmphate_gpu import diffusion, reference

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ["walk_28x20x12", "hopf_pitchfork_12x14"]
# Largest error of the affinity and of the landmark operator from the raw trace, which both sides normalize in its dtype
# (tests/golden/README.md). Measured: 7e-16 and 4e-16 (walk), 1e-16 and 4e-16 (float32).
RAW_TOLERANCE = 1e-12


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def golden(case):
    with np.load(GOLDEN / f"golden_{case}.npz") as stored:
        return dict(stored)


def golden_affinity(golden):
    n_nodes = len(golden["indptr"]) - 1
    return csr_matrix((golden["values"], golden["indices"], golden["indptr"]), (n_nodes, n_nodes)).toarray()


def normalized_in_own_dtype(trace):
    centered = trace - trace.mean(axis=-1, keepdims=True)
    return centered / centered.std(axis=-1, keepdims=True)


def walk(shape=(9, 4, 5), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).cumsum(axis=0)


def test_affinity_is_the_published_one(golden):
    affinity = reference.multislice_affinity(normalized_in_own_dtype(golden["trace"]), normalize=False)
    expected = golden_affinity(golden)
    assert np.array_equal(affinity > 0, expected > 0)
    # Measured 7e-16 (walk) and 1e-16 (float32 trace, normalized in float32).
    np.testing.assert_allclose(affinity, expected, rtol=0, atol=1e-13)


def test_affinity_of_the_raw_trace(golden):
    affinity = reference.multislice_affinity(golden["trace"])
    expected = golden_affinity(golden)
    assert np.array_equal(affinity > 0, expected > 0)
    np.testing.assert_allclose(affinity, expected, rtol=0, atol=RAW_TOLERANCE)


def test_landmark_op_given_the_published_clusters(golden):
    affinity = reference.multislice_affinity(golden["trace"])
    landmark_op, transitions, clusters = reference.landmark_diffusion(affinity, clusters=golden["clusters"])
    np.testing.assert_allclose(landmark_op, golden["landmark_op"], rtol=0, atol=RAW_TOLERANCE)
    assert np.array_equal(clusters, golden["clusters"])
    np.testing.assert_allclose(transitions.sum(axis=1), 1, atol=1e-14)
    np.testing.assert_allclose(landmark_op.sum(axis=1), 1, atol=1e-14)


def test_landmark_op_of_the_published_affinity(golden):
    landmark_op, _, _ = reference.landmark_diffusion(golden_affinity(golden), clusters=golden["clusters"])
    np.testing.assert_allclose(landmark_op, golden["landmark_op"], rtol=0, atol=1e-14)  # measured 5e-16


def test_entropy_and_t(golden):
    entropy = reference.von_neumann_entropy(golden["landmark_op"])
    np.testing.assert_allclose(entropy, golden["entropy"], rtol=0, atol=1e-12)  # measured 1.6e-14
    assert reference.knee(entropy) == reference.optimal_t(golden["landmark_op"]) == golden["t"]


def test_t_from_the_raw_trace(golden):
    affinity = reference.multislice_affinity(golden["trace"])
    assert reference.optimal_t(reference.landmark_diffusion(affinity, clusters=golden["clusters"])[0]) == golden["t"]


def test_stress_is_not_above_the_published_one(golden):
    potential = reference.diffusion_potential(golden["landmark_op"], int(golden["t"]))
    distances = reference.potential_distances(potential)
    # Measured: 0.00035 % and 0.068 % below it.
    assert reference.stress(distances, reference.smacof(distances)) <= golden["stress"] * 1.00001


def test_mmphate_end_to_end(golden):
    result = reference.mmphate(golden["trace"], clusters=golden["clusters"], n_components=3)
    assert result.embedding.shape == (len(golden["clusters"]), 3)
    assert result.t == golden["t"]
    assert result.stress < golden["stress"]  # which has one component less


@pytest.mark.parametrize("solver", ["classic", "nonmetric"])
def test_mmphate_takes_every_solver(solver):
    result = reference.mmphate(walk(), interslice_knn=3, n_landmark=12, mds_solver=solver, random_state=0)
    mds = reference.metric_mds(result.distances, solver=solver)
    np.testing.assert_array_equal(result.embedding, result.transitions @ mds.coordinates)
    assert result.stress == mds.stress


# The reference has the names of the package. Conversions of operators and plans have no dense version.
STAGE_FUNCTIONS = [
    "multislice_affinity",
    "landmark_diffusion",
    "von_neumann_entropy",
    "optimal_t",
    "diffusion_potential",
    "potential_distances",
    "metric_mds",
    "neighborhood_preservation",
]
# Parameters that do not change what is computed.
MEANS = {"storage", "knn_backend", "device"}
# The reference is the published method, which has one start of SMACOF.
BEYOND = {"n_init"}


@pytest.mark.parametrize("name", STAGE_FUNCTIONS)
def test_every_stage_function_has_a_reference(name):
    assert name in reference.__all__
    theirs, ours = (inspect.signature(getattr(home, name)).parameters for home in (mmphate_gpu, reference))
    for parameter in theirs.keys() - MEANS - BEYOND - {list(theirs)[0]}:  # the first may have another name
        assert ours[parameter].default == theirs[parameter].default
        assert ours[parameter].kind == theirs[parameter].kind


def test_a_seed_gives_the_same_bits_twice():
    first, second = (reference.mmphate(walk((12, 5, 6)), n_landmark=20, interslice_knn=4, random_state=3) for _ in "ab")
    assert np.array_equal(first.embedding, second.embedding)
    assert len(np.unique(first.clusters)) == len(first.landmark_op) <= 20


def test_normalize_with_mask_is_that_of_the_present_samples():
    trace = walk()
    mask = np.random.default_rng(1).random(trace.shape) < 0.7
    mask[..., :2], mask[3, 2, 1:] = True, False  # two samples, but for one node
    result = reference.normalize(np.where(mask, trace, 99.0), mask=mask)
    for index in np.ndindex(trace.shape[:2]):
        present = trace[index][mask[index]]
        deviation = present.std() if len(present) > 1 else np.nan
        np.testing.assert_allclose(result[index][mask[index]], (present - present.mean()) / deviation, atol=1e-13)
    assert np.isnan(result[~mask]).all()


def test_normalize_takes_both_layouts_and_short_masks():
    trace = walk((6, 4, 5)).reshape(3, 2, 4, 5)
    np.testing.assert_array_equal(reference.normalize(trace), reference.normalize(trace.reshape(6, 4, 5)))
    short = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=bool)  # (timestep, sample)
    full = np.broadcast_to(short[None, :, None, :], trace.shape)
    np.testing.assert_array_equal(reference.normalize(trace, mask=short), reference.normalize(trace, mask=full))


def test_dead_units_are_zero_vectors():
    trace = walk()
    trace[:, 1] = 0.1  # three times 0.1 has a mean that is not 0.1
    assert not reference.normalize(trace)[:, 1].any()
    assert np.isfinite(reference.multislice_affinity(trace, interslice_knn=3)).all()


def test_reduce_keeps_distances_and_variance_order():
    points = reference.normalize(walk((6, 4, 8)))
    assert reference.reduce(points, 8) is points
    rotated = reference.reduce(points, 7).reshape(24, 7)
    # The points are centered over samples, so they span 7 dimensions, and the reduction keeps all distances.
    np.testing.assert_allclose(cdist(rotated, rotated), cdist(*[points.reshape(24, 8)] * 2), atol=1e-12)
    assert (np.diff(rotated.var(axis=0)) <= 0).all()


def test_affinity_has_a_unit_diagonal_and_is_symmetric():
    trace = walk()
    trace[3:6] = trace[3]  # duplicate slices
    affinity = reference.multislice_affinity(trace, interslice_knn=3)
    assert np.array_equal(affinity, affinity.T)
    assert (np.diag(affinity) == 1).all()
    assert affinity[3 * 4, 4 * 4] == 1  # the same unit in two equal slices
    assert affinity[affinity > 0].min() >= 1e-4


def test_affinity_without_decay():
    units = np.array([[[0.0], [1.0], [3.0]]])
    expected = [[1, 1, 0], [1, 1, 0.5], [0, 0.5, 1]]
    np.testing.assert_array_equal(reference.intraslice_affinity(units, knn=1, decay=None)[0], expected)


def test_one_unit_and_few_slices_have_an_affinity():
    with pytest.warns(UserWarning, match="interslice_knn=25 is clamped to 8"):
        affinity = reference.multislice_affinity(walk((9, 1, 5)))
    assert affinity.shape == (9, 9)
    assert (np.diag(affinity) == 1).all()


def test_bandwidth_of_equal_slices_is_the_floor():
    assert reference.interslice_bandwidth(np.ones((5, 2, 3)), knn=2) == np.finfo(float).eps


def test_without_landmarks_the_operator_is_p():
    affinity = reference.multislice_affinity(walk(), interslice_knn=3)
    result = reference.landmark_diffusion(affinity, n_landmark=len(affinity))
    landmark_op, transitions, clusters = result
    assert result.landmark_op is landmark_op and result.transitions is transitions and result.clusters is clusters
    np.testing.assert_array_equal(landmark_op, reference.diffusion_operators(affinity)[0])
    np.testing.assert_array_equal(transitions, np.eye(36))
    np.testing.assert_array_equal(clusters, np.arange(36))


def test_clusters_of_equal_nodes_leave_no_gap():
    clusters = reference.spectral_clusters(np.ones((6, 6)), n_landmark=4, random_state=0)
    np.testing.assert_array_equal(clusters, np.zeros(6))


@pytest.mark.parametrize("corner", [1, 7, 20, 38])
def test_knee_of_two_lines(corner):
    steps = np.arange(40)
    assert reference.knee(np.where(steps < corner, 10 - steps, 10 - corner - 0.01 * (steps - corner))) in (
        corner,
        corner + 1,
    )


@pytest.mark.parametrize("seed", range(5))
def test_of_equal_breaks_the_first_is_the_knee(seed):
    """On a curve that is flat up to rounding all breaks are equal, as for `diffusion.knee`."""
    curve = 4.8 + 1e-15 * np.random.default_rng(seed).standard_normal(40)
    assert reference.knee(curve) == diffusion.knee(curve) == 1


def test_potential():
    landmark_op = np.array([[0.9, 0.1], [0.4, 0.6]])
    squared = landmark_op @ landmark_op
    np.testing.assert_allclose(reference.diffusion_potential(landmark_op, 2), 2 * np.sqrt(squared))
    np.testing.assert_allclose(reference.diffusion_potential(landmark_op, 2, 1), -np.log(squared + 1e-7))
    np.testing.assert_allclose(reference.diffusion_potential(landmark_op, 2, -1), squared)


def test_mds_recovers_points():
    points = np.random.default_rng(0).standard_normal((15, 2)) * [3, 1]
    distances = cdist(points, points)
    for coordinates in (reference.classical_mds(distances), reference.smacof(distances)):
        assert reference.stress(distances, coordinates) < 1e-12
        np.testing.assert_allclose(cdist(coordinates, coordinates), distances, atol=1e-12)


def test_metric_mds_is_each_solver_from_the_one_before():
    points = np.random.default_rng(0).standard_normal((15, 5))
    distances = cdist(points, points)
    actual = {solver: reference.metric_mds(distances, solver=solver) for solver in ("classic", "smacof", "nonmetric")}
    np.testing.assert_array_equal(actual["classic"].coordinates, reference.classical_mds(distances))
    np.testing.assert_array_equal(actual["smacof"].coordinates, reference.smacof(distances))
    assert 0 == actual["classic"].n_iter < actual["smacof"].n_iter < actual["nonmetric"].n_iter
    assert actual["smacof"].stress == reference.stress(distances, actual["smacof"].coordinates)
    assert reference.metric_mds(distances, init=points[:, :2], max_iter=3).n_iter == 3

    def off_order(result):
        wanted = reference.mds.disparities(distances, result.coordinates)
        return reference.stress(wanted, result.coordinates)

    assert off_order(actual["nonmetric"]) < 0.95 * off_order(actual["smacof"])  # measured: 0.938


@pytest.mark.parametrize("solver", ["classic", "smacof", "nonmetric"])
def test_metric_mds_is_that_of_the_package(solver):
    points = np.random.default_rng(2).standard_normal((25, 4))
    distances = cdist(points, points)
    ours, theirs = (
        mds(distances, 2, solver=solver, max_iter=300, eps=1e-12, random_state=0)
        for mds in (reference.metric_mds, mmphate_gpu.metric_mds)
    )
    assert ours.stress == pytest.approx(theirs.stress, rel=1e-5)  # measured: 6e-8 (nonmetric), 6e-12, 4e-16


def test_disparities_by_hand():
    """1 < 2 = 2 < 3 < 4 < 5 embedded as 2, 3, 1, 4, 6, 5: 1 is the first of the tied pair, and is pooled with 2."""
    values, embedded = np.zeros((4, 4)), np.array([2.0, 3, 1, 4, 6, 5])
    i, j = np.triu_indices(4, 1)
    values[i, j] = values[j, i] = [1, 2, 2, 3, 4, 5]
    wanted = np.array([1.5, 3, 1.5, 4, 5.5, 5.5])
    np.testing.assert_allclose(_disparities_of(values, embedded), wanted * np.sqrt(59 / (wanted**2).sum()), rtol=1e-14)


def _disparities_of(target, embedded):
    """The disparities of four points with the distances ``embedded``."""
    i, j = np.triu_indices(4, 1)
    table = np.zeros((4, 4))
    table[i, j] = table[j, i] = embedded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference.mds, "cdist", lambda *points: table)
        return reference.mds.disparities(target, np.zeros((4, 2)))[i, j]


def test_smacof_lowers_stress_and_survives_duplicates():
    points = np.random.default_rng(0).standard_normal((15, 5))
    points[3:6] = points[3]
    distances = cdist(points, points)
    start = reference.classical_mds(distances)
    result = reference.smacof(distances)
    assert np.isfinite(result).all()
    assert reference.stress(distances, result) < reference.stress(distances, start)


def test_neighborhood_preservation_by_hand():
    trace = np.array([[[0.0, 1.0]], [[0.0, 2.0]], [[0.0, -1.0]], [[-1.0, -2.0]]])  # z-scores: two signs
    intra, inter = reference.neighborhood_preservation(trace, np.array([[0.0], [1.0], [9.0], [10.0]]), 1)
    assert np.isnan(intra)  # one unit has no other
    assert inter == 1.0
    assert reference.neighborhood_preservation(trace, np.array([[0.0], [9.0], [1.0], [10.0]]), 1)[1] == 0.0


def test_the_mask_of_a_masked_array_is_used():
    values, hidden = np.random.default_rng(0).normal(size=(4, 3, 6)), np.random.default_rng(1).random((4, 3, 6)) < 0.2
    masked = np.ma.masked_array(np.where(hidden, 1e20, values), hidden)
    for function in (reference.normalize, reference.flat_points, reference.resolution):
        np.testing.assert_array_equal(function(masked), function(values, mask=~hidden))
