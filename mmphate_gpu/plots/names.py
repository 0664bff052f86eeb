"""Texts of labels in a picture: short, and different for different labels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..interactive.labels import shown

if TYPE_CHECKING:
    from ..analysis import Entropy

# Names of entropies by what they are over.
ENTROPIES = {"units": "Intra-step entropy", "timesteps": "Inter-step entropy"}
BYTE_ORDER_MARK = "\ufeff"  # matplotlib cannot write it into a .pdf
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they would turn the text around a name


def entropy_title(entropy: Entropy) -> str:
    """The name of an entropy, of a picture or of the states themselves."""
    title = ENTROPIES.get(entropy.over, "Entropy")
    return f"{title} of the states" if entropy.settings["of"] == "trace" else title


def entropy_unit(base: float) -> str:
    """The name of the unit of an entropy whose logarithm has ``base``."""
    return {2: "bits", np.e: "nats", 10: "bans"}.get(base, f"base {base:g}")


def texts(labels: np.ndarray, width: int = 10) -> list[str]:  # (n,)
    """The labels in at most ``width`` characters each, dates in eleven, because digits are narrower than letters.

    Long names are cut at the end, or in the middle if a cut at the end would make different names equal, or at the
    start, or around the place where they begin to differ. If all of these make different names equal, the names are cut
    at the end and numbered. Numbers have as many digits as they need to differ. Dates leave out what they have in
    common, if they are too long with it.
    """
    width = 11 if labels.dtype.kind == "M" else width
    plain = _plain(labels, width)
    if max(map(len, plain), default=0) <= width:
        return plain
    shared = len(os.path.commonprefix([name for name in set(plain) if len(name) > width]))
    cuts: tuple[Callable[[str], str], ...] = (
        lambda name: _cut(name, width, width - 1),
        lambda name: _cut(name, width, width // 2 - 1),
        lambda name: _cut(name, width, 0),
        lambda name: _around(name, width, shared),
    )
    different = len(set(plain))
    for cut in cuts:
        if len(set(short := [cut(name) for name in plain])) == different:
            return short
    return _numbered(plain, width)


def _plain(labels: np.ndarray, width: int) -> list[str]:
    if labels.dtype.kind == "f":
        return _decimals(labels, width)
    if labels.dtype.kind == "M":
        return _dates(labels, width)
    if labels.dtype.kind == "m":
        unit = np.datetime_data(labels.dtype)[0]
        return ["NaT" if np.isnat(label) else f"{label.astype(int)} {unit}" for label in labels]
    return [shown(str(label), BYTE_ORDER_MARK + TURNING) for label in labels]


def _decimals(numbers: np.ndarray, width: int) -> list[str]:
    """The numbers with six digits, fewer if six do not fit, or more if different numbers would look the same."""
    n = len(np.unique(numbers))
    different: list[list[str]] = []
    for digits in (6, 5, 4, 3, *range(7, 18)):
        decimals = [f"{number:.{digits}g}" for number in numbers.tolist()]
        if len(set(decimals)) == n:
            different.append(decimals)
            if max(map(len, decimals)) <= width:
                return decimals
    return min(different, key=lambda decimals: max(map(len, decimals)), default=decimals)


def _dates(labels: np.ndarray, width: int) -> list[str]:
    """The dates whole, without the year, as days, or as times: the first that fits and has different texts."""
    same = {unit: (labels.astype(f"M8[{unit}]") == labels) | np.isnat(labels) for unit in ("D", "m", "s", "ms", "us")}
    unit: Any = next((unit for unit, values in same.items() if values.all()), "ns")  # all dates have the same parts
    dates = [re.sub(r"(?<=\d)T", " ", date) for date in np.datetime_as_string(labels, unit=unit).tolist()]
    parts = [date.partition(" ") for date in dates]
    options = [dates]
    if any(time for _, _, time in parts):
        if len({date.partition("-")[0] for date in dates}) == 1:
            options.append([date.partition("-")[2] for date in dates])
        options += [[day for day, _, _ in parts]]
        if len({day for day, _, _ in parts}) == 1:
            options.append([time for _, _, time in parts])
    fitting = [option for option in options if max(map(len, option)) <= width and len(set(option)) == len(set(dates))]
    return fitting[0] if fitting else options[-1]


def _around(name: str, width: int, start: int) -> str:
    """``name`` in at most ``width`` characters: an ellipsis, those from about ``start`` on, and another ellipsis."""
    if len(name) <= width:
        return name
    return f"…{_cut(name[start - (start > 1) :], width - 1, width - 2)}"


def _numbered(names: list[str], width: int) -> list[str]:
    """The names cut at the end, and numbered in the order in which they first occur."""
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(names), 1)}
    room = width - max(map(len, numbers.values())) - 1
    if room < 1:
        return [numbers[name] for name in names]
    return [f"{number} {_cut(name, room, room - 1)}" for name in names for number in [numbers[name]]]


def _cut(name: str, width: int, head: int) -> str:
    """``name`` in at most ``width`` characters: the first ``head``, an ellipsis, and the last."""
    if len(name) <= width:
        return name
    return f"{name[:head]}…{name[len(name) - width + head + 1 :]}"
