"""Whether KeOps works here. Each of its faults (no compiler, a broken cache) becomes an error of one sentence."""

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
from typing import Any

from ..errors import InputError
from .checksums import checksum_path, differs_from_checksum, write_checksum
from .optional import available, require
from .streams import lenient

# Exceptions that KeOps raises where its compiler made no library, or where a file in its cache is damaged.
FAULTS = (
    ImportError, OSError, ValueError, EOFError, LookupError, AttributeError, TypeError, ArithmeticError, RuntimeError,
    pickle.PickleError,
)  # fmt: skip
COMPILERS = ("clang++", "g++") if sys.platform == "darwin" else ("g++",)
PROBE_SECONDS = 60
REMEDY = "set KEOPS_CACHE_FOLDER to a folder that can be written"
ELF = b"\x7fELF\x02\x01"  # the first bytes of a Linux library: ELF, 64 bits, little endian
_failures: list[str] = []  # why "auto" no longer chooses KeOps in this process


class KeopsError(InputError):
    """KeOps does not work; the message says why."""


def why_no_keops() -> str | None:
    """Why KeOps does not work here, or None if no reason is known. KeOps is not imported.

    KeOps compiles its reductions at first use with the system's C++ compiler, for the CPU and for CUDA, and keeps them
    in a cache. The compiler is tried once in a process.
    """
    if _failures:
        return _failures[0]
    if not available("pykeops"):
        return 'pykeops is not installed: pip install "mmphate-gpu[keops]"'
    if sys.platform == "win32":
        return "KeOps works on Linux and macOS only"
    compiler = _compiler()
    if compiler is None:
        return f"there is no C++ compiler ({' or '.join(COMPILERS)}) on PATH"
    return _why_compiler_fails(compiler) or _why_cache_fails()


@contextmanager
def keops(*, purpose: str) -> Iterator[ModuleType]:
    """Give ``pykeops.torch`` to a block that computes with it; ``purpose`` begins the sentence of an error.

    The output of KeOps goes to stderr, so that stdout has nothing but results. Raises `KeopsError` if KeOps is not
    installed, its compiler or its cache does not work, or it fails in the block.
    """
    import torch  # imported here, so that a check of what is installed loads nothing

    reason = why_no_keops()
    if reason is not None:
        raise KeopsError(f"{purpose} cannot be used: {reason}")
    try:
        with redirect_stdout(lenient(sys.stderr)):
            yield require("pykeops.torch", extra="keops", purpose=purpose)
    except torch.OutOfMemoryError:
        raise
    except InputError as error:
        raise KeopsError(str(error)) from error
    except FAULTS as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        remedy = f"if its C++ compiler works, delete its cache {_cache_folder()}, or {REMEDY}"
        raise KeopsError(f"{purpose} cannot be used: KeOps fails ({reason}); {remedy}") from error
    _write_checksums()


def keops_serves() -> bool:
    """Whether "auto" may choose KeOps. It warns once if KeOps is installed but does not work."""
    reason = why_no_keops()
    if reason is not None and available("pykeops") and not _failures:
        _give_up(reason)
    return reason is None


def give_up_keops(error: KeopsError) -> None:
    """Keep "auto" from choosing KeOps in this process from now on, and warn why."""
    _give_up(str(error).partition(" cannot be used: ")[2] or str(error))


def _give_up(reason: str) -> None:
    _failures.append(reason)
    warnings.warn(f"the torch versions are used instead of KeOps: {reason}", RuntimeWarning, stacklevel=3)


def _compiler() -> str | None:
    """The name of the compiler that KeOps will call, or None."""
    named = os.environ.get("CXX")
    return next((name for name in (named, *COMPILERS) if name and shutil.which(name)), None)


@functools.cache
def _why_compiler_fails(compiler: str) -> str | None:
    """Compile a minimal library, and return the fault, or None if it works."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "probe.so"
            command = [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)]
            options: dict[str, Any] = {"input": b"int probe;\n", "capture_output": True, "timeout": PROBE_SECONDS}
            done = subprocess.run(command, check=False, **options)
            sound = done.returncode == 0 and library.is_file() and library.stat().st_size > 0
    except subprocess.TimeoutExpired:
        return f"the C++ compiler {compiler} does not finish within {PROBE_SECONDS} s"
    except OSError as error:
        return f"the C++ compiler {compiler} cannot be run ({error})"
    return None if sound else f"the C++ compiler {compiler} does not work (exit code {done.returncode})"


# ---------------------------------------------------------------- the cache of compiled reductions


def _cache_folder() -> Path:
    """The folder in which KeOps keeps its compiled libraries, with a subfolder for each version of Python."""
    named = os.environ.get("KEOPS_CACHE_FOLDER")
    if named is not None:
        return Path(named)
    return Path(os.path.expanduser("~"), ".cache", f"keops{importlib.metadata.version('pykeops')}")


def _why_cache_fails() -> str | None:
    """What is wrong with the cache folder or with a library in it, or None."""
    folder = _cache_folder()
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not existing.is_dir() or (existing != folder and not os.access(existing, os.W_OK | os.X_OK)):
            return f"its cache {folder} cannot be made; {REMEDY}"
        damaged = next((library for library in sorted(folder.glob("*/*.so")) if not _is_sound(library)), None)
    except OSError as error:
        return f"its cache {folder} cannot be read ({error.strerror}); {REMEDY}"
    return None if damaged is None else f"the library {damaged} in its cache is damaged; delete it"


def _is_sound(library: Path) -> bool:
    status = library.stat()
    return _is_sound_file(library, status.st_size, status.st_mtime_ns)


@functools.cache
def _is_sound_file(library: Path, size: int, modified: int) -> bool:
    """Whether ``library`` equals its checksum or, without a checksum, is as long as its ELF header says.

    Loading a truncated library would kill the process. ``size`` and ``modified`` are keys of the cache of results.
    """
    checksum = checksum_path(library)
    if checksum.exists() and checksum.stat().st_size:  # it is empty while another process writes it
        return not differs_from_checksum(library)
    with library.open("rb") as file:
        header = file.read(64)
    if not header.startswith(ELF) or len(header) < 64:
        return sys.platform == "darwin"
    start, section_size, n_sections = struct.unpack_from("<Q10xHH", header, 40)
    return size >= start + section_size * n_sections


def _write_checksums() -> None:
    """Write a checksum for every library of KeOps that this process has loaded, which shows that it works."""
    for name, module in list(sys.modules.items()):
        library = getattr(module, "__file__", None)
        if name.startswith("pykeops_") and library:
            _write_checksum_once(library)


@functools.cache
def _write_checksum_once(library: str) -> None:
    with suppress(OSError):  # KeOps also works with a read-only cache
        if not checksum_path(Path(library)).exists() or differs_from_checksum(Path(library)):
            write_checksum(Path(library))
