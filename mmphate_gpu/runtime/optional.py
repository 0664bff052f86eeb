"""Optional packages: check whether they are installed without importing them, and import them with clear errors."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from ..errors import InputError

# Exceptions of a package that is installed but cannot be imported: built for another NumPy, no writable cache, damaged.
BROKEN = (OSError, RuntimeError, ValueError, AttributeError, TypeError, NameError, SystemError, SyntaxError)


def available(module: str) -> bool:
    """Whether ``module`` is installed; its top-level package is found, nothing is imported.

    >>> available("json"), available("no_such_package")
    (True, False)
    """
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def require(module: str, *, purpose: str, extra: str | None = None) -> ModuleType:
    """Import and return ``module``, which ``purpose`` needs.

    ``extra`` is the extra of this package that installs it; None if it is installed by its name. Where the import
    fails, the message of the `InputError` has the package, the reason and, for an ImportError, the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0] if extra is None else f"mmphate-gpu[{extra}]"
        command = f'pip install "{package}"'
        raise InputError(f"{purpose} needs the package {module!r}: {command} ({error})") from error
    except BROKEN as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f"{purpose} cannot be used: the package {module!r} does not load ({reason})") from error


def require_cupy(module: str = "cupy", *, purpose: str) -> ModuleType:
    """Import and return CuPy, or a ``module`` of it; the error message names the extra that fits torch's CUDA."""
    import torch  # imported here, so that a check of what is installed loads nothing

    # Either build of CuPy fits a torch without CUDA: name the newer one.
    extra = "cuda12" if (torch.version.cuda or "").startswith("12.") else "cuda13"
    return require(module, purpose=purpose, extra=extra)
