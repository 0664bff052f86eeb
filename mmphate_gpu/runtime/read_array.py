"""Read arrays of other libraries as NumPy arrays or tensors, together with the mask that hides entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.masked import MaskedTensor

from ..errors import InputError, InputTypeError

Values: TypeAlias = np.ndarray | torch.Tensor

# What NumPy, torch and other exporters raise for an object that they cannot convert. A torch build without CUDA raises
# the AssertionError for an array on a GPU.
_REFUSALS = (TypeError, ValueError, RuntimeError, BufferError, OverflowError, AttributeError, AssertionError)
_HOST = 1  # DLPack's number for CPU memory


def read_array(name: str, values: Any) -> tuple[Values, Values | None]:
    """(array, hidden) of an array, a tensor, or (nested) sequences of numbers, arrays and tensors.

    ``array`` has neither a mask nor an autograd graph. ``hidden`` has the shape of ``array`` and is True where a mask
    hides an entry; it is None if no entry is hidden. A sequence becomes a NumPy array, stacked from its items.
    `InputError` refuses sparse arrays, tensors without values, and sequences of pandas or xarray objects whose axes
    differ.
    """
    if isinstance(values, torch.Tensor):
        return _of_tensor(name, values)
    if isinstance(values, np.ndarray):
        return _of_numpy(values)
    if type(values).__module__.startswith("scipy.sparse"):
        raise InputTypeError(f"{name} is a sparse {type(values).__name__}; accepted: a dense array")
    if is_sequence(values):
        return _of_sequence(name, values)
    readers: list[Callable[[Any], Values]] = [np.asanyarray]  # keeps the mask if it makes a masked array
    if hasattr(values, "__dlpack__"):
        readers = _dlpack_readers(values)
    return read_array(name, _first_that_reads(name, values, readers))


def is_sequence(values: Any) -> bool:
    """Whether ``values`` is a list, a tuple or the like, whose items may be arrays themselves."""
    return isinstance(values, Sequence) and not isinstance(values, str | bytes | bytearray | memoryview)


def host_array(name: str, values: Values) -> np.ndarray:
    """``values`` as a NumPy array; half precision of tensors becomes single, since NumPy has no bfloat16."""
    if isinstance(values, np.ndarray):
        return values
    is_half = values.is_floating_point() and values.element_size() < 4
    try:
        return (values.float() if is_half else values).cpu().numpy()
    except TypeError as error:
        raise InputTypeError(f"{name} has dtype {values.dtype}, which NumPy lacks; accepted: real numbers") from error


def _of_tensor(name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    if isinstance(tensor, MaskedTensor):
        array, _ = _of_tensor(name, tensor.get_data())
        hidden = ~tensor.get_mask()
        return array, hidden if bool(hidden.any()) else None
    if tensor.layout != torch.strided or tensor.is_nested:
        raise InputTypeError(f"{name} is a sparse or nested tensor ({tensor.layout}); accepted: a dense one")
    if tensor.is_quantized:
        raise InputTypeError(f"{name} has dtype {tensor.dtype}; accepted: real numbers, as dequantize() gives")
    if not _holds_values(tensor):
        raise InputTypeError(
            f"{name} is a tensor without values (a {type(tensor).__name__} on {tensor.device}); "
            "accepted: a tensor that holds its numbers"
        )
    # Kernels read the memory itself, where a lazy conjugation or negation has not been done yet.
    return tensor.detach().resolve_conj().resolve_neg().as_subclass(torch.Tensor), None


def _holds_values(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` has memory that can be read; meta and fake tensors and those inside torch.func have none."""
    try:
        storage = tensor.untyped_storage()
        return storage.device.type != "meta" and (storage.data_ptr() != 0 or tensor.numel() == 0)
    except RuntimeError:  # torch raises it for a tensor without storage
        return False


def _of_numpy(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    hidden = np.ma.getmask(array)
    # A structured mask belongs to a structured dtype, which every caller refuses.
    any_hidden = hidden.dtype == bool and bool(hidden.any())
    return np.asarray(array), np.asarray(hidden) if any_hidden else None


def _of_sequence(name: str, values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray | None]:
    if all(map(_is_scalar, set(map(type, values)))):
        return _first_that_reads(name, values, [np.asarray]), None
    _check_names(name, values)
    pairs = [read_array(name, value) for value in values]
    arrays = [host_array(name, array) for array, _ in pairs]
    stacked = _first_that_reads(name, arrays, [np.stack])
    if all(hidden is None for _, hidden in pairs):
        return stacked, None
    none_hidden = np.zeros(stacked.shape[1:], bool)
    return stacked, np.stack([none_hidden if hidden is None else host_array(name, hidden) for _, hidden in pairs])


def _is_scalar(item_type: type) -> bool:
    array = issubclass(item_type, Sequence) or hasattr(item_type, "__array__") or hasattr(item_type, "__dlpack__")
    return not array or issubclass(item_type, np.generic | str | bytes)


def _check_names(name: str, values: Sequence[Any]) -> None:
    """Raise `InputError` for pandas or xarray objects whose axes differ, so that they cannot be stacked by position."""
    named = [axes for axes in map(_axis_names, values) if axes is not None]
    if any(axes != named[0] for axes in named):
        raise InputError(
            f"{name} holds {type(values[0]).__name__}s whose axes have different names or orders; "
            "accepted: the same dimensions, index and columns in all, in one order"
        )


def _axis_names(array: Any) -> list[Any] | None:
    package = type(array).__module__.partition(".")[0]
    if package == "xarray":
        return list(array.dims)
    return [list(axis) for axis in array.axes] if package == "pandas" and hasattr(array, "axes") else None


def _dlpack_readers(values: Any) -> list[Callable[[Any], Values]]:
    # NumPy comes first in host memory, because torch ends the process on a negative stride.
    device = getattr(values, "__dlpack_device__", lambda: (None, 0))()
    readers: list[Callable[[Any], Values]] = [torch.from_dlpack]
    if device[0] == _HOST:
        readers.insert(0, np.from_dlpack)
    return [*readers, np.asanyarray] if hasattr(values, "__array__") else readers


def _first_that_reads(name: str, values: Any, readers: list[Callable[[Any], Values]]) -> Any:
    for read in readers:
        try:
            return read(values)
        except _REFUSALS as error:
            reason = error
    raise InputTypeError(f"{name} is a {type(values).__name__} that makes no array of numbers ({reason})") from reason
