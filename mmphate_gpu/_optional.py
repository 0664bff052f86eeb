"""Optional packages: told apart without importing them, asked for with a clear message."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from types import ModuleType

from .params import InputError


def available(module: str) -> bool:
    """Whether ``module`` is installed; its top-level package is found, nothing is imported.

    >>> available("json"), available("no_such_package")
    (True, False)
    """
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def why_no_keops() -> str | None:
    """Why KeOps cannot serve here, or None if it can; nothing is imported.

    KeOps compiles its reductions at first use, on the CPU and for CUDA alike, with the system's C++ compiler.
    """
    if not available("pykeops"):
        return 'pykeops is not installed: pip install "mmphate-gpu[keops]"'
    if sys.platform == "win32":
        return "KeOps needs Linux or macOS"
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "there is no C++ compiler (c++, g++ or clang++) on PATH"
    return None


def require_keops(*, purpose: str) -> ModuleType:
    """Import and return ``pykeops.torch``; `InputError` with the reason where it cannot serve."""
    reason = why_no_keops()
    if reason is not None:
        raise InputError(f"{purpose} cannot serve: {reason}")
    return require("pykeops.torch", extra="keops", purpose=purpose)


def require(module: str, *, purpose: str, extra: str | None = None) -> ModuleType:
    """Import and return ``module``, which ``purpose`` needs.

    ``extra`` is the extra of this package that installs it; None where it is installed by its own name.

    Raises
    ------
    InputError
        If the import fails; the message names the package, the pip command and the import's own error.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0] if extra is None else f"mmphate-gpu[{extra}]"
        command = f'pip install "{package}"'
        raise InputError(f"{purpose} needs the package {module!r}: {command} ({error})") from error


def require_cupy(module: str = "cupy", *, purpose: str) -> ModuleType:
    """Import and return CuPy, or a ``module`` of it; the error message names the extra that fits torch's CUDA."""
    import torch  # imported here, so that a check of what is installed loads nothing

    # Either build of CuPy fits a torch without CUDA: name the newer one.
    extra = "cuda12" if (torch.version.cuda or "").startswith("12.") else "cuda13"
    return require(module, purpose=purpose, extra=extra)
