"""Axes by name: of files that xarray, netCDF and h5py write, of xarray objects, and of what `save_trace` writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.planning import plan
from mmphate_gpu.record import Recorder
from mmphate_gpu.trace import Trace, as_trace, files, load_trace, save_trace

AXES = ("epoch", "timestep", "unit", "sample")
SLICE_AXES = ("slice", "unit", "sample")
SHAPES = ((4, 3, 5, 7), (4, 4, 4, 4))  # in the second one only names distinguish the axes
PLACES = [(".zarr", 2), (".zarr", 3), (".h5", None)]
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable.         4"


def values(shape=SHAPES[0]):
    return np.random.default_rng(0).normal(size=shape)


def full_mask(shape=SHAPES[0]):
    mask = np.random.default_rng(1).random(shape) < 0.7
    mask[..., 0] = True
    return mask


def write(path: Path, version: int | None, arrays: dict) -> Path:
    """``arrays``: name -> (values, dims) or (values, dims, attributes); None for dims without names."""
    arrays = {name: (*entry, {})[:3] for name, entry in arrays.items()}
    if path.suffix == ".h5":
        write_h5(path, arrays)
    else:
        zarr = pytest.importorskip("zarr", "3")
        group = zarr.open_group(str(path), mode="w", zarr_format=version)
        for name, (array, dims, attributes) in arrays.items():
            names = {"dimension_names": dims} if version == 3 else {}
            stored = group.create_array(name, data=array, **({} if dims is None else names))
            stored.attrs.update(attributes)
            if dims is not None and version == 2:
                stored.attrs["_ARRAY_DIMENSIONS"] = list(dims)
    return path


def write_h5(path, arrays):
    """Write dimension scales, as netCDF-4 does, also for dimensions that have no coordinates."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, (array, _, attributes) in arrays.items():
            array = np.asarray(array)
            file[name] = array.astype(object) if array.dtype.kind == "U" else array
            file[name].attrs.update(attributes)
        for name, (array, dims, _) in arrays.items():
            for dim, axis in enumerate(dims or ()):
                if axis is None or dims == [name]:
                    continue
                if axis not in file:
                    file[axis] = np.zeros(np.shape(array)[dim], ">f4")
                    file[axis].make_scale(NO_VARIABLE)
                elif not file[axis].is_scale:
                    file[axis].make_scale(axis)
                file[name].dims[dim].attach_scale(file[axis])


def permuted(array, dims, order):
    return np.transpose(array, [dims.index(name) for name in order]), list(order)


def same(first: Trace, second: Trace) -> None:
    first, second = first.load(), second.load()
    assert first.axes == second.axes and first.shape == second.shape
    assert first.data.dtype == second.data.dtype and torch.equal(first.data, second.data)
    for name in (*AXES, "label"):
        ours, theirs = getattr(first, name), getattr(second, name)
        assert (ours is None) == (theirs is None) and np.array_equal(ours, theirs), name
    assert (first.mask is None) == (second.mask is None)
    assert first.mask is None or torch.equal(first.mask, second.mask)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("ending", "version"), PLACES)
def test_permuted_axes_of_a_file(tmp_path, ending, version, shape, stream):
    """Data, mask and coordinates are each in another order, and more arrays lie beside them."""
    data, mask, epoch = values(shape), full_mask(shape), np.arange(shape[0]) * 3
    label = np.arange(shape[3]) % 2
    path = write(
        tmp_path / f"a{ending}",
        version,
        {
            "data": permuted(data, AXES, ("unit", "sample", "epoch", "timestep")),
            "mask": permuted(mask, AXES, AXES[::-1]),
            "epoch": (epoch, ["epoch"]),
            "label": (label, ["sample"]),
            "loss": (np.zeros(shape[0]), ["epoch"]),
        },
    )
    same(load_trace(path, stream=stream), as_trace(data, mask=mask, epoch=epoch, label=label))
    assert files.heading(path) == (shape, np.float64)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("ending", "version"), PLACES)
def test_masks_of_some_axes(tmp_path, ending, version, stream):
    """A mask with names may have any of the axes, even if its sizes would fit (timestep, sample)."""
    data = values((4, 4, 4, 4))
    for dims in (("sample", "timestep"), ("sample", "epoch"), ("unit", "epoch", "sample")):
        mask = np.random.default_rng(2).random((4,) * len(dims)) < 0.5
        mask[tuple(0 if name == "sample" else slice(None) for name in dims)] = True
        arrays = {"data": permuted(data, AXES, AXES[::-1]), "mask": (mask, list(dims))}
        path = write(tmp_path / f"{'_'.join(dims)}{ending}", version, arrays)
        spread = np.einsum(f"{''.join(name[0] for name in dims)},etus->etus", mask.astype(int), np.ones((4,) * 4, int))
        same(load_trace(path, stream=stream), as_trace(data, mask=spread.astype(bool)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", ["slice", "epoch", "timestep"])
@pytest.mark.parametrize(("ending", "version"), PLACES)
def test_slices(tmp_path, ending, version, first, stream):
    data, mask, where = values((6, 5, 7)), full_mask((6, 7)), np.linspace(0, 1, 6)
    arrays = {
        "trace": permuted(data, SLICE_AXES, ("sample", "slice", "unit")),
        "mask": permuted(mask, ("slice", "sample"), ("sample", "slice")),
        first: (where, [first]),
    }
    for _, dims in arrays.values():
        dims[:] = [first if name == "slice" else name for name in dims]
    path = write(tmp_path / f"a{ending}", version, arrays)
    same(load_trace(path, stream=stream), as_trace(data, mask=mask, epoch=where))


@pytest.mark.parametrize("stream", [False, True])
def test_hdf5_labels_scales_and_netcdf_numbers(tmp_path, stream):
    h5py = pytest.importorskip("h5py")
    data = values()
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        stored = file.create_dataset("data", data=data.T)
        for dim, name in zip(stored.dims, AXES[::-1], strict=True):
            dim.label = name.upper()
    with h5py.File(tmp_path / "scales.h5", "w") as file:
        stored = file.create_dataset("data", data=data.T)
        for place, name in enumerate(AXES[::-1]):
            file[f"ticks{place}"] = np.arange(stored.shape[place])
            file[f"ticks{place}"].make_scale(name)
            stored.dims[place].attach_scale(file[f"ticks{place}"])
    with h5py.File(tmp_path / "numbers.h5", "w") as file:  # netCDF without attached scales
        for number, name in enumerate(AXES):
            file[name] = np.zeros(data.shape[number], ">f4")
            file[name].make_scale(NO_VARIABLE)
            file[name].attrs["_Netcdf4Dimid"] = np.int32(number)
        file["data"] = data.T
        file["data"].attrs["_Netcdf4Coordinates"] = np.array([3, 2, 1, 0], np.int32)
    for name in ("labels", "scales", "numbers"):
        same(load_trace(tmp_path / f"{name}.h5", stream=stream), as_trace(data))


@pytest.mark.parametrize(
    "dims",
    [
        *(None, [None] * 4, ["", "timestep", "", "sample"]),
        ["dim_0", "dim_1", "dim_2", "dim_3"],
        ["phony_dim_2", "phony_dim_0", "phony_dim_1", "phony_dim_3"],
        ["Epoch", "TIMESTEP", "unit", "sample"],
    ],
)
def test_without_names_the_order_counts(tmp_path, dims):
    for ending, version in PLACES[:2]:
        path = write(tmp_path / f"a{version}{ending}", version, {"data": (values(), dims)})
        same(load_trace(path), as_trace(values()))


@pytest.mark.parametrize("stream", [False, True])
def test_a_zarr_store_that_is_an_array(tmp_path, stream):
    zarr = pytest.importorskip("zarr", "3")
    zarr.create_array(str(tmp_path / "a.zarr"), data=values().T, dimension_names=AXES[::-1])
    same(load_trace(tmp_path / "a.zarr", stream=stream), as_trace(values()))


def test_one_name_is_found_by_elimination(tmp_path):
    data = permuted(values(), AXES, ("sample", "unit", "timestep", "epoch"))[0]
    path = write(tmp_path / "a.zarr", 3, {"data": (data, ["sample", None, "timestep", "epoch"])})
    same(load_trace(path), as_trace(values()))


def test_coordinates_in_capitals(tmp_path):
    dims = ["Sample", "Unit", "Timestep", "Epoch"]
    path = write(tmp_path / "a.zarr", 3, {"data": (values().T, dims), "Epoch": (np.arange(4) * 2, ["Epoch"])})
    same(load_trace(path), as_trace(values(), epoch=np.arange(4) * 2))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": (values(), ["iteration", "time", "neuron", "trial"])}, r"data has dims \('iteration', 'time'"),
        ({"data": (values(), ["epoch", "unit", "unit", "sample"])}, "data has dims"),
        ({"data": (values(), ["sample", None, None, "epoch"])}, "data has dims"),
        ({"data": (values(), ["dim_3", "dim_2", "dim_1", "dim_0"])}, "data has dims"),
        ({"data": (values((4, 3, 5)), ["epoch", "timestep", "unit"])}, "data has dims"),
        ({"data": (values((2, 4, 3, 5, 7)), ["layer", *AXES])}, "data has 5 axes"),
        ({"data": (values((4, 4, 4, 4)), AXES), "epoch": (np.arange(4), ["timestep"])}, "epoch has dims"),
        ({"data": (values((4, 4, 4, 4)), AXES), "label": (np.arange(4), ["unit"])}, "label has dims"),
        ({"data": (values(), AXES), "epoch": (np.zeros((4, 3)), AXES[:2])}, "epoch has dims"),
        ({"data": (values(), AXES), "mask": (np.ones((3, 7), bool), ["time", "sample"])}, "mask has dims"),
        ({"data": (values(), AXES), "mask": (np.ones((3, 7), bool), ["timestep", None])}, "mask has dims"),
        ({"data": (values((3, 5, 7)), ["epoch", *AXES[2:]]), "mask": (np.eye(3, 7) < 1, AXES[1::2])}, "mask has dims"),
        ({"data": (values().T, AXES[::-1]), "mask": (np.ones((3, 7), bool), None)}, "mask has dims .* are permuted"),
    ],
)
def test_names_that_leave_the_order_open_are_refused(tmp_path, arrays, message, stream):
    path = write(tmp_path / "a.zarr", 3, arrays)
    with pytest.raises(InputError, match=rf"a\.zarr: {message}.*accepted"):
        load_trace(path, stream=stream)


def test_names_that_contradict_one_another_are_refused(tmp_path):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr", "3")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["sample"] = values(), np.arange(4)
        file["sample"].make_scale("sample")
        file["data"].dims[0].label = "epoch"
        file["data"].dims[0].attach_scale(file["sample"])
    with pytest.raises(InputError, match=r"a\.h5: data has dims \('epoch or sample', None"):
        load_trace(tmp_path / "a.h5")
    array = zarr.create_array(str(tmp_path / "b.zarr"), data=values(), dimension_names=AXES)
    array.attrs["_ARRAY_DIMENSIONS"] = list(AXES)
    same(load_trace(tmp_path / "b.zarr", stream=True), as_trace(values()))
    array.attrs["_ARRAY_DIMENSIONS"] = list(AXES[::-1])
    with pytest.raises(InputError, match=r"b\.zarr: data has dims \('epoch or sample'"):
        load_trace(tmp_path / "b.zarr")
    array.attrs["_ARRAY_DIMENSIONS"] = ["epoch"]
    with pytest.raises(InputError, match=r"b\.zarr has an array with the dims \['epoch'\]"):
        load_trace(tmp_path / "b.zarr")


def test_the_axes_of_an_npz(tmp_path):
    mask = full_mask()
    np.savez(tmp_path / "a.npz", data=values().T, mask=mask.T, axes=AXES[::-1], unit=np.arange(5) * 2)
    same(load_trace(tmp_path / "a.npz"), as_trace(values(), mask=mask, unit=np.arange(5) * 2))
    assert files.heading(tmp_path / "a.npz") == (SHAPES[0], np.float64)
    with pytest.raises(InputError, match=r"a\.npz is compressed .* permuted axes.*accepted for stream=True"):
        load_trace(tmp_path / "a.npz", stream=True)
    np.savez(tmp_path / "b.npz", data=values().T, mask=np.ones((3, 7), bool), axes=AXES[::-1])
    with pytest.raises(InputError, match=r"b\.npz: mask has dims .* permuted"):
        load_trace(tmp_path / "b.npz")


# ---------------------------------------------------------------- what save_trace writes


def rich(three: bool, text: bool = True) -> Trace:
    shape = (12, 5, 7) if three else SHAPES[0]
    where = {"epoch": np.linspace(0, 1, shape[0]), "unit": list("abcde") if text else np.arange(5) * 2}
    return as_trace(values(shape), mask=full_mask(shape), label=np.arange(7) % 3, **where)


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_xarray_reads_a_zarr_of_save_trace(tmp_path, three, text):
    xarray, trace = pytest.importorskip("xarray"), rich(three, text)
    pytest.importorskip("zarr")
    save_trace(tmp_path / "a.zarr", trace)
    dataset = xarray.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert dataset["data"].dims == trace.axes and "label" in dataset["data"].coords
    same(as_trace(dataset.transpose(*trace.axes[::-1], ...)), trace)
    same(load_trace(tmp_path / "a.zarr", stream=True), trace)


@pytest.mark.parametrize("three", [False, True])
def test_an_h5_of_save_trace_has_scales(tmp_path, three):
    h5py, trace = pytest.importorskip("h5py"), rich(three)
    save_trace(tmp_path / "a.h5", trace)
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("data", "mask"):
            assert [dim.label for dim in file[name].dims] == list(trace.axes)
            assert [dim[0].name for dim in file[name].dims] == [f"/{axis}" for axis in trace.axes]
        assert file["label"].dims[0][0] == file["sample"] and file["mask"].attrs["dtype"] == "bool"
        assert np.array_equal(file[trace.axes[0]], trace.epoch)
    for stream in (False, True):
        same(load_trace(tmp_path / "a.h5", stream=stream), trace)


@pytest.mark.parametrize("ending", [".zarr", ".h5"])
def test_files_of_earlier_versions_are_read(tmp_path, ending):
    """They have the names of the axes in an entry "axes", and no names of dimensions."""
    axes = np.array(AXES, dtype=object)
    path = tmp_path / f"a{ending}"
    if ending == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["data"], file["epoch"], file["axes"] = values(), np.arange(4) * 5, axes
    else:
        group = pytest.importorskip("zarr").open_group(str(path), mode="w")
        group["data"], group["epoch"] = values(), np.arange(4) * 5
        group.attrs["axes"] = list(AXES)
    same(load_trace(path), as_trace(values(), epoch=np.arange(4) * 5))


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save_trace("~/a.npz", values())
    assert (tmp_path / "a.npz").is_file()
    same(load_trace("~/a.npz"), as_trace(values()))
    assert files.heading("~/a.npz") == (SHAPES[0], np.float64)
    with Recorder(torch.nn.GRU(2, 3), "", probe=torch.zeros(5, 4, 2), path="~/run") as recorder:
        recorder.snapshot(0)
    assert recorder.trace().shape == load_trace("~/run").shape == (1, 5, 3, 4)
    with pytest.raises(InputError, match="~no_such_user_here/a.npz names the home of an unknown user"):
        load_trace("~no_such_user_here/a.npz")
    with pytest.raises(InputTypeError, match="path=3 is a int; accepted: a path"):
        load_trace(3)


# ---------------------------------------------------------------- xarray objects


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
    same(as_trace(dataset), expected(mask=np.broadcast_to(mask[1].T[:, None, None], SHAPES[0])))
    same(as_trace(other.variable), as_trace(values()))
    same(as_trace(type("Recorded", (xarray.DataArray,), {"__slots__": ()})(other)), expected())
    same(as_trace(xarray.DataArray(values())), as_trace(values()))  # dim_0 to dim_3
    assert plan(other).shape == plan(dataset).shape == SHAPES[0]
    with pytest.raises(InputError, match=r"data is a Dataset of \['hidden'\]; accepted: .*data or trace"):
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
    spread = np.broadcast_to(mask.T[:, None, None], SHAPES[0])
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
