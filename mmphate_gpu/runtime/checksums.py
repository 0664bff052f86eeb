"""The SHA-256 of a compiled library, in a file beside it. A damaged library may load and then kill the process."""

from __future__ import annotations

import hashlib
from pathlib import Path


def checksum_path(library: Path) -> Path:
    """The path of the checksum of ``library``. CMakeLists.txt writes that of the compiled C++ ops there."""
    return library.with_name(library.name + ".sha256")


def write_checksum(library: Path) -> None:
    """Write the checksum of ``library``. Raises OSError if the file cannot be written."""
    checksum_path(library).write_text(_sha256(library) + "\n", encoding="ascii")


def differs_from_checksum(library: Path) -> bool:
    """Whether the SHA-256 of ``library`` differs from that in the file beside it; False if there is no such file.

    Raises OSError if a file cannot be read.
    """
    try:
        expected = checksum_path(library).read_bytes().strip()
    except FileNotFoundError:
        return False
    return expected != _sha256(library).encode("ascii")


def _sha256(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()
