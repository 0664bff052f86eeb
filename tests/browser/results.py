"""Embeddings whose pictures are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmphate_gpu import Embedding
from mmphate_gpu.slices import SliceLayout

CLASSES = np.array(["cat", "dog", "emu"])


def board(n_epochs: int = 4, n_timesteps: int = 3, n_units: int = 5, **fields: Any) -> Embedding:
    """Nodes on a board of two components, none over another: a row for each slice, a column for each unit.

    The most active class is that of the column modulo 3.
    """
    layout = SliceLayout(
        np.arange(n_epochs) * 10, np.arange(n_timesteps), np.array([f"unit {m}" for m in range(n_units)])
    )
    epoch, timestep, unit = layout.indices()
    coordinates = np.column_stack([3.0 * unit, epoch * n_timesteps + timestep])
    return Embedding(coordinates, layout, **{"most_active": CLASSES[unit % 3], **fields})


def cloud(n_epochs: int = 4, n_timesteps: int = 3, n_units: int = 5, n_components: int = 3) -> Embedding:
    """Nodes at random places of a box."""
    layout = SliceLayout.of_shape(n_epochs, n_timesteps, n_units)
    coordinates = np.random.default_rng(0).uniform(-1, 1, (layout.n_nodes, n_components))
    return Embedding(coordinates, layout, most_active=CLASSES[layout.indices()[2] % 3])


def alone(places: np.ndarray, pixels: float = 16.0) -> np.ndarray:
    """Indices of the places (n, 2) that are farther than ``pixels`` from all others."""
    apart = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.flatnonzero(np.nanmin(np.where(np.isnan(apart), np.inf, apart), axis=1) > pixels)


def nearest(colors: np.ndarray, table: np.ndarray) -> list[int]:  # (n, 3), (m, 3)
    """The entry of ``table`` that is nearest to each color."""
    return np.abs(colors[:, None] - table).sum(axis=2).argmin(axis=1).tolist()
