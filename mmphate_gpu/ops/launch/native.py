"""The C++ library of csrc/cpu: where it is, whether it can be used, and how its functions are called through ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ...runtime.checksums import checksum_path, differs_from_checksum

# Set to 0, the portable versions run although the library is installed.
SWITCH = "MMPHATE_GPU_NATIVE"
# The library to load instead of the one that was installed; tests name one that was built with sanitizers.
PATH_VARIABLE = "MMPHATE_GPU_LIBRARY"
LIBRARY = "libmmphate_cpu.so"
PACKAGE = Path(__file__).resolve().parents[2]

# The letters that stand for the types of tensors in `call`.
FLOATS = (torch.float32, torch.float64)
TYPES = {
    "d": (torch.float64,),
    "l": (torch.int64,),
    "s": (torch.int32,),
    "i": (torch.int32, torch.int64),
    "f": FLOATS,
    "g": FLOATS,
}


class NativeError(RuntimeError):
    """A twin refused arguments that its portable version accepts: a fault of this package."""


@functools.cache
def why_no_native() -> str | None:
    """Why the C++ twins do not run here, or None if they do; warns about a library that exists but cannot be used."""
    reason, path = _reason(), _library_path()
    if reason is not None and path is not None and reason.startswith(path.name):
        warnings.warn(f"the portable torch versions are used: {reason}", RuntimeWarning, stacklevel=2)
    return reason


def switched_off() -> bool:
    """Whether the environment asks for the portable versions."""
    return os.environ.get(SWITCH, "1") == "0"


def _reason() -> str | None:
    if switched_off():
        return f"{SWITCH}=0 in the environment"
    path = _library_path()
    if path is None:
        return f"{LIBRARY} was not built (no C++ compiler at install, or built without csrc)"
    try:
        if differs_from_checksum(path):
            return f"{path.name} is damaged: its hash differs from that in {checksum_path(path).name}; install it again"
        _library()
    except OSError as error:
        return f"{path.name} does not load: {error}"
    except AttributeError as error:
        return f"{path.name} has no entry point of the C++ twins: {error}"
    stamp, expected = _library().mmphate_stamp().decode(), _sources_stamp()
    if expected is not None and stamp != expected:
        return f"{path.name} was built from other sources than csrc holds now; build it again"
    return None


def isa() -> str:
    """The instruction set of the twins that run here: "avx512", "avx2" or "baseline"."""
    return _library().mmphate_isa().decode()


def _library_path() -> Path | None:
    """The library beside this package, or that of the installed package when this is a source tree in front of it.

    ``MMPHATE_GPU_LIBRARY`` in the environment names another library.
    """
    if named := os.environ.get(PATH_VARIABLE):
        return Path(named)
    beside = PACKAGE / "_native" / LIBRARY
    if beside.exists():
        return beside
    try:
        installed = importlib.metadata.distribution("mmphate-gpu").locate_file(f"mmphate_gpu/_native/{LIBRARY}")
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(installed)) if Path(str(installed)).exists() else None


def _sources_stamp() -> str | None:
    """The stamp of the sources beside the package, as CMakeLists.txt makes it; None without sources."""
    csrc = PACKAGE.parent / "csrc"
    files = [*csrc.glob("cpu/*.cpp"), *csrc.glob("cpu/*.h"), *csrc.glob("common/*.h")]
    if not files:
        return None
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files, key=str)]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library_path()))
    library.mmphate_isa.restype = library.mmphate_stamp.restype = ctypes.c_char_p
    return library


def call(function: str, types: str, *arguments: object) -> None:
    """Run ``function`` of the C++ library, for the instruction set of this machine, with the threads torch has.

    ``types`` has a letter of `TYPES` for every tensor argument, in order; in one call equal letters stand for the same
    type. None stands for a tensor that is left out. A dtype arrives as 1 for int64 and float32, else as 0: it selects
    the type of the tensors before it.
    """
    _check_tensors(function, types, [each for each in arguments if each is None or isinstance(each, torch.Tensor)])
    entry = getattr(_library(), f"mmphate_{function}_{isa()}")
    status = entry(*map(_c, arguments), ctypes.c_int(torch.get_num_threads()))
    if status == 1:
        raise MemoryError(f"{function}: out of memory")
    if status:
        raise NativeError(f"{function}: status {status} for {[_brief(argument) for argument in arguments]}")


def _check_tensors(function: str, letters: str, tensors: list[torch.Tensor | None]) -> None:
    """Raise `NativeError` for a tensor whose memory C++ would misread."""
    types = dict(TYPES)
    for place, (letter, tensor) in enumerate(zip(letters, tensors, strict=True)):
        if tensor is None:
            continue
        if tensor.device.type != "cpu" or tensor.dtype not in types[letter] or not tensor.is_contiguous():
            layout = "contiguous" if tensor.is_contiguous() else "not contiguous"
            accepted = " or ".join(map(str, types[letter]))
            raise NativeError(
                f"{function}: tensor {place} is {tensor.dtype} on {tensor.device}, {layout}; accepted: {accepted} on "
                "the CPU, contiguous"
            )
        types[letter] = (tensor.dtype,)


def _c(argument: Any) -> object:
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, torch.dtype):
        return ctypes.c_int(argument in (torch.int64, torch.float32))
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_void_p(None) if argument is None else ctypes.c_double(argument)


def _brief(argument: object) -> object:
    return tuple(argument.shape) if isinstance(argument, torch.Tensor) else argument
