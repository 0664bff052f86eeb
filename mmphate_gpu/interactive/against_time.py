"""A single component is drawn against time: the epoch, or the time step of a single epoch."""

from __future__ import annotations

import numpy as np

from ..slices import SliceLayout
from .labels import texts

WIDTH = 1.6  # of the picture, over its height


def time_axis(layout: SliceLayout) -> str:
    return "epoch" if layout.n_epochs > 1 else "timestep"


def points_against_time(component: np.ndarray, layout: SliceLayout, nodes: np.ndarray) -> np.ndarray:  # (n,) -> (n, 2)
    """The ``component`` of ``nodes`` and their time, in a box of fixed sides."""
    place = layout.indices(nodes)[("epoch", "timestep").index(time_axis(layout))]
    time = np.where(np.isfinite(component), _times(layout)[place], np.nan)
    return np.column_stack([WIDTH * time, _unit_scale(component.astype(np.float64))])


def time_ticks(layout: SliceLayout, places: np.ndarray) -> list[tuple[float, str]]:
    """Up to six of ``places`` on the time axis with their names, none nearer to another than a tenth of the axis."""
    times = _times(layout)
    some = np.unique(np.linspace(0, len(places) - 1, 6).round().astype(int))
    ticks: list[int] = []
    for place in places[some]:
        if all(abs(times[place] - times[other]) >= 0.1 for other in ticks):
            ticks.append(place)
    return list(zip(times[ticks].tolist(), texts(getattr(layout, time_axis(layout))[ticks]), strict=True))


def _times(layout: SliceLayout) -> np.ndarray:  # (E,) or (T,)
    """Where the places of the time axis lie, from 0 to 1: numbers at their values, other labels at equal distances."""
    labels = getattr(layout, time_axis(layout))
    numbers = labels if labels.dtype.kind in "iuf" and np.isfinite(labels).all() else np.arange(len(labels))
    return _unit_scale(numbers.astype(np.float64))


def _unit_scale(numbers: np.ndarray) -> np.ndarray:
    least = np.nanmin(numbers)
    return (numbers - least) / (np.nanmax(numbers) - least or 1.0)
