"""Readers of arrays in files: blocks of a .npy, of a recorder's folder, of a .zarr or a .h5."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .packing import Packing
from .stored import Blocks


@dataclass(frozen=True)
class FlatFile:
    """An array in C order from ``offset`` of a file on: a .npy, or a member of a .npz that is not compressed.

    Read, not mapped: of a mapped file that somebody cuts off meanwhile the process dies, and its pages count as the
    process's own memory.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    stamp: str

    def block(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        n_units, n_samples = self.shape[-2:]
        sizes = [part.stop - part.start for part in (slices, units, samples)]
        out = np.empty(sizes, self.dtype)
        first = slices.start * n_units + units.start  # node
        if sizes[1:] == [n_units, n_samples]:  # whole slices lie one behind the other
            runs = [(first, out)]
        elif sizes[2] == n_samples:
            runs = [(first + n_units * row, part) for row, part in enumerate(out)]
        else:
            runs = [(first + n_units * row + u, part) for row, block in enumerate(out) for u, part in enumerate(block)]
        with _opened(self.path) as file:
            for node, part in runs:
                file.seek(self.offset + (node * n_samples + samples.start) * self.dtype.itemsize)
                fill(file, part.reshape(-1).view(np.uint8), self.path)
        return out.view(np.uint8) != 0 if self.dtype == bool else out  # any nonzero byte is True

    def check(self) -> None:
        check_stamp(self.path, self.stamp)


def _opened(path: Path) -> Any:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise _changed(path) from error


def fill(file: Any, target: np.ndarray, path: Path) -> None:
    """Fill the bytes ``target`` from the open ``file`` at ``path``. Raises `InputError` if the file ends before."""
    view = target.data
    while view:  # a read may return fewer bytes than asked for; zipfile copies each read, so reads are small
        n_bytes = file.readinto(view[: 2**24])
        if not n_bytes:
            raise _changed(path)
        view = view[n_bytes:]


@dataclass(frozen=True)
class FileFolder:
    """An array (timestep, unit, sample) or (unit, sample) in a file for each epoch: a recorder's folder."""

    files: tuple[FlatFile, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    def block(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        n_timesteps = 1 if len(self.shape) == 3 else self.shape[1]
        parts = [
            self.files[epoch].block(timesteps, units, samples)
            for epochs, timesteps in rectangles(slices, n_timesteps)
            for epoch in range(epochs.start, epochs.stop)
        ]
        return np.concatenate(parts).astype(self.dtype, copy=False)

    def check(self) -> None:
        for file in self.files:
            file.check()


@dataclass(frozen=True)
class ChunkedArray:
    """An array of a .zarr or .h5, which can be read in part. Each read opens the file and closes it again.

    Attributes
    ----------
    shape : in the order of the axes of a trace.
    dtype : of the values.
    order : for every axis of a trace, the number of its stored axis.
    packing : how the stored numbers encode the values; None if they are the values.
    """

    path: Path
    opened: Callable[[], AbstractContextManager[Any]]
    shape: tuple[int, ...]
    dtype: np.dtype
    stamp: str
    order: tuple[int, ...]
    packing: Packing | None = None

    def block(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        stored = self.stored(slices, units, samples)
        values = stored if self.packing is None else self.packing.decode(stored)
        return values.astype(self.dtype, copy=False)

    def stored(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        """The numbers of the file, not decoded."""
        with self.opened() as array:
            if len(self.shape) == 3:
                return self._cut(array, slices, units, samples)
            cut = [self._cut(array, e, t, units, samples) for e, t in rectangles(slices, self.shape[1])]
        return np.concatenate([part.reshape(-1, *part.shape[2:]) for part in cut])

    def _cut(self, array: Any, *parts: slice) -> np.ndarray:
        index = tuple(parts[self.order.index(axis)] for axis in range(len(parts)))
        return np.asarray(array[index]).transpose(self.order)

    def check(self) -> None:
        check_stamp(self.path, self.stamp)


@dataclass(frozen=True)
class PresentValues:
    """True where ``values`` has a value that is not missing and ``mask`` (None: everywhere) is True."""

    values: ChunkedArray
    mask: Blocks | None
    dtype: np.dtype = np.dtype(bool)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def block(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        where = slices, units, samples
        present = self.values.packing.present(self.values.stored(*where))
        return present if self.mask is None else present & np.asarray(self.mask.block(*where))

    def check(self) -> None:
        self.values.check()


def rectangles(slices: slice, n_timesteps: int) -> Iterator[tuple[slice, slice]]:
    """(epochs, timesteps) that cover ``slices`` in order: what is left of an epoch, whole ones, the start of one.

    >>> [(e.start, e.stop, t.start, t.stop) for e, t in rectangles(slice(2, 11), 4)]
    [(0, 1, 2, 4), (1, 2, 0, 4), (2, 3, 0, 3)]
    """
    (epoch, start), (last, stop) = divmod(slices.start, n_timesteps), divmod(slices.stop, n_timesteps)
    if epoch == last:
        yield slice(epoch, epoch + 1), slice(start, stop)
        return
    if start:
        yield slice(epoch, epoch + 1), slice(start, n_timesteps)
        epoch += 1
    if epoch < last:
        yield slice(epoch, last), slice(0, n_timesteps)
    if stop:
        yield slice(last, last + 1), slice(0, stop)


def stamp_of(path: Path) -> str:
    """What tells a later state of a file, or of any file in a folder, from this one: names, sizes, times, numbers.

    The same in every process: a trace may be opened in one and read in another.
    """
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    states = [(str(file), file.stat()) for file in files]
    told = [(name, state.st_size, state.st_mtime_ns, state.st_ino) for name, state in states]
    return hashlib.blake2b(repr(told).encode()).hexdigest()


def check_stamp(path: Path, stamp: str) -> None:
    """Raise `InputError` if ``path`` is not as it was when `stamp_of` gave ``stamp``."""
    try:
        same = stamp_of(path) == stamp
    except OSError as error:
        raise _changed(path) from error
    if not same:
        raise _changed(path)


def _changed(path: Path) -> InputError:
    return InputError(
        f"{os.fspath(path)} has changed, or was cut off, since it was opened; "
        "accepted: a file that does not change until it is read, or until the run ends if it is read block by block"
    )
