"""Optional packages: told apart without importing them, asked for with a clear message."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from .params import InputError


def available(module: str) -> bool:
    """Whether ``module`` is installed; its top-level package is found, nothing is imported.

    >>> available("json"), available("no_such_package")
    (True, False)
    """
    return importlib.util.find_spec(module.partition(".")[0]) is not None


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
