"""Where measurements are kept: one row of JSON a line, each with all that it was measured on.

python benchmarks/records.py cuda:1        prints what rows of that device will say about it
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout is what is measured, whether or not it is installed

from benchmarks.rows import Row, slug  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
# What decides a number; how results are shown does not.
SOURCES = ("mmphate_gpu/**/*.py", "csrc/**/*", "benchmarks/**/*.py", "CMakeLists.txt")
SHOWN_ONLY = ("benchmarks/report.py",)
PACKAGES = ("torch", "numpy", "scipy", "pykeops", "triton")
CUPY = ("cupy", "cupy-cuda12x", "cupy-cuda13x")
_FIELDS = {f.name for f in fields(Row)}


# ---------------------------------------------------------------- files


def result_path(folder: Path, suite: str, machine: str) -> Path:
    return folder / f"{suite}-{machine}.jsonl"


def read(path: Path) -> list[Row]:
    """The rows of a result file; a last line that a killed run left torn is dropped. No file: no rows.

    Raises
    ------
    ValueError
        A whole line that is no row.
    """
    if not path.exists():
        return []
    return [_row(line, path, number) for number, line in enumerate(_whole(path.read_bytes()).splitlines(), 1)]


def append(path: Path, rows: Sequence[Row]) -> None:
    """Put ``rows`` behind those of the file, in one write, over a torn last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = len(_whole(path.read_bytes())) if path.exists() else 0
    with path.open("ab") as file:
        file.truncate(kept)
        file.write(_lines(rows))
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, rows: Sequence[Row]) -> None:
    """Write ``rows`` in place of the file, whole or not at all."""
    write_text(path, _lines(rows).decode())


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all: what was there stays until the new text is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def rows_of(entries: Any, where: object) -> list[Row]:
    """Rows from parsed JSON: a list of objects with the fields of a row.

    Raises
    ------
    ValueError
        Something else; ``where`` is named.
    """
    if not isinstance(entries, list) or not all(isinstance(e, dict) and e.keys() <= _FIELDS for e in entries):
        raise ValueError(f"{where} holds no benchmark rows")
    try:
        return [Row(**entry) for entry in entries]
    except TypeError as error:
        raise ValueError(f"{where} holds no benchmark rows: {error}") from error


def _whole(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row.asdict(), allow_nan=False) + "\n" for row in rows).encode()


def _row(line: bytes, path: Path, number: int) -> Row:
    where = f"{path}, line {number},"
    try:
        return rows_of([json.loads(line)], where)[0]
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} holds no benchmark rows") from error


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
        "versions": versions(packages),
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


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """What decides a time or a digit, by name; a package that is not installed is not there."""
    import torch

    from mmphate_gpu import __version__

    found = {"mmphate-gpu": __version__, "python": platform.python_version()}
    for package in dict.fromkeys((*PACKAGES, *CUPY, *packages)):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["torch"] = torch.__version__  # with the kind of its build behind it
    return found | ({"cuda": torch.version.cuda} if torch.version.cuda else {})


def commit() -> str:
    """The checkout's commit, with a + where the sources differ from it; empty outside a checkout of git."""
    head = _git("rev-parse", "--short", "HEAD")
    changed = head and _git("status", "--porcelain", "--", *(f":(glob){pattern}" for pattern in SOURCES))
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def source() -> str:
    """A hash of the files that decide a number: rows with another one are measured anew."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in SOURCES for file in ROOT.glob(pattern) if file.is_file()}):
        name = file.relative_to(ROOT).as_posix()
        if name not in SHOWN_ONLY and "__pycache__" not in name:
            digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def main(argv: Sequence[str] | None = None) -> int:
    """Print `about` as JSON, and the device by its full name; 2 where there is no such device."""
    from mmphate_gpu.ops.devices import resolve_device
    from mmphate_gpu.params import InputError

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
