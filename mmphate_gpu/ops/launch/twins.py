"""Ops with twins: several versions of one op, with one name and one contract.

The module of an op registers them side by side: the portable torch version with `twins`, a C++ version with
`cpp_twin`, and a version for NVIDIA GPUs with `cuda_twin` (kernels of csrc/cuda) or `triton_twin`. torch's dispatcher
picks by the device of the tensors: the native version where it can run, the portable one elsewhere. `serving` reports
which version runs on a device, and why not another. All versions have the arguments of the portable one, whose types
and shapes are the contract.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from ...runtime.optional import available
from . import native
from .cuda import Gpu
from .kernel import probe, start_with_cupy

NAMESPACE = "mmphate_gpu"
Version = Callable[..., Any]
Arguments = tuple[Any, ...]
PORTABLE: dict[str, Version] = {}
CPP: dict[str, Version] = {}
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


@dataclass(eq=False)
class CudaCompiler:
    """A compiler of CUDA twins, and the launchers of these. It is imported and probed at the first call of a twin."""

    name: str
    package: str
    probe: Callable[[], None]  # raises what the compiler raises
    first: Arguments = ()  # what its launchers take before the arguments of the op
    launchers: dict[str, Version] = field(default_factory=dict)
    rehearsals: dict[str, Callable[[Any], Iterable[Arguments]]] = field(default_factory=dict)
    _fault: str | None = None  # what the probe raised
    _probed: bool = False

    def why_not(self) -> str | None:
        """Why its twins do not run here, or None if they do."""
        if native.switched_off():
            return f"{native.SWITCH}=0 in the environment"
        if not torch.cuda.is_available():
            return "torch sees no CUDA device"
        if not available(self.package):
            return f"{self.package} is not installed"
        return self._fault

    def compiles(self) -> bool:
        """Whether the compiler works on this machine; the first call probes it, and warns if it does not."""
        if not self._probed:
            self._probed = True
            try:
                self.probe()
            except Exception as error:  # these faults have no base class: a missing compiler, header or driver
                self._fault = f"{self.name} cannot compile here: {type(error).__name__}: {error}"
                message = f"the portable torch versions are used on CUDA: {self._fault}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
        return self._fault is None

    def serves(self) -> bool:
        """Whether its twins run here, by the probe: for callers that go another way where they do not."""
        return self.why_not() is None and self.compiles()

    def launcher(self, name: str) -> Version:
        """The twin of the op ``name``, which calls the portable version where nothing compiles."""

        def launch(*arguments: Any) -> Any:
            if not self.compiles():
                return PORTABLE[name](*arguments)
            return self.launchers[name](*self.first, *arguments)

        return launch

    def registers(self, op: Any, rehearse: Callable[[Any], Iterable[Arguments]]) -> Callable[[Version], Version]:
        def register(launcher: Version) -> Version:
            name = op.__name__
            self.launchers[name], self.rehearsals[name] = launcher, rehearse
            if self.why_not() is None:
                _LIBRARY.impl(name, self.launcher(name), "CUDA")
            return launcher

        return register

    def rehearse(self, sizes: Any, *first: Any) -> None:
        """Call every launcher with ``first`` and the arguments that its rehearsal makes of ``sizes``."""
        for name, arguments_of in self.rehearsals.items():
            for arguments in arguments_of(sizes):
                self.launchers[name](*first, *arguments)


def _probe_triton() -> None:
    """Compile and run every Triton kernel on torch's current device, also those of ops that nobody has imported yet."""
    from .. import register_all

    register_all()
    device = torch.device("cuda", torch.cuda.current_device())
    TRITON.rehearse(device)
    torch.cuda.synchronize(device)


CUPY = CudaCompiler("CuPy", "cupy", probe, (Gpu(start_with_cupy),))
TRITON = CudaCompiler("Triton", "triton", _probe_triton)


def twins(signature: str) -> Callable[[Version], Any]:
    """Make the decorated portable function an op of torch's dispatcher under its own name, with ``signature``.

    The function returned is ``torch.ops.mmphate_gpu.<name>``.
    """

    def register(portable: Version) -> Any:
        name = portable.__name__
        PORTABLE[name] = portable
        _LIBRARY.define(name + signature)
        _LIBRARY.impl(name, portable, "CompositeExplicitAutograd")
        op = getattr(getattr(torch.ops, NAMESPACE), name)
        op.__doc__ = portable.__doc__
        return op

    return register


def cpp_twin(op: Any) -> Callable[[Version], Version]:
    """Register the decorated function, with the arguments of ``op``, as the C++ version of it."""

    def register(version: Version) -> Version:
        CPP[op.__name__] = version
        if native.why_no_native() is None:
            _LIBRARY.impl(op.__name__, version, "CPU")
        return version

    return register


# A decorator that registers a launcher, which takes a `Gpu` and then the arguments of the op, as its CUDA version. Its
# rehearsal gives, for `Sizes`, arguments for each call that starts another kernel in a run: `compile_ahead` makes these
# calls, without starting a kernel, to learn what to compile.
cuda_twin = CUPY.registers
# A decorator that registers a launcher, with the arguments of the op, as its version in Triton's language. Its
# rehearsal gives small arguments on a device for each form of the kernel that a run starts: the probe makes these
# calls. A launcher imports its kernel when it is called, because the kernels need Triton.
triton_twin = TRITON.registers


def serves(device: torch.device) -> bool:
    """Whether native twins run on ``device``."""
    reasons: dict[str, Callable[[], str | None]] = {"cpu": native.why_no_native, "cuda": CUPY.why_not}
    return device.type in reasons and reasons[device.type]() is None


def serving(device: str, compiler: CudaCompiler = CUPY) -> str:
    """One line for `show_config`: what runs the ops of ``compiler`` on ``device`` ("cpu" or "cuda"), and why."""
    if device == "cuda":
        reason = compiler.why_not()
        return f"CUDA (compiled by {compiler.name} at first use)" if reason is None else f"portable torch ({reason})"
    reason = native.why_no_native()
    return f"C++ ({native.isa()})" if reason is None else f"portable torch ({reason})"


def serving_op(name: str, device: str) -> str:
    """The same for one op."""
    if device == "cpu" and name not in CPP:
        return "portable torch (no C++ twin)"
    return serving(device, TRITON if name in TRITON.launchers else CUPY)
