"""Whatever holds numbers, as the tensors and coordinate arrays of a trace; nothing passed in is modified."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ._arrays import array_or_tensor, real_tensor, tensor_of, to_numpy
from ._coordinates import class_labels
from ._read_array import is_sequence, read_array
from ._trace_parts import READERS, Array, StoredArray, stored_mask, stored_values
from .params import InputError, InputTypeError

AXES = ("epoch", "timestep", "unit", "sample")
SLICE_AXES = ("slice", "unit", "sample")


def is_xarray(values: Any) -> bool:
    """Whether ``values`` is an xarray object, told without importing xarray."""
    return type(values).__module__.partition(".")[0] == "xarray" and hasattr(values, "dims")


def from_xarray(values: Any) -> tuple[Any, dict[str, Any]]:
    """(data in the order of the axes, its coordinates and labels by field name) of a DataArray."""
    for axes in (AXES, SLICE_AXES):
        if sorted(map(str, values.dims)) == sorted(axes):
            ordered = values.transpose(*axes)
            names = {"slice": "epoch"}
            found = {names.get(name, name): ordered[name].values for name in axes if name in ordered.coords}
            if "label" in ordered.coords and ordered.coords["label"].dims == ("sample",):
                found["label"] = ordered.coords["label"].values
            return ordered.data, found
    raise InputError(f"data has dims {tuple(values.dims)}; accepted: {AXES} or {SLICE_AXES}, in any order")


def as_label(values: Any) -> np.ndarray | None:
    """Class labels as int64; whole floating-point numbers pass."""
    return None if values is None else class_labels("label", values)


def stacked_by_name(name: str, values: Any) -> Any:
    """A list of DataArrays as one, along the axis that they lack; anything else as it is.

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
        raise InputError(f"{name} is a list of DataArrays that do not fit one another ({error})") from error


def real_values(values: Any) -> tuple[Array, Any]:
    """(values, hidden): those of a trace, held or read by parts, as float32 or float64, and where a mask hides them.

    ``hidden`` is None if no value is hidden.
    """
    if isinstance(values, READERS):
        return stored_values(values), None
    array, hidden = read_array("data", values)
    if hidden is not None and isinstance(array, np.ndarray) and array.dtype.kind in "iu":
        array = np.where(hidden, array.dtype.type(0), array)  # what is hidden has no say in the dtype
    return real_tensor("data", array), hidden


def present_values(values: Any, hidden: Any, data: Array, axes: tuple[str, ...]) -> Array | None:  # (E, T, M, S)
    """The mask ``values`` spread by `full_mask`; an entry that the data's own mask hides is not present either."""
    if hidden is None:
        return None if values is None else full_mask(values, data, axes)
    present = full_mask(~hidden, data, axes)
    if values is None:
        return present
    mask = full_mask(values, data, axes)
    return present & (mask.load() if isinstance(mask, StoredArray) else mask)


def full_mask(values: Any, data: Array, axes: tuple[str, ...]) -> Array:  # (E, T, M, S)
    """A mask of the data's shape or of (timestep, sample), checked and spread over all four axes."""
    values = stacked_by_name("mask", values)
    if is_xarray(values):
        names = axes if len(values.dims) == len(axes) else (axes[-3], "sample")
        if sorted(map(str, values.dims)) != sorted(names):
            raise InputError(f"mask has dims {tuple(values.dims)}; accepted: {axes} or {(axes[-3], 'sample')}")
        values = values.transpose(*names).data
    if isinstance(values, READERS):
        mask = stored_mask(values) if values.dtype == bool else values
    else:
        mask = values if isinstance(values, StoredArray) else array_or_tensor("mask", values)
    if isinstance(mask, np.ndarray):
        mask = tensor_of(mask) if mask.dtype == bool else mask
    if mask.dtype != torch.bool:
        raise InputTypeError(f"mask has dtype {mask.dtype}; accepted: booleans, True where a value is present")
    mask = mask.to(data.device)
    short = (data.shape[-3], data.shape[-1]) if data.ndim == 3 else (data.shape[1], data.shape[3])
    if tuple(mask.shape) not in (tuple(data.shape), short):
        names = f"({axes[-3]}, sample)"
        raise InputError(f"mask has shape {tuple(mask.shape)}; accepted: {tuple(data.shape)} or {names} = {short}")
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
