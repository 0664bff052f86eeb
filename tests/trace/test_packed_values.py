"""Packed, missing and time-coded values of files are decoded as xarray does, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.trace import as_trace, files, load_trace
from mmphate_gpu.trace.packing import decode_coordinate, packing_of

AXES = ("epoch", "timestep", "unit", "sample")
SHAPE = (4, 3, 5, 7)
# One case for every rule for the dtype.
ENCODINGS = {
    "both": {"dtype": "int16", "scale_factor": 0.001, "add_offset": 1.0, "_FillValue": -32768},
    "both in float32": {
        "dtype": "int16",
        "scale_factor": np.float32(0.01),
        "add_offset": np.float32(-1),
        "_FillValue": 7,
    },
    "scale": {"dtype": "int32", "scale_factor": 0.25, "_FillValue": -(2**31)},
    "scale in float32": {"dtype": "uint8", "scale_factor": np.float32(0.5), "_FillValue": 255},
    "offset, zero is missing": {"dtype": "uint8", "add_offset": -3.0, "_FillValue": 0},
    "plain int8": {"dtype": "int8", "_FillValue": -99},
    "plain int64": {"dtype": "int64", "_FillValue": -99},
    "plain float32": {"dtype": "float32", "_FillValue": 1e20},
    "missing_value": {"dtype": "float64", "missing_value": -9999.0},
}


def values():
    return np.random.default_rng(0).normal(size=SHAPE) * 3


def present():
    mask = np.random.default_rng(1).random(SHAPE) < 0.7
    mask[..., 0] = True
    return mask


def short_mask():
    return np.arange(3)[:, None] < np.array([3, 3, 3, 2, 2, 1, 3])


def write_zarr(path, data, *, version=3, dims=AXES, fill=None, attributes=None):
    zarr = pytest.importorskip("zarr", "3")
    options = {"dimension_names": dims} if dims and version == 3 else {}
    options |= {} if fill is None else {"fill_value": fill}
    array = zarr.open_group(str(path), mode="w", zarr_format=version).create_array("data", data=data, **options)
    array.attrs.update(attributes or {})
    if dims and version == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = list(dims)
    return path


def write_h5(path, attributes=None, **arrays):
    with pytest.importorskip("h5py").File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file["data"].attrs.update(attributes or {})
    return path


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ENCODINGS)
def test_zarr_is_read_as_xarray_reads_it(tmp_path, name, version, masked):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr", "3")
    dataset = xarray.DataArray(values(), dims=AXES).where(present()).to_dataset(name="data")
    if masked:
        dataset["mask"] = (("sample", "timestep"), short_mask().T)
    dataset = dataset.transpose("sample", "unit", "timestep", "epoch")
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=version, encoding={"data": ENCODINGS[name]}, consolidated=False)
    decoded = xarray.open_zarr(tmp_path / "a.zarr", consolidated=False)["data"].transpose(*AXES).values
    mask = ~np.isnan(decoded)
    assert not mask.all()
    mask &= short_mask()[:, None] if masked else True
    for stream in (False, True):
        trace = load_trace(tmp_path / "a.zarr", stream=stream).load()
        assert np.array_equal(trace.mask, mask)
        assert np.array_equal(trace.data[trace.mask], as_trace(np.where(mask, decoded, 0)).data[trace.mask])
    assert files.heading(tmp_path / "a.zarr") == (SHAPE, decoded.dtype)


@pytest.mark.parametrize("stream", [False, True])
def test_attributes_of_hdf5(tmp_path, stream):
    """Attributes have dtypes, and those of netCDF are arrays of one number."""
    stored = np.random.default_rng(2).integers(-30, 30, SHAPE).astype(">i2")
    stored[..., 0] = 5
    attributes = {"scale_factor": np.array([0.1]), "add_offset": np.array([2.0]), "missing_value": np.int16([7, 8])}
    trace = load_trace(write_h5(tmp_path / "a.h5", attributes, data=stored), stream=stream).load()
    mask = (stored != 7) & (stored != 8)
    assert np.array_equal(trace.mask, mask) and not mask.all()
    assert np.array_equal(trace.data[trace.mask], (stored.astype(float) * 0.1 + 2.0)[mask])


@pytest.mark.parametrize("stream", [False, True])
def test_a_mask_beside_missing_values_needs_the_shape_of_the_data(tmp_path, stream):
    data = np.where(present(), values(), -9)
    for shape in ((1, 7), (4, 7), (4, 3, 1, 7)):
        path = write_h5(tmp_path / "a.h5", {"_FillValue": -9.0}, data=data, mask=np.ones(shape, bool))
        with pytest.raises(InputError, match=r"a\.h5: mask has shape"):
            load_trace(path, stream=stream)
    path = write_h5(tmp_path / "a.h5", {"_FillValue": -9.0}, data=data, mask=short_mask())
    assert np.array_equal(load_trace(path, stream=stream).load().mask, present() & short_mask()[:, None])
    with pytest.raises(InputError, match=r"a\.h5: data has 2 axes"):
        load_trace(
            write_h5(tmp_path / "a.h5", {"_FillValue": 1.0}, data=np.ones((3, 4)), mask=short_mask()), stream=stream
        )


@pytest.mark.parametrize("stream", [False, True])
def test_there_is_no_mask_if_nothing_is_missing(tmp_path, stream):
    attributes = {"_FillValue": 1e20, "valid_min": -1000, "units": "mV"}
    trace = load_trace(write_h5(tmp_path / "a.h5", attributes, data=values()), stream=stream).load()
    assert trace.mask is None and np.array_equal(trace.data, values())


@pytest.mark.parametrize("stream", [False, True])
def test_nan_is_never_a_mask(tmp_path, stream):
    """xarray writes NaN as the fill value of all floating-point data, so it does not mean that a NaN is missing."""
    data = np.where(present(), values(), np.nan)
    for path in (
        write_h5(tmp_path / "a.h5", {"_FillValue": np.array([np.nan])}, data=data),
        write_zarr(tmp_path / "b.zarr", data, fill=np.nan, attributes={"_FillValue": "AAAAAAAA+H8="}),
        write_zarr(tmp_path / "c.zarr", data, version=2, fill=np.nan),
    ):
        with pytest.raises(InputError, match=f"{path.name}: data holds nan at epoch 0"):
            load_trace(path, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_fill_values_of_formats(tmp_path, stream):
    """A fill value of 0 is a number, unless xarray takes it for missing. Other fill values may be either."""
    data = values()
    data[0, 0, 0, :2] = 0, -9
    for fill, version, dims in ((0, 3, AXES), (0, 2, None), (0, 3, None), (-8, 3, AXES)):
        trace = load_trace(write_zarr(tmp_path / "a.zarr", data, fill=fill, version=version, dims=dims), stream=stream)
        assert trace.mask is None and np.array_equal(trace.load().data, data)
    for fill, version, dims in ((0, 2, AXES), (-9, 3, AXES), (-9, 2, None)):
        path = write_zarr(tmp_path / "a.zarr", data, fill=fill, version=version, dims=dims)
        with pytest.raises(InputError, match=rf"a\.zarr: data holds {fill}.0, the fill value of its array"):
            load_trace(path, stream=stream)
    trace = load_trace(write_zarr(tmp_path / "a.zarr", data, fill=-9, version=2), stream=stream).load()
    assert np.argwhere(~trace.mask.numpy()).tolist() == [[0, 0, 0, 1]]


def test_chunks_that_were_never_written(tmp_path):
    h5py = pytest.importorskip("h5py")
    for fill in (0, 9.96921e36):  # netCDF's own
        with h5py.File(tmp_path / "a.h5", "w") as file:
            data = file.create_dataset("data", SHAPE, "f4", chunks=(1, *SHAPE[1:]), fillvalue=fill)
            data[:2] = values()[:2]
        if fill:
            with pytest.raises(InputError, match=r"a\.h5: data holds 9\.96.*e\+36, the fill value of its array"):
                load_trace(tmp_path / "a.h5")
        else:
            assert not load_trace(tmp_path / "a.h5").data[2:].any()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"valid_range": [-1.0, 1.0]}, "data holds numbers outside the valid range -1 to 1"),
        ({"valid_max": 2}, "data holds numbers outside the valid range -inf to 2"),
        ({"valid_range": 3}, "data has the attribute valid_range"),
        ({"scale_factor": "0.1 mV"}, "data has the attribute scale_factor='0.1 mV'; accepted: one number"),
        ({"add_offset": [1, 2]}, "data has the attribute add_offset"),
        ({"_FillValue": "none"}, "data has the attribute _FillValue='none'; accepted: numbers"),
        ({"missing_value": [None]}, "data has the attribute missing_value"),
        ({"_Unsigned": "true"}, "data has the attribute _Unsigned"),
    ],
)
def test_attributes_that_define_no_values_are_refused(tmp_path, attributes, message, stream):
    path = write_zarr(tmp_path / "a.zarr", values(), attributes=attributes)
    with pytest.raises(InputError, match=rf"a\.zarr: {message}"):
        load_trace(path, stream=stream)


def test_an_array_that_was_not_decoded():
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(np.arange(24).reshape(2, 3, 2, 2), dims=AXES, attrs={"scale_factor": 0.5, "units": "mV"})
    with pytest.raises(InputError, match=r"data has the attributes \['scale_factor'\]; accepted: .*decode_cf"):
        as_trace(array)
    decoded = xarray.decode_cf(array.to_dataset(name="data"))
    assert np.array_equal(as_trace(decoded).data, array.values / 2)


# ---------------------------------------------------------------- masks and labels


@pytest.mark.parametrize("stream", [False, True])
def test_booleans_of_netcdf(tmp_path, stream):
    h5py, mask = pytest.importorskip("h5py"), present()
    path = write_h5(tmp_path / "a.h5", data=values(), mask=mask.astype(np.int8))
    with pytest.raises(InputTypeError, match=r"a\.h5: mask has dtype int8; accepted: booleans"):
        load_trace(path, stream=stream)
    with h5py.File(path, "r+") as file:
        file["mask"].attrs["dtype"] = np.bytes_(b"bool")
    assert np.array_equal(load_trace(path, stream=stream).load().mask, mask)
    with h5py.File(path, "r+") as file:
        file["mask"].attrs["_FillValue"] = np.int8(-1)
    with pytest.raises(InputError, match=r"a\.h5: mask has the attribute _FillValue"):
        load_trace(path, stream=stream)


def test_missing_labels(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = write_h5(tmp_path / "a.h5", data=values(), label=np.array([0, 1, 1, 0, 2, 2, 0]))
    for fill in (-1, 2):
        with h5py.File(path, "r+") as file:
            file["label"].attrs["_FillValue"] = fill
        if fill == -1:
            assert load_trace(path).label.tolist() == [0, 1, 1, 0, 2, 2, 0]
        else:
            with pytest.raises(InputError, match=r"a\.h5: label"):
                load_trace(path)


# ---------------------------------------------------------------- times


@pytest.mark.parametrize("version", [2, 3])
def test_dates_and_durations(tmp_path, version):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr", "3")
    epoch = np.array(["2024-02-28", "2024-03-01T06:00:00.25", "NaT", "1999-12-31"], "M8[ns]")
    timestep = np.array([1, 20, 300], "m8[ms]").astype("m8[ns]")
    array = xarray.DataArray(values(), dims=AXES, coords={"epoch": epoch, "timestep": timestep}, name="data")
    array.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False)
    trace = load_trace(tmp_path / "a.zarr")
    assert trace.epoch.dtype == epoch.dtype and np.array_equal(trace.epoch, epoch, equal_nan=True)
    assert trace.timestep.dtype == timestep.dtype and np.array_equal(trace.timestep, timestep)


@pytest.mark.parametrize(
    ("stored", "attributes", "dates"),
    [
        ([0, 31], {"units": "days since 2001-1-1"}, ["2001-01-01", "2001-02-01"]),
        ([0.5, np.nan], {"units": "days since 2001-01-01 06:00:00"}, ["2001-01-01T18:00", "NaT"]),
        ([3, -1], {"units": "Hours since 0001-01-01 00:00:00.5", "calendar": "proleptic_gregorian"}, None),
        ([5, 6], {"units": "seconds since 1970-01-01T00:00", "_FillValue": 6}, ["1970-01-01T00:00:05", "NaT"]),
        ([0, 1], {"units": "days since 2001-01-01 00:00:00 +02:00"}, ["2000-12-31T22:00", "2001-01-01T22:00"]),
        (
            [0, 1],
            {"units": "hours since 1992-10-8 15:15:42.5 -6:30"},
            ["1992-10-08T21:45:42.5", "1992-10-08T22:45:42.5"],
        ),
        ([0, 1], {"units": "days since 2001-01-01T06:00Z"}, ["2001-01-01T06:00", "2001-01-02T06:00"]),
    ],
)
def test_times_since_a_date(stored, attributes, dates):
    times = decode_coordinate("epoch", np.array(stored), attributes)
    wanted = np.datetime64("0001-01-01T00:00:00.5") + np.array([3, -1], "m8[h]") if dates is None else dates
    assert np.array_equal(times, np.array(wanted, times.dtype), equal_nan=True)


def test_numbers_with_units_stay_numbers():
    for units in ("days", "mV", "1", "epochs since start", "months since 2001-01-01", "days since yesterday", b"days"):
        times = decode_coordinate("epoch", np.arange(3), {"units": units})
        assert times.dtype.kind == "i" and times.tolist() == [0, 1, 2]
    packed = decode_coordinate("epoch", np.arange(3), {"scale_factor": 0.5, "_FillValue": 1})
    assert np.array_equal(packed, [0, np.nan, 1], equal_nan=True)


@pytest.mark.parametrize(
    "attributes",
    [
        {"units": "days since 2001-01-01", "calendar": "noleap"},
        {"units": "days since 1001-01-01"},
        {"units": "days since 2001-01-01 00:00:00 Paris"},
        {"units": "days since 2001-13-41"},
        {"units": "days since 1-01-01", "calendar": "proleptic_gregorian"},
    ],
)
def test_times_that_numpy_cannot_represent_are_refused(attributes):
    with pytest.raises(InputError, match=r"^epoch counts time .*; accepted: "):
        decode_coordinate("epoch", np.arange(3), attributes)


@pytest.mark.parametrize(
    "stored, step",
    [
        (np.array([0, 2**61]), "days"),
        (np.array([-(2**62), 5]), "hours"),
        (np.array([0, 2**64 - 1], np.uint64), "seconds"),
        (np.array([2**63 - 1]), "seconds"),  # 2001 is beyond 1970
        (np.array([0, 1e300]), "seconds"),
        (np.array([1, -np.inf]), "days"),
        (np.array([0.5, 3e5]), "days"),  # a fraction counts in nanoseconds
    ],
)
def test_times_beyond_64_bits(stored, step):
    with pytest.raises(InputError, match=r"^epoch counts up to .*'; accepted: times that 64 bits hold"):
        decode_coordinate("epoch", stored, {"units": f"{step} since 2001-01-01"})
    if stored.dtype == np.uint64:
        with pytest.raises(InputError, match="^epoch counts up to 18446744073709551615 in 'seconds'"):
            decode_coordinate("epoch", stored, {"units": "seconds", "dtype": "timedelta64[s]"})


def test_times_far_away_and_missing_ones():
    attributes = {"units": "days since 2001-01-01", "_FillValue": 2**62}
    times = decode_coordinate("epoch", np.array([365_000, 2**62, -(2**63)]), attributes)
    assert np.array_equal(times, np.array(["3000-05-04", "NaT", "NaT"], times.dtype), equal_nan=True)
    times = decode_coordinate("epoch", np.array([365_000.0, np.nan]), {"units": "days since 2001-01-01"})
    assert np.array_equal(times, np.array(["3000-05-04", "NaT"], times.dtype), equal_nan=True)


def test_plain_numbers_have_no_packing():
    for dtype in ("f4", "i2", "U3", "?"):
        assert packing_of("data", np.dtype(dtype), {"units": "mV", "_Unsigned": "false", "_FillValue": np.nan}) is None
