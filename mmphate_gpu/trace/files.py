"""Read the arrays of a trace from .npy, .npz, .zarr, .h5 and recorders' folders. Pickles are never loaded."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runtime.paths import check_files, expanded
from .contents import Contents, Heading, contents_of
from .formats.arrays import naming, readable
from .formats.flat import META, open_npy, open_npz, open_recording
from .formats.h5 import open_h5
from .formats.zarr import open_zarr

ENDINGS = ".npy, .npz, .zarr, .h5"
OPENERS = {".npy": open_npy, ".npz": open_npz, ".zarr": open_zarr, ".h5": open_h5, META: open_recording}


def read_fields(path: str | os.PathLike[str], follow_links: bool = False) -> dict[str, Any]:
    """The arrays stored at ``path``: "data", and the coordinates, labels and mask that the file has.

    Raises
    ------
    InputError
        The path does not exist, has an unknown ending, or cannot be read. The file holds pickles, has no data, has
        arrays that do not fit one another, or does not fit in memory. A link leads out of it (unless
        ``follow_links``).
    """
    with _contents(path, follow_links) as contents:
        return contents.read()


def open_fields(path: str | os.PathLike[str], follow_links: bool = False) -> dict[str, Any] | None:
    """As `read_fields`, but readers of parts stand for the data and for a mask of their shape.

    The result is None where the file cannot be read by parts: for an array in Fortran order, and for a .npz that is
    compressed or has permuted axes.

    Raises
    ------
    InputError
        As for `read_fields`. The arrays of a .npz are compared with their checksums first, in one pass over them.
    """
    with _contents(path, follow_links) as contents:
        return contents.parts()


def heading(path: str | os.PathLike[str], follow_links: bool = False) -> Heading | None:
    """Shape, in the order of the axes of a trace, and dtype of the trace at ``path``, without reading its values.

    The result is None if the trace has a single slice, which can be read but not embedded.

    Raises
    ------
    InputError
        As for `read_fields`, except for errors in the values.
    """
    with _contents(path, follow_links) as contents:
        header = contents.heading
        return header if math.prod(header.shape[:-2]) > 1 else None


@contextlib.contextmanager
def _contents(path: str | os.PathLike[str], follow_links: bool) -> Iterator[Contents]:
    path = expanded(path)
    with readable(path):
        opener = OPENERS[_format(path, follow_links)]
        with opener(path, follow_links=follow_links) as variables, naming(path):
            yield contents_of(path, variables)


def _format(path: Path, follow_links: bool) -> str:
    """The key of `OPENERS` for ``path``: its ending in lower case, or `META` for a recorder's folder."""
    if not path.exists() and path.is_symlink():
        raise InputError(f"{path} is a link to nothing; accepted: a link to {ENDINGS}, or to a recorder's folder")
    if not path.exists():
        raise InputError(f"{path} does not exist; accepted: {ENDINGS}, or a recorder's folder")
    check_files(path, follow_links=follow_links)
    if (path / META).is_file():
        return META
    ending = path.suffix.lower().replace(".hdf5", ".h5")
    if ending not in OPENERS:
        raise InputError(f"{path} has an unknown ending; accepted: {ENDINGS}, or a recorder's folder with {META}")
    if path.is_dir() and ending != ".zarr":
        raise InputError(f"{path} is a folder; accepted: a {path.suffix} file")
    return ending
