"""Arrays by name, read from .npy, .npz, .zarr, .h5 and recorders' folders; never unpickled."""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._paths import expanded
from ._trace_containers import (
    Heading,
    container_heading,
    read_container,
)
from ._trace_dims import coordinate_names, mask_order, stored_order, with_axes
from ._trace_formats import naming, readable, stored_names
from ._trace_parts import FileFolder, FlatFile, stamp_of
from .params import InputError

META = "meta.json"
RECORDING = "mmphate-gpu recording"
_ENDINGS = ".npy, .npz, .zarr, .h5"


def read_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arrays stored at ``path``: "data", and of coordinates, label and mask what is there.

    Raises
    ------
    InputError
        The path is missing, of an unknown ending, unreadable, holds pickles, or no data.
    """
    path = expanded(path)
    return _READERS[_format(path)](path)


def open_fields(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """As `read_fields`, but the data, and a mask of its shape, as readers of parts.

    None if that is impossible: for an array in Fortran order, and for a .npz that is compressed or has permuted axes.

    Raises
    ------
    InputError
        As `read_fields`. The checksums of a .npz are held against its arrays first: one pass over them.
    """
    path = expanded(path)
    fields = _READERS[_format(path)](path, by_parts=True)
    return fields if all(values is not None for values in fields.values()) else None


def heading(path: str | os.PathLike[str]) -> Heading | None:
    """Shape, in the order of the axes of a trace, and dtype of the trace at ``path``, without reading its values.

    None if they are not those of a trace, or if only reading can tell. Reading then raises an error that says why.

    Raises
    ------
    InputError
        As `read_fields`.
    """
    path = expanded(path)
    ending = _format(path)
    readers = {".npy": _npy_heading, ".npz": _npz_heading, META: _recording_heading}
    header = readers[ending](path) if ending in readers else container_heading(path, ending)
    shape = () if header is None else header.shape
    return header if len(shape) in (3, 4) and min(shape) > 0 and math.prod(shape[:-2]) > 1 else None


def _format(path: Path) -> str:
    """The ending that says how to read ``path``; `META` for a recorder's folder."""
    with readable(path):  # the name may be too long, or its folder unreadable
        found = path.exists()
    if not found:
        raise InputError(f"{path} does not exist; accepted: {_ENDINGS}, or a recorder's folder")
    if (path / META).is_file():
        return META
    ending = path.suffix.lower().replace(".hdf5", ".h5")
    if ending not in _ENDINGS.split(", "):
        raise InputError(f"{path} has an unknown ending; accepted: {_ENDINGS}, or a recorder's folder with {META}")
    if path.is_dir() and ending != ".zarr":
        raise InputError(f"{path} is a folder, not a {path.suffix} file")
    return ending


def read_array(path: Path) -> np.ndarray:
    """The array of one .npy file; truncated files, other formats and pickles raise `InputError`."""
    with readable(path):
        # Mapped first: that holds the size the header claims against the file's before allocating.
        return np.array(_mapped(path))


def _mapped(path: Path) -> np.ndarray:
    with readable(path):
        with path.open("rb") as file:
            magic = file.read(6)
        if magic != b"\x93NUMPY":
            kind = "holds a Python pickle, which is never loaded" if magic[:1] == b"\x80" else "is truncated or no .npy"
            raise InputError(f"{path} {kind}; accepted: a .npy file of real numbers")
        return _plain(path, lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def _plain(path: Path, load: Any) -> Any:
    try:
        return load()
    except ValueError as error:
        if "object" in str(error).lower() or "pickle" in str(error).lower():
            raise InputError(f"{path} holds pickled Python objects, which are never loaded; store numbers") from error
        raise


def _read_npy(path: Path, by_parts: bool = False) -> dict[str, Any]:
    return {"data": _flat_file(path) if by_parts else read_array(path)}


def _flat_file(path: Path) -> FlatFile | None:
    with readable(path):
        stamp = stamp_of(path)
        array = _mapped(path)  # for a moment: that reads the header and holds the size it claims against the file's
        return FlatFile(path, array.offset, array.shape, array.dtype, stamp) if array.flags.c_contiguous else None


def _npy_heading(path: Path) -> Heading:
    array = _mapped(path)
    return Heading(array.shape, array.dtype)


def _read_npz(path: Path, by_parts: bool = False) -> dict[str, Any]:
    with _archive(path) as archive:
        stamp = stamp_of(path) if by_parts else ""
        names = stored_names(path, archive.files, partial(_member_shape, archive))
        shape = _member_shape(archive, names["data"])

        def read(name: str) -> Any:
            if by_parts and name in (names["data"], names.get("mask")) and _member_shape(archive, name) == shape:
                return _flat_member(path, archive, name, stamp)
            return _array(path, name, _plain(path, lambda: archive[name]))

        fields = {field: read(names[field]) for field in ("data", "mask", "axes") if field in names}
        if fields["data"] is None:
            return fields
        with naming(path):
            dims = with_axes((None,) * len(fields["data"].shape), fields.pop("axes", None))
            beside = {field: read(names[name]) for field, name in coordinate_names(dims, names).items()}
            return _in_order(fields, dims) | beside


def _array(path: Path, name: str, values: Any) -> Any:
    if not hasattr(values, "dtype"):  # the bytes of a member that is no .npy
        raise InputError(f"{path}: the entry {name!r} is no array")
    return values


def _in_order(fields: dict[str, Any], dims: Any) -> dict[str, Any]:
    """``fields`` with the axes of data and mask in the order of a trace."""
    order = stored_order(dims)
    if order == tuple(range(len(order))):
        return fields
    if isinstance(fields["data"], FlatFile):
        return fields | {"data": None}
    fields["data"] = fields["data"].transpose(order)
    if "mask" in fields:
        order, _ = mask_order((None,) * fields["mask"].ndim, dims)
        fields["mask"] = fields["mask"].transpose(order)
    return fields


class _Member(NamedTuple):
    """What the header of a member of a .npz says, and where its values begin within the member."""

    shape: tuple[int, ...] | None  # None: a header of a version that only reading understands
    fortran: bool
    dtype: np.dtype
    offset: int


def _member_header(archive: Any, name: str) -> _Member:
    with archive.zip.open(f"{name}.npy") as file:
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        read = headers.get(np.lib.format.read_magic(file))
        return _Member(None, False, np.dtype(object), 0) if read is None else _Member(*read(file), file.tell())


def _flat_member(path: Path, archive: Any, name: str, stamp: str) -> FlatFile | None:
    """The member as a part of the archive's file; None if it is compressed or in Fortran order."""
    header, info = _member_header(archive, name), archive.zip.getinfo(f"{name}.npy")
    if header.shape is not None and header.dtype.hasobject:
        return _plain(path, lambda: archive[name])  # refused there
    one_axis = header.shape is not None and sum(size > 1 for size in header.shape) < 2
    if header.shape is None or info.compress_type != zipfile.ZIP_STORED or (header.fortran and not one_axis):
        return None
    with archive.zip.open(info) as file:
        while file.read(1 << 20):  # reading to the end compares the checksum
            pass
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        n_name, n_extra = struct.unpack("<HH", file.read(4))  # the local header's own: its extra field may differ
    start = info.header_offset + 30 + n_name + n_extra
    return FlatFile(path, start + header.offset, header.shape, header.dtype, stamp)


def _member_shape(archive: Any, name: str) -> tuple[int, ...] | None:
    return _member_header(archive, name).shape if f"{name}.npy" in archive.zip.namelist() else None


def _npz_heading(path: Path) -> Heading | None:
    with _archive(path) as archive:
        names = stored_names(path, archive.files, partial(_member_shape, archive))
        header = _member_header(archive, names["data"])
        if header.shape is None or "axes" not in names:
            return None if header.shape is None else Heading(header.shape, header.dtype)
        with naming(path):
            axes = _plain(path, lambda: archive[names["axes"]])
            order = stored_order(with_axes((None,) * len(header.shape), axes))
        return Heading(tuple(header.shape[axis] for axis in order), header.dtype)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[Any]:
    with readable(path):
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path} is truncated or no .npz; accepted: a zip of .npy files, as numpy.savez writes")
        with np.load(path, allow_pickle=False) as archive:
            yield archive


def _read_zarr(path: Path, by_parts: bool = False) -> dict[str, Any]:
    return read_container(path, ".zarr", by_parts)


def _read_h5(path: Path, by_parts: bool = False) -> dict[str, Any]:
    return read_container(path, ".h5", by_parts)


def _read_recording(path: Path, by_parts: bool = False) -> dict[str, Any]:
    """A recorder's folder: meta.json names the epochs and one .npy (timestep, unit, sample) for each."""
    with readable(path / META):
        meta = _meta(path)
        # Only the bare name counts: a file outside the folder is never opened.
        files = [path / Path(name).name for name in meta["files"]]
        data = _folder(path, files) if by_parts else np.stack([read_array(file) for file in files])
        fields = {name: read_array(path / f"{name}.npy") for name in meta["extra"] if name in ("mask", "label")}
        return {"data": data, "epoch": np.asarray(meta["epoch"]), **fields}


def _folder(path: Path, files: list[Path]) -> FileFolder | None:
    parts = [_flat_file(file) for file in files]
    if any(part is None for part in parts):
        return None
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        raise InputError(f"{path} holds snapshots of the shapes {sorted(shapes)}; accepted: one shape for all")
    return FileFolder(tuple(parts), (len(parts), *parts[0].shape), np.result_type(*{part.dtype for part in parts}))


def _recording_heading(path: Path) -> Heading:
    with readable(path / META):
        files = _meta(path)["files"]
        first = _mapped(path / Path(files[0]).name)
        return Heading((len(files), *first.shape), first.dtype)


def _meta(path: Path) -> dict[str, Any]:
    with readable(path / META):
        meta = json.loads((path / META).read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or meta.get("format") != RECORDING or meta.get("version") != 1:
            raise InputError(f"{path / META} is no {RECORDING} of version 1")
        if not meta["files"]:
            raise InputError(f"{path} holds no snapshot yet")
        return meta


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".zarr": _read_zarr, ".h5": _read_h5, META: _read_recording}
