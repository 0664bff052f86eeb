"""Ticks of axes: whole labels that do not touch each other, at round numbers where the labels are numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .canvas import FAINT, INK, LABEL_SIZE, TICK_SIZE
from .colors import are_numbers, evenly_spaced, every_few, round_ticks, with_last
from .layout import text_width
from .names import texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPACE = 0.09  # inches between the texts of neighboring ticks
LINE = 0.14  # inches that a line of text of `TICK_SIZE` takes
MOST = 10  # ticks of a horizontal axis
FLAT = 1e-6  # differences below this share of the largest value cannot be read from an axis
Fits = Callable[[np.ndarray, list[str]], bool]


@dataclass(frozen=True, eq=False)
class Ticks:
    """The places of labels on an axis, and the ticks that name some of them."""

    places: np.ndarray  # (n,)
    limits: tuple[float, float]
    ticks: np.ndarray
    names: list[str]
    note: str = ""  # what the names leave out, such as the year


def across(figure: Figure, inches: float, limits: tuple[float, float], beyond: float = np.inf) -> Fits:
    """Whether texts beside one another fit on an axis of ``inches``, and ``beyond`` its ends on both sides."""

    def fits(ticks: np.ndarray, names: list[str]) -> bool:
        gaps = np.diff(ticks) * inches / (limits[1] - limits[0])
        widths = np.array([text_width(figure, name, TICK_SIZE) for name in names])
        apart = (gaps >= (widths[1:] + widths[:-1]) / 2 + SPACE).all()
        ends = np.array([ticks[0] - limits[0], limits[1] - ticks[-1]]) * inches / (limits[1] - limits[0])
        return bool(apart and (widths[[0, -1]] / 2 <= ends + beyond).all())

    return fits


def upward(inches: float, limits: tuple[float, float]) -> Fits:
    """Whether lines above one another fit on an axis of ``inches``."""
    return lambda ticks, names: bool((np.diff(ticks) * inches / (limits[1] - limits[0]) >= LINE).all())


def along_epochs(figure: Figure, labels: np.ndarray, inches: float) -> Ticks:
    """A horizontal axis on which rising numbers and dates lie at their values, and other labels at equal distances."""
    if _are_rising_numbers(labels):
        return _by_value(figure, labels, inches)
    if _are_rising_dates(labels):
        return _by_date(figure, labels, inches)
    limits = (-0.5, len(labels) - 0.5)
    return by_rank(labels, limits, across(figure, inches, limits), MOST)


def epoch_places(labels: np.ndarray) -> np.ndarray:  # (n,)
    """The places of labels on the axis of `along_epochs`."""
    from matplotlib.dates import date2num

    if _are_rising_numbers(labels):
        return labels.astype(float)
    return np.asarray(date2num(labels)) if _are_rising_dates(labels) else np.arange(len(labels))


def _are_rising_numbers(labels: np.ndarray) -> bool:
    """Whether ``labels`` are rising numbers that an axis of matplotlib can hold."""
    if len(labels) < 2 or not are_numbers(labels):
        return False
    places = labels.astype(float)
    size = float(np.abs(places).max())
    held = 1e-250 < size < 1e250 and places[-1] - places[0] > 1e-10 * size
    return bool(held and (np.diff(places) > 0).all())


def by_rank(labels: np.ndarray, limits: tuple[float, float], fits: Fits, most: int) -> Ticks:
    """Labels at 0, 1, 2, ...; all have ticks if ``fits`` allows it, else round numbers or every few of them."""
    ticks, names = _first_fit(((index, texts(labels[index])) for index in _ranks(labels, most)), fits)
    return Ticks(np.arange(len(labels)), limits, ticks, names)


def _ranks(labels: np.ndarray, most: int) -> Iterator[np.ndarray]:
    n = len(labels)
    if n <= most:
        yield np.arange(n)
    for few in range(min(n - 1, most), 1, -1):
        yield from _round_ranks(labels, few)
    yield from (np.array([0, n - 1]), np.zeros(1, dtype=int), np.array([n // 2]))


def _round_ranks(labels: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Indices of both ends and of round numbers, if all are labels; then every few, with and without the last."""
    if evenly_spaced(labels) and labels[0] < labels[-1]:
        index = np.flatnonzero(np.isin(labels, ticks := round_ticks(labels, most - 1)))
        if 2 < len(index) == len(ticks):
            yield index
    index = every_few(len(labels), most)
    if len(index) > 1:
        yield with_last(index, len(labels) - 1)
    yield index


def _first_fit(candidates: Iterator[tuple[np.ndarray, list[str]]], fits: Fits) -> tuple[np.ndarray, list[str]]:
    """The first of the candidates that fits, else the last of them."""
    for ticks, names in candidates:
        if fits(ticks, names):
            break
    return ticks, names


def _by_value(figure: Figure, labels: np.ndarray, inches: float) -> Ticks:
    places = epoch_places(labels)
    limits = _widened(places)
    candidates = (round_ticks(labels, most) for most in range(MOST - 1, 0, -1))
    ends = (labels[[0, -1]], labels[:1])
    named = ((ticks.astype(float), texts(ticks)) for source in (candidates, ends) for ticks in source)
    ticks, names = _first_fit(named, across(figure, inches, limits))
    return Ticks(places, limits, ticks, names)


def _widened(places: np.ndarray) -> tuple[float, float]:
    """Limits with a little room on both sides of rising places."""
    room = 0.015 * (places[-1] - places[0])
    return float(places[0] - room), float(places[-1] + room)


def _are_rising_dates(labels: np.ndarray) -> bool:
    """Whether ``labels`` are dates that rise by seconds or more, well within the calendar of matplotlib."""
    if len(labels) < 2 or labels.dtype.kind != "M" or np.isnat(labels).any():
        return False
    years = labels.astype("M8[Y]").astype(int) + 1970
    rising = (np.diff(labels.astype("M8[s]")).astype(int) > 0).all()
    return bool(rising and years[0] >= 200 and years[-1] < 9800)


def _by_date(figure: Figure, labels: np.ndarray, inches: float) -> Ticks:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, num2date

    places = epoch_places(labels)
    limits = _widened(places)
    start, stop = num2date(limits[0]), num2date(limits[1])
    fits = across(figure, inches, limits)
    for most in range(MOST, 1, -1):
        locator = AutoDateLocator(minticks=1, maxticks=most)
        ticks = np.asarray(locator.tick_values(start, stop))
        ticks = ticks[(ticks >= limits[0]) & (ticks <= limits[1])]
        formatter = ConciseDateFormatter(locator)
        names = formatter.format_ticks(ticks.tolist())
        if len(ticks) > 1 and fits(ticks, names):
            return Ticks(places, limits, ticks, names, formatter.get_offset())
    return Ticks(places, limits, places[:1], texts(labels[:1]))


def value_ticks(values: np.ndarray, most: int = 5) -> Ticks:
    """An axis with room for all finite ``values``. A curve that changes only by rounding is level in the middle."""
    return ticks_within(*value_limits(values), most)


def ticks_within(low: float, high: float, most: int) -> Ticks:
    """An axis from ``low`` to ``high``, with ticks at about ``most`` round numbers."""
    from matplotlib.ticker import MaxNLocator

    ticks = np.asarray(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    return Ticks(ticks, (low, high), ticks, texts(ticks))


def value_limits(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    size = max(abs(low), abs(high)) or 1.0
    room = 0.06 * (high - low) if high - low > FLAT * size else 0.5 * size
    return low - room, high + room


def set_across(axes: Axes, ticks: Ticks, name: str | None) -> None:
    """Give the horizontal axis its limits and ticks. Without a ``name``, the ticks have no texts."""
    axes.set_xlim(*ticks.limits)
    axes.set_xticks(ticks.ticks, ticks.names if name is not None else [""] * len(ticks.ticks))
    if name is not None:
        text = f"{name} ({ticks.note})" if ticks.note else name
        axes.set_xlabel(text, fontsize=LABEL_SIZE, color=INK, labelpad=2)


def set_upward(axes: Axes, ticks: Ticks, name: str) -> None:
    """Give the vertical axis its limits, ticks and name."""
    axes.set_ylim(*ticks.limits)
    axes.set_yticks(ticks.ticks, ticks.names)
    axes.set_ylabel(name, fontsize=LABEL_SIZE, color=INK, labelpad=3)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=TICK_SIZE, width=0.7, length=3)
