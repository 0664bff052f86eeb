"""The contents of a snapshot, and the store in memory. `folder` has the store on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..trace import Trace, as_trace


@dataclass(frozen=True)
class Snapshot:
    """The values (T, M, P) of one epoch, and what was measured with them."""

    epoch: float
    values: np.ndarray
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """What all snapshots of a recording have in common.

    Attributes
    ----------
    layers : the names of the recorded layers.
    timestep, unit : (T,), (M,) coordinates.
    unit_layer : (M,) text, the layer of each unit.
    mask : (T, P) boolean, True where a value is present; None when all are.
    label : (P,) integer class of each sample, or None.
    dtype : of the values as they are stored.
    options : which states of the layers are recorded, as text, such as {"state": "h"}.
    probe : digest of the inputs.
    """

    layers: tuple[str, ...]
    timestep: np.ndarray
    unit: np.ndarray
    unit_layer: np.ndarray
    mask: np.ndarray | None
    label: np.ndarray | None
    dtype: np.dtype
    options: dict[str, str] = field(default_factory=dict)
    probe: str = ""


class Store(Protocol):
    """Where a recorder keeps its snapshots."""

    @property
    def epochs(self) -> Sequence[float]:
        """The epochs that need not be recorded again."""

    def open(self) -> None:
        """Prepare to add snapshots."""

    def add(self, snapshot: Snapshot, recording: Recording) -> None:
        """Keep one snapshot."""

    def close(self) -> None:
        """Refuse snapshots until the store is opened again."""

    def trace(self) -> Trace:
        """The snapshots so far."""


class MemoryStore:
    """Snapshots in a list."""

    def __init__(self) -> None:
        self._snapshots: list[Snapshot] = []
        self._recording: Recording | None = None

    @property
    def epochs(self) -> list[float]:
        return [snapshot.epoch for snapshot in self._snapshots]

    def open(self) -> None:
        """Nothing to prepare."""

    def add(self, snapshot: Snapshot, recording: Recording) -> None:
        """Keep one snapshot."""
        self._snapshots.append(snapshot)
        self._recording = recording

    def close(self) -> None:
        """Nothing to release."""

    def trace(self) -> Trace:
        """The snapshots so far, stacked."""
        names = sorted({name for snapshot in self._snapshots for name in snapshot.metrics})
        metrics = {name: [each.metrics.get(name, np.nan) for each in self._snapshots] for name in names}
        beside = {name: getattr(self._recording, name) for name in ("timestep", "unit", "unit_layer", "mask", "label")}
        values = np.stack([snapshot.values for snapshot in self._snapshots])
        return as_trace(values, epoch=self.epochs, metrics=metrics, min_slices=1, **beside)
