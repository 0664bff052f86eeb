"""Arrays of any library in, arrays of the same library out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from ..errors import InputError, InputTypeError
from .isolation import isolated
from .optional import require_cupy
from .read_array import host_array, read_array

Function = TypeVar("Function", bound=Callable[..., Any])


def array_library(value: Any) -> str:
    """The library of a result computed from ``value``: "torch", "cupy" or "numpy", which also stands for lists."""
    if isinstance(value, torch.Tensor):
        return "torch"
    return "cupy" if type(value).__module__.partition(".")[0] == "cupy" else "numpy"


def to_library(tensor: torch.Tensor, library: str) -> Any:
    """``tensor`` as an array of ``library``, over the same memory if possible; CSR tensors become SciPy or CuPy's."""
    if library == "torch":
        return tensor
    if tensor.layout == torch.sparse_csr:
        return _sparse_to_library(tensor, library)
    if library == "cupy":
        return require_cupy(purpose="a CuPy result").from_dlpack(tensor)
    return tensor.cpu().numpy()


def copied(tensor: torch.Tensor, library: str, device: torch.device) -> Any:
    """A copy of ``tensor`` as an array of ``library``, or as a tensor on ``device``.

    A caller who writes into the copy does not change the results that the stages keep for the next run.
    """
    target = {"torch": device, "cupy": tensor.device, "numpy": torch.device("cpu")}[library]
    return to_library(tensor.to(target, copy=True), library)


def _sparse_to_library(tensor: torch.Tensor, library: str) -> Any:
    from scipy.sparse import csr_matrix

    parts = (tensor.values(), tensor.col_indices(), tensor.crow_indices())
    if library == "cupy":
        csr_matrix = require_cupy("cupyx.scipy.sparse", purpose="a CuPy result").csr_matrix
    return csr_matrix(tuple(to_library(part, library) for part in parts), shape=tuple(tensor.shape), copy=False)


def _result_to_library(result: Any, library: str) -> Any:
    """``result``, a tensor or a dataclass with tensors among its fields, with arrays of ``library``."""
    if isinstance(result, torch.Tensor):
        return to_library(result, library)
    if is_dataclass(result) and not isinstance(result, type):
        tensors = {f.name: getattr(result, f.name) for f in fields(result)}
        return replace(result, **{k: to_library(v, library) for k, v in tensors.items() if isinstance(v, torch.Tensor)})
    return result


def takes_arrays(*names: str) -> Callable[[Function], Function]:
    """Let the arguments ``names`` be NumPy, torch or CuPy arrays; results are arrays of the library of the first.

    For an xarray.DataArray that library is NumPy, because rows of landmarks have no coordinates. The function itself is
    written for tensors: `real_tensor` gives it float32 or float64 tensors without an autograd graph.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            library = array_library(bound.arguments[names[0]])
            for name in names:
                value = bound.arguments.get(name)
                if value is not None:
                    bound.arguments[name] = real_tensor(name, value)
            with isolated():
                return _result_to_library(function(*bound.args, **bound.kwargs), library)

        return wrapper  # type: ignore[return-value]

    return decorate


def to_numpy(name: str, values: Any) -> np.ndarray:
    """``values`` (array, tensor on any device, list) as a NumPy array; ``name`` is what errors call it."""
    return host_array(name, array_or_tensor(name, values))


@isolated()
def real_tensor(name: str, values: Any) -> torch.Tensor:
    """``values`` as a float32 or float64 tensor, without a copy where that is possible.

    Integers beyond 2^24 become float64, smaller ones float32. `InputError`, whose message starts with ``name``, refuses
    complex, boolean, object, string or sparse values, integers beyond 2^53, and entries that a mask hides.
    """
    values = array_or_tensor(name, values)
    if isinstance(values, np.ndarray):
        return tensor_of(_real_array(name, values))
    if values.dtype in (torch.float32, torch.float64):
        return values
    if values.dtype == torch.bool or values.is_complex():
        raise not_real(name, values.dtype)
    whole = not values.is_floating_point() and values.element_size() > 2
    # NumPy finds the extremes, because torch has no minimum of unsigned integers.
    wide = whole and _beyond_float32(name, values.cpu().numpy())
    return values.to(torch.float64 if wide else torch.float32)


def array_or_tensor(name: str, values: Any) -> np.ndarray | torch.Tensor:
    """The array that `read_array` reads from ``values``; raises `InputError` if a mask hides entries."""
    array, hidden = read_array(name, values)
    if hidden is not None:
        mask = host_array(name, hidden)
        raise InputError(f"{name} is masked, {mask.sum()} of {mask.size} entries are hidden; accepted: none hidden")
    return array


def _real_array(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iuf":
        raise not_real(name, values.dtype)
    if values.dtype.kind == "f":
        dtype = np.float32 if values.dtype.itemsize <= 4 else np.float64
    else:
        dtype = np.float64 if values.itemsize > 2 and _beyond_float32(name, values) else np.float32
    with np.errstate(over="ignore", under="ignore"):  # a longdouble beyond float64 becomes an infinity, reported later
        return values.astype(dtype, copy=False)


def _beyond_float32(name: str, values: np.ndarray) -> bool:
    """Whether float32 may round one of the integers ``values``; raises `InputError` if float64 may round one."""
    extremes = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for extreme in extremes:
        if abs(extreme) > 2**53:
            raise InputError(
                f"{name} contains {extreme}, which float64 may round; accepted: integers within 2^53, or floating point"
            )
    return max(map(abs, extremes)) > 2**24


def not_real(name: str, dtype: Any) -> InputTypeError:
    """The error for an array ``name`` that holds no real numbers."""
    return InputTypeError(f"{name} has dtype {dtype}; accepted: real numbers (floating point or integers)")


@isolated()
def tensor_of(values: np.ndarray) -> torch.Tensor:
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
