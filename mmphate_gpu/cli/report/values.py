"""Values of JSON files that anybody may have edited: each is what it has to be, or counts as missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...runtime.memory import format_bytes
from ..arguments import PROGRAM
from ..result_folder import read_json

MAX_ANALYSIS = 1 << 28  # bytes; that of a large trace has some tens of millions
LARGEST = 1e15  # of a number in a report: bytes, seconds, nodes


def number(value: Any) -> float | None:
    """``value`` if it is a finite number of a plausible size."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= LARGEST else None  # also None for NaN


def count(value: Any) -> int | None:
    """``value`` if it is a whole number from 0, at most as large as a seed."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> list[str]:
    """The texts in a JSON list."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def numbers(value: Any) -> list[float]:
    """The numbers in a JSON list, and in the lists in it."""
    if isinstance(value, list):
        return [each for item in value for each in numbers(item)]
    return [] if number(value) is None else [float(value)]


def seconds_text(value: float) -> str:
    """A time in words.

    Examples
    --------
    >>> seconds_text(3e-4), seconds_text(0.0213), seconds_text(42.04), seconds_text(192)
    ('< 0.001 s', '0.021 s', '42.0 s', '3 min 12 s')
    """
    if value < 1e-3:
        return "< 0.001 s"
    if value >= 60:
        return f"{int(value // 60):,} min {int(value % 60)} s"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2g} s"


def bytes_text(value: float | None) -> str:
    return "" if value is None else format_bytes(int(value))


def number_text(value: Any) -> str:
    """A number of a report with four digits, whole numbers with all."""
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        return f"{value:.4g}"
    return str(value)


def read_analysis(path: Path) -> Mapping[str, Any]:
    """The content of an analysis.json.

    Raises
    ------
    InputError
        This program did not write it, or it is damaged.
    """
    try:
        content = read_json(path, MAX_ANALYSIS)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}); accepted: a file that {PROGRAM} analyze wrote") from error
    if mapping(content).get("program") != PROGRAM:
        raise InputError(f"{PROGRAM} did not write {path}; accepted: a file that {PROGRAM} analyze wrote")
    return mapping(content)
