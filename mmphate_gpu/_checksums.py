"""Compiled libraries with their SHA-256 in a file beside them: a damaged one may load and then kill the process."""

from __future__ import annotations

import hashlib
from pathlib import Path


def checksum_path(library: Path) -> Path:
    """Where the checksum of ``library`` lies; CMakeLists.txt writes that of the C++ twins there."""
    return library.with_name(library.name + ".sha256")


def write_checksum(library: Path) -> None:
    """Write the checksum of ``library``. OSError if the folder takes no file."""
    checksum_path(library).write_text(_sha256(library) + "\n", encoding="ascii")


def differs_from_checksum(library: Path) -> bool:
    """Whether ``library`` has another SHA-256 than the file beside it says; False where there is no such file.

    OSError if one of them cannot be read.
    """
    try:
        expected = checksum_path(library).read_bytes().strip()
    except FileNotFoundError:
        return False
    # An empty one is being written by another process.
    return bool(expected) and expected != _sha256(library).encode("ascii")


def _sha256(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()
