"""Decode packed, missing and time-coded numbers of a file, as xarray does."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

# The attributes of the CF conventions that pack numbers or mark missing ones, and all that change what a number means.
PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")
# No convention has the last two: the dtype of times before they were coded, and the time zone of dates in UTC.
ATTRIBUTES = (
    *PACKING,
    *("valid_range", "valid_min", "valid_max", "_Unsigned", "units", "calendar", "dtype"),
    *("numpy_dtype", "time_zone"),
)
_TIME_UNITS = {
    "D": "d day days",
    "h": "h hr hrs hour hours",
    "m": "min mins minute minutes",
    "s": "s sec secs second seconds",
    "ms": "ms msec msecs millisecond milliseconds",
    "us": "us microsecond microseconds",
    "ns": "ns nanosecond nanoseconds",
}
_CODE_OF = {word: code for code, words in _TIME_UNITS.items() for word in words.split()}
_DATE_LIKE = re.compile(r"\d+-\d+-\d+")
_CLOCK = r"(?:[T ](\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d{1,9})?))?)?"
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})" + _CLOCK + r"(?: ?(?:Z|UTC|([+-]\d{1,2})(?::?(\d{2}))?))?")
_TIME_DTYPE = re.compile(r"(?:datetime|timedelta)64\[(?:Y|M|W|D|h|m|s|ms|us|ns)\]")
_WORDS = {code: words.split()[-1] for code, words in _TIME_UNITS.items()}


@dataclass(frozen=True)
class Packing:
    """How the numbers of an array in a file encode values.

    Attributes
    ----------
    name : what errors call the array.
    dtype : of the values.
    scale, offset : the value of a number x is ``x * scale + offset``.
    missing : the numbers that mean that a value is missing.
    valid : the least and the largest number that the file calls valid.
    fill : a number that may be a value or mark what was never written; `decode` refuses it.
    """

    name: str
    dtype: np.dtype
    scale: Any = None
    offset: Any = None
    missing: tuple[Any, ...] = ()
    valid: tuple[float, float] = (-math.inf, math.inf)
    fill: Any = None

    def present(self, stored: np.ndarray) -> np.ndarray:
        """Where ``stored`` holds a value."""
        present = np.ones(stored.shape, bool)
        for number in self.missing:
            present &= stored != number
        return present

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """The values of ``stored``, NaN where missing; refuses `fill` and numbers outside the valid range."""
        present = self.present(stored)
        self._check(stored if present.all() else stored[present])
        if not self.missing and self.scale is None and self.offset is None:
            return stored
        values = stored.astype(self.dtype)
        if not present.all():
            values[~present] = np.nan
        if self.scale is not None:
            values *= self.scale
        if self.offset is not None:
            values += self.offset
        return values

    def _check(self, stored: np.ndarray) -> None:
        low, high = self.valid
        if ((stored < low) | (stored > high)).any():
            raise InputError(
                f"{self.name} holds numbers outside the valid range {low:g} to {high:g} of its file; "
                "accepted: numbers within it, and numbers that _FillValue or missing_value marks as missing"
            )
        if self.fill is not None and (stored == self.fill).any():
            raise InputError(
                f"{self.name} holds {self.fill}, the fill value of its array, which marks what was never written; "
                "accepted: another fill value, or an attribute _FillValue, which says that it is missing"
            )


def packing_of(name: str, dtype: np.dtype, attributes: Mapping[str, Any], fill: Any = None) -> Packing | None:
    """How ``attributes`` and ``fill`` pack an array of ``dtype``; None if its numbers are the values."""
    if dtype.kind not in "iuf":
        return None
    if str(attributes.get("_Unsigned", "false")).lower() not in ("false", str(dtype.kind == "u").lower()):
        raise InputError(f"{name} has the attribute _Unsigned; accepted: integers stored with the sign they have")
    scale, offset = (_number(name, key, attributes) for key in ("scale_factor", "add_offset"))
    missing = [number for key in ("_FillValue", "missing_value") for number in _numbers(name, key, attributes, dtype)]
    missing = [number for number in missing if not math.isnan(number)]  # NaN stays NaN and needs no mark
    fill = None if fill is None or not math.isfinite(fill) or fill in missing else fill
    valid = _valid_range(name, attributes)
    if not missing and scale is None and offset is None and fill is None and valid == Packing.valid:
        return None
    value_dtype = _value_dtype(dtype, scale, offset, bool(missing))
    return Packing(name, value_dtype, scale, offset, tuple(missing), valid, fill)


def check_plain(name: str, attributes: Mapping[str, Any]) -> None:
    """Raise `InputError` for an array of booleans that is packed or has missing values."""
    packed = [key for key in PACKING if key in attributes]
    if packed:
        raise InputError(f"{name} has the attribute {packed[0]}; accepted: booleans as they are")


def is_boolean(attributes: Mapping[str, Any]) -> bool:
    """Whether the integers encode booleans, which netCDF does not have."""
    return str(attributes.get("dtype")) == "bool"


def decode_coordinate(name: str, stored: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    """Decode coordinates or labels: packed ones are unpacked, coded times become dates, missing ones NaN or NaT.

    Integers that are not packed stay integers if none is missing. `InputError` refuses an attribute that is not a
    number, a date or calendar that NumPy does not have, and a time beyond 64 bits.
    """
    packing, step = packing_of(name, stored.dtype, attributes), _time_step(attributes)
    values, present = stored, np.ones(stored.shape, bool)
    if packing is not None:
        values, present = packing.decode(stored), packing.present(stored)
        if packing.scale is None and packing.offset is None and (present.all() or step is not None):
            values = stored
    if is_boolean(attributes):
        return values.astype(bool)
    if values.dtype.kind not in "iuf" or step is None:
        return values
    present &= ~np.isnan(values) & (values != np.iinfo(np.int64).min)  # xarray writes NaT as that integer
    times = _in_nanoseconds(_times(name, np.where(present, values, 0), step, attributes))
    times[~present] = "NaT"
    return _as_before(times, str(attributes.get("numpy_dtype")))


def encode_times(name: str, times: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """(integers, attributes) that netCDF and `decode_coordinate` read as ``times``, which are dates or time spans."""
    unit, _ = np.datetime_data(times.dtype)
    if times.dtype.kind == "M":
        unit = "D" if unit in ("Y", "M", "W") else unit
        attributes = {"units": f"{_WORDS[unit]} since 1970-01-01", "calendar": "proleptic_gregorian"}
    else:
        unit = "s" if unit in ("W", "D", "h", "m") else unit  # xarray has no time spans in longer units
        attributes = {"units": _WORDS[unit], "dtype": f"timedelta64[{unit}]"}
    coded = times.astype(f"{times.dtype.kind}8[{unit}]")
    missing = np.isnat(times)
    if not ((coded.astype(times.dtype) == times) | missing).all():
        raise InputError(f"{name} has dtype {times.dtype} and overflows in units of {unit!r}; accepted: smaller times")
    fill = {"_FillValue": np.iinfo(np.int64).min} if missing.any() else {}
    return coded.astype(np.int64), attributes | fill | {"numpy_dtype": str(times.dtype)}


def _as_before(times: np.ndarray, dtype: str) -> np.ndarray:
    """``times`` in the ``dtype`` that `encode_times` noted, if it is of their kind and holds all of them."""
    if not _TIME_DTYPE.fullmatch(dtype) or np.dtype(dtype).kind != times.dtype.kind:
        return times
    before = times.astype(dtype)
    return before if ((before.astype(times.dtype) == times) | np.isnat(times)).all() else times


def _time_step(attributes: Mapping[str, Any]) -> str | None:
    """NumPy's name of the unit in which numbers count time; None for numbers that are no times.

    Times have a known unit and a date since which they count, or are durations by the word of their writer.
    """
    units = attributes.get("units")
    if not isinstance(units, str):
        return None
    step, _, start = units.partition(" since ")
    is_time = _DATE_LIKE.match(start.strip()) if start else str(attributes.get("dtype")).startswith("timedelta64")
    return _CODE_OF.get(step.strip().lower()) if is_time else None


def _in_nanoseconds(times: np.ndarray) -> np.ndarray:
    """``times`` in nanoseconds, as xarray has them, or in their own unit if that would overflow."""
    in_ns = times.astype(f"{times.dtype.kind}8[ns]")
    same = (in_ns.astype(times.dtype) == times) | np.isnat(times)
    return in_ns if same.all() else times


def _times(name: str, values: np.ndarray, step: Any, attributes: Mapping[str, Any]) -> np.ndarray:
    """Dates or time spans: of whole numbers exactly, of fractions rounded to nanoseconds."""
    start = attributes["units"].partition(" since ")[2]
    zero = _start_of(name, start, attributes) if start else np.timedelta64(0, step)
    whole = np.array_equal(values, np.trunc(values))
    unit = np.datetime_data(zero + np.timedelta64(0, step))[0] if whole else "ns"
    first, per_step = int(zero.astype(np.int64)) * _ratio(np.datetime_data(zero)[0], unit), _ratio(step, unit)
    try:  # with Python's integers, which do not wrap
        counts = [first + (int(number) * per_step if whole else round(number * per_step)) for number in values.tolist()]
        return np.array(counts, np.int64).astype(f"{zero.dtype.kind}8[{unit}]")
    except OverflowError as error:  # infinity has no integer either
        raise InputError(
            f"{name} counts up to {np.abs(values).max()} in {_short(attributes['units'])}; "
            f"accepted: times that 64 bits hold in the unit {unit!r}"
        ) from error


def _ratio(unit: Any, finer: Any) -> int:  # NumPy types units as literals
    return int(np.timedelta64(1, unit) / np.timedelta64(1, finer))


def _start_of(name: str, text: str, attributes: Mapping[str, Any]) -> np.datetime64:
    """The date in UTC from which times are counted."""
    calendar, match = str(attributes.get("calendar", "standard")).lower(), _DATE.fullmatch(text.strip())
    known = ("standard", "gregorian", "proleptic_gregorian")
    # The first two of them are the Julian calendar before October 1582.
    if match is None or calendar not in known or (int(match[1]) < 1583 and calendar != known[2]):
        raise InputError(
            f"{name} counts time since {_short(text)} in the calendar {_short(calendar)}; accepted: a date like "
            f"2000-01-01 00:00:00 +00:00, in one of the calendars {known}"
        )
    year, month, day, hour, minute, second, east, minutes = (part or "0" for part in match.groups())
    date = f"{year}-{month:0>2}-{day:0>2}T{hour:0>2}:{minute:0>2}:{second if '.' in second else second.zfill(2)}"
    offset = 60 * int(east) + math.copysign(int(minutes), -1 if east[0] == "-" else 1)  # minutes east of Greenwich
    try:
        return np.datetime64(date) - np.timedelta64(int(offset), "m")
    except ValueError as error:  # a thirteenth month
        raise InputError(f"{name} counts time since {_short(text)}, which is no date; accepted: a date") from error


def _value_dtype(dtype: np.dtype, scale: Any, offset: Any, any_missing: bool) -> np.dtype:
    """The dtype of the values, as in xarray."""
    if scale is not None and offset is not None and scale.dtype == offset.dtype and scale.dtype.kind == "f":
        return np.dtype(np.float64) if dtype.kind in "iu" and dtype.itemsize == 4 else scale.dtype
    if offset is not None:
        return np.dtype(np.float64)
    if scale is not None:
        return scale.dtype if scale.dtype.kind == "f" or not any_missing else np.dtype(np.float64)
    if dtype.kind == "f" or not any_missing:
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def _number(name: str, key: str, attributes: Mapping[str, Any]) -> Any:
    """The single number of an attribute, as a NumPy scalar; None where it is absent."""
    numbers = np.asarray(attributes.get(key, ())).ravel()
    if key in attributes and (numbers.size != 1 or numbers.dtype.kind not in "iuf"):
        raise InputError(f"{name} has the attribute {key}={_short(attributes[key])}; accepted: one number")
    return numbers[0].astype(numbers.dtype.newbyteorder("=")) if numbers.size else None


def _numbers(name: str, key: str, attributes: Mapping[str, Any], dtype: np.dtype) -> list[Any]:
    """The numbers of an attribute, in types that compare exactly with an array of ``dtype``."""
    numbers: np.ndarray = np.asarray(attributes.get(key, ())).ravel()
    if numbers.dtype.kind in "US":  # JSON has no NaN
        numbers = np.array([_number_of_text(name, key, str(text)) for text in numbers])
    if numbers.dtype.kind not in "iuf":
        raise InputError(f"{name} has the attribute {key}={_short(attributes[key])}; accepted: numbers")
    return [dtype.type(number) if dtype.kind == "f" else number.item() for number in numbers]


def _number_of_text(name: str, key: str, text: str) -> float:
    """A number as zarr (NaN, Infinity) or xarray (the bytes of a float64 in base 64) writes it into JSON."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return struct.unpack("<d", base64.b64decode(text, validate=True))[0]
    except (ValueError, struct.error) as error:
        raise InputError(f"{name} has the attribute {key}={_short(text)}; accepted: numbers") from error


def _valid_range(name: str, attributes: Mapping[str, Any]) -> tuple[float, float]:
    low, high = Packing.valid
    if "valid_range" in attributes:
        limits = np.asarray(attributes["valid_range"]).ravel()
        if limits.size != 2 or limits.dtype.kind not in "iuf":
            raise InputError(f"{name} has the attribute valid_range={_short(limits)}; accepted: two numbers")
        low, high = limits.tolist()
    lowest, highest = (_number(name, key, attributes) for key in ("valid_min", "valid_max"))
    return (low if lowest is None else lowest.item(), high if highest is None else highest.item())


def _short(value: Any) -> str:
    """``value`` for a message of one line, whatever a file holds."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."
