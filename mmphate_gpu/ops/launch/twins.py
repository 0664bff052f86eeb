"""Ops with twins: one name and one contract, a portable torch version, a C++ one and a CUDA one, or a Triton one.

torch's dispatcher picks by the device of the tensors: the native version where it can serve, the portable one
elsewhere. `serving` says which, and why not the other.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from ...runtime.optional import available
from . import native

NAMESPACE = "mmphate_gpu"
PORTABLE: dict[str, Callable[..., Any]] = {}
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


@dataclass(eq=False)
class CudaCompiler:
    """What compiles CUDA twins at the first call of one; its package is not imported before."""

    name: str
    package: str
    module: str  # of this package, with a launcher for every op and a `probe`
    _fault: str | None = None  # what the probe met
    _probed: bool = False

    def why_not(self) -> str | None:
        """Why its twins do not serve, or None if they do."""
        if native.switched_off():
            return f"{native.SWITCH}=0 in the environment"
        if not torch.cuda.is_available():
            return "torch sees no CUDA device"
        if not available(self.package):
            return f"{self.package} is not installed"
        return self._fault

    def compiles(self) -> bool:
        """Whether the package loads and its compiler works on this machine; warns, once, if not."""
        if not self._probed:
            self._probed = True
            try:
                self._launchers().probe()
            except Exception as error:  # their faults have no base class: a missing compiler, header or driver
                self._fault = f"{self.name} cannot compile here: {type(error).__name__}: {error}"
                message = f"the portable torch versions serve on CUDA: {self._fault}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
        return self._fault is None

    def serves(self) -> bool:
        """Whether its twins serve, found out by the probe: for who takes another way where they do not."""
        return self.why_not() is None and self.compiles()

    def launcher(self, name: str) -> Callable[..., Any]:
        """The twin of the op ``name``: the portable version serves in its place where nothing compiles."""

        def launch(*arguments: Any) -> Any:
            if not self.compiles():
                return PORTABLE[name](*arguments)
            return getattr(self._launchers(), name)(*arguments)

        return launch

    def _launchers(self) -> ModuleType:
        return importlib.import_module(self.module, __package__)


CUPY = CudaCompiler("CuPy", "cupy", ".cuda")
TRITON = CudaCompiler("Triton", "triton", "..triton.launchers")
COMPILER: dict[str, CudaCompiler] = {}


def twins(signature: str, *, cuda: CudaCompiler = CUPY) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the decorated portable function an op of torch's dispatcher under its own name, with ``signature``.

    ``cuda`` compiles its CUDA twin. There is a C++ one where `native` has a launcher of that name: tiles in half
    precision have none, for a CPU has no use for them. The function returned is ``torch.ops.mmphate_gpu.<name>``.
    """

    def register(portable: Callable[..., Any]) -> Callable[..., Any]:
        name = portable.__name__
        PORTABLE[name], COMPILER[name] = portable, cuda
        _LIBRARY.define(name + signature)
        _LIBRARY.impl(name, portable, "CompositeExplicitAutograd")
        if hasattr(native, name) and native.why_no_native() is None:
            _LIBRARY.impl(name, getattr(native, name), "CPU")
        if cuda.why_not() is None:
            _LIBRARY.impl(name, cuda.launcher(name), "CUDA")
        op = getattr(getattr(torch.ops, NAMESPACE), name)
        op.__doc__ = portable.__doc__
        return op

    return register


def ops_of(compiler: CudaCompiler) -> list[str]:
    """The ops, of the modules that have been imported, whose CUDA twins ``compiler`` compiles."""
    return sorted(name for name, one in COMPILER.items() if one is compiler)


def native_ops() -> list[str]:
    """The ops, of the modules that have been imported, that have a C++ twin."""
    return sorted(name for name in PORTABLE if hasattr(native, name))


def why_no_cuda_twins() -> str | None:
    """Why the CUDA twins of csrc/cuda do not serve, or None if they do."""
    return CUPY.why_not()


def serves(device: torch.device) -> bool:
    """Whether native twins serve on ``device``."""
    reasons: dict[str, Callable[[], str | None]] = {"cpu": native.why_no_native, "cuda": why_no_cuda_twins}
    return device.type in reasons and reasons[device.type]() is None


def serving(device: str, compiler: CudaCompiler = CUPY) -> str:
    """One line for `show_config`: what serves the ops of ``compiler`` on ``device`` ("cpu" or "cuda"), and why."""
    if device == "cuda":
        reason = compiler.why_not()
        return f"CUDA (compiled by {compiler.name} at first use)" if reason is None else f"portable torch ({reason})"
    reason = native.why_no_native()
    return f"C++ ({native.isa()})" if reason is None else f"portable torch ({reason})"


def serving_op(name: str, device: str) -> str:
    """The same for one op."""
    if device == "cpu" and not hasattr(native, name):
        return "portable torch (no C++ twin)"
    return serving(device, COMPILER[name])
