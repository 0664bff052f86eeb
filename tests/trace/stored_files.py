"""A trace in files of every format, to be read block by block."""

from __future__ import annotations

import json

import numpy as np
import torch

from mmphate_gpu.record import Recorder
from mmphate_gpu.trace import (
    Trace,
    as_trace,
    save_trace,
    stored,
)
from mmphate_gpu.trace.formats.recording import META, RECORDING

SHAPE = (4, 3, 5, 23)


def values(shape=SHAPE, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).cumsum(axis=0).astype(dtype)


def full_mask(shape=SHAPE):
    mask = np.random.default_rng(1).random(shape) < 0.7
    mask[..., 0] = True
    return mask


def streamed(trace: Trace) -> bool:
    return isinstance(trace.data, stored.StoredArray)


def write_npy(path, three):
    np.save(path / "a.npy", values().reshape(12, 5, 23) if three else values())
    return path / "a.npy"


def write_container(ending):
    def write(path, three):
        shape = (12, *SHAPE[2:]) if three else SHAPE
        fields = {"mask": full_mask().reshape(shape), "epoch": np.linspace(0, 1, shape[0]), "unit": list("abcde")}
        save_trace(path / f"a{ending}", as_trace(values().reshape(shape), label=np.arange(23) % 3, **fields))
        return path / f"a{ending}"

    return write


def write_short_mask(path, three):
    axes = (12, 23) if three else (3, 23)
    mask = np.arange(axes[0])[:, None] % 3 < np.arange(1, 24) % 3 + 1
    np.savez(path / "short.npz", trace=values().reshape(12, 5, 23) if three else values(), mask=mask)
    return path / "short.npz"


def write_recording(path, three):
    if three:
        return write_snapshots(path, values().reshape(12, 5, 23))
    lengths = nn_lengths()
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(6, 23, 2), lengths, enforce_sorted=False)
    with Recorder(torch.nn.GRU(2, 5), "", probe=packed, labels=np.arange(23) % 2, path=path / "run") as recorder:
        for epoch in (0, 2, 5):
            recorder.snapshot(epoch)
    return path / "run"


def write_snapshots(path, snapshots):
    """A recorder's folder whose files have no axis of time: (unit, sample)."""
    files = [f"snapshot_{i:06d}.npy" for i in range(len(snapshots))]
    meta = {
        "format": RECORDING,
        "version": 1,
        "epoch": list(range(len(files))),
        "files": files,
        "extra": [],
    }
    (path / "run").mkdir()
    (path / "run" / META).write_text(json.dumps(meta), encoding="utf-8")
    for file, snapshot in zip(files, snapshots, strict=True):
        np.save(path / "run" / file, snapshot)
    return path / "run"


def nn_lengths():
    return torch.arange(23) % 5 + 2


FORMATS = {
    ".npy": write_npy,
    ".npz": write_container(".npz"),
    ".npz, a short mask": write_short_mask,
    ".zarr": write_container(".zarr"),
    ".h5": write_container(".h5"),
    "a recording": write_recording,
}
