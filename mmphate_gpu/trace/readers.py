"""Blocks of the arrays of a .zarr or .h5, and the stamp by which a file that has changed is recognized."""

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
class ChunkedArray:
    """An array of a .zarr or .h5, which can be read block by block. Each read opens the file and closes it again.

    ``shape`` is in the order of the axes of a trace, and ``order`` has for each of them the number of its stored axis.
    ``packing`` says how the stored numbers encode the values; None if they are the values.
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
    """True where ``values``, of this ``packing``, has a value that is not missing, and ``mask`` (or None) is True."""

    values: ChunkedArray
    packing: Packing
    mask: Blocks | None
    dtype: np.dtype = np.dtype(bool)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def block(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        where = slices, units, samples
        present = self.packing.present(self.values.stored(*where))
        return present if self.mask is None else present & np.asarray(self.mask.block(*where))

    def check(self) -> None:
        self.values.check()


def rectangles(slices: slice, n_timesteps: int) -> Iterator[tuple[slice, slice]]:
    """(epochs, timesteps) that cover ``slices`` in order: the end of an epoch, whole epochs, the start of an epoch.

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
    """A digest of the state of a file, or of all files in a folder: names, sizes, times and inode numbers.

    It is the same in every process: one may open a trace, and another read it.
    """
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    states = [(str(file), file.stat()) for file in files]
    described = [(name, state.st_size, state.st_mtime_ns, state.st_ino) for name, state in states]
    return hashlib.blake2b(repr(described).encode()).hexdigest()


def check_stamp(path: Path, stamp: str) -> None:
    """Raise `InputError` if ``path`` is not as it was when `stamp_of` gave ``stamp``."""
    try:
        same = stamp_of(path) == stamp
    except OSError as error:
        raise changed(path) from error
    if not same:
        raise changed(path)


def changed(path: Path) -> InputError:
    return InputError(
        f"{os.fspath(path)} has changed, or was truncated, since it was opened; "
        "accepted: a file that does not change until it is read, or until the run ends if it is read block by block"
    )
