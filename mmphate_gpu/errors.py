"""The errors of the package, the checks of single arguments that raise them, and warnings at the caller's line."""

from __future__ import annotations

import math
import numbers
import sys
import warnings
from collections.abc import Collection
from typing import Any

# Frames of these modules stand between a caller and a decorated function.
_WRAPPERS = ("contextlib", "sklearn.utils._set_output")


class InputError(ValueError):
    """An argument or a file that the library cannot accept; the message names it."""


class InputTypeError(InputError, TypeError):
    """An argument of the wrong type; the message names it."""


class PictureWarning(UserWarning):
    """A picture may show what the data do not; the message says why, and which setting may help."""


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise `InputError`."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}={value!r} is unknown; accepted: {listed(choices)}")
    return value


def listed(choices: Collection[str]) -> str:
    """The names in ``choices``, quoted and separated by commas."""
    return ", ".join(map(repr, choices))


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    integer: bool = False,
    open_low: bool = False,
) -> float:
    """Return ``value`` if it is a real number within [low, high], else raise.

    ``open_low`` excludes ``low`` itself; booleans are not numbers here.
    """
    accepted: Any = numbers.Integral if integer else numbers.Real
    wanted = ("an integer" if integer else "a number") + _range_text(low, high, open_low)
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise InputTypeError(f"{name}={value!r} must be {wanted}")
    if isinstance(value, numbers.Integral):
        finite = integer or abs(int(value)) <= sys.float_info.max  # it becomes a float
    else:
        finite = math.isfinite(value)
    if not finite or value < low or value > high or (open_low and value == low):
        raise InputError(f"{name}={value!r} is out of range; it must be {wanted}")
    return int(value) if integer else float(value)


def _range_text(low: float, high: float, open_low: bool) -> str:
    above = ">" if open_low else ">="
    lower = f" {above} {low:g}" if low > -math.inf else ""
    upper = f" <= {high:g}" if high < math.inf else ""
    return lower + (" and" if lower and upper else "") + upper


def warn_caller(message: str, category: type[UserWarning] = UserWarning) -> None:
    """Warn at the line that called into the package, however deep the call is now."""
    frame: Any = sys._getframe()
    level = outermost = 1
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == __package__ or (module in _WRAPPERS and level == outermost + 1):
            outermost = level
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=outermost + 1)
