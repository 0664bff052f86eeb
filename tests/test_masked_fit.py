"""A masked trace through all steps: NaN rows where too few samples are present, and the reference everywhere else."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes

import mmphate_gpu as mp
from mmphate_gpu import MMPHATE, InputError, as_trace, reference

E, T, M, P = 6, 8, 4, 9
N = E * T * M
OPTIONS = {"n_landmark": 40, "random_state": 0, "device": "cpu", "interslice_knn": 5}
WARNING = "24 of 192 nodes have fewer than 2 present samples; their rows of the result are NaN"


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(E * T, M, P)).cumsum(0).reshape(E, T, M, P)


def lengths() -> np.ndarray:
    """(timestep, sample): a single sequence reaches the last time step."""
    return np.arange(T)[:, None] < np.array([8, 7, 7, 7, 5, 4, 4, 3, 3])


def left_out() -> np.ndarray:  # (N,) bool
    return np.repeat(np.tile(np.arange(T) == T - 1, E), M)


def trace(**options: object) -> mp.Trace:
    return as_trace(values(), mask=lengths(), **options)


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


@pytest.fixture(scope="module")
def fitted() -> MMPHATE:
    return quietly(lambda: MMPHATE(**OPTIONS).fit(trace(label=np.arange(P) % 3)))


def test_rows_are_nan_exactly_where_too_little_is_present(fitted):
    rows = fitted.embedding_.numpy()
    np.testing.assert_array_equal(np.isnan(rows), np.repeat(left_out()[:, None], 2, axis=1))
    np.testing.assert_array_equal(fitted.graph_nodes_, np.flatnonzero(~left_out()))
    assert fitted.affinity_.shape == (N - 24, N - 24) and fitted.transitions_.shape == (N - 24, 40)
    assert fitted.clusters_.shape == (N - 24,)


def test_the_rows_keep_their_labels(fitted):
    result = fitted.result_
    assert set(result.by("timestep")[np.isnan(result.coordinates[:, 0])]) == {T - 1}
    assert bool(result.to_xarray().sel(timestep=T - 1).isnull().all())
    assert not bool(result.to_xarray().sel(timestep=slice(0, T - 2)).isnull().any())


@pytest.mark.parametrize("call", ["fit", "fit_transform", "transform", "coordinates", "multislice_affinity"])
def test_warnings_name_the_line_of_the_caller(call, fitted):
    owner = {"coordinates": fitted.placement_, "multislice_affinity": mp, "transform": fitted}
    method = getattr(owner.get(call, MMPHATE(**OPTIONS | {"interslice_knn": 99})), call)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method(trace())
    assert [str(warning.message) for warning in caught].count(WARNING) == 1
    assert {warning.filename for warning in caught} == {__file__}


def test_every_fit_warns_with_the_count():
    op = MMPHATE(**OPTIONS)
    for options in ({}, {"t": 4}):  # the second fit repeats only the last stages
        with pytest.warns(UserWarning, match=WARNING):
            op.set_params(**options).fit(trace())
    with pytest.warns(UserWarning, match=WARNING):
        mp.multislice_affinity(trace(), interslice_knn=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MMPHATE(**OPTIONS).fit(trace().subsample(timesteps=slice(T - 1)))  # where every node has two samples


@pytest.mark.parametrize("storage", ["sparse", "lazy"])
@pytest.mark.parametrize("normalize", [True, False])
def test_all_steps_are_those_of_the_reference(storage, normalize):
    clusters = np.random.default_rng(3).integers(0, 30, N)
    options = {"interslice_knn": 5, "normalize": normalize, "mds_solver": "classic"}
    wanted = reference.mmphate(values(), mask=lengths(), clusters=clusters, **options)
    op = quietly(lambda: MMPHATE(**OPTIONS | options, landmarks=clusters, storage=storage).fit(trace()))
    np.testing.assert_array_equal(op.graph_nodes_, wanted.nodes)
    np.testing.assert_array_equal(op.clusters_, wanted.clusters)
    np.testing.assert_allclose(op.landmark_op_, wanted.landmark_op, rtol=0, atol=1e-12)
    np.testing.assert_allclose(op.von_neumann_entropy_, wanted.entropy, rtol=0, atol=1e-10)
    assert op.t_ == wanted.t
    rows = wanted.nodes
    # Measured: 1e-27, of eigenvectors that are right to 1e-13.
    assert procrustes(op.embedding_.numpy()[rows], wanted.embedding[rows])[2] < 1e-18
    assert np.isnan(np.delete(wanted.embedding, rows, axis=0)).all()


def test_labels_that_differ_only_outside_the_graph_are_refused():
    labels = np.where(left_out(), np.arange(N), 0)
    with pytest.raises(InputError, match="landmarks has 1 different number.* at least 3 for n_components=2"):
        quietly(lambda: MMPHATE(**OPTIONS, landmarks=labels).fit(trace()))


@pytest.mark.parametrize("landmarks", ["spectral", "stratified"])
@pytest.mark.parametrize("n_landmark", [40, None])
def test_landmarks_are_those_of_the_graph(landmarks, n_landmark):
    op = quietly(lambda: MMPHATE(**OPTIONS | {"n_landmark": n_landmark, "landmarks": landmarks}).fit(trace()))
    assert op.n_landmark_ <= (n_landmark or N - 24) and op.landmark_op_.shape[0] == op.n_landmark_
    np.testing.assert_allclose(op.landmark_op_.sum(1), 1, rtol=0, atol=1e-12)
    if landmarks == "stratified" and n_landmark:
        unit = op.graph_nodes_ % M
        assert all(len(unit[op.clusters_ == label].unique()) == 1 for label in range(op.n_landmark_))


def test_another_mask_is_another_trace():
    """The stages of the last fit are not taken for those of a trace whose mask alone differs."""
    other = lengths()
    other[5, 4] = True
    op = quietly(lambda: MMPHATE(**OPTIONS).fit(trace()))
    first = op.embedding_.clone()
    again = quietly(lambda: op.fit(as_trace(values(), mask=other)))
    assert not any(report["reused"] for report in again.report_)
    assert not torch.equal(again.embedding_.nan_to_num(0), first.nan_to_num(0))
    same = quietly(lambda: op.fit(as_trace(values(), mask=other.copy())))
    assert all(report["reused"] for report in same.report_)


def test_masked_samples_are_not_reduced_by_pca():
    options = {**OPTIONS, "n_pca": 3}
    masked, plain = (quietly(lambda x=x: MMPHATE(**options).fit(x)) for x in (trace(), as_trace(values())))
    whole = quietly(lambda: MMPHATE(**OPTIONS).fit(trace()))
    assert torch.equal(masked.embedding_.nan_to_num(0), whole.embedding_.nan_to_num(0))
    assert masked.placement_.axes is None and plain.placement_.axes is not None
    with pytest.raises(InputError, match="X is masked, and the fit reduced the samples by PCA; accepted"):
        plain.transform(trace())


@pytest.mark.parametrize("n_left", [0, 1])
def test_a_mask_that_leaves_no_graph_is_refused(n_left):
    mask = np.zeros((E, T, M, P), bool)
    mask[0, 0, :n_left] = True
    with pytest.raises(
        InputError, match=f"mask leaves too few nodes: {N - n_left} of {N} nodes have fewer than 2 present"
    ):
        MMPHATE(**OPTIONS).fit(as_trace(values(), mask=mask))


def test_without_normalization_one_sample_is_enough():
    mask = np.broadcast_to(lengths(), (E, T, P))[:, :, None].repeat(M, axis=2)
    mask[2, 3, 1] = False
    with pytest.warns(UserWarning, match="1 of 192 nodes have no present sample; their rows of the result are NaN"):
        op = MMPHATE(**OPTIONS, normalize=False).fit(as_trace(values(), mask=mask))
    assert np.flatnonzero(op.embedding_.isnan().all(1)).tolist() == [(2 * T + 3) * M + 1]


def test_without_any_sample_the_mask_is_named_without_normalization_too():
    nothing = as_trace(values(), mask=np.zeros((T, P), bool))
    with pytest.raises(InputError, match="mask leaves too few nodes: 192 of 192 nodes have no present sample"):
        MMPHATE(**OPTIONS, normalize=False).fit(nothing)
    with pytest.raises(InputError, match="at least 2 other nodes$"):
        mp.multislice_affinity(nothing)
    op = MMPHATE(**OPTIONS, normalize=False).fit(values())
    with pytest.warns(UserWarning, match="192 of 192 nodes have no present sample"):
        assert op.transform(nothing).isnan().all()


def test_two_nodes_are_a_picture():
    mask = np.zeros((E, T, M, P), bool)
    mask[0, :2, 0] = True
    op = quietly(lambda: MMPHATE(1, **OPTIONS).fit(as_trace(values(), mask=mask)))
    assert np.flatnonzero(op.embedding_.isfinite().all(1)).tolist() == [0, M]
    with pytest.raises(InputError, match="190 of 192 nodes .* at least 3 other nodes for n_components=2"):
        MMPHATE(**OPTIONS).fit(as_trace(values(), mask=mask))


def test_a_trace_of_one_sample_lacks_the_nodes_without_it():
    mask = np.ones((E, T, M, 1), bool)
    mask[2, 3, 1] = False
    with pytest.warns(UserWarning, match="1 of 192 nodes have no present sample; their rows of the result are NaN"):
        mp.multislice_affinity(as_trace(values()[..., :1], mask=mask), interslice_knn=5)


# ---------------------------------------------------------------- later data


def test_transform_is_the_mean_over_fitted_slices_by_hand(fitted):
    new_mask = np.random.default_rng(5).random((2, 3, M, P)) < 0.5
    new_mask[1, 2, 3] = False
    new = as_trace(values(7)[:2, :3], mask=new_mask)
    with pytest.warns(UserWarning, match="of 24 nodes have fewer than 2 present samples; their rows"):
        placed = fitted.transform(new).numpy().reshape(6, M, 2)
    points = reference.normalize(values(), mask=lengths())
    new_points = reference.normalize(values(7)[:2, :3], mask=new_mask)
    targets = np.zeros((N, 2))
    targets[~left_out()] = fitted._stages.result("mds").coordinates[fitted.clusters_]
    for unit in range(M):
        distances = reference.affinity.distances_between(new_points[:, unit], points[:, unit])
        weights = np.exp(-((distances / fitted.bandwidth_) ** 2))
        weights *= (weights >= 1e-4) | (weights.max(1, keepdims=True) < 1e-4)
        with np.errstate(invalid="ignore"):
            wanted = weights @ targets.reshape(-1, M, 2)[:, unit] / weights.sum(1, keepdims=True)
        np.testing.assert_allclose(placed[:, unit], wanted, rtol=0, atol=1e-10)


def test_a_new_trace_may_be_whole_and_the_fitted_one_masked_and_the_other_way_round(fitted):
    whole = fitted.transform(as_trace(values()))
    assert whole.isfinite().all()
    plain = MMPHATE(**OPTIONS).fit(as_trace(values()))
    placed = quietly(lambda: plain.transform(trace()))
    np.testing.assert_array_equal(placed.isnan().all(1), left_out())
    # Full samples are placed by the same numbers, whether others are masked or not.
    first = np.repeat(np.tile(np.arange(T) < 3, E), M)
    torch.testing.assert_close(placed[first], plain.transform(as_trace(values()))[first], rtol=0, atol=1e-12)


def test_the_placement_is_what_transform_uses(fitted):
    new = as_trace(values(3)[:2])
    assert torch.equal(fitted.placement_.coordinates(new), fitted.transform(new))


# ---------------------------------------------------------------- what takes the result


def test_m_phate_takes_a_masked_trace():
    op = mp.M_PHATE(**OPTIONS)
    rows = quietly(lambda: op.fit_transform(trace()))
    np.testing.assert_array_equal(rows.isnan().all(1), left_out())
    assert op.graph.K.shape == (N - 24, N - 24)
    assert torch.equal(quietly(op.transform).nan_to_num(0), rows.nan_to_num(0))


def test_the_most_active_class_is_that_of_the_present_samples(fitted):
    points = reference.normalize(values(), mask=lengths()).reshape(N, P)
    label = np.arange(P) % 3
    for node in np.flatnonzero(~left_out())[::7]:
        means = [
            np.nanmean(row) if np.isfinite(row).any() else -np.inf
            for row in (points[node][label == c] for c in range(3))
        ]
        assert fitted.result_.most_active[node] == int(np.argmax(means))


def test_preservation_leaves_nodes_without_a_place_out(fitted):
    shares = mp.neighborhood_preservation(trace(), fitted.result_, [3, 8])
    for k, pair in zip([3, 8], shares, strict=True):
        wanted = reference.neighborhood_preservation(values(), fitted.result_.coordinates, k, mask=lengths())
        assert pair == pytest.approx(wanted, abs=1e-12)
    empty = np.full((N, 2), np.nan)
    assert np.isnan(mp.neighborhood_preservation(trace(), empty, 3)).all()
