"""One protocol for the arrays and the points of a trace: blocks of a tensor, of a file, or computed in every pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from ..ops.chunks import Chunk, pair_chunks, row_chunks
from ..runtime.arrays import real_tensor, tensor_of

# Elements per block: bounds the float64 temporaries of a pass over the trace to 32 MiB each.
BLOCK_ELEMENTS = 2**22
ALL = slice(None)


class Blocks(Protocol):
    """An array (E, T, M, P) or (S, M, P), or points (S, M, P), that is read block by block."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def block(self, slices: slice, units: slice, features: slice) -> Any:  # (B, m, d)
        """The values of some slices (epoch * n_timesteps + timestep), units, and samples or features."""

    def check(self) -> None:
        """Raise `InputError` if the file behind the values has changed since it was opened."""


@dataclass(frozen=True, eq=False)
class TensorBlocks:
    """The blocks of a tensor."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def block(self, slices: slice, units: slice, features: slice = ALL) -> torch.Tensor:  # (B, m, d)
        if self.tensor.ndim == 3:
            return self.tensor[slices, units, features]
        # Gather slice by slice: flattening a transposed tensor at once would copy it whole.
        n_epochs, n_timesteps = self.shape[:2]
        ids = torch.arange(n_epochs * n_timesteps, device=self.tensor.device)[slices]
        return self.tensor[:, :, units, features][ids // n_timesteps, ids % n_timesteps]

    def check(self) -> None:
        """A tensor does not change."""

    def load(self) -> torch.Tensor:
        return self.tensor

    def to(self, device: torch.device, *, block_by_block: bool) -> Array:
        """The tensor on ``device``, or a `StoredArray` that brings it there ``block_by_block``."""
        if block_by_block:
            return StoredArray(self, self.shape, self.dtype, device)
        return self._core().to(device).expand(self.shape)

    def _core(self) -> torch.Tensor:
        """A single entry along the axes along which a mask repeats: they stay so, and are not written out."""
        return self.tensor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in self.tensor.stride())]

    def select(self, index: Sequence[np.ndarray | None]) -> torch.Tensor:
        """The entries at the indices of each axis; None selects all. Evenly rising indices give a view."""
        values = self._core()
        for axis, ids in enumerate(index):
            repeats = values.shape[axis] < self.shape[axis]
            values = values if ids is None or repeats else _select(values, axis, ids)
        return values.expand([size if ids is None else len(ids) for ids, size in zip(index, self.shape, strict=True)])

    def mean(self) -> torch.Tensor:  # (P,)
        return column_mean(self.shape, rows(self))


def _select(values: torch.Tensor, axis: int, index: np.ndarray) -> torch.Tensor:
    steps = np.diff(index)
    step = int(steps[0]) if steps.size else 1
    if step > 0 and (steps == step).all():
        return values[(slice(None),) * axis + (slice(int(index[0]), int(index[-1]) + 1, step),)]
    return values.index_select(axis, torch.as_tensor(index.copy(), device=values.device))


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array that stays where ``source`` has it; its blocks are tensors. ``np.asarray`` reads all values."""

    source: Blocks
    shape: tuple[int, ...]
    dtype: torch.dtype  # of the blocks
    device: torch.device  # where the blocks go

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def to(self, device: torch.device, *, block_by_block: bool = True) -> StoredArray:
        return replace(self, device=device)

    def unsqueeze(self, dim: int) -> StoredArray:
        return replace(self, shape=(*self.shape[:dim], 1, *self.shape[dim:]))

    def squeeze(self, dim: int) -> StoredArray:
        return replace(self, shape=(*self.shape[:dim], *self.shape[dim + 1 :]))

    def block(self, slices: slice, units: slice, features: slice = ALL) -> torch.Tensor:  # (B, m, d)
        """A block, on the device. Raises `InputError` if the file no longer holds it."""
        sizes = self.shape[0] * self.shape[1], *self.shape[2:]
        ranges = (slice(*part.indices(size)[:2]) for part, size in zip((slices, units, features), sizes, strict=True))
        values = self.source.block(*ranges)
        if isinstance(values, np.ndarray):
            values = tensor_of(values) if self.dtype == torch.bool else real_tensor("data", values)
        return values.to(self.device, self.dtype)

    def check(self) -> None:
        self.source.check()

    def load(self) -> torch.Tensor:  # (E, T, M, P)
        """All values, in memory."""
        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for chunk, values, _ in blocks(self, None):
            out.flatten(0, 1)[chunk.sets, chunk.rows] = values
        return out

    def select(self, index: Sequence[np.ndarray | None]) -> torch.Tensor:  # (e, t, m, p)
        """The entries at the indices of each axis, in memory; None selects all. Only the chosen slices are read."""
        epochs, timesteps, *rest = (np.arange(n) if i is None else i for i, n in zip(index, self.shape, strict=True))
        units, samples = (torch.as_tensor(ids.copy(), device=self.device) for ids in rest)
        wanted = (epochs[:, None] * self.shape[1] + timesteps).ravel()
        ids, places = np.unique(wanted, return_inverse=True)
        runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)  # of slices that follow one another
        parts = [
            self.block(slice(int(run[0]) + part.start, int(run[0]) + part.stop), ALL)[:, units][..., samples]
            for run in runs
            for part in row_chunks(len(run), self.shape[2] * self.shape[3], BLOCK_ELEMENTS)
        ]
        self.check()
        values = torch.cat(parts)
        if not np.array_equal(ids, wanted):
            values = values[torch.as_tensor(places.ravel(), device=values.device)]
        return values.unflatten(0, (len(epochs), len(timesteps)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self.load().cpu().numpy()
        return values if dtype is None else values.astype(dtype, copy=False)


Array: TypeAlias = torch.Tensor | StoredArray  # of a `Trace`


def blockwise(array: torch.Tensor | Blocks) -> Any:
    """``array`` as `Blocks`."""
    return TensorBlocks(array) if isinstance(array, torch.Tensor) else array


def stored_values(source: Blocks) -> StoredArray:
    """The values of an array in a file as float32 or float64, by the rules of `real_tensor`.

    Integers of more than two bytes are all read once, since those beyond 2^24 ask for float64.
    """
    parts = _all_blocks(source) if source.dtype.kind in "iu" and source.dtype.itemsize > 2 else iter(())
    wide = any(real_tensor("data", part).dtype == torch.float64 for part in parts)
    dtype = torch.float64 if wide else real_tensor("data", np.empty(0, source.dtype)).dtype
    return StoredArray(source, source.shape, dtype, torch.device("cpu"))


def all_true(source: Blocks) -> bool:
    """Whether all booleans of an array in a file are True: one pass over them."""
    return all(bool(part.all()) for part in _all_blocks(source))


def _all_blocks(source: Blocks) -> Iterator[Any]:  # (B, m, P)
    shape, samples = source.shape, slice(0, source.shape[-1])
    chunks = chunks_of((*shape[:-2], *(1,) * (4 - len(shape)), *shape[-2:]))
    return (source.block(chunk.sets, chunk.rows, samples) for chunk in chunks)


# ---------------------------------------------------------------- passes over an array


def chunks_of(shape: tuple[int, ...]) -> Iterator[Chunk]:
    """Blocks that cover an array (E, T, M, P) in order: many whole slices, or some units of one."""
    return pair_chunks(shape[0] * shape[1], shape[3], BLOCK_ELEMENTS, rows=slice(0, shape[2]))


def blocks(data: Array, mask: Array | None) -> Iterator[tuple[Chunk, torch.Tensor, torch.Tensor | None]]:
    """(chunk, values (B, m, P), present (B, m, P) or None) over all slices and units, in order.

    Raises
    ------
    InputError
        At the end, if a file has changed since it was opened.
    """
    arrays = [blockwise(data), *([] if mask is None else [blockwise(mask)])]
    for chunk in chunks_of(data.shape):
        values, *present = (array.block(chunk.sets, chunk.rows) for array in arrays)
        yield chunk, values, present[0] if present else None
    for array in arrays:
        array.check()


def rows(points: torch.Tensor | Blocks) -> Iterator[torch.Tensor]:  # (n, P) float64
    """The points of a stack (S, M, P), in order and a bounded number at a time."""
    source = blockwise(points)
    for chunk in chunks_of((points.shape[0], 1, *points.shape[1:])):
        yield _flat(source.block(chunk.sets, chunk.rows, ALL))
    source.check()


def columns(points: torch.Tensor | Blocks) -> Iterator[tuple[slice, torch.Tensor]]:  # (N, p) float64
    """(features, those of all points) side by side, a bounded number of entries at a time."""
    source, (n_slices, n_units, n_features) = blockwise(points), points.shape
    for features in row_chunks(n_features, n_slices * n_units, BLOCK_ELEMENTS):
        yield features, _flat(source.block(ALL, ALL, features))
    source.check()


def _flat(block: torch.Tensor) -> torch.Tensor:  # (B, m, d) -> (n, d)
    return block.double().reshape(-1, block.shape[-1])


def column_mean(shape: tuple[int, ...], parts: Iterator[torch.Tensor]) -> torch.Tensor:  # (P,)
    """The mean of rows that come block by block, added in their order."""
    total: Any = sum(part.reshape(-1, shape[-1]).sum(0) for part in parts)
    return total / (shape[0] * shape[1])
