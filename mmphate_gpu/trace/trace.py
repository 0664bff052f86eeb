"""The recorded tensor with named axes, coordinates and a mask, and the checks of its values."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError
from ..runtime.arrays import array_or_tensor, to_numpy
from ..runtime.memory import available_bytes, check_fits
from .coordinates import as_coordinate, as_label, as_metrics, as_time_zone, as_unit_layer, time_zone_of
from .dims import AXES, SLICE_AXES, SizesByName, check_data_shape, check_length
from .stored import Array, blocks, blockwise

# A trace that takes a larger share of the free memory is read block by block: beside a trace in memory a run holds its
# points, in float64 twice the bytes of a float32 trace, and what it computes from them.
STREAM_SHARE = 0.25
# Squares of larger float64 values, summed over samples, would overflow to infinity.
_LARGEST = 1e150


@dataclass(frozen=True, eq=False)
class Trace(SizesByName):
    """A recorded tensor with its coordinates; make one with `as_trace`.

    Attributes
    ----------
    data : (E, T, M, P) tensor, float32 or float64, any device; never modified. For a file too large for the memory a
        `StoredArray`, whose values every pass reads block by block: see `load_trace`, and `load`.
    epoch, timestep, unit, sample : (E,), (T,), (M,), (P,) coordinates: numbers, fixed-width text or dates.
    mask : (E, T, M, P) boolean tensor, or `StoredArray`, True where a value is present; None when all are. A mask that
        is True everywhere becomes None.
    axes : the axes of the data before they became four; ("slice", "unit", "sample") means E slices and one timestep.
    label : (P,) integer class of each sample, or None.
    recorded : torch.float16 or torch.bfloat16 if the values were rounded to it before; None if they were not.
    metrics : (E,) float64 array by name, such as the loss of each epoch; NaN where an epoch has no value.
    unit_layer : (M,) text, the layer of the network that each unit is in; None if unknown.
    time_zone : the name of the time zone by axis, for coordinates that were dates with one. Their dates are in UTC.

    Raises
    ------
    InputError, InputTypeError
        A field that does not fit the others, or a value that is present and not finite. Cost: one pass over the data.
    """

    data: Array
    epoch: np.ndarray
    timestep: np.ndarray
    unit: np.ndarray
    sample: np.ndarray
    mask: Array | None = None
    axes: tuple[str, ...] = AXES
    label: np.ndarray | None = None
    recorded: torch.dtype | None = None
    metrics: Mapping[str, np.ndarray] = field(default_factory=dict)
    unit_layer: np.ndarray | None = None
    time_zone: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        zones = {name: zone for name in AXES if (zone := time_zone_of(name, getattr(self, name))) is not None}
        vars(self).update(time_zone=as_time_zone(self.time_zone) | zones)
        vars(self).update({name: as_coordinate(name, getattr(self, name)) for name in AXES}, label=as_label(self.label))
        vars(self).update(metrics=as_metrics(self.metrics), unit_layer=as_unit_layer(self.unit_layer))
        if self._in_memory:
            vars(self).update(data=array_or_tensor("data", self.data))
        _check_fields(self)
        if _check_values(self):
            vars(self).update(mask=None)

    @property
    def n_samples(self) -> int:
        return self.data.shape[3]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return tuple(self.data.shape)  # type: ignore[return-value]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {size}" for name, size in zip(AXES, self.shape, strict=True))
        dtype = str(self.data.dtype).removeprefix("torch.") + ("" if self._in_memory else " read block by block")
        extra = ["masked"] * (self.mask is not None) + [f"metrics {', '.join(self.metrics)}"] * bool(self.metrics)
        return f"Trace({sizes}; {', '.join([f'{dtype} on {self.data.device}', *extra])})"

    @property
    def _in_memory(self) -> bool:
        """Whether the values are in memory, not read block by block."""
        return isinstance(self.data, torch.Tensor)

    @property
    def nbytes(self) -> int:
        """The bytes of all values in memory."""
        return math.prod(self.shape) * self.data.dtype.itemsize

    def to(self, device: torch.device) -> Trace:
        """The same trace with its tensors on ``device``; itself if they are on it.

        Tensors that would take more than a quarter of a GPU's free memory stay where they are; their blocks go there.
        """
        if self.data.device == device:
            return self
        large = device.type == "cuda" and self.nbytes > STREAM_SHARE * available_bytes(device)
        return self._moved(device, block_by_block=large)

    def _moved(self, device: torch.device, *, block_by_block: bool) -> Trace:
        return self._with_arrays(lambda array: array.to(device, block_by_block=block_by_block))

    def _with_arrays(self, changed: Callable[[Any], Array]) -> Trace:
        trace = copy.copy(self)  # a new Trace would check every value once more
        mask = None if self.mask is None else changed(blockwise(self.mask))
        vars(trace).update(data=changed(blockwise(self.data)), mask=mask)
        return trace

    def load(self) -> Trace:
        """The same trace with all its values in memory; itself if they are in memory.

        Raises
        ------
        InputError
            They do not fit, or the file has changed since it was opened.
        """
        if self._in_memory:
            return self
        remedy = "Trace.subsample takes a part into memory, and the run reads the trace block by block"
        check_fits(f"a trace of shape {self.shape} in memory", self.nbytes, self.data.device, remedy=remedy)
        return self._with_arrays(lambda array: array.load())

    def subsample(self, *, epochs: Any = None, timesteps: Any = None, units: Any = None, samples: Any = None) -> Trace:
        """The part of the trace that slices, index arrays or boolean arrays select, one per axis.

        Coordinates, mask, labels, layers and metrics follow. Rising slices give views of the data, index arrays
        copies; of a trace that is read block by block the selection is in memory. The epochs of a (slice, unit,
        sample) trace are its slices.

        Raises
        ------
        InputError
            An index out of range, or a selection that is empty.
        """
        chosen = dict(zip(AXES, (epochs, timesteps, units, samples), strict=True))
        index = {
            name: _selection(f"{name}s", selector, len(getattr(self, name)))
            for name, selector in chosen.items()
            if selector is not None
        }
        if not index:
            return self
        coordinates = {name: getattr(self, name)[taken] for name, taken in index.items()}
        every = slice(None)
        beside: dict[str, Any] = {
            "label": None if self.label is None else self.label[index.get("sample", every)],
            "unit_layer": None if self.unit_layer is None else self.unit_layer[index.get("unit", every)],
            "metrics": {name: values[index.get("epoch", every)] for name, values in self.metrics.items()},
        }
        arrays = {"data": self.data} | ({} if self.mask is None else {"mask": self.mask})
        selected = {name: blockwise(array).select([index.get(axis) for axis in AXES]) for name, array in arrays.items()}
        return replace(self, **selected, **beside, **coordinates)


def _selection(name: str, selector: Any, size: int) -> np.ndarray:
    """The indices of an axis of ``size`` entries that a slice, an index array or a boolean array selects."""
    chosen = selector if isinstance(selector, slice) else to_numpy(name, selector)
    try:
        index = np.atleast_1d(np.arange(size)[chosen])
    except (IndexError, TypeError) as error:
        raise InputError(f"{name}={selector!r} selects nothing valid of {size} entries ({error})") from error
    if index.ndim != 1 or index.size == 0:
        raise InputError(f"{name}={selector!r} selects shape {index.shape} of {size} entries; accepted: 1 or more")
    return index


def _check_fields(trace: Trace) -> None:
    data, shape = trace.data, tuple(trace.data.shape)
    if data.dtype not in (torch.float32, torch.float64):
        raise InputTypeError(f"data has dtype {data.dtype}; a Trace holds float32 or float64 (see as_trace)")
    if data.ndim != 4:
        raise InputError(f"data has {data.ndim} axes; a Trace holds 4 (see as_trace)")
    check_data_shape(shape)
    first = "slice" if trace.axes == SLICE_AXES else "epoch"
    for name, size in zip(AXES, shape, strict=True):
        check_length(name, getattr(trace, name).shape, size, first if name == "epoch" else name)
    if trace.label is not None:
        check_length("label", trace.label.shape, shape[3], "sample")
    if trace.unit_layer is not None:
        check_length("unit_layer", trace.unit_layer.shape, shape[2], "unit")
    for name, zone in trace.time_zone.items():
        if (dtype := getattr(trace, name).dtype).kind != "M":
            raise InputError(f"time_zone has {zone!r} for {name}, which has dtype {dtype}; accepted: dates")
    for name, values in trace.metrics.items():
        check_length(f"metrics[{name!r}]", values.shape, shape[0], first)
    if trace.mask is not None and (tuple(trace.mask.shape) != shape or trace.mask.dtype != torch.bool):
        raise InputError(f"mask is {trace.mask.dtype} of shape {tuple(trace.mask.shape)}; accepted: bool of {shape}")


def _check_values(trace: Trace) -> bool:
    """Whether every value is present; raise `InputError` if one that is present is not finite or too large."""
    largest, complete = min(_LARGEST, torch.finfo(trace.data.dtype).max), True
    for chunk, values, present in blocks(trace.data, trace.mask):
        start = chunk.sets.start, chunk.rows.start
        good = values.abs() <= largest  # false for NaN too
        if present is not None:
            good |= ~present
            complete &= bool(present.all())
        if not bool(good.all()):
            first = torch.nonzero(~good)[0].tolist()
            value, where = values[tuple(first)].item(), _place(trace, start, first)
            raise InputError(
                f"data holds {value} at {where} (the first such index); accepted: finite numbers up to "
                f"{_LARGEST:g}, or a mask that is False there"
            )
    return complete


def _place(trace: Trace, start: tuple[int, int], index: list[int]) -> str:
    """The index (slice, unit, sample) in the block from ``start`` on, by the names of the user's axes."""
    slice_id, unit = start[0] + index[0], start[1] + index[1]
    lead = [slice_id] if trace.axes == SLICE_AXES else list(divmod(slice_id, trace.n_timesteps))
    return ", ".join(f"{name} {number}" for name, number in zip(trace.axes, [*lead, unit, *index[2:]], strict=True))
