"""Axes go by the names of their dimensions in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record import Recorder
from mmphate_gpu.trace import Trace, as_trace, files, load_trace, save_trace
from mmphate_gpu.trace.dims import AXES, SLICE_AXES

from .traces import full_mask, same, values

SHAPES = ((4, 3, 5, 7), (4, 4, 4, 4))  # in the second one only names distinguish the axes

PLACES = [(".zarr", 2), (".zarr", 3), (".h5", None)]
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable.         4"


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
