"""Where measurements are kept: one row of JSON a line, each with all that it was measured on.

python benchmarks/measure/records.py cuda:1        prints what rows of that device will say about it
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the checkout is what is measured, whether or not it is installed

from benchmarks.measure.rows import PORTABLE, Row, slug  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
# The files that decide a number. How results are shown, compared or asked for does not.
SOURCES = (
    "mmphate_gpu/**/*.py",
    "csrc/**/*",
    "CMakeLists.txt",
    "benchmarks/cases.py",
    *(f"benchmarks/{room}/*.py" for room in ("measure", "peers", "suites")),
)
# Another machine behind the same name has more or less of it; what a kernel keeps for itself changes less.
SAME_MEMORY = 0.1
LOCK = ".lock"
PACKAGES = ("torch", "numpy", "scipy", "pykeops", "triton")
CUPY = ("cupy", "cupy-cuda12x", "cupy-cuda13x")
_FIELDS = {f.name for f in fields(Row)}


class BadRows(ValueError):
    """What was read holds no benchmark rows."""


class Busy(RuntimeError):
    """Another run is writing into the folder."""


# ---------------------------------------------------------------- files


def result_path(folder: Path, suite: str, machine: str) -> Path:
    return folder / f"{suite}-{machine}.jsonl"


def read(path: Path) -> list[Row]:
    """The rows of a result file. No file: no rows.

    Raises
    ------
    BadRows
        A line that is no row: a file is written whole or not at all, so none is torn by a run that was ended.
    """
    if not path.exists():
        return []
    return [_row(line, path, number) for number, line in enumerate(path.read_bytes().splitlines(), 1)]


def replace(path: Path, rows: Sequence[Row]) -> None:
    """Write ``rows`` in place of the file, whole or not at all."""
    write_text(path, "".join(json.dumps(row.asdict(), allow_nan=False) + "\n" for row in rows))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs from writing into ``folder``, which is made; on a system without locks nothing is kept.

    Raises
    ------
    Busy
        Another run has it.
    """
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("w") as file:
        if not _lock(file, path):
            raise Busy(f"another run writes into {folder}; wait for its end, or give this one another folder (--out)")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[str], path: Path) -> bool:
    """Whether ``file`` is ours now; the one that is at ``path``, and not one that its owner has just removed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system that has no locks
        return True


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all: what was there stays until the new text is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def rows_of(entries: Any, where: object) -> list[Row]:
    """Rows from parsed JSON: a list of objects with the fields of a row.

    Raises
    ------
    BadRows
        Something else; ``where`` is named.
    """
    if not isinstance(entries, list) or not all(isinstance(e, dict) and e.keys() <= _FIELDS for e in entries):
        raise BadRows(f"{where} holds no benchmark rows")
    try:
        return [Row(**entry) for entry in entries]
    except TypeError as error:
        raise BadRows(f"{where} holds no benchmark rows: {error}") from error


def _row(line: bytes, path: Path, number: int) -> Row:
    where = f"{path}, line {number},"
    try:
        return rows_of([json.loads(line)], where)[0]
    except ValueError as error:
        raise BadRows(f"{where} holds no benchmark rows; restore the file, or remove it") from error


# ---------------------------------------------------------------- what a row was measured on


def about(device: Any, packages: Sequence[str] = ()) -> dict[str, Any]:
    """The fields that all rows of a process share: where, with what, from which sources, when.

    ``device`` is a torch device or its name; versions of further ``packages`` are added where they are installed.
    """
    import torch

    device = torch.device(device)
    return {
        "device": device.type,
        "machine": machine_name(device),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_bytes(device),
        "versions": {**versions(packages), "twins": twins(device)},
        "commit": commit(),
        "source": source(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def machine_name(device: Any) -> str:
    """The GPU, or the processor with its cores, and the threads where these are fewer."""
    import torch

    if device.type == "cuda":
        return slug(torch.cuda.get_device_name(device))
    cores, threads = _n_cores(), torch.get_num_threads()
    return slug(f"{_processor()} {cores} cores" + ("" if threads == cores else f" {threads} threads"))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def memory_bytes(device: Any) -> int:
    """All memory that ``device`` has, or as much of it as the user lets the library take."""
    import psutil
    import torch

    from mmphate_gpu.runtime.memory import memory_limit

    on_gpu = device.type == "cuda"
    whole = torch.cuda.get_device_properties(device).total_memory if on_gpu else psutil.virtual_memory().total
    return min(whole, memory_limit() or whole)


def twins(device: Any) -> str:
    """What serves in place of portable torch: "C++ (avx512)", "CUDA", or "none"."""
    from mmphate_gpu.ops.launch.native import isa
    from mmphate_gpu.ops.launch.twins import serves

    if not serves(device):
        return "none"
    return "CUDA" if device.type == "cuda" else f"C++ ({isa()})"


def same_settings(row: Row, about: dict[str, Any]) -> bool:
    """Whether ``row`` was measured from the sources and on the memory that ``about`` has, with its packages, and with
    the same versions of others as far as these are installed here."""
    now = _installed(row.versions) | about["versions"]
    named = {*now, *PACKAGES, *CUPY}
    if row.by == PORTABLE:
        named.discard("twins")  # its process has none, whatever serves elsewhere
    versions = all(row.versions.get(name) == now.get(name) for name in named)
    return row.source == about["source"] and versions and same_memory(row.memory_bytes or 0, about["memory_bytes"])


def _installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those ``packages`` that are there."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def same_memory(before: int, now: int) -> bool:
    """Whether two totals may be of one machine."""
    return abs(before - now) <= SAME_MEMORY * now


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """What decides a time or a digit, by name; a package that is not installed is not there."""
    import torch

    from mmphate_gpu import __version__

    found = {"mmphate-gpu": __version__, "python": platform.python_version()}
    found |= _installed(dict.fromkeys((*PACKAGES, *CUPY, *packages)))
    found["torch"] = torch.__version__  # with the kind of its build behind it
    return found | ({"cuda": torch.version.cuda} if torch.version.cuda else {})


def commit() -> str:
    """The checkout's commit, with a + where the sources differ from it; empty outside a checkout of git."""
    head = _git("rev-parse", "--short", "HEAD")
    paths = (f":(glob){pattern}" for pattern in SOURCES)
    changed = head and _git("status", "--porcelain", "--", *paths)
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def source() -> str:
    """A hash of the files that decide a number: rows with another one are measured anew."""
    return hash_of(SOURCES)


def hash_of(patterns: Sequence[str]) -> str:
    """A hash of the checkout's files, their names included, that are like one of ``patterns``."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in ROOT.glob(pattern) if file.is_file()}):
        name = file.relative_to(ROOT).as_posix()
        if "__pycache__" not in name:
            digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def main(argv: Sequence[str] | None = None) -> int:
    """Print `about` as JSON, and the device by its full name; 2 where there is no such device."""
    from mmphate_gpu.errors import InputError
    from mmphate_gpu.runtime.devices import resolve_device

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", nargs="?", default="auto")
    try:
        device = resolve_device(parser.parse_args(argv).device)
    except InputError as error:
        parser.error(str(error))
    print(json.dumps({"name": str(device), "about": about(device)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
