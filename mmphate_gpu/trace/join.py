"""Join the traces of one run that was recorded in parts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from ..errors import InputError, InputTypeError, check_choice
from ..runtime.isolation import isolated
from ..runtime.read_array import is_sequence
from .convert import as_trace
from .dims import AXES, BESIDE_AXES
from .files import load_trace
from .readers import rectangles
from .stored import Array, StoredArray, blockwise
from .trace import Trace

# (number of a trace, entries of its axis) that follow one another in the joined trace
Runs: TypeAlias = tuple[tuple[int, slice], ...]


@isolated()
def join_traces(
    traces: Sequence[Any], *, axis: Literal["epoch", "unit"] = "epoch", overlap: Literal["raise", "last"] = "raise"
) -> Trace:
    """The trace of one run that was recorded in parts: parts of its epochs, or parts of its units.

    All that does not lie along the axis has to be equal: the axes, the other coordinates, the labels, and for parts of
    the epochs the layers of the units. Epochs that are numbers or dates come in ascending order; epochs that are text,
    and units, come in the order of the traces. A trace without a mask has all its values present. A metric is NaN at
    the epochs of a trace that lacks it. If one trace is float32 and another float64, the result is float64. If a trace
    is read block by block, the result is too.

    Parameters
    ----------
    traces : a list of traces, of paths that `load_trace` reads, or of what `as_trace` takes.
    axis : "epoch" for parts of a training run, "unit" for layers of one network that were recorded apart.
    overlap : what happens to an epoch that occurs twice, or to a unit that occurs twice in one layer. "raise" refuses
        it, and "last" keeps its last occurrence, as for a run that continued from an earlier checkpoint.

    Raises
    ------
    InputError, InputTypeError
        Traces that do not agree. The message names what differs, and in which trace.

    Notes
    -----
    Values in memory are copied. The result is checked in one pass over all values, as by `as_trace`.

    Examples
    --------
    >>> parts = [as_trace(np.zeros((3, 2, 4, 5)), epoch=epochs) for epochs in ([0, 1, 2], [2, 3, 4])]
    >>> join_traces(parts, overlap="last").epoch.tolist()
    [0, 1, 2, 3, 4]
    """
    check_choice("axis", axis, ("epoch", "unit"))
    check_choice("overlap", overlap, ("raise", "last"))
    parts = _parts(traces)
    for number, part in enumerate(parts[1:], start=1):
        _check_agree(number, parts[0], part, axis)
    picks = _picks(parts, axis, overlap)
    joined = partial(_joined, place=AXES.index(axis), runs=_runs(picks, [len(getattr(part, axis)) for part in parts]))
    recorded = {part.recorded for part in parts}
    return replace(
        parts[0],
        data=joined([part.data for part in parts]),
        mask=None if all(part.mask is None for part in parts) else joined(list(map(_mask_of, parts))),
        recorded=recorded.pop() if len(recorded) == 1 else None,
        **{axis: _coordinate(parts, axis)[picks]},
        **({"metrics": _metrics(parts, picks)} if axis == "epoch" else _of_units(parts, picks)),
    )


def _parts(traces: Any) -> list[Trace]:
    if not is_sequence(traces) or not len(traces):
        shown = "empty" if is_sequence(traces) else f"a {type(traces).__name__}"
        raise InputTypeError(f"traces is {shown}; accepted: a list of traces or of paths, at least 1")
    return [_part(number, item) for number, item in enumerate(traces)]


def _part(number: int, item: Any) -> Trace:
    try:
        return load_trace(item) if isinstance(item, str | os.PathLike) else as_trace(item, min_slices=1)
    except InputError as error:
        raise type(error)(f"traces[{number}]: {error}") from error


# ---------------------------------------------------------------- what has to agree


def _check_agree(number: int, first: Trace, other: Trace, axis: str) -> None:
    """Raise `InputError` if the traces 0 and ``number`` differ in anything that does not lie along ``axis``."""
    beside = [name for name in (*AXES, *BESIDE_AXES) if axis not in (name, BESIDE_AXES.get(name))]
    pairs = {name: (getattr(first, name), getattr(other, name)) for name in beside}
    if axis == "unit":
        names = first.metrics.keys() & other.metrics.keys()
        pairs |= {f"metrics[{name!r}]": (first.metrics[name], other.metrics[name]) for name in sorted(names)}
    differences: dict[str, str | None] = {name: _difference(*pair) for name, pair in pairs.items()}
    zones = [dict(trace.time_zone) for trace in (first, other)]
    differences["time_zone"] = None if zones[0] == zones[1] else f"is {zones[1]}, not {zones[0]}"
    differences["axes"] = None if first.axes == other.axes else f"is {other.axes}, not {first.axes}"
    devices = [trace.data.device for trace in (first, other)]
    differences["device"] = None if devices[0] == devices[1] else f"is {devices[1]}, not {devices[0]}"
    differences[axis] = _difference_of_types(getattr(first, axis), getattr(other, axis))
    if axis == "unit" and (first.unit_layer is None) != (other.unit_layer is None):
        differences["unit_layer"] = _difference(first.unit_layer, other.unit_layer)
    for name, difference in differences.items():
        if difference is not None:
            raise InputError(f"traces[{number}]: {name} {difference} as in traces[0]; accepted: the same in all traces")


def _difference(first: np.ndarray | None, other: np.ndarray | None) -> str | None:
    """How ``other`` differs from ``first``, as the end of a sentence; None if it does not."""
    if first is None or other is None:
        return None if first is other else f"is {'missing' if other is None else 'set'}, not"
    if first.shape != other.shape:
        return f"has {len(other)} entries, not {len(first)}"
    if _difference_of_types(first, other) is None:
        unequal = np.flatnonzero(~((first == other) | ((first != first) & (other != other))))
        return f"is {other[unequal[0]]} at index {unequal[0]}, not {first[unequal[0]]}" if unequal.size else None
    return _difference_of_types(first, other)


def _difference_of_types(first: np.ndarray, other: np.ndarray) -> str | None:
    """None for two arrays of numbers, of text, of dates or of time spans, which compare and join."""
    types = ["number" if array.dtype.kind in "biuf" else array.dtype.kind for array in (first, other)]
    return None if types[0] == types[1] else f"has dtype {other.dtype}, not {first.dtype}"


# ---------------------------------------------------------------- which entries of which trace


def _coordinate(parts: list[Trace], axis: str) -> np.ndarray:
    return np.concatenate([getattr(part, axis) for part in parts])


def _picks(parts: list[Trace], axis: str, overlap: str) -> np.ndarray:
    """The entries of the concatenated axis that the joined trace has, in its order."""
    coordinate = _coordinate(parts, axis)
    keys: list[Any] = coordinate.tolist()
    if axis == "unit" and parts[0].unit_layer is not None:
        keys = list(zip(_coordinate(parts, "unit_layer").tolist(), keys, strict=True))
    last: dict[Any, int] = {}
    for place, key in enumerate(keys):
        if key in last and overlap == "raise":
            raise _repeated(parts, axis, last[key], place, coordinate[place])
        last[key] = place
    picks = np.array(list(last.values()))
    if axis == "unit" or coordinate.dtype.kind == "U":
        return picks
    return picks[np.argsort(coordinate[picks], kind="stable")]


def _repeated(parts: list[Trace], axis: str, earlier: int, later: int, value: Any) -> InputError:
    sizes = [len(getattr(part, axis)) for part in parts]
    first, second = np.searchsorted(np.cumsum(sizes), [earlier, later], side="right")
    return InputError(
        f"traces[{second}] holds the {axis} {value}, which traces[{first}] holds too; accepted: each {axis} once, or "
        "overlap='last', which keeps the later of both"
    )


def _runs(picks: np.ndarray, sizes: list[int]) -> Runs:
    """``picks`` as parts of the traces, whose axes have the ``sizes``.

    >>> _runs(np.array([0, 1, 3, 4, 2]), [3, 2])
    ((0, slice(0, 2, None)), (1, slice(0, 2, None)), (0, slice(2, 3, None)))
    """
    ends = np.cumsum(sizes)
    part = np.searchsorted(ends, picks, side="right")
    row = picks - (ends - sizes)[part]
    breaks = np.flatnonzero((np.diff(row) != 1) | (np.diff(part) != 0)) + 1
    starts, stops = [0, *breaks], [*breaks, len(picks)]
    return tuple((int(part[i]), slice(int(row[i]), int(row[j - 1]) + 1)) for i, j in zip(starts, stops, strict=True))


def _metrics(parts: list[Trace], picks: np.ndarray) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for part in parts for name in part.metrics)
    missing = [np.full(part.n_epochs, np.nan) for part in parts]
    every = {name: [part.metrics.get(name, gap) for part, gap in zip(parts, missing, strict=True)] for name in names}
    return {name: np.concatenate(values)[picks] for name, values in every.items()}


def _of_units(parts: list[Trace], picks: np.ndarray) -> dict[str, Any]:
    layers = None if parts[0].unit_layer is None else _coordinate(parts, "unit_layer")[picks]
    return {"unit_layer": layers, "metrics": {name: part.metrics[name] for part in parts for name in part.metrics}}


# ---------------------------------------------------------------- values


def _mask_of(part: Trace) -> Array:
    return (
        torch.ones((), dtype=torch.bool, device=part.data.device).expand(part.shape) if part.mask is None else part.mask
    )


def _joined(arrays: list[Array], place: int, runs: Runs) -> Array:  # (E, T, M, P)
    """The ``runs`` of the arrays one behind the other along the axis ``place``, in memory if all arrays are."""
    size = sum(cut.stop - cut.start for _, cut in runs)
    shape = (*arrays[0].shape[:place], size, *arrays[0].shape[place + 1 :])
    tensors = [array for array in arrays if isinstance(array, torch.Tensor)]
    if len(tensors) == len(arrays):
        return _joined_tensors(tensors, place, runs).expand(shape)
    dtype = reduce(torch.promote_types, (arrays[number].dtype for number, _ in runs))
    source = JoinedBlocks(tuple(map(blockwise, arrays)), shape, dtype, place, runs)
    return StoredArray(source, shape, dtype, arrays[0].device)


def _joined_tensors(tensors: list[torch.Tensor], place: int, runs: Runs) -> torch.Tensor:
    """The joined values, with a single entry along each axis along which all tensors repeat the same values."""
    repeats = [all(each.shape[axis] == 1 or each.stride(axis) == 0 for each in tensors) for axis in range(4)]
    cores = [each[tuple(slice(0, 1) if once else slice(None) for once in repeats)] for each in tensors]
    if repeats[place] and all(torch.equal(cores[0], core) for core in cores[1:]):
        return cores[0]
    repeats[place] = False
    cores = [each[tuple(slice(0, 1) if once else slice(None) for once in repeats)] for each in tensors]
    return torch.cat([cores[number].narrow(place, cut.start, cut.stop - cut.start) for number, cut in runs], dim=place)


@dataclass(frozen=True, eq=False)
class JoinedBlocks:
    """The ``runs`` of arrays (E, T, M, P) one behind the other along the axis ``place``: 0, epochs, or 2, units."""

    arrays: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    place: int
    runs: Runs

    def block(self, slices: slice, units: slice, features: slice) -> torch.Tensor:  # (B, m, d)
        if self.place == 2:
            parts = [self.arrays[number].block(slices, cut, features) for number, cut in self._cuts(units)]
            return torch.cat(parts, dim=1)
        return torch.cat([self.arrays[number].block(cut, units, features) for number, cut in self._slices(slices)])

    def _slices(self, slices: slice) -> Iterator[tuple[int, slice]]:
        """(array, its slices) that make up ``slices`` of the joined array."""
        n = self.shape[1]  # time steps
        for epochs, timesteps in rectangles(slices, n):
            for number, cut in self._cuts(epochs):
                yield number, slice(cut.start * n + timesteps.start, (cut.stop - 1) * n + timesteps.stop)

    def _cuts(self, wanted: slice) -> Iterator[tuple[int, slice]]:
        """(array, entries of its axis ``place``) that make up the entries ``wanted`` of the joined axis."""
        start = 0
        for number, run in self.runs:
            size = run.stop - run.start
            low, high = max(wanted.start - start, 0), min(wanted.stop - start, size)
            if low < high:
                yield number, slice(run.start + low, run.start + high)
            start += size

    def check(self) -> None:
        for array in self.arrays:
            array.check()
