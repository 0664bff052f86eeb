"""The CUDA sources of this package as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)
# A kernel from its first line to its closing brace, the only one at the start of a line.
_KERNEL = re.compile(r"^MMP_KERNEL void\s+__launch_bounds__\([^)]*\)\s+(\w+)\(.*?^}\n", re.MULTILINE | re.DOTALL)


def source_folder() -> Path:
    """``csrc``: beside the package in a source tree, inside it when installed."""
    tree = PACKAGE.parent / "csrc"
    return tree if (tree / "cuda" / "radius_affinity.cu").exists() else PACKAGE / "_native" / "csrc"


def kernel_source(name: str) -> str:
    """``csrc/cuda/<name>.cu`` with the text of its headers in place, so that a compiler needs no include path."""
    return one_text(source_folder() / "cuda" / f"{name}.cu")


def one_text(path: Path) -> str:
    """The text of ``path`` with that of its headers in place."""
    return _in_one(path, set())


def source_of_kernel(name: str, kernel: str, defines: Mapping[str, str]) -> str:
    """The text that a launch compiles: ``defines``, and the source without the other kernels.

    The text defines the names, not the options: CuPy compiles an empty file for every new set of options, to learn the
    compiler's version.
    """
    head = "".join(f"#define {macro} {value}\n" for macro, value in sorted(defines.items()))
    return head + _KERNEL.sub(lambda match: match[0] if match[1] == kernel else "", kernel_source(name))


def kernel_names(name: str) -> list[str]:
    """The kernels of ``csrc/cuda/<name>.cu``."""
    return [match[1] for match in _KERNEL.finditer((source_folder() / "cuda" / f"{name}.cu").read_text())]


def _in_one(path: Path, seen: set[Path]) -> str:
    """The text of ``path`` and of the files that it includes, each of them once."""

    def included(match: re.Match[str]) -> str:
        target = (path.parent / match[1]).resolve()
        if target in seen:
            return ""
        seen.add(target)
        return _in_one(target, seen)

    return _INCLUDE.sub(included, path.read_text().replace("#pragma once\n", ""))
