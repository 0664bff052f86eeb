"""The recorded tensor: named axes, coordinates and a mask; normalised, reduced, subsampled, stored."""

from __future__ import annotations

import copy
import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError
from ..runtime.arrays import array_or_tensor
from ..runtime.isolation import isolated
from ..runtime.memory import available_bytes, check_fits
from ..runtime.paths import expanded
from . import convert as read
from . import files, write
from .coordinates import settled
from .dims import AXES, SLICE_AXES
from .formats.arrays import naming
from .pca import PrincipalAxes, principal_axes, reduce
from .points import LazyPoints, Points, TracePoints, check_size, points_in_memory
from .shapes import check_data_shape, check_length
from .stored import Array, StoredArray, blocks, by_parts, selected

__all__ = [
    "Points",
    "PrincipalAxes",
    "Trace",
    "as_trace",
    "flat_points",
    "load_trace",
    "normalize",
    "principal_axes",
    "reduce",
    "save_trace",
    "trace_points",
]

# Share of the free memory above which values are read by parts: beside a trace in memory a run holds its points, in
# float64 twice the bytes of a float32 trace, and what comes after them.
STREAM_SHARE = 0.25
# Squares of larger float64 values, summed over samples, would overflow to infinity.
_LARGEST = 1e150


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded tensor with its coordinates; make one with `as_trace`.

    Attributes
    ----------
    data : (E, T, M, S) tensor, float32 or float64, any device; never modified. Of a file too large for the memory a
        `StoredArray`, whose values are read by parts in every pass: see `load_trace`, and `load`.
    epoch, timestep, unit, sample : (E,), (T,), (M,), (S,) coordinates: numbers, fixed-width text or dates.
    mask : (E, T, M, S) boolean tensor, or `StoredArray`, True where a value is present; None when all are.
    axes : the axes as given; ("slice", "unit", "sample") means E slices and one timestep.
    label : (P,) integer class of each sample, or None.
    recorded : torch.float16 or torch.bfloat16 if the values were rounded to it before; None if they were not.

    Raises
    ------
    InputError, InputTypeError
        A field that does not fit the others, a value that is present and not finite, or a
        (slice, unit) without a single present sample. Cost: one pass over the data.
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

    def __post_init__(self) -> None:
        vars(self).update({name: settled(name, getattr(self, name)) for name in AXES}, label=read.as_label(self.label))
        if isinstance(self.data, torch.Tensor):
            vars(self).update(data=array_or_tensor("data", self.data))
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
        kind += " read by parts" if isinstance(self.data, StoredArray) else ""
        return f"Trace({sizes}; {kind} on {self.data.device}{', masked' if self.mask is not None else ''})"

    @property
    def nbytes(self) -> int:
        """What the values take in memory."""
        return math.prod(self.shape) * self.data.dtype.itemsize

    def to(self, device: torch.device) -> Trace:
        """The same trace with its tensors on ``device``; itself if they are there already.

        Tensors that would take more than a quarter of a GPU's free memory stay where they are, and go there by parts.
        """
        if self.data.device == device:
            return self
        large = device.type == "cuda" and self.nbytes > STREAM_SHARE * available_bytes(device)
        return self._brought(device, large)

    def _brought(self, device: torch.device, large: bool) -> Trace:
        def brought(array: Array) -> Array:
            return by_parts(array, device) if large and isinstance(array, torch.Tensor) else _moved(array, device)

        found = copy.copy(self)  # not made anew: that would check every value once more
        vars(found).update(data=brought(self.data), mask=None if self.mask is None else brought(self.mask))
        return found

    def load(self) -> Trace:
        """The same trace with all its values in memory; itself if they are there already.

        Raises
        ------
        InputError
            They do not fit, or the file has changed since it was opened.
        """
        if not isinstance(self.data, StoredArray):
            return self
        remedy = "Trace.subsample takes a part into memory, and the run reads the trace by parts"
        check_fits(f"a trace of shape {self.shape} in memory", self.nbytes, self.data.device, remedy=remedy)
        mask = self.mask.load() if isinstance(self.mask, StoredArray) else self.mask
        found = copy.copy(self)
        vars(found).update(data=self.data.load(), mask=mask)
        return found

    def subsample(self, *, epochs: Any = None, timesteps: Any = None, units: Any = None, samples: Any = None) -> Trace:
        """The part of the trace that slices, index arrays or boolean arrays select, one per axis.

        Coordinates, mask and labels follow. Rising slices give views of the data, index arrays copies; of a trace
        that is read by parts the selection is in memory. The epochs of a (slice, unit, sample) trace are its slices.

        Raises
        ------
        InputError
            An index out of range, a selection that is empty, or one that leaves a unit fully masked.
        """
        chosen = dict(zip(AXES, (epochs, timesteps, units, samples), strict=True))
        index = {
            name: read.selection(f"{name}s", selector, len(getattr(self, name)))
            for name, selector in chosen.items()
            if selector is not None
        }
        if not index:
            return self
        coordinates = {name: getattr(self, name)[taken] for name, taken in index.items()}
        label = self.label[index["sample"]] if self.label is not None and "sample" in index else self.label
        mask = None if self.mask is None else _taken(self.mask, index)
        return replace(self, data=_taken(self.data, index), mask=mask, label=label, **coordinates)


@isolated()
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

    Float32 and float64 data are not copied. Other real dtypes become float32, integers beyond 2^24 float64. Integers
    beyond 2^53, which float64 may round, are refused. Nothing that was passed in is ever modified.

    Parameters
    ----------
    data : Trace, numpy, torch, DLPack (CuPy, JAX), or nested lists of numbers or of these; an xarray.DataArray with
        these axes as dims in any order, or a Dataset that holds one as ``data`` or ``trace``. A Trace is returned
        unchanged, or with the fields replaced that other arguments hold.
    mask : boolean, True where a value is present: of the data's shape, or (timestep, sample) for
        4 axes, (slice, sample) for 3. A DataArray may have any of the axes as dims, and is repeated along the others.
        Masked arrays, also in lists, have a mask already; then a value is present if both masks say so.
    epoch, timestep, unit, sample : coordinates of each axis, numbers, text or dates; 0, 1, ... by default. For 3 axes
        ``epoch`` holds the coordinates of the slices.
    label : (S,) class of each sample, whole numbers within int64.
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
    fields = {"epoch": epoch, "timestep": timestep, "unit": unit, "sample": sample, "label": label, "mask": mask}
    if isinstance(data, Trace):
        trace = _replaced(data, fields)
    else:
        data = read.stacked_by_name("data", data)
        if read.is_xarray(data):
            data, from_xarray = read.from_xarray(data, fields)
            fields = {name: from_xarray.get(name) if value is None else value for name, value in fields.items()}
        trace = _build(*read.real_values(data), fields, read.half_precision(data))
    if trace.n_slices < min_slices:
        raise InputError(f"data has {trace.n_slices} slice(s) (epochs x timesteps); at least {min_slices} are needed")
    return trace


def _replaced(trace: Trace, fields: dict[str, Any]) -> Trace:
    if all(value is None for value in fields.values()):
        return trace
    kept = {name: getattr(trace, name) if value is None else value for name, value in fields.items()}
    three = trace.axes == SLICE_AXES
    if three and fields["mask"] is None and trace.mask is not None:
        kept["mask"] = trace.mask.squeeze(1)
    return _build(trace.data.squeeze(1) if three else trace.data, None, kept, trace.recorded)


def _build(data: Array, hidden: Any, fields: dict[str, Any], recorded: torch.dtype | None) -> Trace:
    check_data_shape(tuple(data.shape))
    axes = AXES if data.ndim == 4 else SLICE_AXES
    read.check_dims(fields, data.ndim)
    mask = read.present_values(fields["mask"], hidden, data)
    data = data if data.ndim == 4 else data.unsqueeze(1)
    sizes = zip(AXES, data.shape, strict=True)
    coordinates = {name: np.arange(size) if fields[name] is None else fields[name] for name, size in sizes}
    return Trace(data, mask=mask, axes=axes, label=fields["label"], recorded=recorded, **coordinates)


def _check_fields(trace: Trace) -> None:
    data, shape = trace.data, tuple(trace.data.shape)
    if data.dtype not in (torch.float32, torch.float64):
        raise InputTypeError(f"data has dtype {data.dtype}; a Trace holds float32 or float64 (see as_trace)")
    if data.ndim != 4:
        raise InputError(f"data has {data.ndim} axes; a Trace holds 4 (see as_trace)")
    check_data_shape(shape)
    for name, size in zip(AXES, shape, strict=True):
        shown = "slice" if name == "epoch" and trace.axes == SLICE_AXES else name
        check_length(name, getattr(trace, name).shape, size, shown)
    if trace.label is not None:
        check_length("label", trace.label.shape, shape[3], "sample")
    if trace.mask is not None and (tuple(trace.mask.shape) != shape or trace.mask.dtype != torch.bool):
        raise InputError(f"mask is {trace.mask.dtype} of shape {tuple(trace.mask.shape)}; accepted: bool of {shape}")


def _check_values(trace: Trace) -> None:
    largest = min(_LARGEST, torch.finfo(trace.data.dtype).max)
    for chunk, values, present in blocks(trace.data, trace.mask):
        start = chunk.sets.start, chunk.rows.start
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


def _place(trace: Trace, start: tuple[int, int], index: list[int]) -> str:
    """The index (slice, unit[, sample]) in the block from ``start`` on, by the names of the user's axes."""
    slice_id, unit = start[0] + index[0], start[1] + index[1]
    lead = [slice_id] if trace.axes == SLICE_AXES else list(divmod(slice_id, trace.n_timesteps))
    return ", ".join(f"{name} {number}" for name, number in zip(trace.axes, [*lead, unit, *index[2:]], strict=False))


def _taken(array: Array, index: dict[str, np.ndarray]) -> torch.Tensor:
    if isinstance(array, StoredArray):
        return selected(array, [index.get(name, np.arange(size)) for name, size in zip(AXES, array.shape, strict=True)])
    for dim, name in enumerate(AXES):
        array = _take(array, dim, index[name]) if name in index else array
    return array


def _take(values: torch.Tensor, dim: int, index: np.ndarray) -> torch.Tensor:
    steps = np.diff(index)
    step = int(steps[0]) if steps.size else 1
    if step > 0 and (steps == step).all():  # evenly rising: a view
        return values[(slice(None),) * dim + (slice(int(index[0]), int(index[-1]) + 1, step),)]
    return values.index_select(dim, torch.as_tensor(index.copy(), device=values.device))


def _moved(array: Array, device: torch.device) -> Array:
    """``array`` on ``device``; a mask that was spread over an axis stays so, and is not written out there."""
    if isinstance(array, StoredArray):
        return array.to(device)
    core = array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.stride())]
    return core.to(device).expand(array.shape)


def normalize(trace: Trace) -> torch.Tensor:  # (L, M, S) float64
    """Each (slice, unit) centered over its present samples and divided by their deviation (METHOD step 1).

    ``z = (x - mean) / std`` with the population deviation (ddof 0); a deviation of zero divides by 1, so that dead
    units give zero vectors. Masked entries are 0. Computed in the dtype of the trace and in NumPy's order of summing,
    as the published implementation does: the affinity of units that are nearly equal shows it (1e-5 for float32). The
    bits are the same on every device, from memory or by parts, and for a trace times a power of two. O(N S) time,
    temporaries bounded by a block.
    """
    return points_in_memory(trace.data, trace.mask, normalize=True).points


def flat_points(trace: Trace) -> torch.Tensor:  # (L, M, S) float64
    """The trace as one point per node, not normalised; masked entries become the mean of the present ones."""
    return points_in_memory(trace.data, trace.mask, normalize=False).points


def trace_points(trace: Trace, *, normalize: bool = True, n_pca: int | None = None) -> TracePoints:
    """The points (S, M, P) that step 2 takes, and their resolution: nearer ones may be equal but for rounding.

    The points are a tensor, or `LazyPoints` if step 2 will reduce them to ``n_pca`` features. The first pass of
    `LazyPoints` finds the mean and the deviation of every node. O(N P) time. Memory: a few blocks of 32 MiB, and
    8 N P bytes for the points, or four numbers per node for `LazyPoints`.

    Raises
    ------
    InputError
        The file of a trace that is read by parts has changed since it was opened; with ``normalize=False`` values so
        large or small that the squares of their distances overflow or vanish.
    """
    rounding = torch.finfo(trace.recorded or trace.data.dtype)
    if n_pca is not None and trace.n_samples > n_pca:
        lazy = LazyPoints(trace.data, trace.mask, normalize, rounding)
        points = TracePoints(lazy, lazy.resolution)
    else:
        points = points_in_memory(trace.data, trace.mask, normalize, rounding)
    if not normalize:
        check_size(points, rounding)
    return points


def load_trace(path: str | os.PathLike[str], *, stream: bool | None = None, follow_links: bool = False) -> Trace:
    """The trace stored at ``path``: .npy, .npz, .zarr, .h5, or a recorder's folder.

    Pickled objects are never loaded. A .npz, .zarr or .h5 holds ``data`` (or ``trace``) and optionally
    epoch, timestep, unit, sample, label, mask and axes. Axes are found by name if a .zarr or .h5
    names its dimensions, as xarray and netCDF do, or a .npz has ``axes``, else by their order. As in xarray, packed
    numbers (scale_factor, add_offset) are unpacked, and missing ones (_FillValue, missing_value) are masked.

    Parameters
    ----------
    stream : whether the values stay in the file, to be read by parts in every pass of a run, which has the same bits
        as one from memory. None: if they would take more than a quarter of the free memory. Not possible for a
        compressed .npz, an array in Fortran order, and a .npz whose ``axes`` are in another order.
    follow_links : whether to follow links that lead out of a folder or a .h5: symbolic links, and the external links,
        external storage and virtual datasets of HDF5. ``path`` itself may always be a link.

    Raises
    ------
    InputError
        The file is missing, truncated, of another format, or holds values that `as_trace` rejects; it changes while it
        is read by parts; it cannot be read by parts and does not fit in memory; a link leads out of it (unless
        ``follow_links``). The shapes, dtypes and sizes of all arrays are checked before their values are read.

    Notes
    -----
    Every pass reads the file, and there are four to eight of them in a run, up to 20 where min(N, S) is above 3000: a
    chunk of a .zarr or .h5 that covers few slices and all samples is read once a pass.
    """
    fields = _stored_fields(path, stream, follow_links)
    with naming(expanded(path)):
        return as_trace(**fields, min_slices=1)


def _stored_fields(path: str | os.PathLike[str], stream: bool | None, follow_links: bool) -> dict[str, Any]:
    if stream is not None and not isinstance(stream, bool):
        raise InputTypeError(f"stream={stream!r} is a {type(stream).__name__}; accepted: True, False or None")
    if not isinstance(follow_links, bool):
        raise InputTypeError(f"follow_links={follow_links!r} is no bool; accepted: True or False")
    header = None if stream is not None else files.heading(path, follow_links)
    needed = 0 if header is None else math.prod(header.shape) * max(4, header.dtype.itemsize)
    cpu = torch.device("cpu")
    if not (stream or needed > STREAM_SHARE * available_bytes(cpu)):
        return files.read_fields(path, follow_links)
    fields = files.open_fields(path, follow_links)
    if fields is not None:
        return fields
    what = f"{os.fspath(path)} is compressed or in Fortran order, or has permuted axes, so it cannot be read by parts"
    if stream:
        raise InputError(f"{what}; accepted for stream=True: numpy.save or numpy.savez of an array in C order")
    check_fits(f"{what}, and", needed, cpu, remedy="numpy.save of an array in C order can be read by parts")
    return files.read_fields(path, follow_links)


def save_trace(path: str | os.PathLike[str], trace: Any, *, overwrite: bool = False) -> None:
    """Store ``trace`` (anything `as_trace` takes) as .npz, .zarr or .h5, or its data alone as .npy.

    Written beside ``path`` under another name and then renamed, so that no half file is ever left.

    Raises
    ------
    InputError
        The path exists (unless ``overwrite``) or has an unknown ending; a .npy cannot hold the mask, labels or
        coordinates; the .zarr to replace holds files that zarr did not write; the file system refuses the write.
    """
    trace = as_trace(trace, min_slices=1).load()
    three = trace.axes == SLICE_AXES
    fields: dict[str, Any] = {name: getattr(trace, name) for name in AXES}
    fields |= {"label": trace.label, "axes": np.array(trace.axes)}
    data = trace.data.half() if trace.recorded == torch.float16 else trace.data  # whose numbers float16 holds
    for name, values in (("data", data), ("mask", trace.mask)):
        fields[name] = None if values is None else (values[:, 0] if three else values).cpu().numpy()
    write.write_fields(path, {name: values for name, values in fields.items() if values is not None}, overwrite)
