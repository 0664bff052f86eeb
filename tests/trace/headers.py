"""Headers and archives written by hand, and the memory that a refusal takes."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.trace.formats.recording import META, RECORDING

LITTLE = 1_500_000  # bytes; the values of each file below take more


def npy_bytes(header: str, content: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """Write a .npy with any text as its header."""
    size = 2 if version == (1, 0) else 4
    return b"\x93NUMPY" + bytes(version) + len(header).to_bytes(size, "little") + header.encode("latin1") + content


def described(shape: object, dtype: str = "<f8") -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}"


def zipped(path: Path, compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def of(array: np.ndarray) -> bytes:
    return npy_bytes(described(array.shape, array.dtype.str), array.tobytes())


def refused_in_little_memory(read, match: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=match) as caught:
            read()
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def recording(folder: Path, *snapshots: np.ndarray) -> Path:
    folder.mkdir()
    for number, array in enumerate(snapshots):
        np.save(folder / f"snapshot_{number}.npy", array)
    meta = {"format": RECORDING, "version": 1, "epoch": [*range(len(snapshots))], "extra": []}
    meta["files"] = [f"snapshot_{number}.npy" for number in range(len(snapshots))]
    (folder / META).write_text(json.dumps(meta))
    return folder
