"""Arrays by name, written to .npy, .npz, .zarr and .h5: whole or not at all, never pickled."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ._paths import expanded, writable
from ._trace_dims import AXES
from ._trace_formats import write_h5, write_zarr
from .params import InputError

_ENDINGS = ".npy, .npz, .zarr, .h5"


def write_fields(path: str | os.PathLike[str], fields: dict[str, np.ndarray], overwrite: bool) -> None:
    """Store ``fields`` at ``path`` in the format its ending names, atomically."""
    path = expanded(path)
    writers = {".npy": _write_npy, ".npz": _write_npz, ".zarr": write_zarr, ".h5": write_h5, ".hdf5": write_h5}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"{path} has an unknown ending; accepted: {_ENDINGS}")
    with writable(path):
        exists, is_folder = path.exists(), path.is_dir()
    if exists and not overwrite:
        raise InputError(f"{path} exists; pass overwrite=True to replace it")
    if is_folder and writer is not write_zarr:
        raise InputError(f"{path} is a folder; accepted: the path of a file to write")
    for name, values in fields.items():
        if values.dtype.kind not in "biufSUmM":
            raise InputError(f"{name} has dtype {values.dtype}, which no file can hold without pickling it")
    with atomic_path(path) as partial:
        writer(partial, fields)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A name in the folder of ``path`` to write to, renamed to ``path`` when the block ends well.

    Upon an error what was written is removed and ``path`` is as it was.
    """
    with writable(path):
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist")
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield scratch / path.name
        if path.is_dir():  # os.replace does not replace a folder that holds files
            os.replace(path, scratch / "replaced")
        os.replace(scratch / path.name, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_npy(path: Path, fields: dict[str, np.ndarray]) -> None:
    coordinates = [values for name, values in fields.items() if name in AXES]
    plain = all(np.array_equal(values, np.arange(len(values))) for values in coordinates)
    if not plain or {"mask", "label"} & set(fields):
        raise InputError(f"{path.name}: .npy holds no mask, label or coordinates; accepted: .npz, .zarr or .h5")
    np.save(path, fields["data"], allow_pickle=False)


def _write_npz(path: Path, fields: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # savez would append .npz to a name of other case
        np.savez(file, allow_pickle=False, **fields)
