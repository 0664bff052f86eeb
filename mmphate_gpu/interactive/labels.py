"""Labels of axes and columns as texts for a page."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

# Control characters, halves of surrogate pairs, unassigned numbers, line and paragraph separators have no glyph. Files
# in UTF-8 and .svg files cannot hold all of them.
INVISIBLE = ("Cc", "Cs", "Cn", "Zl", "Zp")


def shown(text: str, more: str = "") -> str:
    """``text`` with its characters that have no glyph, and those in ``more``, written out, such as ``\\x00``."""
    return "".join(
        character.encode("unicode_escape").decode() if _hidden(character, more) else character for character in text
    )


def _hidden(character: str, more: str) -> bool:
    return unicodedata.category(character) in INVISIBLE or character in more


def texts(labels: np.ndarray) -> list[str]:  # (n,)
    """The labels, each in full; floating-point numbers and dates with the digits that they need to differ."""
    if labels.dtype.kind == "M":
        return [text.replace("T", " ") for text in np.datetime_as_string(labels, unit=_date_unit(labels)).tolist()]
    if labels.dtype.kind == "f":
        return _decimals(labels.tolist())
    return [shown(str(label)) for label in labels]


def _date_unit(dates: np.ndarray) -> Any:
    """The coarsest unit from days on that has all of ``dates``."""
    units = ("D", "m", "s", "ms", "us")
    return next((unit for unit in units if np.array_equal(dates.astype(f"M8[{unit}]"), dates, equal_nan=True)), "ns")


def _decimals(numbers: list[float]) -> list[str]:
    digits = (6, *range(7, 18))
    columns = ([f"{number:.{n}g}" for number in numbers] for n in digits)
    n_different = len(set(numbers))
    return next(texts for texts in columns if len(set(texts)) >= n_different)


def names(labels: np.ndarray) -> list[str] | dict[str, Any]:  # (n,)
    """The texts of the labels, or the rule of evenly spaced whole numbers, which takes fewer bytes."""
    numbers = labels.tolist()
    if labels.dtype.kind in "iu" and len(numbers) > 2 and _are_even(numbers):
        return {"start": numbers[0], "step": numbers[1] - numbers[0], "count": len(numbers)}
    return texts(labels)


def _are_even(numbers: list[int]) -> bool:
    """Whether ``numbers`` have equal distances, and a script can hold all of them."""
    step = numbers[1] - numbers[0]
    exact = max(map(abs, numbers)) < 2**53
    return exact and all(number == numbers[0] + i * step for i, number in enumerate(numbers))
