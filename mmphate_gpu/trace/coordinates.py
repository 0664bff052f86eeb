"""Convert coordinates and labels to dtypes that every file format and table can hold, or refuse them."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, InputTypeError
from ..runtime.arrays import to_numpy
from ..runtime.read_array import is_sequence
from .dims import AXES

_ACCEPTED = "numbers, text, or dates, all of the same type"
# (types, dtype): an array of Python objects whose items all have one of ``types`` becomes an array of ``dtype``. Time
# spans come before integers, because NumPy derives its time spans from its integers.
_OBJECTS: tuple[tuple[Any, Any], ...] = (
    (str, np.str_),
    ((bool, np.bool_), np.bool_),
    ((datetime.date, np.datetime64), "M8"),
    ((datetime.timedelta, np.timedelta64), "m8"),
    (numbers.Integral, np.int64),
    ((float, np.floating, numbers.Integral), np.float64),
)
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns")  # of the dates that pandas and xarray can hold
_INT64 = np.iinfo(np.int64)


def as_coordinate(name: str, values: Any, accepted: str = _ACCEPTED) -> np.ndarray:
    """Copy ``values`` to booleans, integers, float32, float64, fixed-width text, dates or time spans.

    Bytes become text, and an array of Python objects gets the dtype of its items. Dates with a time zone become the
    same instants in UTC. No value changes: `InputError`, which ends with ``accepted``, refuses complex numbers, other
    objects, a mixture of types, and a value that the dtype would round.
    """
    array = to_numpy(name, _with_objects(values))
    if array.dtype.kind in "OST":
        array = _of_objects(name, array, accepted)
    elif array.dtype.kind in "UfmM" and array.ndim == 1 and is_sequence(values):
        # NumPy turns ["a", 1] and ["a", nan] into text, and rounds the integer of [0.5, 2**53 + 1].
        _check_kept(name, array, values, accepted)
    # A copy: a caller who later writes into the array must not change the labels of a finished run.
    return _of_held_dtype(name, array, accepted).copy()


def time_zone_of(name: str, values: Any) -> str | None:
    """The name of the time zone of dates that have one, else None; refuses dates in several zones."""
    array = to_numpy(name, _with_objects(values))
    items = array.ravel().tolist() if array.dtype.kind == "O" else []
    dates = [item for item in items if isinstance(item, datetime.datetime) and item == item]  # NaT has no time zone
    zones = {None if date.tzinfo is None else str(date.tzinfo) for date in dates}
    if len(zones) > 1:
        raise InputTypeError(
            f"{name} holds dates in several time zones ({', '.join(sorted(map(str, zones)))}); accepted: dates in one, "
            "as [date.astimezone(datetime.timezone.utc) for date in dates] gives"
        )
    return zones.pop() if zones else None


def _with_objects(values: Any) -> Any:
    """``values``, but dates with a time zone of xarray, which NumPy would read as integers, as an index of pandas."""
    zoned = getattr(getattr(values, "dtype", None), "tz", None) is not None
    if zoned and hasattr(values, "to_index"):
        return (values if values.ndim else values.expand_dims("date")).to_index()
    return values


def as_time_zone(zones: Mapping[str, str] | None) -> dict[str, str]:
    """Copy the names of the time zones of the axes; None means that there are none."""
    for axis, zone in dict(zones or {}).items():
        if axis not in AXES or not isinstance(zone, str) or not zone:
            raise InputError(
                f"time_zone has {zone!r} for {axis!r}; accepted: the name of a time zone for one of {AXES}"
            )
    return dict(zones or {})


def as_label(values: Any, name: str = "label") -> np.ndarray | None:
    """Class labels as int64, None for None; booleans and floating-point numbers without a fraction are accepted."""
    if values is None:
        return None
    accepted = f"whole numbers from {_INT64.min} to {_INT64.max}, one class per sample"
    label = as_coordinate(name, values, accepted)
    if label.dtype.kind not in "iubf":
        remedy = "numpy.unique(..., return_inverse=True) turns text into such numbers"
        raise InputTypeError(f"{name} has dtype {label.dtype}; accepted: {accepted} ({remedy})")
    if label.dtype.kind == "f" and not np.array_equal(label, np.trunc(label)):
        first = label[label != np.trunc(label)].flat[0]
        raise InputTypeError(f"{name} has dtype {label.dtype} and contains {first}; accepted: {accepted}")
    for extreme in (label.min(), label.max()) if label.size else ():
        # The float nearest to the largest int64 is 2^63, one beyond it.
        if not _INT64.min <= extreme <= _INT64.max or (label.dtype.kind == "f" and extreme >= 2.0**63):
            raise InputError(f"{name} contains {extreme}; accepted: {accepted}")
    return label.astype(np.int64)


def as_metrics(metrics: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Copy metrics to float64 arrays by name; None means that there are none."""
    if not isinstance(metrics, Mapping | None):
        raise InputTypeError(f"metrics is a {type(metrics).__name__}; accepted: a mapping from names to numbers")
    return {name: _metric(name, values) for name, values in (metrics or {}).items()}


def _metric(name: Any, values: Any) -> np.ndarray:
    if not (isinstance(name, str) and name.isidentifier()):
        raise InputError(f"metrics has the name {name!r}; accepted: names like those of variables in Python")
    accepted = "real numbers, NaN where an epoch has no value"
    array = as_coordinate(f"metrics[{name!r}]", values, accepted)
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"metrics[{name!r}] has dtype {array.dtype}; accepted: {accepted}")
    return array.astype(np.float64)


def as_unit_layer(values: Any) -> np.ndarray | None:
    """The name of the layer of each unit as fixed-width text, None for None."""
    if values is None:
        return None
    accepted = "text, the name of the layer of each unit"
    layers = as_coordinate("unit_layer", values, accepted)
    if layers.dtype.kind != "U":
        raise InputTypeError(f"unit_layer has dtype {layers.dtype}; accepted: {accepted}")
    return layers


def _of_objects(name: str, array: np.ndarray, accepted: str) -> np.ndarray:
    time_zone_of(name, array)  # refuses dates in several time zones
    items = [_plain(name, item) for item in array.astype(object).ravel().tolist()]
    for types, dtype in _OBJECTS:
        if items and all(isinstance(item, types) for item in items):
            dtype = _wide_enough(name, items, accepted) if dtype is np.int64 else dtype
            converted = np.array(items, dtype)
            _check_kept(name, converted, items, accepted)
            return converted.reshape(array.shape)
    type_names = sorted({type(item).__name__ for item in items})
    raise InputTypeError(f"{name} holds Python objects ({', '.join(type_names)}); accepted: {accepted}")


def _wide_enough(name: str, items: list[Any], accepted: str) -> type[np.integer]:
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= min(items) and max(items) <= np.iinfo(dtype).max:
            return dtype
    raise InputError(f"{name} contains {max(items, key=abs)}, which does not fit in 64 bits; accepted: {accepted}")


def _plain(name: str, item: Any) -> Any:
    """``item`` in types that NumPy converts without loss: bytes are decoded, dates of pandas become those of NumPy."""
    if isinstance(item, datetime.datetime) and item.tzinfo is not None:
        try:
            item = item.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        except OverflowError as error:
            raise InputError(f"{name} holds {item}, which has no date in UTC; accepted: years 2 to 9998") from error
    if isinstance(item, bytes):
        try:
            return item.decode()
        except UnicodeDecodeError as error:
            raise InputTypeError(f"{name} holds bytes that are not UTF-8 text ({item!r}); accepted: text") from error
    # pandas' Timestamp and Timedelta hold nanoseconds, which the classes of `datetime` that they extend would drop.
    dates = isinstance(item, datetime.date | datetime.timedelta) and hasattr(item, "to_numpy")
    return item.to_numpy() if dates else item


def _check_kept(name: str, array: np.ndarray, items: Any, accepted: str) -> None:
    """Raise `InputError` if the conversion to ``array`` (n,) has changed the value of an item."""
    dates = array.dtype.kind in "mM"
    for value, item in zip(array if dates else array.tolist(), items, strict=True):
        kept = item
        if dates:  # compare in the unit of the item: in nanoseconds, dates before 1677 overflow
            kept = np.array(item, f"{array.dtype.kind}8")
            value = value.astype(kept.dtype)
        missing = value != value and kept != kept  # NaN and NaT
        if value != kept and not missing:
            raise InputError(f"{name} holds {item!r}, which would become {value!r}; accepted: {accepted}")


def _of_held_dtype(name: str, array: np.ndarray, accepted: str) -> np.ndarray:
    dtype = array.dtype
    if dtype.kind not in "biufUmM":
        raise InputTypeError(f"{name} has dtype {dtype}; accepted: {accepted}")
    if dtype.kind in "mM":
        unit, step = np.datetime_data(dtype)
        units = _UNITS if dtype.kind == "M" else _UNITS[2:]  # a year or a month is no fixed span of time
        if unit not in units:
            raise InputTypeError(f"{name} has dtype {dtype}; accepted: dates in units of {', '.join(units)}")
        if step > 1:  # xarray and pandas would take 1 step of 10 seconds for 1 second
            plain = array.astype(f"{dtype.kind}8[{unit}]")
            if not np.array_equal(plain.astype(dtype), array, equal_nan=True):
                raise InputError(f"{name} has dtype {dtype} and overflows in units of {unit}; accepted: {_ACCEPTED}")
            return plain
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        converted = array.astype(np.float32 if dtype.itemsize < 4 else np.float64)
        if not np.array_equal(converted, array, equal_nan=True):
            raise InputError(f"{name} has dtype {dtype}, which float64 would round; accepted: {accepted}")
        return converted
    return array.astype(dtype.newbyteorder("="), copy=False)
