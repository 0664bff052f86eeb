"""Where a recorder keeps its snapshots: in memory, or in a folder that survives a crash."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..runtime.atomic import PathExistsError, whole_file
from ..runtime.paths import expanded, writable
from ..trace import Trace, as_trace, load_trace
from ..trace.formats.flat import META, RECORDING
from ..trace.formats.npy import save_array

_ACCEPTED = "accepted: a new or an empty folder for each recorder"


@dataclass(frozen=True)
class Snapshot:
    """One snapshot."""

    epoch: float
    values: np.ndarray  # (T, M, P)
    metrics: dict[str, float]


@dataclass(frozen=True)
class Recording:
    """What is the same for all snapshots of a recorder."""

    layers: tuple[str, ...]
    timestep: np.ndarray  # (T,)
    unit: np.ndarray  # (M,)
    unit_layer: np.ndarray  # (M,) text
    mask: np.ndarray | None  # (T, P), True where present; None if all are
    label: np.ndarray | None  # (P,)
    dtype: np.dtype[Any]

    def extra(self) -> dict[str, Any]:
        fields = {"mask": self.mask, "label": self.label}
        return {name: array for name, array in fields.items() if array is not None}


class Store(Protocol):
    """Where a recorder keeps its snapshots."""

    epochs: Sequence[float]

    def open(self) -> None: ...
    def add(self, snapshot: Snapshot, recording: Recording) -> None: ...
    def close(self) -> None: ...
    def trace(self) -> Trace: ...


class MemoryStore:
    """Snapshots in a list."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self._parts: list[Snapshot] = []
        self._recording: Any = None

    def open(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to release."""

    def add(self, snapshot: Snapshot, recording: Recording) -> None:
        """Keep one snapshot."""
        self._parts.append(snapshot)
        self._recording = recording
        self.epochs.append(snapshot.epoch)

    def trace(self) -> Trace:
        """The snapshots so far, stacked."""
        values = np.stack([part.values for part in self._parts])
        return as_trace(
            values, epoch=np.asarray(self.epochs), timestep=self._recording.timestep, **self._recording.extra()
        )


class FolderStore:
    """Each snapshot in a .npy file, listed in a meta.json that is rewritten after it, so that both always agree.

    The first snapshot takes the folder: it creates the meta.json of an empty recording, which must not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool) -> None:
        # A later change of the working directory does not move it; ~ is the home folder, as in `load_trace`.
        self._path = expanded(path).absolute()
        self._check_empty()
        # A random name distinguishes this meta.json from that of a recorder with the same layer and epochs.
        self._meta: dict[str, Any] = {"format": RECORDING, "version": 1, "recorder": uuid.uuid4().hex}
        self._meta |= {"epoch": [], "files": [], "extra": []}
        self._taken = False  # the folder; from then on its meta.json is the text of ``_meta``

    def open(self) -> None:
        """Make the folder."""
        with writable(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
        self._check_mine()

    @property
    def epochs(self):
        return self._meta["epoch"]

    def close(self) -> None:
        """Nothing."""

    def add(self, snapshot: Snapshot, recording: Recording) -> None:
        """Write one snapshot; a crash at any moment leaves the folder readable up to the one before."""
        epoch, values, extra = snapshot.epoch, snapshot.values, recording.extra()
        self._check_mine()
        try:
            self._add(epoch, values, extra)
        except InputError as error:
            if not self._meta["files"]:
                raise
            raise InputError(f"{error}; the snapshots so far ({len(self._meta['files'])}) are kept") from error

    def _add(self, epoch: float, values: np.ndarray, extra: dict[str, np.ndarray]) -> None:
        if not self._taken:
            self._take()
        if not self._meta["files"]:
            for name, array in extra.items():
                self._write(f"{name}.npy", array)
        file = f"snapshot_{len(self._meta['files']):06d}.npy"
        self._write(file, values)
        longer = {"epoch": [*self._meta["epoch"], epoch], "files": [*self._meta["files"], file]}
        meta = self._meta | longer | {"extra": sorted(extra)}
        with whole_file(self._path / META, overwrite=True, sweep=False) as new:
            new.write_text(_text(meta), encoding="utf-8")
        self._meta = meta

    def _take(self) -> None:
        try:
            with whole_file(self._path / META, overwrite=False) as new:  # of two recorders, one succeeds
                new.write_text(_text(self._meta), encoding="utf-8")
        except PathExistsError as error:
            raise self._not_empty() from error
        self._taken = True

    def _check_mine(self) -> None:
        if not self._taken:
            self._check_empty()
            return
        try:
            text = (self._path / META).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self._path} has lost its {META} ({error}); {_ACCEPTED}") from error
        if text != _text(self._meta):
            raise InputError(f"{self._path} holds another recorder's snapshots now; {_ACCEPTED}")

    def _check_empty(self) -> None:
        with writable(self._path):
            # Systems and editors put hidden files such as .DS_Store and .ipynb_checkpoints into any folder.
            if self._path.exists() and not (
                self._path.is_dir() and all(item.name[0] == "." for item in self._path.iterdir())
            ):
                raise self._not_empty()

    def _not_empty(self) -> InputError:
        return InputError(f"{self._path} exists and is not empty; {_ACCEPTED}")

    def _write(self, name: str, array: np.ndarray) -> None:
        # The first snapshot sweeps, as a folder that a recorder may take has no more. meta.json, which is written last,
        # flushes the folder.
        options = {"sweep": not self._meta["files"], "flush_folder": False}
        with whole_file(self._path / name, overwrite=True, **options) as new:
            save_array(new, array)

    def trace(self) -> Trace:
        """The snapshots so far, read back."""
        self._check_mine()
        return as_trace(load_trace(self._path))


def _text(meta: dict[str, Any]) -> str:
    return json.dumps(meta, indent=1)
