"""The operations under the stages: they take tensors, give tensors and know nothing of MM-PHATE."""

import importlib
import pkgutil


def register_all() -> None:
    """Import the module of every op, which registers the versions of the op."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)
