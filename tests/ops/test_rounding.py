"""Rounding and the unit of measurement change no result: steps 1, 3, 4 and 6 of docs/method.md."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from mmphate_gpu import MMPHATE, load_trace, multislice_affinity, reference, save_trace, to_scipy
from mmphate_gpu.errors import InputError
from mmphate_gpu.params import Params
from mmphate_gpu.planning.sample import sampled_entries
from mmphate_gpu.trace import as_trace, flat_points, normalize, trace_points
from mmphate_gpu.trace.pca import principal_axes, reduce

DTYPES = [np.float32, np.float64]
S, M = 40, 5
GAINS = np.array([1.0, 3.0, 0.7, 5.0, 0.1])[None, :, None]


def walk(dtype: type, n_samples: int = 8, n_units: int = M, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(S, n_units, n_samples)).cumsum(0).astype(dtype)


def rank_one(dtype: type, n_samples: int = 8, offset: float = 0.0) -> np.ndarray:
    """Units that are multiples of each other, so that their z-scores are equal."""
    return (walk(np.float64, n_samples, 1) * GAINS + offset * GAINS).astype(dtype)


def two_samples(dtype: type) -> np.ndarray:
    """Two samples, so that z-scores are -1 and 1 in every unit and slice; the means differ much in size."""
    return np.sort(np.random.default_rng(0).normal(size=(S, M, 2)), axis=-1).astype(dtype)


def affinity(trace: np.ndarray, **options) -> np.ndarray:  # (S, M, S, M)
    n_slices, n_units = trace.shape[:2]
    options = {"device": "cpu"} | options
    dense = to_scipy(multislice_affinity(trace, **options)).toarray()
    return dense.reshape(n_slices, n_units, n_slices, n_units)


def within_slices(dense: np.ndarray) -> np.ndarray:  # (S, M, M)
    return np.stack([dense[i, :, i, :] for i in range(len(dense))])


# ---------------------------------------------------------------- scale

# By powers of two up to the largest and the least normal numbers of the dtype.
POWERS = {np.float32: (-115, -76, -50, -20, 20, 63, 64, 100, 120), np.float64: (-1000, -540, -400, 400, 490)}


@pytest.mark.parametrize("dtype, power", [(dtype, power) for dtype in DTYPES for power in POWERS[dtype]])
def test_z_scores_have_no_scale(dtype, power):
    trace = walk(dtype)
    wanted = normalize(as_trace(trace)).numpy()
    scaled = np.ldexp(trace, power)
    assert np.array_equal(normalize(as_trace(scaled)).numpy(), wanted)
    assert np.array_equal(reference.normalize(scaled), reference.normalize(trace))
    assert torch.equal(trace_points(as_trace(scaled)).resolution, trace_points(as_trace(trace)).resolution)


@pytest.mark.parametrize("dtype", DTYPES)
def test_z_scores_of_units_of_every_scale_side_by_side(dtype):
    """One unit explodes, one vanishes, one holds the largest numbers of its dtype in both signs, one subnormal ones."""
    trace = walk(np.float64, 6, 4)
    largest, least = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    trace[:, 0] *= 1e15
    trace[:, 1] *= 1e-25
    if dtype == np.float32:  # a Trace holds float64 up to 1e150
        trace[:, 2] = np.array([1, -1, 1, -1, 1, 0.5]) * largest
    trace[:, 3] = np.array([1, 2, 3, 4, 5, 6]) * least
    trace = trace.astype(dtype)
    result = normalize(as_trace(trace)).numpy()
    z = trace.astype(np.longdouble)
    z = z / np.abs(z).max(-1, keepdims=True)
    z = (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)
    # z-scores are rounded in the dtype of the trace, and means of up to 40 deviations multiply the rounding.
    np.testing.assert_allclose(result, z.astype(float), rtol=0, atol=100 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype, power", [(np.float32, 100), (np.float32, -100), (np.float64, 400), (np.float64, -700)])
def test_masked_z_scores_have_no_scale(dtype, power):
    """Masked samples do not count, however large they are."""
    trace = walk(dtype)
    mask = np.random.default_rng(1).random(trace.shape) < 0.7
    mask[..., :2] = True
    wanted = normalize(as_trace(trace, mask=mask)).numpy()
    scaled = np.where(mask, np.ldexp(trace, power), [np.nan, 1e30, -np.inf, 0, 1, -1e30, np.inf, 1]).astype(dtype)
    np.testing.assert_array_equal(normalize(as_trace(scaled, mask=mask)).numpy(), wanted)
    np.testing.assert_array_equal(wanted, np.where(mask, wanted, np.nan))
    np.testing.assert_array_equal(flat_points(as_trace(scaled, mask=mask)).numpy(), np.where(mask, scaled, np.nan))


@pytest.mark.parametrize("power", [-1000, 126 - 3])
def test_points_by_blocks_have_no_scale(power):
    trace = walk(np.float32 if power > 0 else np.float64, 20)
    scaled = as_trace(np.ldexp(trace, power))
    wanted, result = trace_points(as_trace(trace), n_pca=6), trace_points(scaled, n_pca=6)
    assert torch.equal(reduce(result.points, 6), reduce(wanted.points, 6))
    assert torch.equal(result.resolution, wanted.resolution)
    assert torch.equal(result.resolution, trace_points(scaled).resolution)


@pytest.mark.parametrize("power", [-300, -60, 60, 300])
@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_affinities_without_z_scores_have_no_scale(power, storage):
    trace = walk(np.float64)
    options = {"normalize": False, "storage": storage}
    assert np.array_equal(affinity(np.ldexp(trace, power), **options), affinity(trace, **options))
    axes = [principal_axes(trace_points(as_trace(x), normalize=False, n_pca=4).points, 4) for x in (trace, 2 * trace)]
    assert torch.equal(axes[0].loadings, axes[1].loadings)


@pytest.mark.parametrize("size", [1e-120, 1e120])
def test_sizes_whose_squares_are_lost_are_refused(size):
    for n_pca in (None, 4):
        with pytest.raises(
            InputError, match="data has points of norm up to .*; accepted with normalize=False: 1e-100 to"
        ):
            multislice_affinity(size * walk(np.float64), normalize=False, n_pca=n_pca, device="cpu")


def test_a_fit_has_no_scale():
    trace = walk(np.float32)
    fits = [MMPHATE(n_landmark=60, random_state=0, device="cpu").fit(x) for x in (trace, trace * np.float32(2.0**90))]
    assert fits[0].t_ == fits[1].t_ and np.array_equal(fits[0].embedding_, fits[1].embedding_)


# ---------------------------------------------------------------- rounding


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 1, 100, 1e4])
@pytest.mark.parametrize("n_samples", [2, 8, 150])
def test_units_that_are_multiples_have_affinity_one(dtype, offset, n_samples):
    trace = rank_one(dtype, n_samples, offset)
    if n_samples == 2:
        trace = np.sort(trace, axis=-1)  # else units are each other's opposites in some slices
    # (1/4)^5, where 1/4 is twice the largest ratio of distance to resolution that was measured.
    np.testing.assert_allclose(within_slices(affinity(trace)), 1, rtol=0, atol=1e-3)


def offsets(*shape: int) -> np.ndarray:
    return 1000 * np.random.default_rng(1).uniform(1, 3, shape)


# Added to rank-one states, they leave the z-scores alone and make their rounding differ from unit to unit.
UNEVEN = {
    "units": np.concatenate([np.zeros((S, 1)), offsets(S, M - 1)], axis=1),
    "slices": np.concatenate([np.zeros((25, M)), 10 * offsets(S - 25, M)]),
    "few slices": np.concatenate([np.zeros((S - 5, M)), 10 * offsets(5, M)]),
    "all": offsets(S, M) * np.random.default_rng(2).choice([0, 1e-3, 1, 1e2], (S, M)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", UNEVEN)
def test_equal_points_of_very_different_rounding_have_affinity_one(where, dtype):
    """The states of one sample vector, times a gain and plus an offset: all points are equal."""
    rng = np.random.default_rng(0)
    trace = (rng.uniform(0.5, 3, (S, M, 1)) * rng.normal(size=12) + UNEVEN[where][..., None]).astype(dtype)
    dense = affinity(trace)
    np.testing.assert_allclose(within_slices(dense), 1, rtol=0, atol=1e-3)
    # The square of the distance by the bandwidth, for rounding up to an eighth of it.
    np.testing.assert_allclose(dense[:, range(M), :, range(M)], 1, rtol=0, atol=2e-2)
    # float32 affinities
    np.testing.assert_allclose(dense.reshape(S * M, -1), reference.multislice_affinity(trace), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype, scale", [(np.float32, 1e-40), (np.float64, 1e-315)])
def test_subnormal_samples_are_known_to_their_step(dtype, scale):
    rng = np.random.default_rng(0)
    trace = (rng.uniform(0.5, 3, (S, M, 1)) * rng.normal(size=12) * scale).astype(dtype)
    np.testing.assert_allclose(within_slices(affinity(trace)), 1, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_two_samples_have_affinity_one_everywhere(dtype, storage):
    """All points are equal, within slices and between them."""
    dense = affinity(two_samples(dtype), storage=storage)
    np.testing.assert_allclose(within_slices(dense), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(dense[:, range(M), :, range(M)], 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [rank_one, two_samples])
def test_affinities_of_equal_points_match_the_reference(make, dtype):
    trace = make(dtype)
    wanted = reference.multislice_affinity(trace).reshape(S, M, S, M)
    np.testing.assert_allclose(affinity(trace), wanted, rtol=0, atol=1e-6)  # float32 affinities
    # torch and NumPy round roots and quotients differently.
    np.testing.assert_allclose(trace_points(as_trace(trace)).resolution.numpy(), reference.resolution(trace), rtol=1e-6)


@pytest.mark.parametrize("normalized", [True, False])
def test_resolution_matches_the_reference_with_a_mask(normalized):
    trace, mask = walk(np.float32), np.random.default_rng(0).random((S, M, 8)) < 0.8
    mask[..., :2] = True
    trace[3] = 0.5  # dead units
    result = trace_points(as_trace(trace, mask=mask), normalize=normalized).resolution.numpy()
    # torch and NumPy round roots and quotients differently.
    np.testing.assert_allclose(result, reference.resolution(trace, mask=mask, normalize=normalized), rtol=1e-6)
    if normalized:
        assert (result[3] == np.finfo(float).eps).all()


@pytest.mark.parametrize("factor", [3.0, -7.0, 1e-3])
@pytest.mark.parametrize("make", [rank_one, two_samples])
def test_a_factor_that_rounds_changes_no_picture(make, factor):
    """Affinities of rounding, from 0 to 1, once gave another picture of a trace multiplied by three."""
    trace = make(np.float64)
    fits = [MMPHATE(n_landmark=None, random_state=0, device="cpu").fit(x) for x in (trace, factor * trace)]
    assert fits[0].t_ == fits[1].t_
    kernels = [to_scipy(fit.affinity_).toarray() for fit in fits]
    np.testing.assert_allclose(*kernels, rtol=0, atol=1e-6)


def test_nearest_units_among_equal_ones_are_those_of_lower_index():
    """decay=None links the k nearest units; if all are equal but for rounding, these are the first ones."""
    links = within_slices(affinity(rank_one(np.float32), decay=None, intraslice_knn=2))
    one_way = np.zeros((M, M))
    for i, near in enumerate([(1, 2), (0, 2), (0, 1), (0, 1), (0, 1)]):
        one_way[i, [i, *near]] = 1
    np.testing.assert_array_equal(links, np.broadcast_to((one_way + one_way.T) / 2, links.shape))


def test_a_plan_counts_what_a_run_has():
    trace = as_trace(two_samples(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        entries = sampled_entries(trace, Params())
    # Every pair; in the sample a few rounded rows miss some (measured: 0.99).
    assert entries.interslice == pytest.approx(1, abs=0.02) and entries.intraslice == M


# ---------------------------------------------------------------- half precision


def half_states() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.uniform(0.5, 3, (S, M, 1)) * rng.normal(size=12)).astype(np.float16)


@pytest.mark.parametrize(
    "data",
    [
        half_states(),
        list(half_states()),
        torch.from_numpy(half_states()),
        [torch.from_numpy(epoch) for epoch in half_states()],
        torch.from_numpy(half_states().astype(np.float32)).bfloat16(),
        torch.from_numpy(1e-6 * half_states().astype(np.float32)).half(),  # below the normal numbers
    ],
    ids=["NumPy", "list", "torch", "list of tensors", "bfloat16", "subnormal"],
)
def test_half_precision_is_known_to_its_own_rounding(data):
    trace = as_trace(data)
    assert trace.data.dtype == torch.float32 and trace.recorded in (torch.float16, torch.bfloat16)
    dense = to_scipy(multislice_affinity(trace, device="cpu")).toarray().reshape(S, M, S, M)
    np.testing.assert_allclose(within_slices(dense), 1, rtol=0, atol=1e-3)


def test_half_precision_matches_the_reference():
    states = walk(np.float16)
    wanted = reference.multislice_affinity(states).reshape(S, M, S, M)
    np.testing.assert_allclose(affinity(states), wanted, rtol=0, atol=1e-5)  # float32 affinities
    np.testing.assert_allclose(trace_points(as_trace(states)).resolution, reference.resolution(states), rtol=1e-6)
    assert as_trace(states.astype(np.float32)).recorded is None


@pytest.mark.parametrize("ending", [".npy", ".npz", ".zarr", ".h5"])
@pytest.mark.parametrize("stream", [True, False])
def test_files_keep_half_precision(tmp_path, ending, stream):
    trace = as_trace(half_states()[:, None], label=None if ending == ".npy" else np.arange(12) % 3)
    path = tmp_path / f"trace{ending}"
    save_trace(path, trace)
    loaded = load_trace(path, stream=stream)
    assert loaded.recorded == torch.float16 and torch.equal(loaded.load().data, trace.data)
    assert (
        loaded.subsample(epochs=slice(5)).recorded == as_trace(loaded, epoch=np.arange(S) * 2).recorded == torch.float16
    )
    assert torch.equal(trace_points(loaded).resolution, trace_points(trace).resolution)


def test_a_fit_tells_half_precision_from_the_same_values_in_float32():
    op = MMPHATE(n_landmark=60, random_state=0, device="cpu").fit(walk(np.float16))
    op.fit(walk(np.float16).astype(np.float32))
    assert not any(report["reused"] for report in op.report_)
