"""Whatever holds numbers, as the tensors and coordinate arrays of a trace; nothing passed in is modified."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError
from ..runtime.arrays import array_or_tensor, real_tensor, tensor_of, to_numpy
from ..runtime.read_array import is_sequence, read_array
from .coordinates import class_labels
from .dims import (
    AXES,
    SLICE_AXES,
    axes_of,
    check_axis,
    coordinate_names,
    is_meant,
    mask_order,
    spread_mask,
    stored_order,
)
from .packing import ATTRIBUTES, packing_of
from .shapes import check_boolean, check_mask_shape
from .stored import READERS, Array, StoredArray, stored_mask, stored_values


def is_xarray(values: Any) -> bool:
    """Whether ``values`` is an instance of a class of xarray or of a subclass; does not import xarray."""
    homes = {base.__module__.partition(".")[0] for base in type(values).__mro__}
    return "xarray" in homes and hasattr(values, "dims")


def from_xarray(values: Any, beside: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return (data with its axes in order, other fields of a trace by name) for an xarray object.

    Parameters
    ----------
    values : DataArray, Variable, or a Dataset that has one of them as "data" or "trace".
    beside : the other fields of the trace by name; a DataArray among them must have the coordinates of the data.

    Raises
    ------
    InputError
        A Dataset without such an array, names of dimensions that no trace has, or coordinates that contradict those of
        the data.
    """
    fields: dict[str, Any] = {}
    coords = getattr(values, "coords", {})
    if hasattr(values, "data_vars"):
        coords = _texts(values.attrs) | {name: values[name] for name in values.variables}
        fields |= {"mask": values["mask"]} if "mask" in coords else {}
    ordered = in_order(values)
    packed = {key: ordered.attrs[key] for key in ATTRIBUTES[:4] if key in ordered.attrs}
    if packing_of("data", ordered.dtype, packed) is not None:
        raise InputError(f"data has the attributes {sorted(packed)}; accepted: values as xarray.decode_cf decodes them")
    by_name = _by_field(coords, ordered.shape)
    _check_same_coords(beside, by_name)
    if is_xarray(beside["mask"]):
        mask_order(beside["mask"].dims, ordered.dims)  # `full_mask` does not see whether the slices have the same name
    for field, name in coordinate_names(ordered.dims, by_name).items():
        _check_no_tuples(name, by_name)
        check_axis(field, by_name[name].dims, ordered.ndim)
        fields[field] = np.atleast_1d(by_name[name].values)
    return ordered.data, fields


def _by_field(coords: Any, data_shape: tuple[int, ...]) -> dict[str, Any]:
    """``coords`` by names in lower case; those in capitals count if their shape is right."""
    named = {str(name): coord for name, coord in coords.items()}
    capitals = {name.lower(): coord for name, coord in named.items() if is_meant(name.lower(), coord.shape, data_shape)}
    return capitals | {name: coord for name, coord in named.items() if name == name.lower()}


def _texts(attributes: dict[str, Any]) -> dict[str, Any]:
    """Text coordinates, which `save_trace` writes into the attributes of a .zarr group."""
    lists = {name: attributes[name] for name in (*AXES, "slice") if isinstance(attributes.get(name), list)}
    return {
        name: SimpleNamespace(dims=(None,), shape=(len(values),), values=np.asarray(values))
        for name, values in lists.items()
    }


def in_order(values: Any) -> Any:
    """The array of data in ``values`` (see `from_xarray`) with its axes in order; no value is read."""
    if hasattr(values, "data_vars"):
        names = [name for name in ("data", "trace") if name in values.data_vars]
        if len(names) != 1:
            what = f"a {type(values).__name__} of {[str(name) for name in values.data_vars]}"
            raise InputError(f"data is {what}; accepted: an array, or a Dataset with either data or trace")
        values = values[names[0]]
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


def check_dims(fields: dict[str, Any], n_axes: int) -> None:
    """Raise `InputError` if the dimension of a coordinate or label that is an xarray object is another axis."""
    for field in (*AXES, "label"):
        if is_xarray(fields[field]):
            check_axis(field, tuple(fields[field].dims), n_axes)


def as_label(values: Any) -> np.ndarray | None:
    """Class labels as int64; whole floating-point numbers pass."""
    return None if values is None else class_labels("label", values)


def stacked_by_name(name: str, values: Any) -> Any:
    """Stack a list of DataArrays along the axis that they lack; return anything else unchanged.

    ``name`` is what errors call it.

    Raises
    ------
    InputError
        Dimensions that lack more than one axis, or coordinates that differ.
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
    """Refuse an array of h5py or zarr whose file says more than its numbers: names of dimensions, or packing.

    Read as an array it would lose both without a word. What holds arrays, as a group or a path, is refused too.
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

    ``array`` is in memory or read by parts. ``hidden`` is None if no value is hidden.
    """
    if isinstance(values, READERS):
        return stored_values(values), None
    check_no_open_file("data", values)
    array, hidden = read_array("data", values)
    if hidden is not None and isinstance(array, np.ndarray) and array.dtype.kind in "iu":
        array = np.where(hidden, array.dtype.type(0), array)  # hidden numbers do not decide the dtype
    return real_tensor("data", array), hidden


def half_precision(values: Any) -> torch.dtype | None:
    """torch.float16 or torch.bfloat16 if ``values``, or the first item of a list, are rounded to it, else None."""
    while is_sequence(values) and len(values):
        values = values[0]
    name = str(getattr(values, "dtype", "")).removeprefix("torch.")
    return {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(name)


def present_values(values: Any, hidden: Any, data: Array) -> Array | None:  # (E, T, M, S)
    """The mask ``values``, spread by `full_mask`, and False where the mask of the data itself hides an entry."""
    if hidden is None:
        return None if values is None else full_mask(values, data)
    present = full_mask(~hidden, data)
    if values is None:
        return present
    mask = full_mask(values, data)
    return present & (mask.load() if isinstance(mask, StoredArray) else mask)


def _mask_by_name(mask: Any, shape: tuple[int, ...]) -> Any:
    if hasattr(mask, "data_vars"):
        raise InputTypeError(f"mask is a {type(mask).__name__}; accepted: an array of booleans")
    return spread_mask(mask.data, *mask_order(mask.dims, axes_of(len(shape))), shape)


def full_mask(values: Any, data: Array) -> Array:  # (E, T, M, S)
    """A mask of the data's shape or of (timestep, sample), checked and spread over all four axes."""
    check_no_open_file("mask", values)
    values = stacked_by_name("mask", values)
    if is_xarray(values):
        values = _mask_by_name(values, tuple(data.shape))
    if isinstance(values, READERS):
        mask = stored_mask(values) if values.dtype == bool else values
    else:
        mask = values if isinstance(values, StoredArray) else array_or_tensor("mask", values)
    if isinstance(mask, np.ndarray):
        mask = tensor_of(mask) if mask.dtype == bool else mask
    check_boolean(mask.dtype)
    check_mask_shape(tuple(mask.shape), tuple(data.shape))
    mask = mask.to(data.device)
    if mask.ndim == 2:
        mask = mask.unsqueeze(-2).expand(data.shape)
    return mask if mask.ndim == 4 else mask.unsqueeze(1)


def selection(name: str, selector: Any, size: int) -> np.ndarray:
    """The indices of an axis of ``size`` entries that a slice, an index array or a boolean array selects."""
    chosen = selector if isinstance(selector, slice) else to_numpy(name, selector)
    try:
        index = np.atleast_1d(np.arange(size)[chosen])
    except (IndexError, TypeError) as error:
        raise InputError(f"{name}={selector!r} selects nothing valid of {size} entries ({error})") from error
    if index.ndim != 1 or index.size == 0:
        raise InputError(f"{name}={selector!r} selects shape {index.shape} of {size} entries; accepted: 1 or more")
    return index
