"""Coordinates and labels get dtypes that every file can hold, or are refused by name, before a run."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.slices import SliceLayout

VALUES = np.random.default_rng(0).normal(size=(30, 3, 4)).cumsum(0)
DAYS = [datetime.date(2020, 1, day) for day in (1, 2, 3)]
NAMES = ["in", "out", "日本"]


class Names(str, enum.Enum):
    """NumPy converts a member by ``str`` and cuts this text to the length of the value."""

    A, B, C = "in", "out", "cell"


def objects(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


def string_dtype(values, **options):
    dtypes = pytest.importorskip("numpy.dtypes")
    if not hasattr(dtypes, "StringDType"):
        pytest.skip("NumPy before 2")
    return np.array(values, dtypes.StringDType(**options))


def of_pandas(make):
    return make(pytest.importorskip("pandas"))


KEPT = {  # name: (function that makes the coordinates, values in the trace, their dtype)
    "text objects": (lambda: objects(*NAMES), NAMES, "<U3"),
    "StringDType": (lambda: string_dtype(NAMES), NAMES, "<U3"),
    "bytes": (lambda: np.array([b"a", b"bb", b""]), ["a", "bb", ""], "<U2"),
    "bytes in UTF-8": (lambda: [name.encode() for name in NAMES], NAMES, "<U3"),
    "a deque": (lambda: collections.deque(NAMES), NAMES, "<U3"),
    "big-endian text": (lambda: np.array(NAMES, ">U3"), NAMES, "<U3"),
    "a Categorical": (lambda: of_pandas(lambda pd: pd.Categorical(NAMES)), NAMES, "<U3"),
    "pandas' strings": (lambda: of_pandas(lambda pd: pd.array(NAMES, dtype="string")), NAMES, "<U3"),
    "pandas' integers": (lambda: of_pandas(lambda pd: pd.array([3, 1, 2], dtype="Int64")), [3, 1, 2], "<i8"),
    "integer objects": (lambda: objects(3, 2**63, 1), [3, 2**63, 1], "<u8"),
    "number objects": (lambda: objects(1, 2.5, np.float32(3)), [1, 2.5, 3], "<f8"),
    "big-endian integers": (lambda: np.array([3, 1, 2], ">i4"), [3, 1, 2], "<i4"),
    "half precision": (lambda: np.array([1, 2.5, 3], np.float16), [1, 2.5, 3], "<f4"),
    "bfloat16": (lambda: torch.tensor([1, 2.5, 3], dtype=torch.bfloat16), [1, 2.5, 3], "<f4"),
    "long double": (lambda: np.array([1, 2.5, 3], np.longdouble), [1, 2.5, 3], "<f8"),
    "a tensor with a graph": (lambda: torch.tensor([1, 2.5, 3], requires_grad=True), [1, 2.5, 3], "<f4"),
    "dates": (lambda: DAYS, DAYS, "<M8[D]"),
    "dates in seconds": (
        lambda: np.array(DAYS, ">M8[s]"),
        [datetime.datetime(2020, 1, d) for d in (1, 2, 3)],
        "<M8[s]",
    ),
    "dates and times": (
        lambda: [datetime.datetime(2020, 1, d, 5, 6, 7, 8) for d in (1, 2, 3)],
        [datetime.datetime(2020, 1, d, 5, 6, 7, 8) for d in (1, 2, 3)],
        "<M8[us]",
    ),
    "nanoseconds of pandas": (
        lambda: of_pandas(lambda pd: [pd.Timestamp(2**60 + tick) for tick in (1, 2, 3)]),
        [2**60 + 1, 2**60 + 2, 2**60 + 3],
        "<M8[ns]",
    ),
    "a DatetimeIndex": (lambda: of_pandas(lambda pd: pd.DatetimeIndex([5, 6, 7])), [5, 6, 7], "<M8[ns]"),
    "time spans": (
        lambda: [datetime.timedelta(hours=h) for h in (0, 1, 30)],
        [datetime.timedelta(hours=h) for h in (0, 1, 30)],
        "<m8[us]",
    ),
    "time spans of pandas": (lambda: of_pandas(lambda pd: [pd.Timedelta(t) for t in (1, 2, 3)]), [1, 2, 3], "<m8[ns]"),
    "dates in UTC": (
        lambda: [datetime.datetime(2020, 1, d, 5, tzinfo=datetime.timezone.utc) for d in (1, 2, 3)],
        [datetime.datetime(2020, 1, d, 5) for d in (1, 2, 3)],
        "<M8[us]",
    ),
    "dates in Tokyo": (
        lambda: of_pandas(lambda pd: pd.DatetimeIndex([5, 6, 7], tz="UTC").tz_convert("Asia/Tokyo")),
        [5, 6, 7],
        "<M8[ns]",
    ),
    "booleans": (lambda: objects(True, False, True), [True, False, True], "|b1"),
    "duplicates": (lambda: [2, 2, 1], [2, 2, 1], "<i8"),
}


@pytest.mark.parametrize("name", KEPT)
def test_coordinates_are_kept_everywhere(name, tmp_path):
    """They are the same in the trace, its file, the embedding, its file, and the tables made of it."""
    make, wanted, dtype = KEPT[name]
    trace = mp.as_trace(VALUES, unit=make())
    assert trace.unit.tolist() == wanted and trace.unit.dtype == np.dtype(dtype)
    mp.save_trace(tmp_path / "trace.npz", trace)
    mp.Embedding(np.zeros((90, 2)), SliceLayout(trace.epoch, trace.timestep, trace.unit)).save(tmp_path / "e.npz")
    embedding = mp.Embedding.load(tmp_path / "e.npz")
    for result in (mp.load_trace(tmp_path / "trace.npz").unit, embedding.layout.unit):
        assert result.dtype == trace.unit.dtype and result.tolist() == wanted
    pytest.importorskip("xarray")
    pytest.importorskip("anndata")
    # Compare dates as such, because pandas stores dates of days in seconds.
    np.testing.assert_array_equal(embedding.to_xarray().coords["unit"].values, trace.unit)
    np.testing.assert_array_equal(embedding.to_anndata().obs["unit"].to_numpy()[:3], trace.unit)


@pytest.mark.parametrize("missing", [np.array([1, np.nan, 2]), np.array(["2020", "NaT", "2021"], "M8[D]")])
def test_missing_numbers_and_dates_are_kept(missing, tmp_path):
    mp.Embedding(np.zeros((6, 2)), SliceLayout([0, 1], [0], missing)).save(tmp_path / "e.npz")
    result = mp.Embedding.load(tmp_path / "e.npz").layout.unit
    assert np.array_equal(result, missing, equal_nan=True) and result.dtype == missing.dtype


@pytest.mark.parametrize("name", ["text objects", "nanoseconds of pandas", "time spans"])
def test_a_run_ends_with_a_result_that_can_be_saved(name, tmp_path):
    make, wanted, _ = KEPT[name]
    trace = mp.as_trace(VALUES, unit=make(), epoch=[f"epoch {number}" for number in range(30)])
    result = mp.MMPHATE(n_landmark=20, random_state=0, device="cpu").fit(trace).result_
    result.save(tmp_path / "e.npz")
    result = mp.Embedding.load(tmp_path / "e.npz")
    assert result.layout.unit.tolist() == wanted and result.by("epoch")[-1] == "epoch 29"


REFUSED = {
    "None": (lambda: [None, "a", "b"], "holds Python objects (NoneType, str)"),
    "missing text": (lambda: string_dtype(["a", None, "b"], na_object=None), "holds Python objects (NoneType, str)"),
    "missing categories": (lambda: of_pandas(lambda pd: pd.Categorical(["a", None, "b"])), "(float, str)"),
    "missing strings": (lambda: of_pandas(lambda pd: pd.array(["a", None, "b"], dtype="string")), "(NAType, str)"),
    "text and numbers": (lambda: ["a", 1, 2], "holds 1, which would become '1'"),
    "text and a missing number": (lambda: ["a", np.nan, "b"], "holds nan, which would become 'nan'"),
    "dates beyond the range of nanoseconds": (
        lambda: [np.datetime64("0001-01-01", "D"), np.datetime64(5, "ns"), np.datetime64(6, "ns")],
        "which would become",
    ),
    "dates beyond the range of nanoseconds in pandas": (
        lambda: of_pandas(lambda pd: [datetime.date(1, 1, 1), pd.Timestamp(5), pd.NaT]),
        "which would become",
    ),
    "text and bytes": (lambda: [b"a", "b", "c"], "holds b'a', which would become 'a'"),
    "bytes that are no text": (lambda: [b"\xe9", b"b", b"c"], "bytes that are not UTF-8 text"),
    "text that ends in NUL": (lambda: objects("a\0", "b", "c"), "holds 'a\\x00', which would become 'a'"),
    "members of an enumeration": (lambda: list(Names), "which would become"),
    "text and dates": (lambda: [DAYS[0], "b", "c"], "holds Python objects (date, str)"),
    "two time zones": (
        lambda: [
            datetime.datetime(2020, 1, d, tzinfo=datetime.timezone(datetime.timedelta(hours=d))) for d in (1, 2, 2)
        ],
        "holds dates in several time zones (UTC+01:00, UTC+02:00); accepted: dates in one, as [date.astimezone(",
    ),
    "a time zone of some dates": (
        lambda: [
            datetime.datetime(2020, 1, d, tzinfo=zone) for d, zone in ((1, datetime.timezone.utc), (2, None), (3, None))
        ],
        "holds dates in several time zones (None, UTC)",
    ),
    "a date that UTC does not have": (
        lambda: [datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=9)))] * 3,
        "which has no date in UTC; accepted: years 2 to 9998",
    ),
    "times of the day": (lambda: [datetime.time(hour) for hour in (1, 2, 3)], "(time)"),
    "periods": (lambda: of_pandas(lambda pd: pd.period_range("2020", periods=3, freq="M")), "(Period)"),
    "pairs": (lambda: objects((0, 1), (0, 2), (1, 1)), "(tuple)"),
    "decimals": (lambda: [decimal.Decimal("0.1")] * 3, "(Decimal)"),
    "complex numbers": (lambda: [1j, 2, 3], "has dtype complex128"),
    "a structured array": (lambda: np.zeros(3, [("a", int)]), "has dtype [('a'"),
    "picoseconds": (lambda: np.array([1, 2, 3], "M8[ps]"), "accepted: dates in units of Y, M, W"),
    "time spans without a unit": (lambda: np.array([1, 2, 3], "m8"), "has dtype timedelta64; accepted: dates in units"),
    "integers beyond 64 bits": (lambda: [1, 2**70, 3], f"contains {2**70}, which does not fit in 64 bits"),
    "an integer that float64 rounds": (lambda: [0.5, 2**53 + 1, 3], f"holds {2**53 + 1}, which would"),
    "digits of a long double": (lambda: np.array([1, 2, 3], np.longdouble) / 3, "which float64 would round"),
    "two axes": (lambda: np.zeros((3, 1)), "has shape (3, 1)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_coordinates_that_no_file_holds_are_refused(name):
    """They are refused when a trace or a layout is made, not after the run."""
    make, message = REFUSED[name]
    if name == "digits of a long double" and np.finfo(np.longdouble).eps == np.finfo(float).eps:
        pytest.skip("a long double is a float64 here")
    for call in (
        lambda values: mp.as_trace(VALUES, unit=values),
        lambda values: mp.Trace(torch.zeros(2, 2, 3, 2), np.arange(2), np.arange(2), values, np.arange(2)),
        lambda values: SliceLayout(np.arange(2), np.arange(1), values),
    ):
        with pytest.raises(InputError) as caught:
            call(make())
        assert str(caught.value).startswith("unit ") and message in str(caught.value)


# ---------------------------------------------------------------- class labels


@pytest.mark.parametrize(
    "label",
    [
        [5.0, 0.0, -1.0, 5.0], objects(5, 0, -1, 5), torch.tensor([5, 0, -1, 5]).bfloat16(),
        np.array([5, 0, -1, 5], np.longdouble), np.array([5, 0, -1, 5], ">i2"), list(torch.tensor([5, 0, -1, 5])),
        torch.tensor([5.0, 0.0, -1.0, 5.0], requires_grad=True), collections.deque([5, 0, -1, 5]),
    ],
    ids=lambda label: type(label).__name__,
)  # fmt: skip
def test_whole_numbers_are_labels(label):
    result = mp.as_trace(VALUES, label=label).label
    assert result.dtype == np.int64 and result.tolist() == [5, 0, -1, 5]


def test_the_ends_of_int64_are_labels():
    ends = [-(2**63), 2**63 - 1, 0, 1]
    assert mp.as_trace(VALUES, label=ends).label.tolist() == ends
    assert mp.as_trace(VALUES, label=np.array([2**63 - 1, 0, 1, 2], np.uint64)).label.tolist() == [2**63 - 1, 0, 1, 2]
    assert mp.as_trace(VALUES, label=np.array([-(2.0**63), 0, 1, 2])).label[0] == -(2**63)


@pytest.mark.parametrize(
    ("label", "error", "words"),
    [
        (np.array([2**63, 0, 1, 2], np.uint64), InputError, "contains 9223372036854775808"),
        (torch.tensor([-1, 0, 1, 2]).view(torch.uint64), InputError, "contains 18446744073709551615"),
        ([2.0**63, 0, 1, 2], InputError, r"contains 9\.2"),
        ([-1e30, 0, 1, 2], InputError, "contains -1e"),
        (np.array([3e38, 0, 1, 2], np.float32), InputError, r"contains 3\.0.*e\+38"),
        ([np.inf, 0, 1, 2], InputError, "contains inf"),
        ([2**63, -1, 0, 1], InputError, r"contains 9\.2"),
        ([2**64, 0, 1, 2], InputError, "contains 18446744073709551616"),
        (objects(-(2**70), 0, 1, 2), InputError, f"contains {-(2**70)}"),
        ([2**53 + 1, 0.0, 1, 2], InputError, f"holds {2**53 + 1}, which would become"),
        ([np.nan, 0, 1, 2], InputTypeError, "dtype float64 and contains nan"),
        ([0, 0.5, 1, 2], InputTypeError, "dtype float64 and contains 0.5"),
        ([None, 0, 1, 2], InputTypeError, "holds Python objects"),
        ([1j, 0, 1, 2], InputTypeError, "dtype complex128"),
        (np.array([0, 1, 2, 3], "m8[s]"), InputTypeError, "dtype timedelta64"),
        ([decimal.Decimal(1)] * 4, InputTypeError, "holds Python objects"),
        (list("abca"), InputTypeError, r"dtype <U1.*numpy.unique\(\.\.\., return_inverse=True\)"),
    ],
)
def test_labels_that_int64_cannot_hold_are_refused(label, error, words):
    accepted = "accepted: whole numbers from -9223372036854775808 to 9223372036854775807, one class per sample"
    with pytest.raises(error, match=f"^label (has )?{words}") as caught:
        mp.as_trace(VALUES, label=label)
    assert accepted in str(caught.value)
    with pytest.raises(error, match="^labels "):
        mp.Recorder(torch.nn.GRU(2, 3), "", probe=torch.zeros(5, 4, 2), labels=label)


def test_labels_with_missing_entries_of_pandas_are_refused():
    pandas = pytest.importorskip("pandas")
    for dtype in ("Int64", "boolean"):
        with pytest.raises(InputTypeError, match="^label "):
            mp.as_trace(VALUES, label=pandas.array([1, None, 0, 1], dtype=dtype))


@pytest.mark.parametrize("values, plain", [
    (np.array([1, 2, -3], "m8[10ms]"), np.array([10, 20, -30], "m8[ms]")),
    (np.array([0, 5, 7], "M8[10s]"), np.array([0, 50, 70], "M8[s]")),
    (np.array([1, 2, 3], "M8[25Y]"), np.array([25, 50, 75], "M8[Y]")),
])  # fmt: skip
def test_steps_of_a_unit_are_counted_in_the_unit(values, plain):
    """xarray and pandas take a step of 10 milliseconds for a millisecond."""
    trace = mp.as_trace(np.zeros((3, 2, 4)), epoch=values)
    assert trace.epoch.dtype == plain.dtype and np.array_equal(trace.epoch, plain)


@pytest.mark.parametrize(
    "values", [np.array([1, 2, 3], "m8[Y]"), np.array([1, 2, 3], "m8[M]"), np.array([2**62, 1, 2], "m8[10s]")]
)
def test_spans_without_a_fixed_length_are_refused(values):
    with pytest.raises(InputError, match="epoch has dtype"):
        mp.as_trace(np.zeros((3, 2, 4)), epoch=values)
