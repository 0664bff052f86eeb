"""Checks of the shapes and dtypes of a trace's arrays, the same for arrays in memory and for headers in a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError, InputTypeError
from .dims import axes_of

Shape = tuple[int, ...]
# No name is longer. Without a limit, a few bytes of a compressed file could expand to text of any length.
LONGEST_TEXT = 2**16  # bytes


def check_data_shape(shape: Shape) -> None:
    """Raise `InputError` unless ``shape`` is (epoch, timestep, unit, sample) or (slice, unit, sample), none empty."""
    if len(shape) not in (3, 4):
        raise InputError(
            f"data has {len(shape)} axes, shape {shape}; "
            "accepted: 4 axes (epoch, timestep, unit, sample) or 3 axes (slice, unit, sample)"
        )
    for axis, size in zip(axes_of(len(shape)), shape, strict=True):
        if size == 0:
            raise InputError(f"data has an empty axis {axis}, shape {shape}; accepted: at least 1 entry in every axis")


def check_length(name: str, shape: Shape, size: int, axis: str) -> None:
    """Raise `InputError` unless the array ``name`` has one value for each of the ``size`` entries of ``axis``."""
    if shape != (size,):
        raise InputError(f"{name} has shape {shape}; accepted: ({size},), one value per {axis}")


def check_mask_shape(shape: Shape, data_shape: Shape) -> None:
    """Raise `InputError` unless a mask has the shape of the data, or (timestep, sample) or (slice, sample)."""
    short = (data_shape[-3], data_shape[-1])
    if shape not in (data_shape, short):
        names = f"({axes_of(len(data_shape))[-3]}, sample)"
        raise InputError(f"mask has shape {shape}; accepted: {data_shape} or {names} = {short}")


def check_boolean(dtype: Any) -> None:
    """Raise `InputTypeError` unless ``dtype``, that of a mask, is boolean."""
    if str(dtype).removeprefix("torch.") != "bool":
        raise InputTypeError(f"mask has dtype {dtype}; accepted: booleans, True where a value is present")


def check_text(name: str, dtype: np.dtype) -> None:
    """Raise `InputError` if an entry of the array ``name`` has more than `LONGEST_TEXT` bytes."""
    if dtype.itemsize > LONGEST_TEXT:
        raise InputError(f"{name} has entries of {dtype.itemsize} bytes; accepted: at most {LONGEST_TEXT}")
