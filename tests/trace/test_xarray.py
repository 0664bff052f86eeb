"""Axes go by the names of their dimensions in xarray objects."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.planning import plan
from mmphate_gpu.trace import as_trace
from mmphate_gpu.trace.dims import AXES, SLICE_AXES

from .traces import SHAPE, full_mask, same, values


@pytest.fixture
def array():
    xarray = pytest.importorskip("xarray")
    coords = {"epoch": [1, 5, 9, 20], "unit": list("abcde"), "label": ("sample", np.arange(7) % 3)}
    return xarray.DataArray(values(), dims=AXES, coords=coords, name="data")


def expected(**fields):
    arguments = {"epoch": [1, 5, 9, 20], "unit": list("abcde"), "label": np.arange(7) % 3} | fields
    return as_trace(values(), **arguments)


def test_datasets_variables_and_derived_classes(array):
    xarray = pytest.importorskip("xarray")
    other = array.transpose(*AXES[::-1])
    mask = (("sample", "epoch"), full_mask((7, 4)) | (np.arange(7) < 1)[:, None])
    dataset = other.to_dataset().assign(mask=mask, loss=("epoch", np.zeros(4)))
    same(as_trace(dataset), expected(mask=np.broadcast_to(mask[1].T[:, None, None], SHAPE)))
    same(as_trace(other.variable), as_trace(values()))
    same(as_trace(type("Recorded", (xarray.DataArray,), {"__slots__": ()})(other)), expected())
    same(as_trace(xarray.DataArray(values())), as_trace(values()))  # dim_0 to dim_3
    assert plan(other).shape == plan(dataset).shape == SHAPE
    with pytest.raises(InputError, match=r"data is a Dataset of \['hidden'\]; accepted: .*'data' or 'trace'"):
        as_trace(array.to_dataset(name="hidden"))
    with pytest.raises(InputTypeError, match="mask is a Dataset"):
        as_trace(array, mask=dataset)
    with pytest.raises(InputError, match=r"data has dims \('dim_3', 'dim_2'"):
        as_trace(xarray.DataArray(values()).T)


def test_one_timestep_or_epoch_of_an_array(array):
    array = array.assign_coords(timestep=[10, 20, 30])
    one_timestep = as_trace(array.isel(timestep=1).T)
    assert (
        one_timestep.axes == SLICE_AXES
        and one_timestep.epoch.tolist() == [1, 5, 9, 20]
        and one_timestep.timestep.tolist() == [20]
    )
    assert np.array_equal(one_timestep.data[:, 0], values()[:, 1])
    with pytest.raises(InputError, match=r"mask has dims \('timestep', 'sample'\); accepted: some of \('epoch'"):
        as_trace(array.isel(timestep=1), mask=array.isel(epoch=2, unit=0).drop_vars("timestep") > -9)
    one_epoch = as_trace(array.isel(epoch=2).T)
    assert one_epoch.epoch.tolist() == [10, 20, 30] and np.array_equal(one_epoch.data[:, 0], values()[2])


def test_masks_and_coordinates_by_name(array):
    xarray = pytest.importorskip("xarray")
    mask = full_mask((7, 4)) | (np.arange(7) < 1)[:, None]
    named = xarray.DataArray(mask, dims=("sample", "epoch"))
    spread = np.broadcast_to(mask.T[:, None, None], SHAPE)
    same(as_trace(array, mask=named), expected(mask=spread))
    same(as_trace(values(), mask=named), as_trace(values(), mask=spread))
    label = xarray.DataArray(np.arange(7), dims="sample")
    same(as_trace(values(), label=label), as_trace(values(), label=np.arange(7)))
    refused = [
        ({"mask": named.rename(epoch="time")}, r"mask has dims \('sample', 'time'\)"),
        ({"mask": named.isel(epoch=[0])}, r"mask has shape \(1, 3, 5, 7\)"),
        ({"mask": named.assign_coords(epoch=[20, 9, 5, 1])}, "mask has other coordinates along epoch than data"),
        ({"label": label.rename(sample="unit")}, "label has dims"),
        ({"epoch": xarray.DataArray(range(4), dims="timestep")}, "epoch has dims"),
    ]
    for fields, message in refused:
        with pytest.raises(InputError, match=message):
            as_trace(array, **fields)
    with pytest.raises(InputError, match="label has dims"):
        as_trace(array.assign_coords(label=("unit", range(5))))


def test_stacked_slices(array):
    stacked = array.stack(slice=("epoch", "timestep"))
    with pytest.raises(InputError, match=re.escape("slice has a tuple for each entry (a MultiIndex)")):
        as_trace(stacked)
    whole = as_trace(values().reshape(12, 5, 7), unit=list("abcde"), label=np.arange(7) % 3)
    same(as_trace(stacked.reset_index("slice", drop=True)), whole)


def test_arrays_of_open_files_that_say_more_than_numbers_are_refused(tmp_path):
    """Given to `as_trace` they would lose their names and their packing without a word."""
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    values = np.random.default_rng(0).normal(size=(6, 5, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plain, named, packed = (file.create_dataset(name, data=values) for name in ("plain", "named", "packed"))
        named.dims[0].label, packed.attrs["scale_factor"] = "sample", 0.5
        assert np.array_equal(as_trace(plain).data[:, 0], values)
        for data in (named, packed, file):
            with pytest.raises(InputTypeError, match="data is a .* of h5py; .*load_trace"):
                as_trace(data)
            assert data is file or np.array_equal(as_trace(data[...]).data[:, 0], values)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    array = group.create_array("data", data=values, dimension_names=("sample", "unit", "slice"))
    for data in (array, group):
        with pytest.raises(InputTypeError, match="data is a .* of zarr; .*load_trace"):
            as_trace(data)
    for data in ("a.npy", tmp_path / "a.npy"):
        with pytest.raises(InputTypeError, match="data is a .*Path|str .*load_trace"):
            as_trace(data)
