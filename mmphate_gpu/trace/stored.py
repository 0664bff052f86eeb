"""Arrays that are read a part at a time: traces larger than the memory of the host or of the GPU."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import InputError
from ..ops.chunks import Chunk, pair_chunks, row_chunks
from ..runtime.arrays import real_tensor, tensor_of
from .packing import Packing

# Elements per block: bounds the float64 temporaries of a pass over the trace to 32 MiB each.
BLOCK_ELEMENTS = 2**22
ALL = slice(None)


class Reader(Protocol):
    """What reads a stored (epoch, timestep, unit, sample) or (slice, unit, sample) array by parts."""

    shape: tuple[int, ...]
    dtype: Any

    def read(self, slices: slice, units: slice, samples: slice) -> Any:  # (B, m, d)
        """The values of some slices (epoch * n_timesteps + timestep), units and samples; bounded ranges."""

    def check(self) -> None:
        """Raise `InputError` if what is read is no longer what was opened."""


# ---------------------------------------------------------------- readers


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

    def read(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
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
    view = memoryview(target)
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

    def read(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        n_timesteps = 1 if len(self.shape) == 3 else self.shape[1]
        parts = [
            self.files[epoch].read(timesteps, units, samples)
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

    def read(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
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
    mask: Reader | None
    dtype: np.dtype = np.dtype(bool)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        where = slices, units, samples
        present = self.values.packing.present(self.values.stored(*where))
        return present if self.mask is None else present & np.asarray(self.mask.read(*where))

    def check(self) -> None:
        self.values.check()


@dataclass(frozen=True)
class HeldTensor:
    """A tensor (epoch, timestep, unit, sample) in the memory of the host, too large for that of the GPU."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def read(self, slices: slice, units: slice, samples: slice) -> torch.Tensor:  # (B, m, d)
        return part_of(self.tensor, slices, units, samples)

    def check(self) -> None:
        """Nothing to tell a change by."""


READERS = (FlatFile, FileFolder, ChunkedArray, PresentValues)  # the classes of arrays in an open file


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
        "accepted: a file that does not change until it is read, or until the run ends if it is read by parts"
    )


# ---------------------------------------------------------------- as a trace holds them


@dataclass(frozen=True, eq=False)
class StoredArray:
    """What a `Trace` asks of a tensor, of an array whose values are read by parts; ``np.asarray`` reads them all."""

    reader: Reader
    shape: tuple[int, ...]
    dtype: torch.dtype  # of the parts
    device: torch.device  # where they go

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def to(self, device: torch.device) -> StoredArray:
        return replace(self, device=device)

    def unsqueeze(self, dim: int) -> StoredArray:
        return replace(self, shape=(*self.shape[:dim], 1, *self.shape[dim:]))

    def squeeze(self, dim: int) -> StoredArray:
        return replace(self, shape=(*self.shape[:dim], *self.shape[dim + 1 :]))

    def read(self, slices: slice, units: slice, samples: slice) -> torch.Tensor:  # (B, m, d)
        """A part, on the device; `InputError` if the file no longer holds it."""
        values = self.reader.read(slices, units, samples)
        if isinstance(values, np.ndarray):
            values = tensor_of(values) if self.dtype == torch.bool else real_tensor("data", values)
        return values.to(self.device, self.dtype)

    def check(self) -> None:
        self.reader.check()

    def load(self) -> torch.Tensor:  # (E, T, M, S)
        """All values, in memory."""
        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for chunk in chunks_of(self.shape):
            out.flatten(0, 1)[chunk.sets, chunk.rows] = part_of(self, chunk.sets, chunk.rows)
        self.check()
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self.load().cpu().numpy()
        return values if dtype is None else values.astype(dtype, copy=False)


Array = torch.Tensor | StoredArray


def stored_values(reader: Reader) -> StoredArray:
    """The values that ``reader`` reads as float32 or float64, by the rules of `real_tensor`.

    Integers of more than two bytes are all read once, since those beyond 2^24 ask for float64.
    """
    dtype = real_tensor("data", np.empty(0, reader.dtype)).dtype
    stored = StoredArray(reader, tuple(reader.shape), dtype, torch.device("cpu"))
    wide = reader.dtype.kind in "iu" and reader.dtype.itemsize > 2 and len(reader.shape) in (3, 4)
    if wide and any(real_tensor("data", part).dtype == torch.float64 for part in _parts_of(reader)):
        return replace(stored, dtype=torch.float64)
    return stored


def _parts_of(reader: Reader) -> Iterator[Any]:  # (B, m, P)
    """All values of ``reader`` (3 or 4 axes), part by part and in order."""
    shape, samples = tuple(reader.shape), slice(0, reader.shape[-1])
    shape_4d = (*shape[:-2], *(1,) * (4 - len(shape)), *shape[-2:])
    return (reader.read(chunk.sets, chunk.rows, samples) for chunk in chunks_of(shape_4d))


def all_true(reader: Reader) -> bool:
    """Whether all booleans that ``reader`` reads are True: one pass over them."""
    return all(bool(part.all()) for part in _parts_of(reader))


def stored_mask(reader: Reader) -> StoredArray:
    """The booleans that ``reader`` reads."""
    return StoredArray(reader, tuple(reader.shape), torch.bool, torch.device("cpu"))


def by_parts(tensor: torch.Tensor, device: torch.device) -> StoredArray:
    """``tensor``, which stays where it is, brought to ``device`` part by part."""
    return StoredArray(HeldTensor(tensor), tuple(tensor.shape), tensor.dtype, device)


def chunks_of(shape: tuple[int, ...]) -> Iterator[Chunk]:
    """Blocks that cover an array (E, T, M, S) in order: many whole slices, or some units of one."""
    return pair_chunks(shape[0] * shape[1], shape[3], BLOCK_ELEMENTS, rows=slice(0, shape[2]))


def part_of(array: Array, slices: slice, units: slice, samples: slice = ALL) -> torch.Tensor:  # (B, m, d)
    """Some slices, units and samples of ``array`` (E, T, M, S).

    Of a tensor gathered slice by slice: flattening a transposed one at once would copy it whole.
    """
    n_timesteps, n_units, n_samples = array.shape[1:]
    if isinstance(array, StoredArray):
        sizes = ((slices, array.shape[0] * n_timesteps), (units, n_units), (samples, n_samples))
        return array.read(*(slice(*part.indices(size)[:2]) for part, size in sizes))
    ids = torch.arange(array.shape[0] * n_timesteps, device=array.device)[slices]
    return array[:, :, units, samples][ids // n_timesteps, ids % n_timesteps]


def blocks(data: Array, mask: Array | None) -> Iterator[tuple[Chunk, torch.Tensor, torch.Tensor | None]]:
    """(chunk, values (B, m, S), present (B, m, S) or None) over all slices and units, in order.

    Raises
    ------
    InputError
        At the end, if a file has changed since it was opened.
    """
    for chunk in chunks_of(data.shape):
        where = chunk.sets, chunk.rows
        yield chunk, part_of(data, *where), None if mask is None else part_of(mask, *where)
    check_unchanged(data, mask)


def check_unchanged(*arrays: Array | None) -> None:
    """Raise `InputError` if the file behind one of ``arrays`` has changed since it was opened."""
    for array in arrays:
        if isinstance(array, StoredArray):
            array.check()


def selected(array: StoredArray, index: list[np.ndarray]) -> torch.Tensor:  # (e, t, m, s)
    """The entries at the (sorted or not) indices of the four axes, in memory; only the slices asked for are read."""
    units, samples = (torch.as_tensor(part.copy(), device=array.device) for part in index[2:])
    wanted = (index[0][:, None] * array.shape[1] + index[1]).ravel()
    ids, where = np.unique(wanted, return_inverse=True)
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)  # of slices that follow one another
    parts = [
        part_of(array, slice(int(run[0]) + rows.start, int(run[0]) + rows.stop), ALL)[:, units][..., samples]
        for run in runs
        for rows in row_chunks(len(run), array.shape[2] * array.shape[3], BLOCK_ELEMENTS)
    ]
    array.check()
    found = torch.cat(parts)
    if not np.array_equal(ids, wanted):
        found = found[torch.as_tensor(where.ravel(), device=found.device)]
    return found.unflatten(0, (len(index[0]), len(index[1])))
