"""Files of rows: one row of JSON on each line."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

from benchmarks.measure.rows import Row

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LOCK = ".lock"
_FIELDS = {f.name for f in fields(Row)}


class BadRows(ValueError):
    """What was read holds no benchmark rows."""


class Busy(RuntimeError):
    """Another run is writing into the folder."""


def result_path(folder: Path, suite: str, machine: str) -> Path:
    return folder / f"{suite}-{machine}.jsonl"


def read(path: Path) -> list[Row]:
    """The rows of a result file; none if there is no file.

    Raises
    ------
    BadRows
        A line is no row. A file is written whole or not at all, so no run that was killed leaves part of a line.
    """
    if not path.exists():
        return []
    return [_row(line, f"{path}, line {number},") for number, line in enumerate(path.read_bytes().splitlines(), 1)]


def replace(path: Path, rows: Sequence[Row]) -> None:
    """Replace the content of the file by ``rows``, whole or not at all."""
    write_text(path, "".join(json.dumps(row.asdict(), allow_nan=False) + "\n" for row in rows))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` and keep other runs from writing into it. On a system without locks other runs are not kept out.

    Raises
    ------
    Busy
        Another run holds the lock.
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
    """Whether ``file`` is locked now and is still the file at ``path``: its last owner may just have removed it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # the file system has no locks
        return True


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all: the old content stays until the new text is complete."""
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
        It is something else. The message names ``where``.
    """
    if not isinstance(entries, list) or not all(isinstance(e, dict) and e.keys() <= _FIELDS for e in entries):
        raise BadRows(f"{where} holds no benchmark rows")
    try:
        return [Row(**entry) for entry in entries]
    except TypeError as error:
        raise BadRows(f"{where} holds no benchmark rows: {error}") from error


def _row(line: bytes, where: str) -> Row:
    try:
        return rows_of([json.loads(line)], where)[0]
    except ValueError as error:
        raise BadRows(f"{where} holds no benchmark rows; restore the file, or remove it") from error
