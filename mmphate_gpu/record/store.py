"""Where a recorder keeps its snapshots: in memory, or in a folder that survives a crash."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime.atomic import PathExistsError, whole_file
from ..runtime.paths import expanded, writable
from ..trace import Trace, as_trace, load_trace
from ..trace.formats.flat import META, RECORDING
from ..trace.formats.npy import save_array

_ACCEPTED = "accepted: a new or an empty folder for each recorder"


class MemoryStore:
    """Snapshots in a list."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._epochs: list[float] = []
        self._extra: dict[str, Any] = {}

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
    """Each snapshot in a .npy file, listed in a meta.json that is rewritten after it, so that both always agree.

    The first snapshot takes the folder: it creates the meta.json of an empty recording, which must not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str], layer: str) -> None:
        # A later change of the working directory does not move it; ~ is the home folder, as in `load_trace`.
        self._path = expanded(path).absolute()
        self._check_empty()
        # A random name distinguishes this meta.json from that of a recorder with the same layer and epochs.
        self._meta: dict[str, Any] = {"format": RECORDING, "version": 1, "layer": layer, "recorder": uuid.uuid4().hex}
        self._meta |= {"epoch": [], "files": [], "extra": []}
        self._taken = False  # the folder; from then on its meta.json is the text of ``_meta``

    def open(self) -> None:
        """Make the folder."""
        with writable(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
        self._check_mine()

    def add(self, epoch: float, values: np.ndarray, extra: dict[str, np.ndarray]) -> None:
        """Write one snapshot; a crash at any moment leaves the folder readable up to the one before."""
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
