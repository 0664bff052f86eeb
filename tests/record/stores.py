"""Snapshots of a made-up recording, for tests of stores without a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmphate_gpu.record.folder import FolderStore
from mmphate_gpu.record.store import Recording, Snapshot

T, M, P = 4, 5, 6
RECORDING = Recording(
    layers=("encoder", "decoder"),
    timestep=np.arange(T) * 3,
    unit=np.arange(M),
    unit_layer=np.array(["encoder", "encoder", "encoder", "decoder", "decoder"]),
    mask=np.arange(T)[:, None] <= np.arange(P)[None, :],
    label=np.arange(P) % 2,
    dtype=np.dtype(np.float32),
)


def values(epoch, dtype=np.float32, seed=0):
    return np.random.default_rng([int(4 * epoch), seed]).normal(size=(T, M, P)).astype(dtype)


def add(store, *epochs, dtype=np.float32, seed=0, **changes):
    recording = replace(RECORDING, dtype=np.dtype(dtype), **changes)
    for epoch in epochs:
        store.add(Snapshot(epoch, values(epoch, dtype, seed), {"loss": 1 / (1 + epoch)}), recording)


def recorded(path, *epochs, dtype=np.float32):
    """A folder with snapshots of ``epochs``."""
    store = FolderStore(path, resume=False)
    store.open()
    add(store, *epochs, dtype=dtype)
    store.close()
    return path


def resumed(path):
    """The store of a folder, open."""
    store = FolderStore(path, resume=True)
    store.open()
    return store


def same(trace, *epochs):
    """Whether a trace holds the snapshots of ``epochs`` in this order, with all that belongs to them."""
    stacked = np.stack([values(epoch) for epoch in epochs])
    return (
        trace.epoch.tolist() == list(epochs)
        and np.array_equal(np.asarray(trace.data), stacked)
        and np.array_equal(trace.metrics["loss"], [1 / (1 + epoch) for epoch in epochs])
        and np.array_equal(np.asarray(trace.mask), np.broadcast_to(RECORDING.mask[None, :, None], stacked.shape))
        and all(np.array_equal(getattr(trace, name), getattr(RECORDING, name)) for name in BESIDE)
    )


BESIDE = ("timestep", "unit", "unit_layer", "label")
