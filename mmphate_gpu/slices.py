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


def unit_major(points: torch.Tensor) -> torch.Tensor:  # (S, M, D) -> (M, S, D)
    """The stack of the interslice part: one set of points per unit."""
    return points.transpose(0, 1).contiguous()
