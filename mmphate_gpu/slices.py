"""The order of nodes: (epoch, timestep, unit) in one flat axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .errors import InputError, check_choice
from .trace.coordinates import as_coordinate
from .trace.dims import SizesByName


@dataclass(frozen=True, eq=False)
class SliceLayout(SizesByName):
    """Node order of a trace: ``node = (epoch * n_timesteps + timestep) * n_units + unit``.

    ``epoch``, ``timestep`` and ``unit`` hold the coordinates of the axes: numbers, text or dates. So a node can be
    labeled with its coordinates and not only with indices.

    Raises
    ------
    InputError, InputTypeError
        Coordinates that no file can hold (other Python objects), or with more than one axis.
    """

    epoch: np.ndarray  # (E,)
    timestep: np.ndarray  # (T,)
    unit: np.ndarray  # (M,)

    def __post_init__(self) -> None:
        for axis in ("epoch", "timestep", "unit"):
            values = as_coordinate(axis, getattr(self, axis))
            if values.ndim != 1:
                raise InputError(f"{axis} has shape {values.shape}; accepted: one axis")
            object.__setattr__(self, axis, values)

    @classmethod
    def of_shape(cls, n_epochs: int, n_timesteps: int, n_units: int) -> SliceLayout:
        """A layout whose coordinates are 0, 1, 2, ... on every axis."""
        return cls(np.arange(n_epochs), np.arange(n_timesteps), np.arange(n_units))

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.epoch), len(self.timestep), len(self.unit)

    def node(self, epoch: int, timestep: int, unit: int) -> int:
        """The number of the node with these indices; raises `InputError` if an index is out of range."""
        for name, index, size in zip(("epoch", "timestep", "unit"), (epoch, timestep, unit), self.shape, strict=True):
            if not 0 <= index < size:
                raise InputError(f"{name} index {index} is out of range; accepted: 0 to {size - 1}")
        return (epoch * self.n_timesteps + timestep) * self.n_units + unit

    def indices(self, nodes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The (epoch, timestep, unit) indices of ``nodes``; None means all nodes."""
        nodes = np.arange(self.n_nodes) if nodes is None else np.asarray(nodes)
        return tuple(np.unravel_index(nodes, self.shape))  # type: ignore[return-value]

    def labels(self, axis: str) -> np.ndarray:  # (N,)
        """The coordinate of every node along ``axis``: "epoch", "timestep" or "unit"."""
        position = ("epoch", "timestep", "unit").index(check_choice("axis", axis, ("epoch", "timestep", "unit")))
        return getattr(self, axis)[self.indices()[position]]


def whole_slices(layout: SliceLayout, max_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and time steps for a picture with room for ``max_nodes`` nodes, which shows all units of these slices.

    All are kept if they fit. Otherwise both axes are thinned by about the same factor, evenly, and keep their last
    place, and their first if two or more are kept.

    Returns
    -------
    epochs : (e,) indices of epochs, rising
    timesteps : (s,) indices of time steps, rising; e s M is at most ``max_nodes``

    Raises
    ------
    InputError
        A single slice has more than ``max_nodes`` nodes.

    Examples
    --------
    >>> epochs, timesteps = whole_slices(SliceLayout.of_shape(9, 9, 2), 60)
    >>> epochs.tolist(), timesteps.tolist()
    ([0, 2, 4, 6, 8], [0, 2, 3, 5, 6, 8])
    """
    n_epochs, n_timesteps, n_units = layout.shape
    n_slices = max_nodes // max(n_units, 1)
    if n_slices < 1:
        accepted = f"at least {n_units:,}, the number of units"
        raise InputError(f"max_nodes={max_nodes:,} is less than a slice has; accepted: {accepted}")
    epochs = min(n_epochs, n_slices, max(1, int((n_slices * n_epochs / n_timesteps) ** 0.5)))
    timesteps = min(n_timesteps, n_slices // epochs)
    epochs = min(n_epochs, n_slices // timesteps)
    return _evenly(n_epochs, epochs), _evenly(n_timesteps, timesteps)


def _evenly(n: int, most: int) -> np.ndarray:
    """``most`` of 0..n-1, at distances as equal as possible. A single one is the last."""
    return np.array([n - 1]) if most == 1 else np.linspace(0, n - 1, most).round().astype(int)


def unit_major(points: torch.Tensor) -> torch.Tensor:  # (S, M, D) -> (M, S, D)
    """The stack of the interslice part: one set of points per unit."""
    return points.transpose(0, 1).contiguous()
