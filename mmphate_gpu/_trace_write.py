"""Arrays by name, written to .npy, .npz, .zarr and .h5: whole or not at all, never pickled."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ._atomic import whole_file, whole_folder
from ._paths import expanded, writable
from ._trace_dims import AXES
from ._trace_h5 import write_h5
from ._trace_zarr import write_zarr
from .params import InputError

_ZARR_METADATA = {".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"}
_ZARR_CHUNK = re.compile(r"c|[0-9]+(\.[0-9]+)*")


def write_fields(path: str | os.PathLike[str], fields: dict[str, np.ndarray], overwrite: bool) -> None:
    """Store ``fields`` at ``path`` in the format its ending names: whole, or not at all.

    Raises
    ------
    InputError
        An unknown ending; a dtype that the format cannot hold; a path that exists (unless ``overwrite``); a .zarr to
        replace that is a file or holds something else than zarr writes; a write that the file system refuses.
    """
    path = expanded(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"{path} has an unknown ending; accepted: {', '.join(_WRITERS)}")
    for name, values in fields.items():
        if values.dtype.kind not in "biufSUmM":
            raise InputError(f"{name} has dtype {values.dtype}, which no file can hold without pickling it")
    if writer is write_zarr:
        whole = whole_folder(path, overwrite=overwrite, others=_others_than_zarr)
    else:
        whole = whole_file(path, overwrite=overwrite)
    with writable(path), whole as new:
        writer(new, fields)


def _others_than_zarr(folder: Path) -> list[str]:
    """The names in ``folder`` that belong to no zarr store. A link may be replaced, since what it names stays."""
    if folder.is_symlink():
        return []
    if not folder.is_dir():
        return ["a file"]
    names = {*os.listdir(folder)}
    is_array = not names.isdisjoint({".zarray", "zarr.json"})
    others = [name for name in names - _ZARR_METADATA if not (is_array and _ZARR_CHUNK.fullmatch(name))]
    return sorted(name for name in others if not any((folder / name / file).is_file() for file in _ZARR_METADATA))


def _write_npy(path: Path, fields: dict[str, np.ndarray]) -> None:
    coordinates = [values for name, values in fields.items() if name in AXES]
    plain = all(np.array_equal(values, np.arange(len(values))) for values in coordinates)
    if not plain or {"mask", "label"} & set(fields):
        raise InputError(f"{path.name}: .npy holds no mask, label or coordinates; accepted: .npz, .zarr or .h5")
    save_array(path, fields["data"])


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy file. Raises the OSError of the system, where `numpy.save` only counts the bytes written."""
    with path.open("wb") as file:
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)


def _write_npz(path: Path, fields: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # savez would append .npz to a name of other case
        np.savez(file, allow_pickle=False, **fields)


def _write_h5(path: Path, fields: dict[str, np.ndarray]) -> None:
    try:
        write_h5(path, fields)
    except (OSError, RuntimeError) as error:  # a RuntimeError: h5py cannot close the file
        number = re.search(r"errno = ([0-9]+)", str(error))  # in a report of many lines
        raise OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error)) from error


_WRITERS = {".npy": _write_npy, ".npz": _write_npz, ".zarr": write_zarr, ".h5": _write_h5, ".hdf5": _write_h5}
