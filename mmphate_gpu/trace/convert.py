"""Anything that holds numbers as a `Trace`; nothing that is passed in is modified."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError
from ..runtime.arrays import array_or_tensor, real_tensor, tensor_of
from ..runtime.isolation import isolated
from ..runtime.read_array import is_sequence, read_array
from .dims import (
    AXES,
    BESIDE_AXES,
    SLICE_AXES,
    axes_of,
    check_axis,
    check_boolean,
    check_data_shape,
    check_mask_shape,
    coordinate_names,
    data_key,
    is_meant,
    is_metric,
    mask_order,
    spread_mask,
    stored_order,
    with_metrics,
)
from .packing import ATTRIBUTES, PACKING, packing_of
from .stored import Array, StoredArray, blockwise
from .trace import Trace


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
    unit_layer: Any = None,
    metrics: Any = None,
    time_zone: Any = None,
    min_slices: int = 2,
) -> Trace:
    """A `Trace` of ``data``, (epoch, timestep, unit, sample) or (slice, unit, sample).

    Float32 and float64 data are not copied. Other real dtypes become float32, integers beyond 2^24 float64. Integers
    beyond 2^53, which float64 may round, are refused. Nothing that was passed in is ever modified.

    Parameters
    ----------
    data : Trace, numpy, torch, DLPack (CuPy, JAX), or nested lists of numbers or of these; an xarray.DataArray with
        these axes as dims in any order, or a Dataset that holds one as ``data`` or ``trace``. A Trace is returned
        unchanged, or with the fields that other arguments replace.
    mask : boolean, True where a value is present: of the data's shape, or (timestep, sample) for 4 axes, (slice,
        sample) for 3. A DataArray may have any of the axes as dims, and is repeated along the others. If ``data`` is a
        masked array, or a list of them, a value is present where both masks say so.
    epoch, timestep, unit, sample : coordinates of each axis, numbers, text or dates; 0, 1, ... by default. For 3 axes
        ``epoch`` holds the coordinates of the slices.
    label : (P,) class of each sample, whole numbers within int64.
    unit_layer : (M,) text, the layer of the network that each unit is in.
    metrics : a mapping from names, such as "loss", to one number per epoch; NaN where an epoch has none.
    time_zone : a mapping from axes to names of time zones, for coordinates that are dates in UTC. Dates that have a
        time zone bring its name themselves; they become the same instants in UTC.
    min_slices : the least number of (epoch, timestep) slices to accept.

    Raises
    ------
    InputError, InputTypeError
        The sentence names the argument, its value and what is accepted.

    Examples
    --------
    >>> as_trace(np.zeros((3, 2, 4, 5)))
    Trace(epoch: 3, timestep: 2, unit: 4, sample: 5; float64 on cpu)
    """
    fields = {"epoch": epoch, "timestep": timestep, "unit": unit, "sample": sample, "label": label, "mask": mask}
    fields |= {"unit_layer": unit_layer, "metrics": metrics, "time_zone": time_zone}
    if isinstance(data, Trace):
        trace = _replaced(data, fields)
    else:
        data = stacked_by_name("data", data)
        if is_xarray(data):
            data, stored = from_xarray(data, fields)
            fields = {name: stored.get(name) if value is None else value for name, value in fields.items()}
        trace = _build(*real_values(data), fields, half_precision(data))
    if trace.n_slices < min_slices:
        raise InputError(f"data has {trace.n_slices} slice(s) (epochs x timesteps); at least {min_slices} are needed")
    return trace


def _replaced(trace: Trace, fields: dict[str, Any]) -> Trace:
    if all(value is None for value in fields.values()):
        return trace
    kept = {name: getattr(trace, name) if value is None else value for name, value in fields.items()}
    if fields["time_zone"] is None:
        kept["time_zone"] = {axis: zone for axis, zone in trace.time_zone.items() if fields[axis] is None}
    three = trace.axes == SLICE_AXES
    if three and fields["mask"] is None and trace.mask is not None:
        kept["mask"] = trace.mask.squeeze(1)
    return _build(trace.data.squeeze(1) if three else trace.data, None, kept, trace.recorded)


def _build(data: Array, hidden: Any, fields: dict[str, Any], recorded: torch.dtype | None) -> Trace:
    check_data_shape(tuple(data.shape))
    axes = AXES if data.ndim == 4 else SLICE_AXES
    for field in (*AXES, *BESIDE_AXES):
        if is_xarray(fields[field]):
            check_axis(field, tuple(fields[field].dims), data.ndim)
    mask = present_values(fields["mask"], hidden, data)
    data = data if data.ndim == 4 else data.unsqueeze(1)
    sizes = zip(AXES, data.shape, strict=True)
    coordinates: dict[str, Any] = {
        name: np.arange(size) if fields[name] is None else fields[name] for name, size in sizes
    }
    beside = {name: fields[name] for name in (*BESIDE_AXES, "metrics", "time_zone")}
    return Trace(data, mask=mask, axes=axes, recorded=recorded, **beside, **coordinates)


def is_xarray(values: Any) -> bool:
    """Whether ``values`` is an instance of a class of xarray or of a subclass; does not import xarray."""
    homes = {base.__module__.partition(".")[0] for base in type(values).__mro__}
    return "xarray" in homes and hasattr(values, "dims")


def from_xarray(values: Any, beside: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(data with its axes in order, other fields of a trace by name) of an xarray object.

    ``values`` is a DataArray, a Variable, or a Dataset that has one of these as "data" or "trace". ``beside`` has the
    other fields of the trace by name; a DataArray among them must have the coordinates of the data. Raises `InputError`
    for names of dimensions that no trace has, and for coordinates that contradict those of the data.
    """
    fields: dict[str, Any] = {}
    zones: dict[str, str] = {}
    coords = getattr(values, "coords", {})
    if hasattr(values, "data_vars"):
        coords = _texts(values.attrs) | {name: values[name] for name in values.variables}
        fields |= {"mask": values["mask"]} if "mask" in coords else {}
    ordered = in_order(values)
    packed = {key: ordered.attrs[key] for key in PACKING if key in ordered.attrs}
    if packing_of("data", ordered.dtype, packed) is not None:
        raise InputError(f"data has the attributes {sorted(packed)}; accepted: values as xarray.decode_cf decodes them")
    by_name = _by_field(coords, ordered.shape)
    _check_same_coords(beside, by_name)
    if is_xarray(beside["mask"]):
        mask_order(beside["mask"].dims, ordered.dims)  # refuses slices of another name, which `full_mask` cannot see
    for field, name in coordinate_names(ordered.dims, by_name).items():
        _check_no_tuples(name, by_name)
        check_axis(field, by_name[name].dims, ordered.ndim)
        coord = by_name[name]
        fields[field] = coord if hasattr(coord.dtype, "tz") else np.atleast_1d(coord.values)
        zones |= {field: coord.attrs["time_zone"]} if "time_zone" in coord.attrs and beside[field] is None else {}
    return ordered.data, with_metrics(fields) | ({"time_zone": zones} if zones else {})


def _by_field(coords: Any, data_shape: tuple[int, ...]) -> dict[str, Any]:
    """``coords`` by names in lower case, except metrics; those in capitals count if their shape is right."""
    named = {str(name): coord for name, coord in coords.items() if not is_metric(str(name))}
    metrics = {str(name): coord for name, coord in coords.items() if is_metric(str(name))}
    capitals = {name.lower(): coord for name, coord in named.items() if is_meant(name.lower(), coord.shape, data_shape)}
    return capitals | {name: coord for name, coord in named.items() if name == name.lower()} | metrics


def _texts(attributes: dict[str, Any]) -> dict[str, Any]:
    """Text coordinates, which `save_trace` writes into the attributes of a .zarr group."""
    names = (*AXES, "slice", "unit_layer")
    lists = {name: attributes[name] for name in names if isinstance(attributes.get(name), list)}
    return {
        name: SimpleNamespace(dims=(None,), shape=(len(values),), dtype=None, values=np.asarray(values), attrs={})
        for name, values in lists.items()
    }


def in_order(values: Any) -> Any:
    """The array of data in ``values`` (see `from_xarray`) with its axes in order; no value is read."""
    if hasattr(values, "data_vars"):
        values = values[data_key(f"data is a {type(values).__name__} of", list(map(str, values.data_vars)))]
    return values.transpose(*(values.dims[place] for place in stored_order(values.dims)))


def _check_no_tuples(name: str, coords: dict[str, Any]) -> None:
    values = coords[name].values
    if values.dtype == object and values.size and isinstance(values.flat[0], tuple):
        raise InputError(
            f"{name} has a tuple for each entry (a MultiIndex); accepted: one value each, as after "
            f"unstack({name!r}) or reset_index({name!r}, drop=True)"
        )


def _check_same_coords(beside: dict[str, Any], coords: dict[str, Any]) -> None:
    """Raise `InputError` if a mask or label has other coordinates than the data, or has them in another order."""
    for field, values in beside.items():
        for name, coord in getattr(values, "coords", {}).items():
            other = coords.get(str(name).lower())
            if name in values.dims and other is not None and not np.array_equal(coord.values, other.values):
                raise InputError(f"{field} has other coordinates along {name} than data; accepted: the same, in order")


def stacked_by_name(name: str, values: Any) -> Any:
    """Stack a list of DataArrays along the axis that they lack; return anything else unchanged.

    `InputError`, which calls the list ``name``, refuses dimensions that lack more than a single axis, and coordinates
    that differ.
    """
    if not is_sequence(values) or not any(map(is_xarray, values)):
        if is_sequence(values) and values and is_sequence(values[0]) and any(map(is_xarray, values[0])):
            raise InputError(f"{name} is a nested list of DataArrays; accepted: one DataArray, or one list of them")
        return values
    import xarray

    dims = {dim for array in values for dim in getattr(array, "dims", ("no DataArray",))}
    lacking = [axis for axes in (AXES, SLICE_AXES) for axis in set(axes) - dims if {*dims, axis} == set(axes)]
    if len(lacking) != 1:
        raise InputError(
            f"{name} is a list of DataArrays with dims {tuple(sorted(map(str, dims)))}; "
            f"accepted: all of {AXES} or {SLICE_AXES} but one"
        )
    try:
        return xarray.concat(values, lacking[0], join="exact", coords="different", compat="equals")
    except ValueError as error:
        raise InputError(
            f"{name} is a list of DataArrays that do not fit one another ({error}); accepted: equal dims and indices"
        ) from error


def check_no_open_file(name: str, values: Any) -> None:
    """Refuse an array of h5py or zarr with named dimensions or packed numbers: as an array it would lose both.

    A group, a path and whatever else holds arrays is refused too.
    """
    package = type(values).__module__.partition(".")[0]
    if package in ("h5py", "zarr"):
        attributes = {*ATTRIBUTES, "_ARRAY_DIMENSIONS", "DIMENSION_LIST", "DIMENSION_LABELS"} & set(values.attrs)
        named = any(getattr(getattr(values, "metadata", None), "dimension_names", None) or ())
        if hasattr(values, "dtype") and not (attributes or named):
            return
    elif not isinstance(values, str | os.PathLike | np.lib.npyio.NpzFile):
        return
    raise InputTypeError(
        f"{name} is a {type(values).__name__} of {package}; accepted: an array. load_trace(path) reads a file with the "
        "names of its dimensions; [...] takes the numbers alone from an array of an open file"
    )


def real_values(values: Any) -> tuple[Array, Any]:
    """Return (array, hidden): the values of a trace as float32 or float64, and where a mask hides them.

    ``array`` is a tensor or a `StoredArray`. ``hidden`` is None if no value is hidden.
    """
    if isinstance(values, StoredArray):
        return values, None
    check_no_open_file("data", values)
    array, hidden = read_array("data", values)
    if hidden is not None and isinstance(array, np.ndarray) and array.dtype.kind in "iu":
        array = np.where(hidden, array.dtype.type(0), array)  # hidden numbers do not decide the dtype
    return real_tensor("data", array), hidden


def half_precision(values: Any) -> torch.dtype | None:
    """torch.float16 or torch.bfloat16 if ``values``, or the first item of a list, are rounded to it, else None."""
    values = values.source if isinstance(values, StoredArray) else values
    while is_sequence(values) and len(values):
        values = values[0]
    name = str(getattr(values, "dtype", "")).removeprefix("torch.")
    return {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(name)


def present_values(values: Any, hidden: Any, data: Array) -> Array | None:  # (E, T, M, P)
    """The mask ``values``, spread by `full_mask`, and False where the mask of the data itself hides an entry."""
    both: tuple[Any, Any] = None if hidden is None else ~hidden, values
    masks: list[Any] = [full_mask(mask, data) for mask in both if mask is not None]
    if len(masks) == 2:
        return masks[0] & blockwise(masks[1]).load()
    return masks[0] if masks else None


def _mask_by_name(mask: Any, shape: tuple[int, ...]) -> Any:
    if hasattr(mask, "data_vars"):
        raise InputTypeError(f"mask is a {type(mask).__name__}; accepted: an array of booleans")
    return spread_mask(mask.data, *mask_order(mask.dims, axes_of(len(shape))), shape)


def full_mask(values: Any, data: Array) -> Array:  # (E, T, M, P)
    """A mask of the data's shape or of (timestep, sample), checked and spread over all four axes."""
    check_no_open_file("mask", values)
    values = stacked_by_name("mask", values)
    if is_xarray(values):
        values = _mask_by_name(values, tuple(data.shape))
    mask: Any = values if isinstance(values, StoredArray) else array_or_tensor("mask", values)
    if isinstance(mask, np.ndarray):
        mask = tensor_of(mask) if mask.dtype == bool else mask
    check_boolean(mask.dtype)
    check_mask_shape(tuple(mask.shape), tuple(data.shape))
    mask = mask.to(data.device)
    if mask.ndim == 2:
        mask = mask.unsqueeze(-2).expand(data.shape)
    return mask if mask.ndim == 4 else mask.unsqueeze(1)
