"""Whatever holds numbers, as the tensors and coordinate arrays of a trace; nothing passed in is modified."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .params import InputError, InputTypeError

AXES = ("epoch", "timestep", "unit", "sample")
SLICE_AXES = ("slice", "unit", "sample")


def real_tensor(name: str, values: Any) -> torch.Tensor:
    """``values`` as a float32 or float64 tensor, without a copy where that is possible.

    Raises
    ------
    InputTypeError
        Complex, boolean, object, string or sparse ``values``; the message starts with ``name``.
    """
    values = values.detach() if isinstance(values, torch.Tensor) else _array_or_tensor(name, values)
    if isinstance(values, np.ndarray):
        return _tensor_of(_real_array(name, values))
    if values.layout != torch.strided or values.is_nested:
        raise InputTypeError(f"{name} is a sparse or nested tensor ({values.layout}); accepted: a dense one")
    if values.dtype in (torch.float32, torch.float64):
        return values
    if values.dtype == torch.bool or values.is_complex() or values.is_quantized:
        raise _not_real(name, values.dtype)
    whole = not values.is_floating_point() and values.element_size() > 2 and values.numel() > 0
    wide = whole and float(values.double().abs().max()) > 2**24  # beyond, float32 rounds integers
    return values.to(torch.float64 if wide else torch.float32)


def _array_or_tensor(name: str, values: Any) -> np.ndarray | torch.Tensor:
    if isinstance(values, np.ndarray):
        return np.asarray(values)
    if type(values).__module__.startswith("scipy.sparse"):
        raise InputTypeError(f"{name} is a sparse {type(values).__name__}; accepted: a dense array")
    if hasattr(values, "__dlpack__"):
        return torch.from_dlpack(values)
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{name} is a {type(values).__name__} that makes no array of numbers ({error})") from error


def _real_array(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iuf":
        raise _not_real(name, values.dtype)
    if values.dtype.kind == "f":
        kind = np.float32 if values.dtype.itemsize <= 4 else np.float64
    else:
        wide = values.itemsize > 2 and values.size and max(-int(values.min()), int(values.max())) > 2**24
        kind = np.float64 if wide else np.float32
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes an infinity, reported later
        return values.astype(kind, copy=False)


def _not_real(name: str, dtype: Any) -> InputTypeError:
    return InputTypeError(f"{name} has dtype {dtype}; accepted: real numbers (floating point or integers)")


def _tensor_of(values: np.ndarray) -> torch.Tensor:
    """A tensor over the memory of ``values``; read-only arrays are shared too, since nothing here writes."""
    if any(stride < 0 or stride % values.itemsize for stride in values.strides):
        values = values.copy()  # torch has no negative or unaligned strides
    if values.flags.writeable:
        return torch.from_numpy(values)
    # torch.from_numpy warns about read-only arrays; over a writeable view of the same memory it does not.
    return torch.from_numpy(np.asarray(_Writeable(values)))


class _Writeable:
    """Presents a read-only array's memory as writeable, through the array interface."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values  # keeps the memory alive
        interface = dict(values.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


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


def to_numpy(name: str, values: Any) -> np.ndarray:
    """``values`` (array, tensor on any device, list) as a NumPy array; ``name`` is what errors call it."""
    array = values if isinstance(values, torch.Tensor) else _array_or_tensor(name, values)
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array


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


def full_mask(values: Any, data: torch.Tensor, axes: tuple[str, ...]) -> torch.Tensor:  # (E, T, M, S)
    """A mask of the data's shape or of (timestep, sample), checked and spread over all four axes."""
    if is_xarray(values):
        values = values.transpose(*(name for name in axes if name in values.dims)).data
    mask = values if isinstance(values, torch.Tensor) else _array_or_tensor("mask", values)
    if isinstance(mask, np.ndarray):
        mask = _tensor_of(mask) if mask.dtype == bool else mask
    if mask.dtype != torch.bool:
        raise InputTypeError(f"mask has dtype {mask.dtype}; accepted: booleans, True where a value is present")
    mask = mask.detach().to(data.device)
    short = (data.shape[-3], data.shape[-1]) if data.ndim == 3 else (data.shape[1], data.shape[3])
    if tuple(mask.shape) not in (tuple(data.shape), short):
        names = f"({axes[-3]}, sample)"
        raise InputError(f"mask has shape {tuple(mask.shape)}; accepted: {tuple(data.shape)} or {names} = {short}")
    if mask.ndim == 2:
        mask = mask.unsqueeze(-2).expand(data.shape)
    return mask if mask.ndim == 4 else mask.unsqueeze(1)
