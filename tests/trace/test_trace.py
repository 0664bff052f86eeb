"""`as_trace` and `Trace`: what is accepted, what is refused, and parts of a trace."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.runtime import arrays
from mmphate_gpu.trace import (
    Trace,
    as_trace,
    flat_points,
    normalize,
    stored,
)
from mmphate_gpu.trace.pca import reduce

from .traces import SHAPE, full_mask, lengths_mask, values

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
    trace = as_trace(values((6, 5, 7)), mask=np.arange(6)[:, None] < np.arange(7), label=np.arange(7))
    assert as_trace(trace) is trace
    other = as_trace(trace, unit=list("abcde"))
    assert other.unit.tolist() == list("abcde") and other.axes == trace.axes and other.shape == trace.shape
    assert other.label.tolist() == trace.label.tolist() and torch.equal(other.mask, trace.mask)


def test_a_mask_that_hides_nothing_is_dropped():
    full = np.ones(SHAPE, bool)
    assert as_trace(values(), mask=full).mask is None
    mask = lengths_mask()
    assert as_trace(values(), mask=mask).subsample(timesteps=[0]).mask is None


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
    enough = torch.from_numpy(full_mask().sum(-1, keepdims=True) >= 2).flatten(0, 1)
    assert torch.equal(normalize(trace).isfinite(), trace.mask.flatten(0, 1) & enough)
    assert torch.equal(flat_points(trace).isfinite(), trace.mask.flatten(0, 1))
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


def test_a_node_without_a_sample_is_legal():
    mask = full_mask()
    mask[1, 2, 3] = False
    points = normalize(as_trace(values(), mask=mask))
    assert points[5, 3].isnan().all() and points[5, 2].isfinite().any()


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


# ---------------------------------------------------------------- optional packages


def test_input_helpers_name_the_argument():
    with pytest.raises(InputTypeError, match="probe has dtype bool"):
        arrays.real_tensor("probe", np.zeros(3, bool))
