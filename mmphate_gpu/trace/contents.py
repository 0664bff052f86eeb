"""The arrays of a trace in a file of any format: their headers are checked, then their values are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import InputError
from ..runtime.arrays import not_real, tensor_of
from ..runtime.memory import check_fits
from .dims import (
    ZONES,
    Dims,
    axes_of,
    check_axis,
    check_boolean,
    check_data_shape,
    check_length,
    check_mask_shape,
    check_text,
    coordinate_names,
    mask_order,
    spread_mask,
    stored_order,
    with_axes,
    with_metrics,
)
from .formats.arrays import Variables, check_compression
from .packing import Packing, check_plain, decode_coordinate, is_boolean, packing_of
from .readers import ChunkedArray, PresentValues, stamp_of
from .stored import Blocks, StoredArray, TensorBlocks, all_true, stored_values

_CPU = torch.device("cpu")


class Heading(NamedTuple):
    """Shape and dtype of the data in a file, known without reading values."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Contents:
    """The arrays of an open file whose shapes and dtypes fit one another; `contents_of` makes it.

    Attributes
    ----------
    variables : the data and the arrays that a trace can use with them, by field.
    dims : the name of each stored axis of the data, or None.
    order : for every axis of a trace, the number of the stored axis.
    heading : the shape of the data, in the order of the axes of a trace, and the dtype of the decoded values.
    packing : how the stored numbers encode the values; None if the stored numbers are the values.
    """

    path: Path
    variables: Variables
    dims: Dims
    order: tuple[int, ...]
    heading: Heading
    packing: Packing | None

    def read(self) -> dict[str, Any]:
        """Data, coordinates, label and mask, in memory; `InputError` if they do not fit or cannot be decoded."""
        self._check_fits(self._bytes_of_data() + self._bytes_beside(), "stream=True reads it block by block")
        values, present = self._data()
        return self._fields(values, present, self._mask())

    def stored(self) -> dict[str, Any] | None:
        """As `read`, but the data and a mask of their shape are `StoredArray`; None if one has to be read at once."""
        self._check_fits(self._bytes_beside(), "accepted: coordinates, labels and a mask that fit in memory")
        stamp = stamp_of(self.path)
        data = self._reader("data", self.order, self.heading.dtype, self.packing, stamp)
        mask = self._mask_reader(stamp)
        if data is None or (mask is None and "mask" in self.variables):
            return None
        fields = self._fields(stored_values(data), self._present_reader(data), mask)
        mask = fields.get("mask")
        if mask is not None and not isinstance(mask, np.ndarray):
            fields["mask"] = StoredArray(mask, mask.shape, torch.bool, _CPU)
        return fields

    def _data(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The values, and a mask that is True where a value is present; None if every value is present."""
        stored = self.variables["data"].read()
        if self.packing is None:
            return stored.transpose(self.order), None
        present = self.packing.present(stored)
        values = self.packing.decode(stored).transpose(self.order)
        return values, None if present.all() else present.transpose(self.order)

    def _present_reader(self, data: Any) -> PresentValues | None:
        if self.packing is None or not self.packing.missing:
            return None
        present = PresentValues(data, self.packing, None)
        return None if all_true(present) else present

    def _reader(
        self, field: str, order: tuple[int, ...], dtype: np.dtype, packing: Packing | None, stamp: str
    ) -> Blocks | None:
        variable = self.variables[field]
        if variable.opened is None:
            in_order = order == tuple(range(len(order)))
            return variable.blocks() if in_order and variable.blocks is not None else None
        shape = tuple(variable.array.shape[axis] for axis in order)
        return ChunkedArray(self.path, variable.opened, shape, dtype, stamp, order, packing)

    def _mask(self) -> np.ndarray | None:
        if (mask := self.variables.get("mask")) is None:
            return None
        values = mask.read().astype(bool, copy=False)
        return spread_mask(values, *mask_order(mask.dims, self.dims), self.heading.shape)

    def _mask_reader(self, stamp: str) -> Any:
        """A reader if the mask has the shape of the data, else an array; None without a mask or a reader for it."""
        if "mask" not in self.variables:
            return None
        order, _ = mask_order(self.variables["mask"].dims, self.dims)
        if len(order) < len(self.dims):
            return self._mask()
        return self._reader("mask", order, np.dtype(bool), None, stamp)

    def _fields(self, data: Any, present: Any, mask: Any) -> dict[str, Any]:
        fields = {"data": data, "mask": mask if present is None else _both(present, mask)}
        zones = {}
        for field, name in coordinate_names(self.dims, self.variables).items():
            beside = self.variables[name]
            fields[field] = np.atleast_1d(decode_coordinate(field, beside.read(), beside.attributes))
            zones[field] = beside.attributes.get("time_zone") or self._zone(field)
        fields["time_zone"] = {field: zone for field, zone in zones.items() if zone is not None}
        return with_metrics({name: array for name, array in fields.items() if array is not None})

    def _zone(self, field: str) -> str | None:
        """The time zone in an array of its own, which only a .npz has."""
        name = ZONES.get(field)
        if name not in self.variables:
            return None
        stored = self.variables[name]
        if stored.array.shape != () or np.dtype(stored.array.dtype).kind != "U":
            raise InputError(f"{name} has shape {stored.array.shape}; accepted: one text, the name of a time zone")
        check_text(name, np.dtype(stored.array.dtype))
        return str(stored.read())

    def _bytes_of_data(self) -> int:
        """Bytes of the stored numbers, and of the float32 or float64 values if they are converted."""
        n_values, stored = math.prod(self.heading.shape), np.dtype(self.variables["data"].array.dtype)
        converted = self.packing is not None or stored not in (np.float32, np.float64)
        n_bytes = n_values * (stored.itemsize + (max(4, self.heading.dtype.itemsize) if converted else 0))
        return n_bytes + (n_values if self.packing is not None and self.packing.missing else 0)

    def _bytes_beside(self) -> int:
        names = {"mask", *coordinate_names(self.dims, self.variables).values()} & set(self.variables)
        arrays = [self.variables[name].array for name in names]
        return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays)

    def _check_fits(self, needed: int, remedy: str) -> None:
        check_fits(f"a trace of shape {self.heading.shape} in memory", needed, _CPU, remedy=remedy)


def contents_of(path: Path, variables: Variables) -> Contents:
    """Check the shapes and dtypes of the arrays in the open file at ``path``; read no values but names of axes."""
    data = variables["data"]
    if data.array.shape is None:  # an HDF5 dataset without values
        raise InputError("data has no values (an empty HDF5 dataset); accepted: an array of real numbers")
    if len(data.array.shape) not in (3, 4):
        check_data_shape(tuple(data.array.shape))
    dims = with_axes(data.dims, _axes(variables, len(data.dims)))
    stored, order = np.dtype(data.array.dtype), stored_order(dims)
    if stored.kind not in "iuf":
        raise not_real("data", stored)
    packing = packing_of("data", stored, data.attributes, data.fill)
    shape = tuple(int(data.array.shape[axis]) for axis in order)
    check_data_shape(shape)
    if data.stored_bytes is not None:
        check_compression("data", math.prod(shape) * stored.itemsize, data.stored_bytes)
    contents = Contents(
        path, variables, dims, order, Heading(shape, stored if packing is None else packing.dtype), packing
    )
    _check_coordinates(contents)
    _check_mask(contents)
    return contents


def _axes(variables: Variables, n_axes: int) -> np.ndarray | None:
    if "axes" not in variables:
        return None
    axes = variables["axes"]
    check_length("axes", tuple(axes.array.shape), n_axes, "axis of data")
    check_text("axes", np.dtype(axes.array.dtype))
    return axes.read()


def _check_coordinates(contents: Contents) -> None:
    shape = contents.heading.shape
    sizes = dict(zip(axes_of(len(shape)), shape, strict=True))
    for field, name in coordinate_names(contents.dims, contents.variables).items():
        beside = contents.variables[name]
        axis = check_axis(field, beside.dims, len(shape))
        # A (slice, unit, sample) trace has one time step.
        check_length(field, tuple(beside.array.shape) or (1,), sizes.get(axis, 1), axis)
        check_text(field, np.dtype(beside.array.dtype))


def _check_mask(contents: Contents) -> None:
    if "mask" not in contents.variables:
        return
    mask, shape = contents.variables["mask"], contents.heading.shape
    check_plain("mask", mask.attributes)
    if not is_boolean(mask.attributes):
        check_boolean(np.dtype(mask.array.dtype))
    order, index = mask_order(mask.dims, contents.dims)
    sizes = tuple(int(mask.array.shape[axis]) for axis in order)
    if index is not ...:  # a mask with named axes is repeated along the axes that it lacks
        named = iter(sizes)
        sizes = tuple(size if part is None else next(named) for size, part in zip(shape, index, strict=True))
    check_mask_shape(sizes, shape)


def _both(present: Any, mask: Any) -> Any:
    """True where both ``present``, which comes from the fill values of the data, and the mask of the file are True."""
    if mask is None:
        return present
    if isinstance(mask, np.ndarray):
        mask = np.broadcast_to(mask[:, None] if mask.ndim == 2 else mask, present.shape)  # (timestep, 1, sample)
    if isinstance(present, np.ndarray):
        return present & mask
    if isinstance(mask, np.ndarray):
        mask = TensorBlocks(tensor_of(mask if mask.ndim == 4 else mask[:, None]))
    return replace(present, mask=mask)
