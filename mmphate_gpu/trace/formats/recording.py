"""The text files in a recorder's folder: meta.json has what all snapshots share, snapshots.jsonl a line for each.

meta.json and every line have a checksum of their content. A line is added after its snapshot is on the disk, and is not
changed later. So after a kill at any moment every snapshot in the list has its file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .arrays import MOST_METADATA, json_of, padded_text

META, LIST, LOCK = "meta.json", "snapshots.jsonl", ".lock"
RECORDING, VERSION = "mmphate-gpu recording", 2
_SEAL = "checksum"
_FILE = re.compile(r"snapshot_(\d{6,12})\.npy")
_LONGEST_LIST = 2**28  # bytes, for about a million snapshots; the lines are read one after another


@dataclass(frozen=True)
class Listed:
    """A snapshot as the list has it; of version 1 neither the checksum nor metrics are known."""

    epoch: Any
    file: str
    sha256: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """The content of the text files in a recorder's folder.

    Attributes
    ----------
    header : the content of meta.json.
    snapshots : those that are listed, in the order of the trace. A later line replaces an earlier one of its epoch.
    shape, dtype : of every snapshot, (T, M, P); None where version 1 does not have it.
    beside : the arrays of a trace other than its data, epochs and metrics, or their files.
    problems : what is wrong with lines of the list.
    unlisted : files of snapshots whose lines are lost. A crash leaves at most one file without a line, the last one.
    n_lines, n_bytes : of the complete lines of the list. A crash may leave part of another line after them.
    """

    header: dict[str, Any]
    snapshots: tuple[Listed, ...]
    shape: tuple[int, ...] | None
    dtype: str | None
    beside: dict[str, Any]
    problems: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    n_lines: int = 0
    n_bytes: int = 0


def file_name(number: int) -> str:
    """The file of the snapshot in the line ``number`` of the list, counted from 0."""
    return f"snapshot_{number:06d}.npy"


# ---------------------------------------------------------------- text with a checksum


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` together with its checksum."""
    return content | {_SEAL: _checksum(content)}


def unsealed(content: Any) -> dict[str, Any] | None:
    """``content`` without its checksum; None if that differs, or if it is no object with a checksum."""
    if not isinstance(content, dict):
        return None
    rest = {name: value for name, value in content.items() if name != _SEAL}
    return rest if content.get(_SEAL) == _checksum(rest) else None


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------- what all snapshots share


def header_text(header: dict[str, Any]) -> str:
    """The text of meta.json. Raises `InputError` if it would be longer than what is read."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in sealed(header).items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if len(text) > MOST_METADATA:
        raise InputError(
            f"the coordinates, labels and mask of the recording take {len(text)} bytes in {META}; accepted: at most "
            f"{MOST_METADATA}"
        )
    return text


def packed_mask(mask: np.ndarray) -> str:
    """A boolean mask (T, P) as text: its bits in base64."""
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def runs_of(names: np.ndarray) -> list[list[Any]]:
    """[name, how often] of equal names that follow one another."""
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    return [[str(names[start]), stop - start] for start, stop in zip(starts, starts[1:], strict=False)]


def read_header(folder: Path) -> dict[str, Any]:
    """The content of meta.json. Raises `InputError` if it is damaged or of an unknown version."""
    if not (folder / META).exists():
        raise InputError(f"{folder} has lost its {META}; accepted: the folder that a recorder wrote")
    header = json_of(folder / META)
    if header.get("format") != RECORDING or header.get("version") not in (1, VERSION):
        raise InputError(
            f"{folder / META} does not describe a recording; accepted: format {RECORDING!r}, version 1 or {VERSION}"
        )
    if header["version"] == VERSION and (header := unsealed(header)) is None:  # type: ignore[assignment]
        raise InputError(
            f"{folder / META} is damaged, as its checksum shows; accepted: the file that the recorder wrote "
            "(numpy.load reads each snapshot)"
        )
    return header


def read_listing(folder: Path) -> Listing:
    """The content of the text files in a folder of version 2."""
    # The files are listed before the list is read: a recorder at work may add to both meanwhile.
    numbers = {int(match[1]) for item in folder.iterdir() if (match := _FILE.fullmatch(item.name))}
    header, text = read_header(folder), _list_text(folder)
    lines = text.split(b"\n")[:-1]
    snapshots, problems = _snapshots(lines)
    # A crash may leave one file without a line; its number is that of the next line.
    unlisted = tuple(file_name(number) for number in sorted(numbers) if number > len(lines))
    shape = tuple(map(int, header["shape"]))
    dtype, beside = str(header["dtype"]), _beside(header, *shape)
    n_bytes = text.rfind(b"\n") + 1
    return Listing(header, tuple(snapshots), shape, dtype, beside, tuple(problems), unlisted, len(lines), n_bytes)


def _list_text(folder: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):  # a crash before the first snapshot leaves none
        n_bytes = (folder / LIST).stat().st_size
        if n_bytes > _LONGEST_LIST:
            raise InputError(f"{folder / LIST} has {n_bytes} bytes; accepted: at most {_LONGEST_LIST}")
        return (folder / LIST).read_bytes()
    return b""


def _snapshots(lines: list[bytes]) -> tuple[list[Listed], list[str]]:
    """The snapshots in their order, and what is wrong with lines."""
    listed: dict[Any, Listed] = {}
    problems = []
    for number, line in enumerate(lines):
        if (snapshot := _listed(line)) is None:
            problems.append(f"line {number + 1} of {LIST}, which is that of {file_name(number)}")
        else:
            listed[snapshot.epoch] = snapshot
    return [*listed.values()], problems


def list_line(snapshot: Listed) -> bytes:
    """The line of a snapshot in the list."""
    metrics = {name: None if math.isnan(value or 0) else value for name, value in snapshot.metrics.items()}
    entry = {"epoch": snapshot.epoch, "file": snapshot.file, "metrics": metrics, "sha256": snapshot.sha256}
    return json.dumps(sealed(entry)).encode() + b"\n"


def _listed(line: bytes) -> Listed | None:
    try:
        entry = unsealed(json.loads(line))
    except (ValueError, RecursionError):
        return None
    if entry is None or not all(_IS_VALID[name](entry.get(name)) for name in _IS_VALID):
        return None
    return Listed(**{name: entry[name] for name in _IS_VALID})


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 2**53


_IS_VALID = {
    "epoch": _is_number,
    "file": lambda name: isinstance(name, str) and _FILE.fullmatch(name) is not None,
    "sha256": lambda digest: isinstance(digest, str),
    "metrics": lambda metrics: (
        isinstance(metrics, dict) and all(value is None or type(value) in (int, float) for value in metrics.values())
    ),
}


def _beside(header: dict[str, Any], n_timesteps: int, n_units: int, n_samples: int) -> dict[str, np.ndarray]:
    names = {
        name: _coordinate(name, header[name]) for name in ("timestep", "unit", "label") if header[name] is not None
    }
    n_units = min(n_units, len(header["unit"]))  # the length of the list, not the number that the file claims
    layers = itertools.chain.from_iterable(itertools.repeat(str(name), count) for name, count in header["unit_layer"])
    names["unit_layer"] = padded_text("unit_layer", list(itertools.islice(layers, n_units + 1)))
    if header["mask"] is not None:
        names["mask"] = _mask(header["mask"], n_timesteps, n_samples)
    return names


def _coordinate(name: str, values: list[Any]) -> np.ndarray:
    texts = any(isinstance(value, str) for value in values)
    return padded_text(name, list(map(str, values))) if texts else np.asarray(values)


def _mask(text: str, n_timesteps: int, n_samples: int) -> np.ndarray:  # (T, P)
    bits = np.frombuffer(base64.b64decode(text), np.uint8)
    if len(bits) != -(-n_timesteps * n_samples // 8):
        raise InputError(
            f"mask has {8 * len(bits)} bits; accepted: one for each of {n_timesteps} timesteps and {n_samples} samples"
        )
    return np.unpackbits(bits, count=n_timesteps * n_samples).reshape(n_timesteps, n_samples).astype(bool)
