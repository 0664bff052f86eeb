"""The trace: what it accepts and refuses, METHOD steps 1 and 2, and files in and out."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record import Recorder
from mmphate_gpu.runtime import arrays, optional
from mmphate_gpu.trace import (
    Trace,
    as_trace,
    contents,
    files,
    flat_points,
    load_trace,
    normalize,
    pca,
    save_trace,
    stored,
)
from mmphate_gpu.trace.formats import flat
from mmphate_gpu.trace.pca import reduce

SHAPE = (4, 3, 5, 7)


def values(shape=SHAPE, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def lengths_mask():
    """(timestep, sample): the later samples end early."""
    return np.arange(SHAPE[1])[:, None] < np.array([3, 3, 3, 3, 2, 2, 1])[None, :]


def full_mask(seed=1):
    mask = np.random.default_rng(seed).random(SHAPE) < 0.7
    mask[..., 0] = True
    return mask


# ---------------------------------------------------------------- what is accepted


def test_four_axes_and_defaults():
    trace = as_trace(values())
    assert trace.shape == SHAPE
    assert (trace.n_epochs, trace.n_timesteps, trace.n_units, trace.n_samples) == SHAPE
    assert (trace.n_slices, trace.n_nodes) == (12, 60)
    assert trace.axes == ("epoch", "timestep", "unit", "sample")
    assert [len(getattr(trace, name)) for name in trace.axes] == list(SHAPE)
    assert trace.mask is None and trace.label is None
    assert repr(trace) == "Trace(epoch: 4, timestep: 3, unit: 5, sample: 7; float64 on cpu)"


def test_three_axes_are_slices():
    data = values((6, 5, 7))
    trace = as_trace(data, epoch=np.arange(6) * 10)
    assert trace.shape == (6, 1, 5, 7) and trace.axes == ("slice", "unit", "sample")
    assert np.array_equal(trace.epoch, np.arange(6) * 10)
    assert np.array_equal(normalize(trace), normalize(as_trace(data[:, None])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_share_memory(dtype):
    data = values(dtype=dtype)
    assert as_trace(data).data.data_ptr() == data.ctypes.data
    tensor = torch.from_numpy(data)
    assert as_trace(tensor).data.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint16", "int32", "int64", ">f4", ">f8", ">i2", "longdouble"])
def test_other_real_dtypes(dtype):
    data = (values() * 10).astype(dtype)
    trace = as_trace(data)
    assert trace.data.dtype == (torch.float64 if dtype in (">f8", "longdouble") else torch.float32)
    assert np.array_equal(trace.data.numpy(), data.astype(np.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int16, torch.uint8, torch.uint16, torch.int64])
def test_other_real_torch_dtypes(dtype):
    data = torch.from_numpy(values()).abs().mul(10).to(dtype)
    assert as_trace(data).data.dtype == torch.float32
    assert torch.equal(as_trace(data).data, data.to(torch.float32))


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_large_integers_are_not_rounded(make):
    data = np.arange(24).reshape(2, 2, 2, 3) + 2**30
    trace = as_trace(make(data))
    assert trace.data.dtype == torch.float64 and np.array_equal(trace.data.numpy(), data)


@pytest.mark.parametrize(
    "strided",
    [
        lambda x: x[::-1, :, ::-2],
        lambda x: x.transpose(3, 0, 2, 1),
        lambda x: np.broadcast_to(x[:1], (5, *x.shape[1:])),
        lambda x: np.asfortranarray(x),
    ],
)
def test_strides_and_read_only(strided):
    data = strided(values())
    data.flags.writeable = False
    before = data.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = as_trace(data)
    assert np.array_equal(trace.data.numpy(), before)
    rows = before.reshape(-1, *before.shape[2:])
    assert np.array_equal(flat_points(trace).numpy(), rows)


def test_read_only_memory_map_is_not_copied(tmp_path):
    np.save(tmp_path / "a.npy", values())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    trace = as_trace(mapped)
    assert trace.data.data_ptr() == mapped.ctypes.data
    del mapped
    assert np.array_equal(trace.data.numpy(), values())


def test_input_is_never_changed():
    data, mask = values(), full_mask()
    data[~mask] = np.nan
    before, mask_before = data.copy(), mask.copy()
    trace = as_trace(data, mask=mask)
    points = flat_points(trace)
    points += 1
    normalize(trace).add_(1)
    reduce(points, 3).add_(1)
    assert np.array_equal(data, before, equal_nan=True) and np.array_equal(mask, mask_before)


def test_flat_points_of_float64_are_a_copy():
    data = values()
    flat_points(as_trace(data)).zero_()
    assert np.array_equal(data, values())


def test_lists_parameters_and_dlpack():
    data = values((2, 2, 3))
    assert torch.equal(as_trace(data.tolist()).data, as_trace(data).data)
    trace = as_trace(torch.nn.Parameter(torch.from_numpy(data)))
    assert not trace.data.requires_grad

    class Foreign:
        def __dlpack__(self, **kwargs):
            return data.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return data.__dlpack_device__()

    assert torch.equal(as_trace(Foreign()).data, as_trace(data).data)


def test_masked_array_brings_its_mask():
    trace = as_trace(np.ma.masked_array(values(), mask=~full_mask()))
    assert np.array_equal(trace.mask.numpy(), full_mask())


def test_xarray_in_any_order():
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(
        values(),
        dims=("epoch", "timestep", "unit", "sample"),
        coords={"epoch": [1, 5, 9, 20], "unit": list("abcde"), "label": ("sample", np.arange(7) % 3)},
    )
    mask = xarray.DataArray(lengths_mask(), dims=("timestep", "sample"))
    shuffled = array.transpose("sample", "epoch", "unit", "timestep")
    trace = as_trace(shuffled, mask=mask.T)
    assert np.array_equal(trace.data.numpy(), values())
    assert trace.epoch.tolist() == [1, 5, 9, 20] and trace.unit.tolist() == list("abcde")
    assert trace.timestep.tolist() == [0, 1, 2] and trace.label.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert np.array_equal(trace.mask.numpy(), np.broadcast_to(lengths_mask()[None, :, None], SHAPE))
    assert as_trace(shuffled, epoch=[0, 1, 2, 3]).epoch.tolist() == [0, 1, 2, 3]
    slices = xarray.DataArray(values((6, 5, 7)), dims=("slice", "unit", "sample"), coords={"slice": range(10, 16)})
    assert as_trace(slices.T).epoch.tolist() == list(range(10, 16))
    with pytest.raises(InputError, match="data has dims"):
        as_trace(array.rename(epoch="iteration"))


def test_trace_is_returned_as_is_or_with_replacements():
    trace = as_trace(values((6, 5, 7)), mask=np.ones((6, 7), bool), label=np.arange(7))
    assert as_trace(trace) is trace
    other = as_trace(trace, unit=list("abcde"))
    assert other.unit.tolist() == list("abcde") and other.axes == trace.axes and other.shape == trace.shape
    assert other.label.tolist() == trace.label.tolist() and torch.equal(other.mask, trace.mask)


def test_legal_corners():
    for shape in [(2, 1, 1, 1), (1, 2, 1, 3), (2, 1, 3)]:
        assert torch.isfinite(normalize(as_trace(np.zeros(shape)))).all()
    assert as_trace(values(), label=np.arange(7.0)).label.dtype == np.int64
    assert as_trace(values((1, 1, 2, 3)), min_slices=1).n_slices == 1


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (2, 2, 2, 2, 2)])
def test_wrong_number_of_axes(shape):
    with pytest.raises(InputError, match=rf"data has {len(shape)} axes.*accepted: 4 axes \(epoch"):
        as_trace(np.zeros(shape))


@pytest.mark.parametrize(("shape", "name"), [((2, 2, 0, 3), "unit"), ((0, 2, 3), "slice"), ((2, 2, 2, 0), "sample")])
def test_empty_axis(shape, name):
    with pytest.raises(InputError, match=f"empty axis {name}"):
        as_trace(np.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 1, 4, 3), (1, 4, 3)])
def test_too_few_slices(shape):
    with pytest.raises(InputError, match="1 slice.*at least 2"):
        as_trace(np.zeros(shape))
    single = as_trace(np.zeros(shape), min_slices=1)
    with pytest.raises(InputError, match="1 slice.*at least 2"):
        as_trace(single)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_not_finite_says_where(bad, dtype):
    data = values(dtype=dtype)
    data[2, 1, 3, 4] = data[3, 0, 0, 0] = bad
    with pytest.raises(InputError, match=r"at epoch 2, timestep 1, unit 3, sample 4 \(the first"):
        as_trace(data)
    with pytest.raises(InputError, match=r"at slice 7, unit 3, sample 4 \(the first"):
        as_trace(data.reshape(12, 5, 7))


def test_not_finite_is_found_in_a_later_chunk(monkeypatch):
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 40)
    data = values()
    data[3, 2, 0, 1] = np.nan
    with pytest.raises(InputError, match="epoch 3, timestep 2, unit 0, sample 1"):
        as_trace(data)


def test_not_finite_under_the_mask_is_legal():
    data = values()
    data[~full_mask()] = np.nan
    trace = as_trace(data, mask=full_mask())
    assert torch.isfinite(normalize(trace)).all() and torch.isfinite(flat_points(trace)).all()
    data[0, 0, 0, 0] = np.inf
    with pytest.raises(InputError, match="inf at epoch 0, timestep 0, unit 0, sample 0"):
        as_trace(data, mask=full_mask())


def test_values_whose_squares_overflow():
    data = values()
    data[1, 1, 1, 1] = 1e200
    with pytest.raises(InputError, match=r"1e\+200 at epoch 1"):
        as_trace(data)
    assert torch.isfinite(normalize(as_trace((values() * 1e37).astype(np.float32)))).all()
    assert torch.isfinite(normalize(as_trace(values() * 1e-200))).all()


@pytest.mark.parametrize(
    "data",
    [
        np.zeros(SHAPE, complex),
        np.zeros(SHAPE, object),
        np.zeros(SHAPE, str),
        np.zeros(SHAPE, bool),
        np.zeros(SHAPE, "datetime64[s]"),
        torch.zeros(SHAPE, dtype=torch.bool),
        torch.zeros(SHAPE, dtype=torch.complex64),
        None,
        {"a": 1},
    ],
)
def test_not_real_numbers(data):
    with pytest.raises(InputTypeError, match="data has dtype .*; accepted: real numbers"):
        as_trace(data)


def test_sparse_and_ragged():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(InputTypeError, match="data is a sparse"):
        as_trace(torch.zeros(SHAPE).to_sparse())
    with pytest.raises(InputTypeError, match="data is a sparse"):
        as_trace(scipy_sparse.eye(3))
    with pytest.raises(InputTypeError, match="data is a list"):
        as_trace([[[1.0, 2.0]], [[1.0]]])


def test_mask_of_another_shape_or_kind():
    with pytest.raises(InputError, match=r"mask has shape \(4, 7\); accepted: .*\(timestep, sample\) = \(3, 7\)"):
        as_trace(values(), mask=np.ones((4, 7), bool))
    with pytest.raises(InputError, match=r"\(slice, sample\) = \(6, 7\)"):
        as_trace(values((6, 5, 7)), mask=np.ones((5, 7), bool))
    with pytest.raises(InputTypeError, match="mask has dtype int64; accepted: booleans"):
        as_trace(values(), mask=np.ones(SHAPE, int))


def test_mask_that_leaves_nothing():
    mask = full_mask()
    mask[1, 2, 3] = False
    with pytest.raises(InputError, match="no sample present at epoch 1, timestep 2, unit 3"):
        as_trace(values(), mask=mask)


@pytest.mark.parametrize("name", ["epoch", "timestep", "unit", "sample", "label"])
def test_wrong_lengths(name):
    with pytest.raises(InputError, match=rf"{name} has shape \(9,\); accepted"):
        as_trace(values(), **{name: np.arange(9)})
    with pytest.raises(InputError, match=f"{name} has shape"):
        as_trace(values(), **{name: np.zeros((2, 2))})
    with pytest.raises(InputTypeError, match=f"{name} is a list"):
        as_trace(values(), **{name: [[1], [2, 3]]})


@pytest.mark.parametrize("label", [list("abcdefg"), np.arange(7) + 0.5])
def test_label_that_is_not_integer(label):
    with pytest.raises(InputTypeError, match="label has dtype"):
        as_trace(values(), label=label)


def test_trace_itself_checks_its_fields():
    axes = [np.arange(n) for n in SHAPE]
    with pytest.raises(InputTypeError, match="int64"):
        Trace(torch.zeros(SHAPE, dtype=torch.int64), *axes)
    with pytest.raises(InputError, match="3 axes"):
        Trace(torch.zeros(SHAPE[1:]), *axes)
    with pytest.raises(InputError, match="mask is"):
        Trace(torch.zeros(SHAPE), *axes, mask=torch.ones(SHAPE[1:], dtype=torch.bool))


# ---------------------------------------------------------------- subsample


def test_subsample():
    trace = as_trace(values(), mask=full_mask(), label=np.arange(7), unit=list("abcde"), epoch=[2, 4, 6, 8])
    part = trace.subsample(epochs=slice(None, None, 2), units=[4, 0], samples=np.arange(7) != 3)
    expected = np.ix_([0, 2], range(3), [4, 0], [0, 1, 2, 4, 5, 6])
    assert np.array_equal(part.data.numpy(), values()[expected])
    assert np.array_equal(part.mask.numpy(), full_mask()[expected])
    assert part.epoch.tolist() == [2, 6] and part.unit.tolist() == ["e", "a"]
    assert part.label.tolist() == part.sample.tolist() == [0, 1, 2, 4, 5, 6]
    assert trace.subsample().data is trace.data
    assert trace.subsample(epochs=slice(1, 3)).data.data_ptr() == trace.data[1].data_ptr()
    assert trace.subsample(timesteps=-1).timestep.tolist() == [2]
    assert trace.subsample(epochs=slice(None, None, -1)).epoch.tolist() == [8, 6, 4, 2]


@pytest.mark.parametrize("units", [[5], [], slice(3, 3), [[0, 1]], [0.5], np.ones(4, bool), "a"])
def test_subsample_refuses(units):
    with pytest.raises(InputError, match="units="):
        as_trace(values()).subsample(units=units)


# ---------------------------------------------------------------- METHOD step 1


def test_normalize_is_the_population_z_score():
    data = values() * 3 + 100
    expected = (data - data.mean(-1, keepdims=True)) / data.std(-1, keepdims=True)
    got = normalize(as_trace(data))
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), expected.reshape(12, 5, 7), rtol=0, atol=1e-12)


def test_normalize_golden():
    path = Path(__file__).parents[1] / "golden" / "golden_walk_28x20x12.npz"
    if not path.exists():
        pytest.skip("golden data is not there")
    data = np.load(path)["trace"].astype(float)
    expected = (data - data.mean(-1, keepdims=True)) / data.std(-1, keepdims=True)
    np.testing.assert_allclose(normalize(as_trace(data)).numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1 / 3, 1e150, 1e-300])
@pytest.mark.parametrize("masked", [False, True])
def test_dead_units_are_exactly_zero(constant, masked):
    data = values()
    data[1, 2, 3] = constant
    mask = full_mask() if masked else None
    if masked:
        data[~mask] = 77
    got = normalize(as_trace(data, mask=mask))
    assert torch.equal(got[5, 3], torch.zeros(7, dtype=torch.float64))
    assert not torch.equal(got[5, 2], torch.zeros(7, dtype=torch.float64))


@pytest.mark.parametrize("mask", [full_mask(), lengths_mask()])
def test_masked_normalize_and_flat_points(mask):
    trace = as_trace(values(), mask=mask)
    full = np.broadcast_to(mask if mask.ndim == 4 else mask[None, :, None], SHAPE).reshape(12, 5, 7)
    data = np.ma.masked_array(values().reshape(12, 5, 7), ~full)
    std = np.where(data.std(-1).filled(0) == 0, 1, data.std(-1).filled(0))[..., None]
    expected = ((data - data.mean(-1)[..., None]) / std).filled(0)
    np.testing.assert_allclose(normalize(trace).numpy(), expected, atol=1e-13)
    means = np.broadcast_to(data.mean(-1).data[..., None], full.shape)
    np.testing.assert_allclose(flat_points(trace).numpy(), np.where(full, data.data, means), atol=1e-15)


def test_chunks_do_not_change_the_bits(monkeypatch):
    trace = as_trace(values(dtype=np.float32).transpose(1, 0, 2, 3), mask=full_mask().transpose(1, 0, 2, 3))
    whole = normalize(trace), flat_points(trace)
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 80)
    assert torch.equal(normalize(trace), whole[0]) and torch.equal(flat_points(trace), whole[1])


# ---------------------------------------------------------------- METHOD step 2


def scores_by_svd(points, k):
    rows = points.reshape(-1, points.shape[-1]).numpy()
    rows = rows - rows.mean(0)
    _, _, loadings = np.linalg.svd(rows, full_matrices=False)
    loadings = loadings[:k]
    lead = loadings[np.arange(len(loadings)), np.abs(loadings).argmax(1)]
    return (rows @ (loadings * np.sign(lead)[:, None]).T).reshape(*points.shape[:-1], -1)


@pytest.mark.parametrize(("shape", "chunk"), [((30, 4, 20), 2**22), ((30, 4, 20), 300), ((3, 5, 60), 2**22)])
def test_reduce_is_pca(monkeypatch, shape, chunk):
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", chunk)
    points = torch.from_numpy(values(shape) * np.linspace(3, 0.5, shape[-1]) + 50)
    got = reduce(points, 8)
    assert got.shape == (*shape[:2], 8) and got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), scores_by_svd(points, 8), atol=1e-10)
    assert torch.equal(got, reduce(points, 8))


def test_reduce_leaves_narrow_points_alone():
    points = torch.from_numpy(values((3, 4, 5)))
    assert reduce(points, None) is points and reduce(points, 5) is points and reduce(points, 100) is points
    with pytest.raises(InputError, match="n_pca"):
        reduce(points, 0)


def test_reduce_of_fewer_nodes_than_scores_keeps_distances():
    points = torch.from_numpy(values((2, 3, 40)))
    got = reduce(points, 10)
    assert got.shape == (2, 3, 10)
    near = torch.cdist(got.reshape(6, -1), got.reshape(6, -1))
    torch.testing.assert_close(near, torch.cdist(points.reshape(6, -1), points.reshape(6, -1)), atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", [(40, 3, 12), (2, 4, 50)])
def test_reduce_of_degenerate_points(shape):
    assert torch.equal(reduce(torch.ones(shape), 4), torch.zeros(*shape[:2], 4, dtype=torch.float64))
    line = torch.from_numpy(values((*shape[:2], 1))) * torch.ones(shape[-1], dtype=torch.float64)
    got = reduce(line, 4)
    assert got[..., 1:].abs().max() < 1e-12 and got[..., 0].abs().max() > 1
    twice = torch.cat([line, line])  # duplicates stay duplicates
    assert (reduce(twice, 4)[: len(line)] - reduce(twice, 4)[len(line) :]).abs().max() < 1e-12


def test_reduce_randomized(monkeypatch):
    points = torch.from_numpy(values((40, 5, 60)) * 2.0 ** -np.arange(60))
    exact = reduce(points, 6)
    monkeypatch.setattr(pca, "EXACT_PCA", 20)
    state = torch.get_rng_state()
    got = reduce(points, 6)
    assert torch.equal(got, reduce(points, 6)) and torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(got, exact, atol=1e-8, rtol=0)
    torch.testing.assert_close(reduce(points, 6, seed=5), exact, atol=1e-8, rtol=0)


# ---------------------------------------------------------------- files


def same(left, right):
    assert left.axes == right.axes and torch.equal(left.data, right.data) and left.data.dtype == right.data.dtype
    for name in ("epoch", "timestep", "unit", "sample", "label"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    assert (left.mask is None) == (right.mask is None)
    assert left.mask is None or torch.equal(left.mask, right.mask)


def rich(three=False):
    shape = (12, 5, 7) if three else SHAPE
    mask = full_mask().reshape(shape)
    n = shape[0]
    return as_trace(values(shape), mask=mask, epoch=np.linspace(0, 1, n), unit=list("abcde"), label=np.arange(7) % 2)


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("ending", [".npz", ".zarr", ".h5"])
def test_round_trip(tmp_path, ending, three):
    package = {".zarr": "zarr", ".h5": "h5py"}.get(ending)
    if package:
        pytest.importorskip(package)
    path = tmp_path / f"run{ending}"
    save_trace(path, rich(three))
    same(load_trace(path), rich(three))
    plain = as_trace(values((12, 5, 7) if three else SHAPE, dtype=np.float32))
    with pytest.raises(InputError, match="exists; accepted: a new path, or overwrite=True"):
        save_trace(path, plain)
    same(load_trace(path), rich(three))
    save_trace(path, plain, overwrite=True)
    same(load_trace(path), plain)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_round_trip_npy(tmp_path):
    save_trace(str(tmp_path / "a.npy"), values())
    same(load_trace(tmp_path / "a.npy"), as_trace(values()))
    with pytest.raises(InputError, match=r"b\.npy: \.npy holds no mask"):
        save_trace(tmp_path / "b.npy", rich())
    assert [item.name for item in tmp_path.iterdir()] == ["a.npy"]


def test_npz_of_others(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", trace=values(), epoch=[3, 4, 5, 6], other=np.zeros(2))
    assert load_trace(tmp_path / "a.npz").epoch.tolist() == [3, 4, 5, 6]
    np.savez(tmp_path / "b.npz", embedding=values())
    with pytest.raises(InputError, match=r"holds \['embedding'\]; accepted: the trace as either 'data' or 'trace'"):
        load_trace(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", data=values(), axes=["slice", "unit", "sample"])
    with pytest.raises(InputError, match=r"c.npz: axes has shape \(3,\); accepted: \(4,\)"):
        load_trace(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", data=values(), epoch=[1])
    with pytest.raises(InputError, match="d.npz: epoch has shape"):
        load_trace(tmp_path / "d.npz")


def bad_files(folder):
    """name -> what its message must say; the files are written into ``folder``."""
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(folder / "object.npy", objects, allow_pickle=True)
    np.savez(folder / "object.npz", data=objects)
    np.savez(folder / "label.npz", data=values(), label=objects)
    (folder / "pickle.npy").write_bytes(pickle.dumps(values()))
    (folder / "pickle.npz").write_bytes(pickle.dumps(values()))
    np.save(folder / "whole.npy", values())
    np.savez(folder / "whole.npz", data=values())
    for ending in (".npy", ".npz"):
        raw = (folder / f"whole{ending}").read_bytes()
        (folder / f"cut{ending}").write_bytes(raw[: len(raw) // 2])
        (folder / f"empty{ending}").write_bytes(b"")
        (folder / f"text{ending}").write_text("epoch,unit\n1,2\n")
    raw = bytearray((folder / "whole.npz").read_bytes())
    raw[len(raw) // 2] ^= 255
    (folder / "flipped.npz").write_bytes(bytes(raw))
    (folder / "header.npy").write_bytes((folder / "whole.npy").read_bytes()[:40])
    huge = (folder / "whole.npy").read_bytes().replace(b"(4, 3, 5, 7), }      ", b"(4, 3, 5, 7777777), }")
    (folder / "huge.npy").write_bytes(huge)
    (folder / "unknown.csv").write_text("1,2")
    (folder / "folder.npz").mkdir()
    (folder / "plain").mkdir()
    return {
        "object.npy": "pickled",
        "object.npz": "pickled",
        "label.npz": "pickled",
        "pickle.npy": "pickle, which is never loaded",
        "pickle.npz": "not a .npz",
        "cut.npy": "is truncated: its values have 1616 bytes; accepted: 3360, as its header says",
        "cut.npz": "truncated or not a .npz",
        "empty.npy": "truncated or not a .npy",
        "empty.npz": "truncated or not a .npz",
        "text.npy": "truncated or not a .npy",
        "text.npz": "truncated or not a .npz",
        "flipped.npz": "cannot be read",
        "header.npy": "cannot be read",
        "huge.npy": "is truncated",
        "unknown.csv": "unknown ending",
        "folder.npz": "is a folder",
        "plain": "unknown ending",
        "missing.npy": "does not exist",
    }


def test_bad_files(tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=message) as caught:
            load_trace(tmp_path / name)
        assert name in str(caught.value)


@pytest.fixture
def unread(monkeypatch):
    """Whoever reads the values of a file fails."""

    def read(*args):
        raise AssertionError("the values are being read")

    for name in ("read", "parts"):
        monkeypatch.setattr(contents.Contents, name, read)


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".zarr", ".h5"])
def test_heading(tmp_path, unread, ending, three):
    package = {".zarr": "zarr", ".h5": "h5py"}.get(ending)
    if package:
        pytest.importorskip(package)
    trace = rich(three) if ending != ".npy" else as_trace(values((12, 5, 7) if three else SHAPE, dtype=np.float32))
    save_trace(tmp_path / f"a{ending}", trace)
    heading = files.heading(tmp_path / f"a{ending}")
    assert heading == ((12, 5, 7) if three else SHAPE, np.float32 if ending == ".npy" else np.float64)
    with pytest.raises((AssertionError, InputError), match="being read"):  # a reader may take it for a broken file
        load_trace(tmp_path / f"a{ending}")


def test_heading_of_a_recording(tmp_path, unread):
    with Recorder(torch.nn.GRU(2, 3), "", probe=torch.zeros(5, 4, 2), path=tmp_path / "run") as recorder:
        for epoch in range(6):
            recorder.snapshot(epoch)
    assert files.heading(tmp_path / "run") == ((6, 5, 3, 4), np.float32)


def test_heading_of_other_containers(tmp_path):
    """An array for a store, the other key, a compressed file, a header of another version."""
    zarr = pytest.importorskip("zarr")
    zarr.save_array(str(tmp_path / "bare.zarr"), values())
    np.savez_compressed(tmp_path / "other.npz", trace=values())
    for name in ("bare.zarr", "other.npz"):
        assert files.heading(tmp_path / name) == (SHAPE, np.float64)
    for version, shape in (((2, 0), SHAPE), ((3, 0), SHAPE)):
        with zipfile.ZipFile(tmp_path / "new.npz", "w") as archive, archive.open("data.npy", "w") as file:
            np.lib.format.write_array(file, values(), version=version)
        assert shape == files.heading(tmp_path / "new.npz").shape
        same(load_trace(tmp_path / "new.npz"), as_trace(values()))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (1, 5, 6), (1, 1, 5, 6), (3, 0, 5, 6), (1, 2, 3, 4, 5)])
def test_no_heading_for_what_is_no_trace(tmp_path, shape):
    np.savez(tmp_path / "a.npz", data=np.zeros(shape))
    if len(shape) in (3, 4) and 0 not in shape:  # a single slice
        assert files.heading(tmp_path / "a.npz") is None
        return
    with pytest.raises(InputError, match=r"a\.npz: data has (\d axes|an empty axis)"):
        files.heading(tmp_path / "a.npz")


def test_heading_of_bad_files(tmp_path):
    """Told as `load_trace` tells it, or left to it: what is wrong may lie in the values."""
    for name, message in bad_files(tmp_path).items():
        try:
            files.heading(tmp_path / name)
        except InputError as error:
            assert re.search(message, str(error)) and name in str(error)
        else:
            assert name == "flipped.npz"


def test_pickles_are_never_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    np.save(tmp_path / "a.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", data=np.array([Payload()], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match="pickled"):
            load_trace(tmp_path / name)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds a list; accepted: a JSON object"),
        (json.dumps({"format": "other"}), "does not describe a recording"),
        (json.dumps({"format": flat.RECORDING, "version": 1}), "has no list 'epoch'"),
        (json.dumps({"format": flat.RECORDING, "version": 1, "epoch": [], "files": [], "extra": []}), "no snap"),
        (
            json.dumps({"format": flat.RECORDING, "version": 1, "epoch": [0], "files": [3], "extra": []}),
            "no names",
        ),
        (
            json.dumps({"format": flat.RECORDING, "version": 1, "epoch": [0], "files": ["a"], "extra": []}),
            "cannot be read",
        ),
    ],
)
def test_bad_recordings(tmp_path, meta, message):
    (tmp_path / "meta.json").write_text(meta)
    for read in (load_trace, files.heading):
        with pytest.raises(InputError, match=message):
            read(tmp_path)


def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_trace(path, values())

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(InputError, match=r"a\.npz' cannot be written \(disk full\)"):
        save_trace(path, rich(), overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == ["a.npz"]
    same(load_trace(path), as_trace(values()))


def test_refused_writing(tmp_path):
    (tmp_path / "dir.npz").mkdir()
    for path, trace, message in [
        (tmp_path / "a.csv", values(), "unknown ending"),
        (tmp_path / "no" / "a.npz", values(), "does not exist"),
        (tmp_path / "dir.npz", values(), "is a folder"),
        (tmp_path / "a.npz", np.zeros(3), "data has 1 axes"),
    ]:
        with pytest.raises(InputError, match=message):
            save_trace(path, trace, overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == ["dir.npz"]


# ---------------------------------------------------------------- optional packages


@pytest.mark.parametrize(("ending", "module", "extra"), [(".zarr", "zarr", "zarr"), (".h5", "h5py", "hdf5")])
def test_missing_package_is_named(tmp_path, monkeypatch, ending, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"a{ending}"
    with pytest.raises(InputError, match=rf"'{module}': pip install \"mmphate-gpu\[{extra}\]\""):
        save_trace(path, values())
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"")
    for read in (load_trace, files.heading):
        with pytest.raises(InputError, match=rf"reading .*'{module}': pip install"):
            read(path)


def test_optional():
    assert optional.available("json") and not optional.available("no_such_package.at_all")
    assert optional.require("json", extra="x", purpose="y") is json
    with pytest.raises(InputError, match="drawing needs the package 'no_such': pip install \"mmphate-gpu\\[plots\\]\""):
        optional.require("no_such", extra="plots", purpose="drawing")
    with pytest.raises(InputError, match='pip install "no_such" '):
        optional.require("no_such.part", purpose="drawing")


@pytest.mark.parametrize(
    ("cuda", "extra"), [("12.9", "cuda12"), ("13.0", "cuda13"), ("14.1", "cuda13"), (None, "cuda13")], ids=str
)
def test_the_extra_is_that_of_torchs_cuda(cuda, extra, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "cupyx", None)
    for module in ("cupy", "cupyx.scipy.sparse"):
        with pytest.raises(InputError, match=rf"drawing needs the package '{module}'.*\"mmphate-gpu\[{extra}\]\""):
            optional.require_cupy(module, purpose="drawing")


def test_importing_is_light():
    code = (
        "import sys, mmphate_gpu.trace, mmphate_gpu.record, mmphate_gpu.runtime.optional as o; o.available('xarray');"
        "bad = {'cupy', 'pykeops', 'pynndescent', 'matplotlib', 'sklearn', 'xarray', 'pandas', 'zarr', 'h5py'};"
        "sys.exit(str(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).returncode == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_stays_on_the_device_and_agrees():
    on_cpu, on_gpu = as_trace(values(), mask=full_mask()), as_trace(torch.from_numpy(values()).cuda(), mask=full_mask())
    assert on_gpu.data.is_cuda and on_gpu.mask.is_cuda and normalize(on_gpu).is_cuda
    torch.testing.assert_close(normalize(on_gpu).cpu(), normalize(on_cpu), atol=1e-12, rtol=0)
    torch.testing.assert_close(flat_points(on_gpu).cpu(), flat_points(on_cpu), atol=1e-12, rtol=0)
    torch.testing.assert_close(reduce(normalize(on_gpu), 3).cpu(), reduce(normalize(on_cpu), 3), atol=1e-9, rtol=0)
    same(as_trace(on_gpu.subsample(units=[3, 1]).data.cpu()), as_trace(on_cpu.subsample(units=[3, 1]).data))


def test_input_helpers_name_the_argument():
    with pytest.raises(InputTypeError, match="probe has dtype bool"):
        arrays.real_tensor("probe", np.zeros(3, bool))
