"""Where a recorder keeps its snapshots: in memory, or in a folder that survives a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .._trace_io import META, RECORDING, atomic_path
from ..params import InputError
from ..trace import Trace, as_trace, load_trace


class MemoryStore:
    """Snapshots in a list."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._epochs: list[float] = []
        self._extra: dict[str, np.ndarray] = {}

    def open(self) -> None:
        """Nothing to prepare."""

    def add(self, epoch: float, values: np.ndarray, extra: dict[str, np.ndarray]) -> None:
        """Keep one snapshot, values (timestep, unit, sample); ``extra`` is the same for all."""
        self._parts.append(values)
        self._epochs.append(epoch)
        self._extra = extra

    def trace(self) -> Trace:
        """The snapshots so far, stacked."""
        return as_trace(np.stack(self._parts), epoch=np.asarray(self._epochs), **self._extra)


class FolderStore:
    """Snapshots as one .npy each, named by a meta.json that is rewritten last, so that both always agree."""

    def __init__(self, path: str | os.PathLike[str], layer: str) -> None:
        self._path = Path(path).expanduser()  # as `load_trace` does
        if self._path.exists() and (not self._path.is_dir() or any(self._path.iterdir())):
            raise InputError(f"path={os.fspath(path)!r} exists and is not empty; accepted: a new or an empty folder")
        self._meta: dict[str, Any] = {"format": RECORDING, "version": 1, "layer": layer}
        self._meta |= {"epoch": [], "files": [], "extra": []}

    def open(self) -> None:
        """Make the folder."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"path={os.fspath(self._path)!r} cannot be made ({error})") from error

    def add(self, epoch: float, values: np.ndarray, extra: dict[str, np.ndarray]) -> None:
        """Write one snapshot; a crash at any moment leaves the folder readable up to the one before."""
        if not self._meta["files"]:
            for name, array in extra.items():
                self._write(f"{name}.npy", array)
        file = f"snapshot_{len(self._meta['files']):06d}.npy"
        self._write(file, values)
        longer = {"epoch": [*self._meta["epoch"], epoch], "files": [*self._meta["files"], file]}
        meta = self._meta | longer | {"extra": sorted(extra)}
        with atomic_path(self._path / META) as partial:
            partial.write_text(json.dumps(meta, indent=1), encoding="utf-8")
        self._meta = meta

    def _write(self, name: str, array: np.ndarray) -> None:
        with atomic_path(self._path / name) as partial:
            np.save(partial, array, allow_pickle=False)

    def trace(self) -> Trace:
        """The snapshots so far, read back."""
        return as_trace(load_trace(self._path))
