"""Colors of labels: sequential maps for ordered axes, a palette for names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..interactive.colors import PALETTE
from .names import texts

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize


@dataclass(frozen=True, eq=False)
class Coloring:
    """A number for every drawn node, and the colors and the key of these numbers."""

    values: np.ndarray  # (N,)
    cmap: Colormap
    norm: Normalize
    ticks: np.ndarray  # numbers that the key names
    names: list[str]  # text of each tick
    swatches: bool  # whether the key is a legend of names, not a color bar


def ordered(index: np.ndarray, labels: np.ndarray, cmap: str, low: float, high: float) -> Coloring:
    """Colors that follow the order of the labels, from the part ``low`` to ``high`` of a matplotlib map.

    Evenly spaced numbers are colored by their value. Other labels (names, dates, snapshots at growing intervals) are
    colored by their rank, so that all parts of the map are used evenly.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, Normalize

    colormap = ListedColormap(colormaps[cmap](np.linspace(low, high, 256)))
    if len(labels) == 1:
        return Coloring(index, colormap, Normalize(-1, 1), np.zeros(1), texts(labels), True)
    if evenly_spaced(labels):
        ticks = round_ticks(labels)
        norm = Normalize(float(labels.min()), float(labels.max()))
        return Coloring(labels[index].astype(float), colormap, norm, ticks, texts(ticks), False)
    ticks = with_last(every_few(len(labels)), len(labels) - 1)
    return Coloring(index, colormap, Normalize(0, len(labels) - 1), ticks, texts(labels[ticks]), False)


def categorical(index: np.ndarray, labels: np.ndarray) -> Coloring:
    """A color for each label. The key is a legend for up to twelve labels, and a bar in steps for more."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap

    n = len(labels)
    swatches = n <= len(PALETTE)
    ticks = np.arange(n) if swatches else every_few(n)
    colormap = ListedColormap(PALETTE[:n] if swatches else colormaps["turbo"](np.linspace(0.03, 0.97, n)))
    norm = BoundaryNorm(np.arange(n + 1) - 0.5, n)
    return Coloring(index, colormap, norm, ticks, texts(labels[ticks]), swatches)


def are_numbers(labels: np.ndarray) -> bool:
    """Whether ``labels`` are finite real numbers, which have a place on an axis."""
    return labels.dtype.kind in "iuf" and bool(np.isfinite(labels).all())


def evenly_spaced(labels: np.ndarray) -> bool:
    """Whether ``labels``, at least two, are numbers at equal distances that are not zero."""
    if not are_numbers(labels):
        return False
    steps = np.diff(labels.astype(float))
    return bool(steps[0] != 0 and np.allclose(steps, steps[0], atol=0))


def round_ticks(labels: np.ndarray, most: int = 6) -> np.ndarray:
    """Ticks at the least and the greatest label, and at round numbers between them; about ``most`` at most.

    Labels that are whole numbers have whole ticks, also in a floating-point dtype.
    """
    from matplotlib.ticker import MaxNLocator

    least, greatest = labels.min(), labels.max()
    if least == greatest:
        return np.array([least])
    low, high = float(least), float(greatest)
    whole = bool((labels == np.round(labels)).all())
    locator = MaxNLocator(most, integer=whole, steps=[1, 2, 5, 10], min_n_ticks=1)
    ticks = np.asarray(locator.tick_values(low, high))
    room = 0.4 * (ticks[1] - ticks[0])
    between = ticks[(ticks > low + room) & (ticks < high - room)]
    return np.array([least, *between.astype(labels.dtype), greatest])


def every_few(n: int, most: int = 9) -> np.ndarray:
    """At most ``most`` of 0..n-1, in steps of a round number."""
    steps = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    return np.arange(0, n, next(step for step in steps if n <= step * most))


def with_last(ticks: np.ndarray, last: int) -> np.ndarray:
    """At least two ``ticks`` at equal distances, without those near ``last``, and ``last`` itself."""
    step = ticks[1] - ticks[0]
    return np.array([*ticks[ticks < last - 0.4 * step], last])
