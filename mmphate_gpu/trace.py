"""The recorded tensor: named axes, coordinates and a mask; normalised, reduced, subsampled, stored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from . import _trace_input as read
from . import _trace_io
from ._arrays import real_tensor, to_numpy
from ._trace_input import AXES, SLICE_AXES
from ._trace_pca import PrincipalAxes, principal_axes, reduce
from .params import InputError, InputTypeError

__all__ = [
    "PrincipalAxes",
    "Trace",
    "as_trace",
    "flat_points",
    "load_trace",
    "normalize",
    "principal_axes",
    "reduce",
    "save_trace",
]

# Elements per chunk: bounds the float64 temporaries of a pass over the trace to 32 MiB each.
_CHUNK = 2**22
# Squares of larger float64 values, summed over samples, would overflow to infinity.
_LARGEST = 1e150


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded tensor with its coordinates; make one with `as_trace`.

    Attributes
    ----------
    data : (E, T, M, S) tensor, float32 or float64, any device; never modified.
    epoch, timestep, unit, sample : (E,), (T,), (M,), (S,) coordinate values, any dtype.
    mask : (E, T, M, S) boolean tensor, True where a value is present; None when all are.
    axes : the axes as given; ("slice", "unit", "sample") means E slices and one timestep.
    label : (S,) integer class of each sample, or None.

    Raises
    ------
    InputError, InputTypeError
        A field that does not fit the others, a value that is present and not finite, or a
        (slice, unit) without a single present sample. Cost: one pass over the data.
    """

    data: torch.Tensor
    epoch: np.ndarray
    timestep: np.ndarray
    unit: np.ndarray
    sample: np.ndarray
    mask: torch.Tensor | None = None
    axes: tuple[str, ...] = AXES
    label: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_fields(self)
        _check_values(self)

    @property
    def n_epochs(self) -> int:
        return self.data.shape[0]

    @property
    def n_timesteps(self) -> int:
        return self.data.shape[1]

    @property
    def n_units(self) -> int:
        return self.data.shape[2]

    @property
    def n_samples(self) -> int:
        return self.data.shape[3]

    @property
    def n_slices(self) -> int:
        return self.n_epochs * self.n_timesteps

    @property
    def n_nodes(self) -> int:
        return self.n_slices * self.n_units

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return tuple(self.data.shape)  # type: ignore[return-value]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {size}" for name, size in zip(AXES, self.shape, strict=True))
        kind = str(self.data.dtype).removeprefix("torch.")
        return f"Trace({sizes}; {kind} on {self.data.device}{', masked' if self.mask is not None else ''})"

    def to(self, device: torch.device) -> Trace:
        """The same trace with its tensors on ``device``; itself if they are there already."""
        if self.data.device == device:
            return self
        return replace(self, data=self.data.to(device), mask=None if self.mask is None else self.mask.to(device))

    def subsample(self, *, epochs: Any = None, timesteps: Any = None, units: Any = None, samples: Any = None) -> Trace:
        """The part of the trace that slices, index arrays or boolean arrays select, one per axis.

        Coordinates, mask and labels follow. Rising slices give views of the data, index arrays copies.
        The epochs of a (slice, unit, sample) trace are its slices.

        Raises
        ------
        InputError
            An index out of range, a selection that is empty, or one that leaves a unit fully masked.
        """
        chosen = dict(zip(AXES, (epochs, timesteps, units, samples), strict=True))
        data, mask, label = self.data, self.mask, self.label
        coordinates = {name: getattr(self, name) for name in AXES}
        for dim, (name, selector) in enumerate(chosen.items()):
            if selector is None:
                continue
            index = _selection(f"{name}s", selector, self.shape[dim])
            data = _take(data, dim, index)
            mask = None if mask is None else _take(mask, dim, index)
            coordinates[name] = coordinates[name][index]
            label = label[index] if label is not None and name == "sample" else label
        return replace(self, data=data, mask=mask, label=label, **coordinates)


def as_trace(
    data: Any,
    *,
    mask: Any = None,
    epoch: Any = None,
    timestep: Any = None,
    unit: Any = None,
    sample: Any = None,
    label: Any = None,
    min_slices: int = 2,
) -> Trace:
    """A `Trace` of ``data``, (epoch, timestep, unit, sample) or (slice, unit, sample).

    Float32 and float64 data are not copied; other real dtypes become float32 (integers beyond 2^24
    float64, so that none is rounded). Nothing that was passed in is ever modified.

    Parameters
    ----------
    data : Trace, numpy, torch, DLPack (CuPy, JAX), xarray.DataArray with these axes as dims in any order,
        or nested lists of numbers. A Trace is returned as is, or with what else is given replaced.
    mask : boolean, True where a value is present: of the data's shape, or (timestep, sample) for
        4 axes, (slice, sample) for 3. A numpy masked array brings its own.
    epoch, timestep, unit, sample : coordinate values of each axis; 0, 1, ... by default. For 3 axes
        ``epoch`` holds the coordinates of the slices.
    label : (S,) integer class of each sample.
    min_slices : the least number of (epoch, timestep) slices to accept.

    Raises
    ------
    InputError, InputTypeError
        The sentence names the argument, what was found and what is accepted.

    Examples
    --------
    >>> as_trace(np.zeros((3, 2, 4, 5)))
    Trace(epoch: 3, timestep: 2, unit: 4, sample: 5; float64 on cpu)
    """
    given = {"epoch": epoch, "timestep": timestep, "unit": unit, "sample": sample, "label": label, "mask": mask}
    if isinstance(data, Trace):
        trace = _replaced(data, given)
    else:
        if read.is_xarray(data):
            data, found = read.from_xarray(data)
            given = {name: found.get(name) if value is None else value for name, value in given.items()}
        if isinstance(data, np.ma.MaskedArray) and given["mask"] is None:
            given["mask"] = ~np.ma.getmaskarray(data)
        trace = _build(real_tensor("data", data), given)
    if trace.n_slices < min_slices:
        raise InputError(f"data has {trace.n_slices} slice(s) (epochs x timesteps); at least {min_slices} are needed")
    return trace


def _replaced(trace: Trace, given: dict[str, Any]) -> Trace:
    if all(value is None for value in given.values()):
        return trace
    kept = {name: getattr(trace, name) if value is None else value for name, value in given.items()}
    three = trace.axes == SLICE_AXES
    if three and given["mask"] is None and trace.mask is not None:
        kept["mask"] = trace.mask[:, 0]
    return _build(trace.data[:, 0] if three else trace.data, kept)


def _build(data: torch.Tensor, given: dict[str, Any]) -> Trace:
    if data.ndim not in (3, 4):
        raise InputError(
            f"data has {data.ndim} axes, shape {tuple(data.shape)}; "
            "accepted: 4 axes (epoch, timestep, unit, sample) or 3 axes (slice, unit, sample)"
        )
    axes = AXES if data.ndim == 4 else SLICE_AXES
    mask = None if given["mask"] is None else read.full_mask(given["mask"], data, axes)
    data = data if data.ndim == 4 else data.unsqueeze(1)
    coordinates = {name: read.coordinate(name, given[name], size) for name, size in zip(AXES, data.shape, strict=True)}
    return Trace(data, mask=mask, axes=axes, label=read.as_label(given["label"]), **coordinates)


def _check_fields(trace: Trace) -> None:
    data, shape = trace.data, tuple(trace.data.shape)
    if data.dtype not in (torch.float32, torch.float64):
        raise InputTypeError(f"data has dtype {data.dtype}; a Trace holds float32 or float64 (see as_trace)")
    if data.ndim != 4:
        raise InputError(f"data has {data.ndim} axes; a Trace holds 4 (see as_trace)")
    for name, size in zip(AXES, shape, strict=True):
        shown = "slice" if name == "epoch" and trace.axes == SLICE_AXES else name
        if size == 0:
            raise InputError(f"data has an empty axis {shown}, shape {shape}; every axis needs at least 1 entry")
        _check_length(name, getattr(trace, name), size, shown)
    if trace.label is not None:
        _check_length("label", trace.label, shape[3], "sample")
    if trace.mask is not None and (tuple(trace.mask.shape) != shape or trace.mask.dtype != torch.bool):
        raise InputError(f"mask is {trace.mask.dtype} of shape {tuple(trace.mask.shape)}; accepted: bool of {shape}")


def _check_length(name: str, values: np.ndarray, size: int, axis: str) -> None:
    if values.shape != (size,):
        raise InputError(f"{name} has shape {values.shape}; accepted: ({size},), one value per {axis}")


def _check_values(trace: Trace) -> None:
    largest = min(_LARGEST, torch.finfo(trace.data.dtype).max)
    for start, values, present in _chunks(trace):
        good = values.abs() <= largest  # false for NaN too
        if present is not None:
            good |= ~present
            some = present.any(dim=-1)
            if not bool(some.all()):
                where = _place(trace, start, torch.nonzero(~some)[0].tolist())
                raise InputError(f"mask leaves no sample present at {where}; every unit of a slice needs one")
        if not bool(good.all()):
            first = torch.nonzero(~good)[0].tolist()
            value, where = values[tuple(first)].item(), _place(trace, start, first)
            raise InputError(
                f"data holds {value} at {where} (the first such index); accepted: finite numbers up to "
                f"{_LARGEST:g}, or a mask that is False there"
            )


def _place(trace: Trace, start: int, index: list[int]) -> str:
    """The index (slice in chunk, unit[, sample]) by the names of the user's axes."""
    slice_id = start + index[0]
    lead = [slice_id] if trace.axes == SLICE_AXES else list(divmod(slice_id, trace.n_timesteps))
    return ", ".join(f"{name} {number}" for name, number in zip(trace.axes, lead + index[1:], strict=False))


def _chunks(trace: Trace) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
    """(first slice, values (B, M, S), present (B, M, S) or None) over all slices, in order.

    Gathered slice by slice: flattening a transposed trace at once would copy it whole.
    """
    step = max(1, _CHUNK // (trace.n_units * trace.n_samples))
    for start in range(0, trace.n_slices, step):
        slices = torch.arange(start, min(start + step, trace.n_slices), device=trace.data.device)
        at = slices // trace.n_timesteps, slices % trace.n_timesteps
        yield start, trace.data[at], None if trace.mask is None else trace.mask[at]


def _selection(name: str, selector: Any, size: int) -> np.ndarray:
    chosen = selector if isinstance(selector, slice) else to_numpy(name, selector)
    try:
        index = np.atleast_1d(np.arange(size)[chosen])
    except (IndexError, TypeError) as error:
        raise InputError(f"{name}={selector!r} selects nothing valid of {size} entries ({error})") from error
    if index.ndim != 1 or index.size == 0:
        raise InputError(f"{name}={selector!r} selects shape {index.shape} of {size} entries; accepted: 1 or more")
    return index


def _take(values: torch.Tensor, dim: int, index: np.ndarray) -> torch.Tensor:
    steps = np.diff(index)
    step = int(steps[0]) if steps.size else 1
    if step > 0 and (steps == step).all():  # evenly rising: a view
        return values[(slice(None),) * dim + (slice(int(index[0]), int(index[-1]) + 1, step),)]
    return values.index_select(dim, torch.as_tensor(index.copy(), device=values.device))


def normalize(trace: Trace) -> torch.Tensor:  # (L, M, S) float64
    """Each (slice, unit) centred over its present samples and divided by their deviation (METHOD step 1).

    ``z = (x - mean) / std`` with the population deviation (ddof 0); a deviation of zero divides by 1, so that dead
    units give zero vectors. Masked entries are 0. Computed in the dtype of the trace and in NumPy's order of summing,
    as the published implementation does: the affinity of units that are nearly equal shows it (1e-5 for float32). The
    same bits on every device. O(N S) time, temporaries bounded by a chunk of slices.
    """
    return _per_slice(trace, _standardised)


def flat_points(trace: Trace) -> torch.Tensor:  # (L, M, S) float64
    """The trace as one point per node, not normalised; masked entries become the mean of the present ones."""
    return _per_slice(trace, _mean_filled)


def _per_slice(trace: Trace, function: Any) -> torch.Tensor:
    shape = trace.n_slices, trace.n_units, trace.n_samples
    out = torch.empty(shape, dtype=torch.float64, device=trace.data.device)
    for start, values, present in _chunks(trace):
        out[start : start + len(values)] = function(values, present)
    return out


def _present_mean(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, 1)
    if present is None:
        # A tensor, since CUDA divides by a Python number through its reciprocal, which is one rounding more.
        return pairwise_sum(values) / values.new_full((1,), values.shape[-1])
    return pairwise_sum(values.masked_fill(~present, 0)) / present.sum(-1, keepdim=True)


def _mean_filled(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, S)
    return values if present is None else torch.where(present, values, _present_mean(values, present))


def _standardised(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, S)
    centred = _centred(values, present)
    variance = _present_mean(_centred(centred, present).square(), present)
    # torch's float32 root is not always the nearest number; through float64 it is, on every device.
    std = variance.double().sqrt().to(values.dtype)
    # The mean of equal numbers is rounded (0.1, three times), and would leave a deviation of 1e-17.
    constant = _constant(values, present)
    return (centred / std.masked_fill(constant | (std == 0), 1)).masked_fill_(constant, 0)


def _centred(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    centred = values - _present_mean(values, present)
    return centred if present is None else centred.masked_fill_(~present, 0)


def _constant(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, 1) bool
    if present is None:
        low, high = torch.aminmax(values, dim=-1, keepdim=True)
        return low == high
    low = values.masked_fill(~present, torch.inf).amin(-1, keepdim=True)
    return low == values.masked_fill(~present, -torch.inf).amax(-1, keepdim=True)


def pairwise_sum(values: torch.Tensor) -> torch.Tensor:  # (..., n) -> (..., 1)
    """Sum over the last axis in the order of NumPy's ``sum``: eight running sums up to 128 terms, halves beyond.

    Its rounding error grows with log n, and it is the same on every device.
    """
    n = values.shape[-1]
    if n > 128:
        half = n // 2 - n // 2 % 8
        return pairwise_sum(values[..., :half]) + pairwise_sum(values[..., half:])
    whole = n - n % 8
    total = values.new_zeros((*values.shape[:-1], 1))
    if whole:
        runs = values[..., :8].clone()
        for start in range(8, whole, 8):
            runs += values[..., start : start + 8]
        while runs.shape[-1] > 1:  # ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
            runs = runs[..., 0::2] + runs[..., 1::2]
        total = runs
    for last in range(whole, n):
        total = total + values[..., last : last + 1]
    return total


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """The trace stored at ``path``: .npy, .npz, .zarr, .h5, or a recorder's folder.

    Pickled objects are never loaded. A .npz, .zarr or .h5 holds ``data`` (or ``trace``) and optionally
    epoch, timestep, unit, sample, label, mask and axes.

    Raises
    ------
    InputError
        A file that is missing, truncated, of another format, or that holds what `as_trace` rejects.
    """
    fields = _trace_io.read_fields(path)
    axes = fields.pop("axes", None)
    try:
        trace = as_trace(**fields, min_slices=1)
    except InputError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error
    if axes is not None and tuple(map(str, np.atleast_1d(axes))) != trace.axes:
        raise InputError(f"{os.fspath(path)}: axes is {axes}; data of {trace.shape} has the axes {trace.axes}")
    return trace


def save_trace(path: str | os.PathLike[str], trace: Any, *, overwrite: bool = False) -> None:
    """Store ``trace`` (anything `as_trace` takes) as .npz, .zarr or .h5, or its data alone as .npy.

    Written beside ``path`` under another name and then renamed, so that no half file is ever left.

    Raises
    ------
    InputError
        A path that exists (unless ``overwrite``), an unknown ending, or a .npy for a trace with a mask,
        labels or coordinates, which that format cannot hold.
    """
    trace = as_trace(trace, min_slices=1)
    three = trace.axes == SLICE_AXES
    fields: dict[str, Any] = {name: getattr(trace, name) for name in AXES}
    plain = all(np.array_equal(fields[name], np.arange(len(fields[name]))) for name in AXES)
    fields |= {"label": trace.label, "axes": np.array(trace.axes)}
    for name, values in (("data", trace.data), ("mask", trace.mask)):
        fields[name] = None if values is None else (values[:, 0] if three else values).cpu().numpy()
    if plain and trace.mask is None and trace.label is None:
        fields = {"data": fields["data"], "axes": fields["axes"]}
    _trace_io.write_fields(path, {name: values for name, values in fields.items() if values is not None}, overwrite)
