"""Arrays beside the data of a file: which are meant by their names, and which were stored for other reasons."""

from __future__ import annotations

import re
import zipfile

import numpy as np
import pytest

from mmphate_gpu.errors import InputError
from mmphate_gpu.trace import as_trace, files, load_trace

from .traces import SHAPE, streams


def values(shape=SHAPE):
    return np.random.default_rng(0).normal(size=shape)


def full_mask(shape=SHAPE):
    mask = np.random.default_rng(1).random(shape) < 0.7
    mask[..., 0] = True
    return mask


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    else:
        group = pytest.importorskip("zarr", "3").open_group(str(path), mode="w")
        for name, array in arrays.items():
            group.create_array(name, data=np.asarray(array))
    return path


@pytest.fixture(params=[".npz", ".zarr", ".h5"])
def path(request, tmp_path):
    return tmp_path / f"a{request.param}"


@streams
def test_fields_in_capitals(path, stream):
    arrays = {"Mask": full_mask(), "EPOCH": np.array([1, 2, 4, 8]), "Label": np.arange(7), "Sample": np.arange(7) * 3}
    trace = load_trace(write(path, data=values(), **arrays), stream=stream).load()
    assert np.array_equal(trace.mask, full_mask()) and np.array_equal(trace.data, values())
    assert trace.epoch.tolist() == [1, 2, 4, 8] and trace.label.tolist() == list(range(7))
    assert trace.sample.tolist() == list(range(0, 21, 3))


def test_a_short_mask_in_capitals(path):
    mask = np.arange(3)[:, None] < np.array([3, 3, 3, 2, 2, 1, 3])
    trace = load_trace(write(path, data=values(), MASK=mask))
    assert np.array_equal(trace.mask, np.broadcast_to(mask[:, None], SHAPE))
    with pytest.raises(InputError, match=r"mask has shape \(4, 4\)"):
        load_trace(write(path.with_stem("b"), data=values(), MASK=np.ones((4, 4), bool)))


def test_the_field_itself_comes_before_capitals(path):
    trace = load_trace(write(path, data=values(), Epoch=np.arange(4), epoch=np.arange(4) * 2, Unit=np.ones((5, 2))))
    assert trace.epoch.tolist() == [0, 2, 4, 6] and trace.unit.tolist() == [0, 1, 2, 3, 4]


@streams
@pytest.mark.parametrize("name", ["slice", "Slice", "epoch", "Epoch"])
def test_slices_by_either_name(path, name, stream):
    trace = load_trace(write(path, data=values((4, 5, 7)), **{name: np.array([2, 3, 5, 7])}), stream=stream).load()
    assert trace.epoch.tolist() == [2, 3, 5, 7] and np.array_equal(trace.data[:, 0], values((4, 5, 7)))


def test_slices_of_an_npz_that_are_timesteps(tmp_path):
    axes = np.array(["unit", "timestep", "sample"])
    arrays = {"timestep": np.array([5, 6, 8]), "epoch": np.array([30])}  # the epoch that was taken out
    path = write(tmp_path / "a.npz", data=values((5, 3, 7)), Axes=axes, **arrays)
    trace = load_trace(path)
    assert trace.epoch.tolist() == [5, 6, 8] and np.array_equal(trace.data[:, 0], values((5, 3, 7)).swapaxes(0, 1))
    assert files.heading(path).shape == (3, 5, 7)


# ---------------------------------------------------------------- what nobody asked for


@streams
@pytest.mark.parametrize(
    "arrays",
    [
        {"Unit": "mV", "Sample": "free text"},
        {"EPOCH": np.zeros(9), "Label": np.float64(3.5)},
        {"Timestep": np.zeros((3, 2)), "Axes": np.arange(3), "Mask": np.bool_(True)},
    ],
)
def test_other_arrays_in_capitals(path, arrays, stream):
    if path.suffix == ".zarr":
        arrays = {name: 1.5 if isinstance(array, str) else array for name, array in arrays.items()}
    trace = load_trace(write(path, data=values(), **arrays), stream=stream).load()
    assert np.array_equal(trace.data, values()) and trace.mask is None and trace.label is None
    for axis, size in zip(("epoch", "timestep", "unit", "sample"), SHAPE, strict=True):
        assert getattr(trace, axis).tolist() == list(range(size))


def test_groups_and_links_in_capitals(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = write(tmp_path / "a.h5", data=values())
    with h5py.File(path, "r+") as file:
        file.create_group("Epoch")
        file["Unit"] = h5py.SoftLink("/nowhere")
        file["Label"] = h5py.Empty("f")
    assert load_trace(path).unit.tolist() == [0, 1, 2, 3, 4]


def test_members_of_an_npz_that_are_no_arrays(tmp_path):
    path = write(tmp_path / "a.npz", data=values())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("Epoch", "the first of May")
    assert load_trace(path).epoch.tolist() == [0, 1, 2, 3]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("epoch", "the first of May")
    with pytest.raises(InputError, match=r"a\.npz: the entry 'epoch' is truncated or not a .npy"):
        load_trace(path)


def test_a_pickle_in_capitals_is_not_loaded(tmp_path):
    path = write(tmp_path / "a.npz", data=values(), Unit=np.array([*"abcde"], object))
    with pytest.raises(InputError, match="pickled Python objects, which are never loaded"):
        load_trace(path)


def test_coordinates_of_xarray_in_capitals():
    xarray = pytest.importorskip("xarray")
    coords = {"Unit": "mV", "Epoch": ("epoch", [1, 2, 4, 8]), "LABEL": ("sample", list(range(7)))}
    array = xarray.DataArray(values(), dims=("epoch", "timestep", "unit", "sample"), coords=coords)
    trace = as_trace(array)
    assert trace.unit.tolist() == [0, 1, 2, 3, 4] and trace.epoch.tolist() == [1, 2, 4, 8]
    assert trace.label.tolist() == list(range(7))
    assert as_trace(array.assign_coords(epoch=[5, 6, 7, 9])).epoch.tolist() == [5, 6, 7, 9]


def test_unknown_dimensions_are_refused_with_the_remedy():
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(values(), dims=("epochs", "timesteps", "units", "samples"))
    remedy = re.escape("rename the dimensions, or store the data in one of these two orders without names")
    with pytest.raises(InputError, match=rf"data has dims \('epochs', .*\); accepted: .*; {remedy}$"):
        as_trace(array)
