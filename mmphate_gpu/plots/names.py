"""Texts of labels in a picture: short, and different for different labels."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..analysis import Entropy

# Control characters, halves of surrogate pairs, unassigned numbers, line and paragraph separators. They have no glyph,
# and some of them are not allowed in an .svg file.
INVISIBLE = ("Cc", "Cs", "Cn", "Zl", "Zp")
# Names of entropies by what they are over.
ENTROPIES = {"units": "Intra-step entropy", "timesteps": "Inter-step entropy"}
BYTE_ORDER_MARK = "\ufeff"  # matplotlib cannot write it into a .pdf


def entropy_title(entropy: Entropy) -> str:
    """The name of an entropy, of a picture or of the states themselves."""
    title = ENTROPIES.get(entropy.over, "Entropy")
    return f"{title} of the states" if entropy.settings["of"] == "trace" else title


def entropy_unit(base: float) -> str:
    """The name of the unit of an entropy whose logarithm has ``base``."""
    return {2: "bits", np.e: "nats", 10: "bans"}.get(base, f"base {base:g}")


def texts(labels: np.ndarray, width: int = 10) -> list[str]:  # (n,)
    """The labels in at most ``width`` characters each, dates in eleven, because digits are narrower than letters.

    Long names are cut at the end, or in the middle if a cut at the end would make different names equal. Numbers have
    as many digits as they need to differ. Dates with a time of day that are all of one year are written without the
    year.
    """
    width = 11 if labels.dtype.kind == "M" else width
    plain = _plain(labels, width)
    short = [_cut(name, width, width - 1) for name in plain]
    if len(set(short)) == len(set(plain)):
        return short
    return [_cut(name, width, width // 2 - 1) for name in plain]


def _plain(labels: np.ndarray, width: int) -> list[str]:
    if labels.dtype.kind == "f":
        return _decimals(labels, width)
    if labels.dtype.kind == "M":
        return _dates(labels)
    return [_visible(str(label)) for label in labels]


def _decimals(numbers: np.ndarray, width: int) -> list[str]:
    """The numbers with six digits, fewer if six do not fit, or more if different numbers would look the same."""
    for digits in (6, 5, 4, 3, *range(7, 18)):
        decimals = [f"{number:.{digits}g}" for number in numbers.tolist()]
        if len(set(decimals)) == len(np.unique(numbers)) and max(map(len, decimals)) <= width:
            break
    return decimals


def _dates(labels: np.ndarray) -> list[str]:
    dates = [re.sub(r"(?<=\d)T", " ", date) for date in np.datetime_as_string(labels, unit="auto").tolist()]
    of_one_year = len({date.partition("-")[0] for date in dates}) == 1
    if of_one_year and any(" " in date for date in dates):
        return [date.partition("-")[2] for date in dates]
    return dates


def _visible(name: str) -> str:
    return "".join(
        character.encode("unicode_escape").decode() if _is_invisible(character) else character for character in name
    )


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in INVISIBLE or character == BYTE_ORDER_MARK


def _cut(name: str, width: int, head: int) -> str:
    """``name`` in at most ``width`` characters: the first ``head``, an ellipsis, and the last."""
    if len(name) <= width:
        return name
    return f"{name[:head]}…{name[len(name) - width + head + 1 :]}"
