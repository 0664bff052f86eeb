"""KeOps: whether it can serve here, and its faults (a compiler, a cache) in one sentence."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType

from ._checksums import checksum_path, differs_from_checksum, write_checksum
from ._optional import available, require
from .params import InputError
from .streams import lenient

# What KeOps raises where its compiler made no library, or where a file of its cache is not what it wrote.
FAULTS = (
    ImportError, OSError, ValueError, EOFError, LookupError, AttributeError, TypeError, ArithmeticError, RuntimeError,
    pickle.PickleError,
)  # fmt: skip
COMPILERS = ("clang++", "g++") if sys.platform == "darwin" else ("g++",)
PROBE_SECONDS = 60
ELF = b"\x7fELF\x02\x01"  # a library of 64 bits, little endian
_failures: list[str] = []  # of a KeOps that "auto" had chosen


class KeopsError(InputError):
    """KeOps cannot serve; the message says why."""


def why_no_keops() -> str | None:
    """Why KeOps cannot serve here, or None if nothing speaks against it; it is not imported.

    KeOps compiles its reductions at first use, on the CPU and for CUDA alike, with the system's C++ compiler, and keeps
    them in a cache. The compiler is tried once in a process.
    """
    if _failures:
        return _failures[0]
    if not available("pykeops"):
        return 'pykeops is not installed: pip install "mmphate-gpu[keops]"'
    if sys.platform == "win32":
        return "KeOps needs Linux or macOS"
    compiler = _compiler()
    if compiler is None:
        return f"there is no C++ compiler ({' or '.join(COMPILERS)}) on PATH"
    return _why_compiler_fails(compiler) or _why_cache_fails()


@contextmanager
def keops(*, purpose: str) -> Iterator[ModuleType]:
    """Give ``pykeops.torch`` to a block that computes with it; ``purpose`` begins the sentence of an error.

    What KeOps prints goes to stderr, so that the results on stdout stay alone.

    Raises
    ------
    KeopsError
        KeOps is not installed, or its compiler, its cache or the block fails.
    """
    import torch  # imported here, so that a check of what is installed loads nothing

    reason = why_no_keops()
    if reason is not None:
        raise KeopsError(f"{purpose} cannot serve: {reason}")
    try:
        with redirect_stdout(lenient(sys.stderr)):
            yield require("pykeops.torch", extra="keops", purpose=purpose)
    except torch.OutOfMemoryError:
        raise
    except InputError as error:
        raise KeopsError(str(error)) from error
    except FAULTS as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        remedy = f"if its C++ compiler works, delete its cache {_cache_folder()}"
        raise KeopsError(f"{purpose} cannot serve: KeOps fails ({reason}); {remedy}") from error
    _write_checksums()


def keops_serves() -> bool:
    """Whether "auto" may choose KeOps; warns, once, where it is installed and cannot serve."""
    reason = why_no_keops()
    if reason is not None and available("pykeops") and not _failures:
        _give_up(reason)
    return reason is None


def give_up_keops(error: KeopsError) -> None:
    """Have "auto" choose others from now on, and warn why."""
    _give_up(str(error).partition(" cannot serve: ")[2] or str(error))


def _give_up(reason: str) -> None:
    _failures.append(reason)
    warnings.warn(f"the torch versions serve in the place of KeOps: {reason}", RuntimeWarning, stacklevel=3)


def _compiler() -> str | None:
    """The compiler that KeOps takes."""
    named = os.environ.get("CXX")
    return next((name for name in (named, *COMPILERS) if name and shutil.which(name)), None)


@functools.cache
def _why_compiler_fails(compiler: str) -> str | None:
    """Compile an empty library; what goes wrong, or None."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "probe.so"
            command = [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)]
            options = {"input": b"int probe;\n", "capture_output": True, "timeout": PROBE_SECONDS}
            done = subprocess.run(command, check=False, **options)
            sound = done.returncode == 0 and library.is_file() and library.stat().st_size > 0
    except subprocess.TimeoutExpired:
        return f"the C++ compiler {compiler} does not answer within {PROBE_SECONDS} s"
    except OSError as error:
        return f"the C++ compiler {compiler} cannot be tried ({error})"
    return None if sound else f"the C++ compiler {compiler} does not work (exit code {done.returncode})"


# ---------------------------------------------------------------- the cache of compiled reductions


def _cache_folder() -> Path:
    """Where KeOps keeps its libraries, in a folder for each version of Python."""
    named = os.environ.get("KEOPS_CACHE_FOLDER")
    if named is not None:
        return Path(named)
    return Path(os.path.expanduser("~"), ".cache", f"keops{importlib.metadata.version('pykeops')}")


def _why_cache_fails() -> str | None:
    """What is wrong with the folder, or with a library in it."""
    folder = _cache_folder()
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not existing.is_dir() or (existing != folder and not os.access(existing, os.W_OK | os.X_OK)):
            return f"its cache {folder} cannot be made; set KEOPS_CACHE_FOLDER to a folder that can be written"
        damaged = next((library for library in sorted(folder.glob("*/*.so")) if not _is_sound(library)), None)
    except OSError as error:
        return f"its cache {folder} cannot be read ({error.strerror})"
    return None if damaged is None else f"the library {damaged} in its cache is damaged; delete it"


def _is_sound(library: Path) -> bool:
    status = library.stat()
    return _is_sound_file(library, status.st_size, status.st_mtime_ns)


@functools.cache
def _is_sound_file(library: Path, size: int, modified: int) -> bool:
    """Whether ``library`` has its checksum, or, if it has none yet, ends after the sections that its header names.

    A process that loads one that was cut off dies.
    """
    if checksum_path(library).exists():
        return not differs_from_checksum(library)
    with library.open("rb") as file:
        header = file.read(64)
    if not header.startswith(ELF) or len(header) < 64:
        return sys.platform == "darwin"
    start, section_size, n_sections = struct.unpack_from("<Q10xHH", header, 40)
    return size >= start + section_size * n_sections


def _write_checksums() -> None:
    """Write a checksum for every library of KeOps that this process has loaded, and so found sound."""
    for name, module in list(sys.modules.items()):
        library = getattr(module, "__file__", None)
        if name.startswith("pykeops_") and library:
            _write_checksum_once(library)


@functools.cache
def _write_checksum_once(library: str) -> None:
    with suppress(OSError):  # a cache that is read-only serves too
        if not checksum_path(Path(library)).exists() or differs_from_checksum(Path(library)):
            write_checksum(Path(library))
