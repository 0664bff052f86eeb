"""Which of torch's ops have a kernel for CUDA, by the list of functions that torch installs with its code generator."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

OF_CUDA = {"CUDA", "SparseCsrCUDA", "Generic", "ScalarOnly"}  # the last two are loops for CPU and CUDA


class _Function(NamedTuple):
    delegate: str | None  # the function whose kernels it uses
    keys: frozenset[str]


@functools.cache
def _functions() -> dict[str, _Function]:
    package = Path(importlib.util.find_spec("torchgen").origin).parent
    text = (package / "packaged" / "ATen" / "native" / "native_functions.yaml").read_text()
    functions = {}
    for block in re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]:
        delegate = re.search(r"^  structured_delegate: (\S+)", block, re.MULTILINE)
        keys = re.findall(r"^    ([\w, ]+):", block, re.MULTILINE)
        each = frozenset(key.strip() for listed in keys for key in listed.split(","))
        functions[block[: block.index("(")]] = _Function(delegate and delegate[1], each)
    return functions


def _has_kernel(name: str) -> bool:
    function = _functions().get(name)
    if function is None:
        return False
    if function.delegate is not None:
        return _has_kernel(function.delegate)
    # A function without kernels of its own is composed of others.
    return not function.keys or any(key in OF_CUDA or key.startswith("Composite") for key in function.keys)


def without_kernel(names: Iterable[str]) -> list[str]:
    """The names of those ops of torch that have no kernel for CUDA. A name looks like ``aten::add.Tensor``."""
    return [name for name in names if name.startswith("aten::") and not _has_kernel(name.removeprefix("aten::"))]
