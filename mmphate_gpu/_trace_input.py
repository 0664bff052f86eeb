"""Whatever holds numbers, as the tensors and coordinate arrays of a trace; nothing passed in is modified."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ._arrays import array_or_tensor, real_tensor, tensor_of, to_numpy, with_values
from ._trace_parts import READERS, Array, stored_mask, stored_values
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


def coordinate(name: str, values: Any, size: int) -> np.ndarray:
    """Coordinate values of an axis; 0, 1, ... when None."""
    return np.arange(size) if values is None else to_numpy(name, values)


def as_label(values: Any) -> np.ndarray | None:
    """Class labels as int64; whole floating-point numbers pass."""
    if values is None:
        return None
    label = to_numpy("label", values)
    if label.dtype.kind == "f" and np.array_equal(label, np.trunc(label)):
        label = label.astype(np.int64)
    if label.dtype.kind not in "iub":
        raise InputTypeError(f"label has dtype {label.dtype}; accepted: integers, one class per sample")
    return label.astype(np.int64)


def real_values(values: Any) -> Array:
    """The values of a trace, held or read by parts, as float32 or float64."""
    return stored_values(values) if isinstance(values, READERS) else real_tensor("data", values)


def full_mask(values: Any, data: Array, axes: tuple[str, ...]) -> Array:  # (E, T, M, S)
    """A mask of the data's shape or of (timestep, sample), checked and spread over all four axes."""
    if is_xarray(values):
        values = values.transpose(*(name for name in axes if name in values.dims)).data
    if isinstance(values, READERS):
        mask = stored_mask(values) if values.dtype == bool else values
    else:
        mask = values if isinstance(values, Array) else array_or_tensor("mask", values)
    if isinstance(mask, np.ndarray):
        mask = tensor_of(mask) if mask.dtype == bool else mask
    if mask.dtype != torch.bool:
        raise InputTypeError(f"mask has dtype {mask.dtype}; accepted: booleans, True where a value is present")
    mask = with_values("mask", mask).to(data.device)
    short = (data.shape[-3], data.shape[-1]) if data.ndim == 3 else (data.shape[1], data.shape[3])
    if tuple(mask.shape) not in (tuple(data.shape), short):
        names = f"({axes[-3]}, sample)"
        raise InputError(f"mask has shape {tuple(mask.shape)}; accepted: {tuple(data.shape)} or {names} = {short}")
    if mask.ndim == 2:
        mask = mask.unsqueeze(-2).expand(data.shape)
    return mask if mask.ndim == 4 else mask.unsqueeze(1)
