"""Write arrays by name to .npy, .npz, .zarr and .h5, whole or not at all. Nothing is pickled."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ..errors import InputError
from ..runtime.atomic import whole_file, whole_folder
from ..runtime.paths import expanded, writable
from .dims import AXES
from .formats.h5 import write_h5
from .formats.zarr import write_zarr

_ZARR_METADATA = {".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"}
_ZARR_CHUNK = re.compile(r"c|[0-9]+(\.[0-9]+)*")


def write_fields(path: str | os.PathLike[str], fields: dict[str, np.ndarray], overwrite: bool) -> None:
    """Store ``fields`` at ``path`` in the format that its ending names: whole, or not at all.

    Raises
    ------
    InputError
        The ending is unknown; the format cannot hold a dtype; the path exists (unless ``overwrite``); the .zarr to
        replace is a file or holds files that zarr did not write; the file system refuses the write.
    """
    path = expanded(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"{path} has an unknown ending; accepted: {', '.join(_WRITERS)}")
    for name, values in fields.items():
        if values.dtype.kind not in "biufSUmM":
            raise InputError(
                f"{name} has dtype {values.dtype}; accepted: numbers, booleans, times and text, which need no pickle"
            )
    if writer is write_zarr:
        whole = whole_folder(path, overwrite=overwrite, others=_others_than_zarr)
    else:
        whole = whole_file(path, overwrite=overwrite)
    with writable(path), whole as new:
        writer(new, fields)


def _others_than_zarr(folder: Path) -> list[str]:
    """The names in ``folder`` that zarr did not write. Empty for a link: replacing it deletes no file of its target."""
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
    """Write a .npy file. On a full disk it raises the OSError of the system, which `numpy.save` to a file loses."""
    with path.open("wb") as file:
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)


def _write_npz(path: Path, fields: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # savez appends .npz to a path such as X.NPZ
        np.savez(file, allow_pickle=False, **fields)


def _write_h5(path: Path, fields: dict[str, np.ndarray]) -> None:
    try:
        write_h5(path, fields)
    except (OSError, RuntimeError) as error:  # h5py raises RuntimeError where it cannot close the file
        number = re.search(r"errno = ([0-9]+)", str(error))  # its message has many lines, and no errno attribute
        raise OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error)) from error


_WRITERS = {".npy": _write_npy, ".npz": _write_npz, ".zarr": write_zarr, ".h5": _write_h5, ".hdf5": _write_h5}
