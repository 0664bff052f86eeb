"""Read the arrays of a trace from a .zarr or .h5, in memory or by parts: axes in order, numbers unpacked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._arrays import tensor_of
from ._trace_dims import check_axis, coordinate_names, mask_order, spread_mask, stored_order, with_axes
from ._trace_formats import Variable, Variables, naming
from ._trace_openers import OPENERS
from ._trace_packing import check_plain, decode_coordinate, is_boolean, packing_of
from ._trace_parts import ChunkedArray, HeldTensor, PresentValues, all_true, stamp_of


class Heading(NamedTuple):
    """Shape and dtype of the data in a file, known without reading values."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_container(path: Path, ending: str, by_parts: bool = False) -> dict[str, Any]:
    """The arrays of a .zarr or .h5, unpacked, with their axes in the order of a trace."""
    stamp = stamp_of(path) if by_parts else ""
    with OPENERS[ending](path) as variables, naming(path):
        data = variables["data"]
        if data.array.shape is None:  # an HDF5 dataset without values
            return {"data": data.read()}
        dims = _dims_of_data(variables)
        values, present = _data_by_parts(path, stamp, data, dims) if by_parts else _data(data, dims)
        fields = {"data": values, "mask": _mask(path, variables, dims, stamp)}
        if present is not None:
            fields["mask"] = _both(present, fields["mask"])
        for field, name in coordinate_names(dims, variables).items():
            beside = variables[name]
            check_axis(field, beside.dims, len(dims))
            fields[field] = np.atleast_1d(decode_coordinate(field, beside.read(), beside.attributes))
        return {name: array for name, array in fields.items() if array is not None}


def container_heading(path: Path, ending: str) -> Heading | None:
    """Shape, in the order of the axes of a trace, and dtype of the data; None for a dataset without values."""
    with OPENERS[ending](path) as variables, naming(path):
        data = variables["data"]
        if data.array.shape is None:
            return None
        packing = packing_of("data", np.dtype(data.array.dtype), data.attributes, data.fill)
        shape = tuple(data.array.shape[axis] for axis in stored_order(_dims_of_data(variables)))
        return Heading(shape, np.dtype(data.array.dtype) if packing is None else packing.dtype)


def _dims_of_data(variables: Variables) -> Any:
    axes = variables.get("axes")
    return with_axes(variables["data"].dims, None if axes is None else axes.read())


def _data(data: Variable, dims: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """The values, and a mask that is True where a value is present (None if that is everywhere)."""
    stored, order = data.read(), stored_order(dims)
    packing = packing_of("data", stored.dtype, data.attributes, data.fill)
    if packing is None:
        return stored.transpose(order), None
    present = packing.present(stored)
    return packing.decode(stored).transpose(order), None if present.all() else present.transpose(order)


def _data_by_parts(path: Path, stamp: str, data: Variable, dims: Any) -> tuple[ChunkedArray, PresentValues | None]:
    stored, order = np.dtype(data.array.dtype), stored_order(dims)
    packing = packing_of("data", stored, data.attributes, data.fill)
    shape = tuple(data.array.shape[axis] for axis in order)
    reader = ChunkedArray(path, data.opened, shape, stored if packing is None else packing.dtype, stamp, order, packing)
    if packing is None or not packing.missing or len(shape) not in (3, 4) or min(shape) == 0:
        return reader, None
    present = PresentValues(reader, None)
    return reader, None if all_true(present) else present


def _mask(path: Path, variables: Variables, dims: Any, stamp: str) -> Any:
    """The mask as booleans; a reader if the file is read by parts and the mask has the shape of the data."""
    if "mask" not in variables:
        return None
    mask = variables["mask"]
    check_plain("mask", mask.attributes)
    order, index = mask_order(mask.dims, dims)
    dtype = np.dtype(bool) if is_boolean(mask.attributes) else np.dtype(mask.array.dtype)
    if stamp and len(order) == len(dims) in (3, 4):
        shape = tuple(mask.array.shape[axis] for axis in order)
        return ChunkedArray(path, mask.opened, shape, dtype, stamp, order)
    shape = tuple(variables["data"].array.shape[axis] for axis in stored_order(dims))
    return spread_mask(mask.read().astype(dtype, copy=False), order, index, shape)


def _both(present: Any, mask: Any) -> Any:
    """True where both ``present``, which comes from the numbers, and the mask of the file are True."""
    full = present.shape
    if mask is None:
        return present
    if mask.dtype != bool or tuple(mask.shape) not in (full, (*full[-3:-2], full[-1])):
        return mask  # `as_trace` refuses it, with its own message
    if isinstance(mask, np.ndarray):
        mask = np.broadcast_to(mask[:, None] if mask.ndim == 2 else mask, full)  # (timestep, 1, sample)
    if isinstance(present, np.ndarray):
        return present & mask
    if isinstance(mask, np.ndarray):
        mask = HeldTensor(tensor_of(mask if mask.ndim == 4 else mask[:, None]))
    return replace(present, mask=mask)
