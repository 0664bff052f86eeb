"""Snapshots in a folder that one process writes at a time, and that is readable after a crash at any moment."""

from __future__ import annotations

import os
import platform
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..errors import InputError
from ..runtime.atomic import PathExistsError, listing, whole_file
from ..runtime.lock import WriterLock
from ..runtime.paths import expanded, writable
from ..trace import Trace, load_trace
from ..trace.dims import AXES
from ..trace.formats.arrays import naming, readable
from ..trace.formats.npy import save_array
from ..trace.formats.recording import (
    LIST,
    LOCK,
    META,
    RECORDING,
    VERSION,
    Listed,
    Listing,
    file_name,
    header_text,
    list_line,
    packed_mask,
    runs_of,
)
from ..trace.formats.snapshots import intact_snapshots, read_listing
from .store import Recording, Snapshot

_LOST_LINES = (
    ". A damaged line stays for good, because its epoch is unknown: trace() and load_trace(path) refuse the folder. "
    'Accepted: load_trace(path, damaged="skip"), which loads the other snapshots and those that are recorded again'
)
_ACCEPTED = "accepted: a new or an empty folder, or resume=True to continue a recording"


class FolderStore:
    """Each snapshot in a .npy file, and a line for it in a list, which is written when the file is on the disk.

    With ``resume`` the store continues a recording that the folder holds.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool) -> None:
        # A later change of the working directory does not move it; ~ is the home folder, as in `load_trace`.
        self._path = expanded(path).absolute()
        self._resume = resume
        self._lock = WriterLock(self._path / LOCK)
        self._header: dict[str, Any] | None = None  # of meta.json, once it is written
        self._listed: dict[float, Listed] = {}
        self._n_lines = self._n_bytes = 0  # of the list
        self._state: Any = None  # inodes and sizes of meta.json and the list after the last write of this store
        self._begun = False  # whether this session has added a snapshot

    @property
    def epochs(self) -> list[float]:
        """The epochs recorded so far. Those of damaged snapshots are not among them: they can be recorded again."""
        return [*self._listed]

    # ------------------------------------------------------------ a session

    def open(self) -> None:
        """Make the folder, or continue the recording in it, and lock it against other writers."""
        with writable(self._path):
            if self._path.exists() and not self._path.is_dir():
                raise self._not_empty()
            self._path.mkdir(parents=True, exist_ok=True)
            if not (self._path / LOCK).exists():
                self._check_usable()  # a folder with other files gets no lock file
            self._lock.acquire()
        try:
            self._check_usable()
            if self._state is None and self._holds_recording():
                self._continue()
        except BaseException:
            self._lock.release()
            raise
        self._state, self._begun = self._present_state(), False

    def close(self) -> None:
        """Release the lock of the folder."""
        self._lock.release()

    def _holds_recording(self) -> bool:
        return any((self._path / name).exists() for name in (META, LIST))

    def _check_usable(self) -> None:
        if self._state is not None:  # this store has been open before
            self._check_unchanged_by_others()
            return
        # Systems and editors put hidden files such as .DS_Store and .ipynb_checkpoints into any folder.
        others = any(item.name[0] != "." for item in self._path.iterdir())
        if others and not (self._resume and self._holds_recording()):
            raise self._not_empty()

    def _not_empty(self) -> InputError:
        return InputError(f"{self._path} exists and is not empty; {_ACCEPTED}")

    def _continue(self) -> None:
        with naming(self._path), readable(self._path / META):
            before = read_listing(self._path)
        self._check_resumable(before)
        intact, problems = intact_snapshots(self._path, before, thorough=True)
        if problems:
            lines = _LOST_LINES if before.problems else ""
            warnings.warn(
                f"{self._path} has damaged snapshots: {listing(problems)}; they stay in the list until "
                f"their epochs are recorded again{lines}",
                RuntimeWarning,
                stacklevel=5,
            )
        self._header, self._n_lines, self._n_bytes = before.header, before.n_lines, before.n_bytes
        self._listed = {snapshot.epoch: snapshot for snapshot, _ in intact}

    def _check_resumable(self, before: Listing) -> None:
        if before.header["version"] != VERSION:
            raise InputError(
                f"{self._path} is a recording of version {before.header['version']}, which cannot be continued; "
                f"accepted: a recording of version {VERSION} to resume"
            )
        if before.unlisted:
            raise InputError(
                f"{self._path / LIST} has no line of {listing([*before.unlisted])}; accepted: another "
                "folder, so that no snapshot is written over"
            )

    # ------------------------------------------------------------ a snapshot

    def add(self, snapshot: Snapshot, recording: Recording) -> None:
        """Write one snapshot; a crash at any moment leaves the folder readable up to the one before."""
        if not self._lock.held:
            raise InputError(f"{self._path} is closed, or was opened by the process that forked this one; {_ACCEPTED}")
        self._check_unchanged_by_others()
        try:
            self._add(snapshot, recording)
        except InputError as error:
            if not self._n_lines:
                raise
            raise InputError(f"{error}; the snapshots so far ({len(self._listed)}) are kept") from error

    def _add(self, snapshot: Snapshot, recording: Recording) -> None:
        self._share(_header(recording, snapshot.values))
        file = file_name(self._n_lines)
        values = np.ascontiguousarray(snapshot.values)
        # The first snapshot deletes what a killed process has left. Later ones do not, because listing the folder takes
        # longer with every snapshot.
        with whole_file(self._path / file, overwrite=True, sweep=not self._begun) as new:
            digest = save_array(new, values)
        listed = Listed(snapshot.epoch, file, digest, dict(snapshot.metrics))
        self._append(list_line(listed))
        self._listed[snapshot.epoch] = listed
        self._begun = True

    def _share(self, header: dict[str, Any]) -> None:
        """Write what all snapshots share, or compare it with what the folder has."""
        if self._header is None:
            try:
                with whole_file(self._path / META, overwrite=False) as new:
                    new.write_text(header_text(header), encoding="utf-8")
            except PathExistsError as error:
                raise self._not_empty() from error
            self._header, self._state = header, self._present_state()
        both = self._header.keys() & header.keys()  # earlier versions did not write the options and the probe
        for name in _SHARED:
            if name in both and header[name] != self._header[name]:
                what = _difference(name, self._header[name], header[name])
                raise InputError(f"{self._path} was recorded with {what}; accepted: the same {name}, or another folder")

    def _append(self, line: bytes) -> None:
        path = self._path / LIST
        try:
            with writable(path), path.open("ab", buffering=0) as file:
                _write_from(self._n_bytes, file, line)
        finally:
            self._state = self._present_state()
        self._n_bytes += len(line)
        self._n_lines += 1

    # ------------------------------------------------------------ changes by other writers

    def _check_unchanged_by_others(self) -> None:
        if self._present_state() != self._state:
            lost = [name for name in (META, LIST) if not (self._path / name).exists()]
            what = f"has lost its {lost[0]}" if lost else "holds another recorder's snapshots now"
            raise InputError(f"{self._path} {what}; {_ACCEPTED}")

    def _present_state(self) -> Any:
        return [_stamp(self._path / name) for name in (META, LIST)]

    def trace(self) -> Trace:
        """The snapshots so far, read back."""
        self._check_unchanged_by_others()
        return load_trace(self._path)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_size


_OPTIONS = ("state", "layer", "direction", "batch_first", "time_axis")
_SHARED = ("layers", *_OPTIONS, "shape", "dtype", "timestep", "unit", "unit_layer", "mask", "label", "probe")


def _header(recording: Recording, values: np.ndarray) -> dict[str, Any]:
    label = recording.label
    return {
        "format": RECORDING,
        "version": VERSION,
        "versions": {
            "mmphate_gpu": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "axes": list(AXES),
        "layers": list(recording.layers),
        **recording.options,
        "shape": list(values.shape),
        "dtype": recording.dtype.name,
        "timestep": recording.timestep.tolist(),
        "unit": recording.unit.tolist(),
        "unit_layer": runs_of(recording.unit_layer),
        "label": None if label is None else label.tolist(),
        "mask": None if recording.mask is None else packed_mask(recording.mask),
        "probe": recording.probe,
    }


def _difference(name: str, before: Any, now: Any) -> str:
    if name == "probe":
        return "another probe: that of this snapshot holds other values, or the same ones in another form"
    return f"{name}={_short(before)}, and this snapshot has {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _write_from(size: int, file: Any, line: bytes) -> None:
    """Write ``line`` after the first ``size`` bytes of a file, all of it or nothing."""
    try:
        file.truncate(size)  # a crash may have left part of a line after them
        view = memoryview(line)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(size)
        raise
