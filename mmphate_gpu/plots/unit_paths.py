"""Paths of units through an embedding: which units, and the places that they pass one after another."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError
from ..trace.coordinates import as_coordinate
from .axis import epoch_places
from .names import texts

MOST = 6  # units that are chosen if the caller chooses none
NUMBERS = set("biuf")  # kinds of dtypes whose values can be compared with one another


@dataclass(frozen=True, eq=False)
class UnitPaths:
    """The paths of some units along one axis: a panel."""

    axis: str  # "epoch" or "timestep"
    name: str  # of the panel
    title: str
    fixed: str  # the other axis
    places: np.ndarray  # (n, v, 2) or (n, v, 3) of v epochs or time steps; NaN where a unit has no place


def label_indices(name: str, labels: np.ndarray, wanted: Any) -> np.ndarray:
    """The indices of the labels ``wanted``, in their order and each once; raises `InputError` for an unknown label."""
    values = as_coordinate(name, np.atleast_1d(wanted) if np.ndim(wanted) == 0 else wanted)
    if not values.size:
        raise InputError(f"{name}={wanted!r} names nothing; accepted: {_some(labels)}")
    return np.array(list(dict.fromkeys(index for value in values for index in _index(name, labels, value))))


def _index(name: str, labels: np.ndarray, value: Any) -> np.ndarray:
    kinds = {labels.dtype.kind, value.dtype.kind}
    comparable = len(kinds) == 1 or kinds <= NUMBERS
    # A label that differs from itself is NaN, or a date that is missing.
    indices = np.flatnonzero((labels == value) | ((labels != labels) & (value != value))) if comparable else np.empty(0)
    if not indices.size:
        raise InputError(f"{name} has {reprlib.repr(value.item())}, which is no label; accepted: {_some(labels)}")
    return indices


def _some(labels: np.ndarray) -> str:
    shown = ", ".join(reprlib.repr(label) for label in labels[:6].astype(object).tolist())
    return shown if len(labels) <= 6 else f"{shown}, ... ({len(labels):,} labels)"


def paths_of(
    embedding: Embedding, units: np.ndarray, through: str, timestep: int | None, epochs: np.ndarray
) -> list[UnitPaths]:
    """The panels of ``units``: one through the epochs, one through the time steps of each of ``epochs``, or all."""
    panels = [_through_epochs(embedding, units, timestep)] * (through != "timesteps")
    return panels + [_through_timesteps(embedding, units, epoch) for epoch in epochs] * (through != "epochs")


def _through_epochs(embedding: Embedding, units: np.ndarray, timestep: int | None) -> UnitPaths:
    layout = embedding.layout
    grid = _components(embedding)[:, :, units]
    if timestep is None:
        places, fixed = _mean(grid), "mean of time steps" if layout.n_timesteps > 1 else ""
    else:
        places, fixed = grid[:, timestep], f"at step {texts(layout.timestep)[timestep]}"
    return _panel(embedding, "epoch", "epochs", "Through epochs", fixed, places)


def _through_timesteps(embedding: Embedding, units: np.ndarray, epoch: int) -> UnitPaths:
    fixed = f"at epoch {texts(embedding.layout.epoch)[epoch]}"
    places = _components(embedding)[epoch][:, units]
    return _panel(embedding, "timestep", f"timesteps of {epoch}", "Through time steps", fixed, places)


def _components(embedding: Embedding) -> np.ndarray:  # (E, T, M, at most 3)
    return embedding.coordinates[:, :3].reshape(*embedding.layout.shape, -1)


def _mean(grid: np.ndarray) -> np.ndarray:  # (E, T, n, C) -> (E, n, C)
    """The mean over the time steps at which a unit has a place; NaN without any."""
    n_placed = np.isfinite(grid).sum(axis=1)
    return np.nansum(grid, axis=1) / np.where(n_placed, n_placed, np.nan)


def _panel(embedding: Embedding, axis: str, name: str, title: str, fixed: str, places: np.ndarray) -> UnitPaths:
    """``places`` (v, n, C) as a panel, with the labels as x if there is only one component."""
    if places.shape[2] == 1:
        along = np.broadcast_to(epoch_places(getattr(embedding.layout, axis))[:, None, None], places.shape)
        places = np.concatenate([along, places], axis=2)
    return UnitPaths(axis, name, title, fixed, places.swapaxes(0, 1))


def farthest(paths: list[UnitPaths], n_components: int) -> np.ndarray:
    """The `MOST` units whose places lie farthest from the mean of their path (root mean square), in their order."""
    spread = sum(_mean_square(path.places[..., -min(n_components, 3) :]) for path in paths)
    order = np.argsort(-np.asarray(spread), kind="stable")
    return np.sort(order[:MOST])


def _mean_square(places: np.ndarray) -> np.ndarray:  # (M, v, C) -> (M,)
    """The mean squared distance of the places of a path from their mean; -1 without a place."""
    placed = np.isfinite(places[..., :1])
    n_placed = np.maximum(placed.sum(axis=1), 1)
    center = np.nansum(places, axis=1) / n_placed
    squares = np.nansum((places - center[:, None]) ** 2, axis=(1, 2)) / n_placed[:, 0]
    return np.where(placed.any(axis=(1, 2)), squares, -1)


def spread_out(n: int, most: int = 3) -> np.ndarray:
    """The first and the last of 0..n-1, and those between them at equal distances; at most ``most``."""
    return np.unique(np.linspace(0, n - 1, most).round().astype(int))
