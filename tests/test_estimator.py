"""MMPHATE: the whole run, array types, conventions of scikit-learn, landmarks, new slices, and the diffusion time."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import mmphate_gpu as mm
from mmphate_gpu import MMPHATE, InputError, InputTypeError, PictureWarning, as_trace
from mmphate_gpu.diffusion import diffusion_potential
from mmphate_gpu.planning.plan import LEAST, plan_run
from mmphate_gpu.stages import STAGES

OPTIONS = {"n_landmark": 60, "random_state": 0, "device": "cpu"}


def walk(n_slices: int = 30, n_units: int = 4, n_samples: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_slices, n_units, n_samples)).cumsum(0)


# ---------------------------------------------------------------- the whole run


@pytest.mark.parametrize("storage", ["sparse", "lazy", "auto"])
def test_end_to_end_against_the_reference(storage):
    trace = walk()
    op = MMPHATE(n_landmark=None, storage=storage, device="cpu", random_state=0).fit(trace)
    affinity = mm.reference.multislice_affinity(trace)
    landmark_op, _, _ = mm.reference.landmark_diffusion(affinity, n_landmark=None)
    assert op.t_ == mm.reference.optimal_t(landmark_op)
    potential = mm.reference.diffusion_potential(landmark_op, op.t_, 0)
    # Float64 on both sides. Measured: 4e-16.
    np.testing.assert_allclose(op.diff_potential_, potential, rtol=0, atol=1e-12)
    start = mm.reference.classical_mds(mm.reference.potential_distances(potential), 2)
    assert op.embedding_.shape == start.shape and op.stress_ < 0.5


def test_sparse_and_lazy_give_the_same_t_and_stress():
    trace = walk(seed=3).astype(np.float32)
    first, second = (MMPHATE(storage=storage, **OPTIONS).fit(trace) for storage in ("sparse", "lazy"))
    assert first.t_ == second.t_
    assert second.stress_ == pytest.approx(first.stress_, rel=1e-2)
    assert second.affinity_.nbytes < first.affinity_.nbytes


def test_a_seed_gives_the_same_bits_twice():
    trace = walk()
    first, second = (MMPHATE(**OPTIONS).fit_transform(trace) for _ in range(2))
    assert np.array_equal(first, second)


def test_callback_sees_every_stage():
    seen = []
    MMPHATE(callback=lambda *call: seen.append(call), **OPTIONS).fit(walk())
    assert seen == [(stage, i + 1, len(STAGES)) for i, stage in enumerate(STAGES)]


def test_progress_bar_goes_to_stderr(capsys):
    MMPHATE(verbose=1, **OPTIONS).fit(walk())
    out, err = capsys.readouterr()
    assert out == "" and "MM-PHATE" in err and "9/9" in err


# ---------------------------------------------------------------- array types


def test_results_have_the_array_type_and_dtype_of_the_input():
    trace = walk()
    expected = MMPHATE(**OPTIONS).fit_transform(trace)
    as_tensor = MMPHATE(**OPTIONS).fit_transform(torch.from_numpy(trace))
    assert isinstance(as_tensor, torch.Tensor) and np.array_equal(as_tensor.numpy(), expected)
    assert np.array_equal(MMPHATE(**OPTIONS).fit_transform(as_trace(trace)).numpy(), expected)
    for dtype in (np.float32, np.float16, np.int16):
        assert MMPHATE(**OPTIONS).fit_transform((trace * 100).astype(dtype)).dtype == np.float32


def test_an_xarray_gives_an_xarray_with_coordinates():
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(walk(), dims=("slice", "unit", "sample"), coords={"unit": [7, 8, 9, 10]})
    result = MMPHATE(**OPTIONS).fit_transform(array.transpose("unit", "sample", "slice"))
    assert result.dims == ("node", "component") and result.shape == (120, 2)
    assert result.unit.values[:5].tolist() == [7, 8, 9, 10, 7]
    assert np.array_equal(result.values, MMPHATE(**OPTIONS).fit_transform(walk()))


# ---------------------------------------------------------------- scikit-learn


def test_scikit_learn_conventions():
    op = MMPHATE(n_components=3, **OPTIONS)
    assert clone(op).get_params() == op.get_params()
    op.fit(walk())
    assert op.get_feature_names_out().tolist() == ["mmphate0", "mmphate1", "mmphate2"]
    again = pickle.loads(pickle.dumps(op))
    assert np.array_equal(again.embedding_, op.embedding_)
    assert np.array_equal(again.transform(walk()), op.transform(walk()))
    assert np.array_equal(again.fit(walk()).embedding_, op.embedding_)


def test_set_output_gives_a_frame():
    pytest.importorskip("pandas")
    frame = MMPHATE(**OPTIONS).set_output(transform="pandas").fit_transform(walk())
    assert frame.shape == (120, 2) and list(frame.columns) == ["mmphate0", "mmphate1"]


# ---------------------------------------------------------------- landmarks


@pytest.mark.parametrize("as_array", [np.asarray, torch.as_tensor, list])
def test_labels_of_the_user_are_the_landmarks(as_array):
    """n_landmark is ignored, and numbers that do not occur are dropped. Labels are a parameter like any other."""
    labels = 3 * (np.arange(120) % 50)
    op = MMPHATE(landmarks=as_array(labels), n_landmark=7, random_state=0, device="cpu")
    assert op.get_params()["landmarks"] is op.landmarks
    copy = clone(op)
    copy.fit(walk())
    assert np.array_equal(copy.clusters_, labels // 3) and copy.landmark_op_.shape == (50, 50)
    assert np.array_equal(copy.embedding_, op.fit_transform(walk()))


@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_stratified_landmarks_are_shared_among_the_units(storage):
    op = MMPHATE(landmarks="stratified", storage=storage, **OPTIONS).fit(walk())
    assert op.landmark_op_.shape == (60, 60)
    by_unit = op.clusters_.reshape(30, 4)
    assert [len(np.unique(by_unit[:, unit])) for unit in range(4)] == [15] * 4
    assert op.transform(walk()[:3]).shape == (12, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"landmarks": np.zeros(119, int)}, r"landmarks has shape \(119,\); accepted: \(120,\), one per node"),
        ({"landmarks": np.full(120, -2)}, "landmarks contains -2; accepted: numbers from 0"),
        ({"landmarks": np.zeros(120)}, "landmarks has dtype float64; accepted: integers"),
        ({"landmarks": "random"}, "landmarks='random' is unknown; accepted: 'spectral', 'stratified'"),
        ({"landmarks": None}, "landmarks is a NoneType; accepted: one whole number from 0 per node"),
        ({"landmarks": np.arange(120) % 2}, "n_components=2 is more than 2 points span; accepted: 1 to 1"),
        ({"landmarks": "stratified", "n_landmark": 3}, "n_landmark=3 is less than one for each of 4 units"),
    ],
    ids=["short", "negative", "float", "word", "none", "two", "fewer than units"],
)
def test_impossible_landmarks_are_refused_before_any_stage(options, message):
    stages = []
    op = MMPHATE(**OPTIONS | options, callback=lambda stage, done, total: stages.append(stage))
    with pytest.raises(InputError, match=message):
        op.fit(walk())
    assert not stages


def test_a_plan_depends_on_the_landmarks():
    """A stratified run needs no Krylov basis, and labels determine the number of landmarks."""
    options = {"dtype": torch.float32, "device": torch.device("cpu"), "available": 2**40, "entries": LEAST}
    shape = (5000, 1, 100, 10)
    plans = [
        plan_run(shape, mm.Params(landmarks=landmarks, storage="lazy", n_landmark=1000), **options)
        for landmarks in ("spectral", "stratified", np.arange(500_000) % 300)
    ]
    spectral, stratified, values = ({stage.stage: stage for stage in plan.stages}["landmarks"] for plan in plans)
    assert stratified.peak_bytes < spectral.peak_bytes / 2 and stratified.form == spectral.form
    assert values.form == "(300, 300)"


# ---------------------------------------------------------------- new slices


def test_transform_places_fitted_slices_near_their_embedding_and_one_by_one():
    trace = walk(60)
    op = MMPHATE(**OPTIONS).fit(trace)
    placed = op.transform(trace).reshape(60, 4, 2)
    single = np.concatenate([op.transform(trace[[i]]) for i in range(60)]).reshape(placed.shape)
    # The rounding of a matrix product depends on its shape. Measured: 3e-16.
    np.testing.assert_allclose(single, placed, rtol=0, atol=1e-12)
    spread = op.embedding_.std()
    assert np.abs(placed.reshape(-1, 2) - op.embedding_).mean() < 0.2 * spread


def test_transform_far_away_is_finite():
    op = MMPHATE(thresh=0, normalize=False, **OPTIONS).fit(walk())
    assert np.isfinite(op.transform(1000 * walk())).all()


def test_transform_refuses_other_units_and_needs_a_fit():
    with pytest.raises(NotFittedError):
        MMPHATE().transform(walk())
    op = MMPHATE(**OPTIONS).fit(walk())
    with pytest.raises(InputError, match="units, samples"):
        op.transform(walk(n_units=3))


# ---------------------------------------------------------------- corner cases


@pytest.mark.filterwarnings("ignore:this picture may mislead")
def test_components_that_duplicates_leave_without_landmarks_are_zero():
    flat = MMPHATE(n_landmark=20, random_state=0, device="cpu").fit_transform(np.zeros((30, 1, 5)))
    assert flat.shape == (30, 2) and np.isfinite(flat).all()
    two = np.repeat(walk(2, 1), 15, axis=0)
    result = MMPHATE(n_components=3, n_landmark=20, random_state=0, device="cpu").fit_transform(two)
    assert result.shape == (30, 3) and np.isfinite(result).all() and not result[:, 2].any()


def test_a_callback_must_be_callable():
    with pytest.raises(InputTypeError, match="callback"):
        MMPHATE(callback=3, **OPTIONS).fit(walk())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:this picture may mislead")
@pytest.mark.parametrize(
    ("scenario", "landmarks", "least"),
    [
        ("hopf", "spectral", (0.205, 0.385)),
        ("hopf_pitchfork", "spectral", (0.130, 0.240)),
        ("hopf", "stratified", (0.26, 0.44)),
        ("hopf_pitchfork", "stratified", (0.175, 0.285)),
    ],
)
def test_the_bifurcation_suite_preserves_neighbors_as_published(scenario, landmarks, least):
    trace = mm.datasets.bifurcation(scenario)
    op = MMPHATE(n_components=3, landmarks=landmarks, random_state=0, device="cpu").fit(trace)
    result = mm.neighborhood_preservation(trace, op.embedding_, [10, 40])
    # Published: 0.221 / 0.401 and 0.140 / 0.252. Measured (benchmarks/results): 0.223 / 0.403 and 0.144 / 0.256. With
    # stratified landmarks and two seeds: 0.279 / 0.463 and 0.285 / 0.465; 0.193 / 0.307 and 0.192 / 0.305.
    assert result[0][1] >= least[0] and result[1][1] >= least[1]


# ---------------------------------------------------------------- the diffusion time


@pytest.mark.parametrize("t", [10_000, 2_000_000, 10**9])
def test_a_t_that_leaves_only_rounding_gives_a_warning(t):
    with pytest.warns(PictureWarning, match=f"after t={t} steps .* its shape is only rounding; a t below {t} may help"):
        op = MMPHATE(t=t, **OPTIONS).fit(walk())
    assert np.isfinite(op.embedding_).all()


@pytest.mark.parametrize("t", ["auto", 1, 20])
def test_an_ordinary_t_gives_no_warning(t):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MMPHATE(t=t, **OPTIONS).fit(walk())


@pytest.mark.parametrize("t", [0, -3, 10**9 + 1, 10**20])
def test_a_t_out_of_range_is_refused(t):
    for call in (lambda: MMPHATE(t=t).fit(walk()), lambda: diffusion_potential(np.eye(3), t)):
        with pytest.raises(InputError, match="t=.* is out of range; it must be an integer >= 1 and <= 1e"):
            call()


def test_an_entropy_curve_may_be_long():
    op = MMPHATE(t_max=10_000, **OPTIONS).fit(walk())
    assert op.von_neumann_entropy_.shape == (10_000,) and np.isfinite(op.von_neumann_entropy_).all()
    assert 1 <= op.t_ <= 9_998
