"""Coordinates of every type survive every form of file on every axis, with the same dtype and the same time zone."""

from __future__ import annotations

import datetime
import zoneinfo

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.trace import as_trace, load_trace, save_trace
from mmphate_gpu.trace.dims import AXES

from .traces import same, streams, values

SHAPE = (4, 4, 4, 4)
PACKAGES = {".npz": "numpy", ".zarr": "zarr", ".h5": "h5py"}
forms = pytest.mark.parametrize("ending", PACKAGES)


def zoned(zone):
    """Days before and after the clocks change."""
    return np.array([datetime.datetime(2024, 3, day, 12, tzinfo=zone) for day in (29, 30, 31, 1)], object)


def of_pandas():
    pandas = pytest.importorskip("pandas")
    return pandas.date_range("2024-03-30T00:00:00.123456789", periods=4, tz="Europe/Berlin")


COORDINATES = {
    "integers": lambda: np.array([3, 1, -2, 2**60 + 1]),
    "bytes": lambda: np.array([3, 1, 2, 255], np.uint8),
    "unsigned integers": lambda: np.array([1, 2, 3, 2**64 - 1], np.uint64),
    "numbers": lambda: np.array([0.1, np.nan, np.inf, -0.0]),
    "single precision": lambda: np.array([0.1, 2, 3, 4], np.float32),
    "booleans": lambda: np.array([True, False, True, True]),
    "text": lambda: np.array(["é", "", "🙂 日本 ", "b\n\t"]),
    "dates": lambda: np.array(["2024-01-01", "1000-12-31", "9999-01-01", "NaT"], "M8[D]"),
    "months": lambda: np.array(["2024-01", "1000-12", "9999-01", "NaT"], "M8[M]"),
    "seconds": lambda: np.array(["2024-01-01T12:30:15", "1000-12-31", "9999-01-01", "NaT"], "M8[s]"),
    "nanoseconds": lambda: np.array(["2024-01-01T00:00:00.123456789", "1999-12-31", "2030-01-01", "NaT"], "M8[ns]"),
    "spans of days": lambda: np.array([1, -2, 300, "NaT"], "m8[D]"),
    "spans of seconds": lambda: np.array([1, -2, 300, 2**60], "m8[s]"),
    "spans of nanoseconds": lambda: np.array([1, -2, 300, 2**60 + 1], "m8[ns]"),
    "UTC": lambda: zoned(datetime.timezone.utc),
    "an offset": lambda: zoned(datetime.timezone(datetime.timedelta(hours=-3, minutes=-30))),
    "Berlin": lambda: zoned(zoneinfo.ZoneInfo("Europe/Berlin")),
    "Berlin in pandas": of_pandas,
}


@forms
@pytest.mark.parametrize("name", COORDINATES)
def test_coordinates_survive(tmp_path, name, ending):
    pytest.importorskip(PACKAGES[ending])
    trace = as_trace(values(SHAPE), **dict.fromkeys(AXES, COORDINATES[name]()))
    save_trace(tmp_path / f"run{ending}", trace)
    loaded = load_trace(tmp_path / f"run{ending}")
    for axis in AXES:
        before, after = getattr(trace, axis), getattr(loaded, axis)
        assert after.dtype == before.dtype, axis
        assert np.array_equal(after, before, equal_nan=before.dtype.kind in "fmM"), axis
    assert loaded.time_zone == trace.time_zone


@forms
@pytest.mark.parametrize("name", ["text", "Berlin", "spans of seconds"])
def test_coordinates_of_slices_survive(tmp_path, name, ending):
    pytest.importorskip(PACKAGES[ending])
    trace = as_trace(values(SHAPE[1:]), epoch=COORDINATES[name]())
    save_trace(tmp_path / f"run{ending}", trace)
    loaded = load_trace(tmp_path / f"run{ending}")
    same(loaded, trace)
    assert loaded.time_zone == trace.time_zone and loaded.epoch.dtype == trace.epoch.dtype


def test_a_date_with_a_time_zone_is_the_same_instant_in_utc():
    trace = as_trace(values(SHAPE), epoch=COORDINATES["Berlin"](), unit=COORDINATES["an offset"]())
    assert trace.time_zone == {"epoch": "Europe/Berlin", "unit": "UTC-03:30"}
    hours = [str(date.astype("M8[m]"))[-5:] for date in trace.epoch]
    assert hours == ["11:00", "11:00", "10:00", "11:00"]  # summer time begins on March 31
    assert str(trace.unit[0].astype("M8[m]")) == "2024-03-29T15:30"
    part = as_trace(trace.subsample(epochs=[1, 2]), unit=np.arange(4))
    assert part.time_zone == {"epoch": "Europe/Berlin"}


def test_dates_of_xarray_with_a_time_zone():
    """NumPy reads them as integers."""
    xarray = pytest.importorskip("xarray")
    dates = of_pandas()
    array = xarray.DataArray(values(SHAPE), dims=AXES, coords={"epoch": dates})
    wanted = as_trace(values(SHAPE), epoch=dates)
    for trace in (as_trace(array), as_trace(values(SHAPE), epoch=array.coords["epoch"])):
        assert np.array_equal(trace.epoch, wanted.epoch) and trace.epoch.dtype == "M8[ns]"
        assert trace.time_zone == {"epoch": "Europe/Berlin"}
    one_epoch = as_trace(array.isel(epoch=1, timestep=[0, 1]).expand_dims("epoch"))
    assert np.array_equal(one_epoch.epoch, wanted.epoch[1:2])


def test_xarray_reads_dates_and_brings_the_time_zone(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    trace = as_trace(values(SHAPE), epoch=of_pandas())
    save_trace(tmp_path / "run.zarr", trace)
    loaded = as_trace(xarray.open_zarr(tmp_path / "run.zarr", consolidated=False))
    same(loaded, trace)
    assert loaded.time_zone == trace.time_zone


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (np.array(["a", "b"]), r"time_zone_epoch has shape \(2,\); accepted: one text"),
        (np.array(""), "time_zone has '' for 'epoch'; accepted: the name of a time zone"),
        (np.array("UTC"), "time_zone has 'UTC' for epoch, which has dtype int64; accepted: dates"),
    ],
)
def test_files_with_a_bad_time_zone_are_refused(tmp_path, text, sentence):
    np.savez(tmp_path / "run.npz", data=values(), epoch=np.arange(4), time_zone_epoch=text)
    with pytest.raises(InputError, match=sentence):
        load_trace(tmp_path / "run.npz")


def test_times_beyond_what_a_h5_holds_are_refused(tmp_path):
    pytest.importorskip("h5py")
    for span in (np.array([1, 2, 3, 2**62], "m8[D]"), np.array([1, 2, 3, 2**62], "M8[Y]")):
        with pytest.raises(InputError, match=r"unit has dtype .* and overflows in units of '[sD]'; accepted: smaller"):
            save_trace(tmp_path / "run.h5", as_trace(values(SHAPE), unit=span))
    assert not list(tmp_path.iterdir())


def test_text_that_a_h5_cannot_hold_is_refused(tmp_path):
    pytest.importorskip("h5py")
    for text in ("a\0b", "\ud800"):
        with pytest.raises(InputError, match=r"unit holds text that \.h5 cannot hold .*; accepted: \.npz, \.zarr"):
            save_trace(tmp_path / "run.h5", as_trace(values(SHAPE), unit=[text, "b", "c", "d"]))


# ---------------------------------------------------------------- masks that repeat


@streams
@forms
@pytest.mark.parametrize("three", [False, True])
def test_a_mask_of_time_steps_stays_small(tmp_path, three, ending, stream):
    """It is (timestep, sample) or (slice, sample) in the file, and takes as many bytes in memory."""
    pytest.importorskip(PACKAGES[ending])
    shape = (6, 3, 5) if three else (4, 6, 3, 5)
    mask = np.arange(6)[:, None] < np.arange(2, 7)
    trace = as_trace(values(shape), mask=mask)
    save_trace(tmp_path / f"run{ending}", trace)
    loaded = load_trace(tmp_path / f"run{ending}", stream=stream)
    same(loaded, trace)
    chosen = {} if three else {"epochs": [3, 0]}
    for each in (trace, loaded, loaded.subsample(units=[0, 2], **chosen), loaded.to(torch.device("cpu"))):
        assert each.mask.untyped_storage().nbytes() == mask.size
    if ending == ".npz":
        assert np.load(tmp_path / "run.npz")["mask"].shape == (6, 5)


def test_a_selection_of_a_mask_that_repeats_has_the_right_values():
    mask = np.arange(6)[:, None] < np.arange(2, 7)
    trace = as_trace(values((4, 6, 3, 5)), mask=mask)
    part = trace.subsample(epochs=[2, 0], timesteps=[5, 0, 1], units=[True, False, True], samples=[4, 0])
    assert part.mask.shape == (2, 3, 2, 2)
    assert np.array_equal(part.mask, np.broadcast_to(mask[[5, 0, 1]][:, [4, 0]][:, None], (2, 3, 2, 2)))
