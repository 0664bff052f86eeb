"""Ops with twins: one name and one contract, a portable torch version, a C++ one and a CUDA one.

torch's dispatcher picks by the device of the tensors: the native version where it can serve, the portable one
elsewhere. `serving` says which, and why not the other.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch

from .._optional import available
from . import _native

NAMESPACE = "mmphate_gpu"
PORTABLE: dict[str, Callable[..., Any]] = {}
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def why_no_cuda_twins() -> str | None:
    """Why the CUDA twins do not serve, or None if they do; CuPy is not imported before the first call of one."""
    if _native.switched_off():
        return f"{_native.SWITCH}=0 in the environment"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if not available("cupy"):
        return "cupy is not installed"
    return _cuda_fault


# What the first call of a CUDA twin met; None while there was none.
_cuda_fault: str | None = None


@functools.cache
def _cuda_compiles() -> bool:
    """Whether CuPy loads and its compiler works on this machine; warns, once, if not."""
    global _cuda_fault
    try:
        importlib.import_module("._cuda", __package__).probe()
    except Exception as error:  # CuPy's faults have no base class of their own: a missing NVRTC, header or driver
        _cuda_fault = f"CuPy cannot compile here: {type(error).__name__}: {error}"
        warnings.warn(f"the portable torch versions serve on CUDA: {_cuda_fault}", RuntimeWarning, stacklevel=2)
        return False
    return True


def twins(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the decorated portable function an op of torch's dispatcher under its own name, with ``signature``.

    The function returned is ``torch.ops.mmphate_gpu.<name>``.
    """

    def register(portable: Callable[..., Any]) -> Callable[..., Any]:
        name = portable.__name__
        PORTABLE[name] = portable
        _LIBRARY.define(name + signature)
        _LIBRARY.impl(name, portable, "CompositeExplicitAutograd")
        if _native.why_no_native() is None:
            _LIBRARY.impl(name, getattr(_native, name), "CPU")
        if why_no_cuda_twins() is None:
            _LIBRARY.impl(name, _on_cuda(name), "CUDA")
        op = getattr(getattr(torch.ops, NAMESPACE), name)
        op.__doc__ = portable.__doc__
        return op

    return register


def _on_cuda(name: str) -> Callable[..., Any]:
    """The launcher ``name``; CuPy is loaded with the first call, and the portable version serves where it fails."""

    def launch(*arguments: Any) -> Any:
        if not _cuda_compiles():
            return PORTABLE[name](*arguments)
        return getattr(importlib.import_module("._cuda", __package__), name)(*arguments)

    return launch


def serves(device: torch.device) -> bool:
    """Whether native twins serve on ``device``."""
    reason = {"cpu": _native.why_no_native, "cuda": why_no_cuda_twins}.get(device.type)
    return reason is not None and reason() is None


def serving(device: str) -> str:
    """One line for `show_config`: what serves the ops on ``device`` ("cpu" or "cuda"), and why not the native twins."""
    reason = _native.why_no_native() if device == "cpu" else why_no_cuda_twins()
    if reason is not None:
        return f"portable torch ({reason})"
    return f"C++ ({_native.isa()})" if device == "cpu" else "CUDA (compiled by CuPy at first use)"
