"""Read .npy arrays, alone or in a .npz: the header first, and only values that it describes rightly."""

from __future__ import annotations

import contextlib
import math
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._trace_formats import readable
from ._trace_parts import FlatFile, fill, stamp_of
from .params import InputError

_MAGIC = b"\x93NUMPY"
# Version 3.0 differs from 2.0 in the encoding of field names alone, which arrays of numbers do not have.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
_MOST_AXES = 16  # no array beside a trace has as many
_LAST_CHARACTER = 0x10FFFF  # of Unicode


class Header(NamedTuple):
    """What stands before the values of a .npy."""

    shape: tuple[int, ...]
    fortran: bool  # whether the first index varies fastest
    dtype: np.dtype
    offset: int  # of the values, in bytes from the start

    @property
    def nbytes(self) -> int:
        """What the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: Any, size: int, where: str) -> Header:
    """The header of the .npy that ``file`` (open, at its start) holds.

    Parameters
    ----------
    size : bytes of the .npy.
    where : what errors call it.

    Raises
    ------
    InputError
        Another format, pickled objects, or fewer values than the header says.
    """
    magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        what = "holds a Python pickle, which is never loaded" if magic[:1] == b"\x80" else "is truncated or no .npy"
        raise InputError(f"{where} {what}; accepted: a .npy file of real numbers")
    version = tuple(file.read(2))
    if version not in _HEADERS:
        raise InputError(
            f"{where} is a .npy of the unknown version {version}; accepted: {', '.join(map(str, _HEADERS))}"
        )
    shape, fortran, dtype = _HEADERS[version](file)
    header = Header(tuple(map(int, shape)), fortran, dtype, file.tell())  # NumPy lets True pass for a size
    if header.dtype.hasobject:
        raise InputError(f"{where} holds pickled Python objects, which are never loaded; store numbers")
    if len(header.shape) > _MOST_AXES:
        raise InputError(f"{where} has {len(header.shape)} axes; accepted: at most {_MOST_AXES}")
    if min(header.shape, default=0) < 0:
        raise InputError(f"{where} has the shape {header.shape} in its header; accepted: sizes of 0 and above")
    n_bytes = size - header.offset
    if n_bytes < header.nbytes:
        raise InputError(f"{where} is truncated: it has {n_bytes} bytes of values, and its header says {header.nbytes}")
    return header


def read_values(file: Any, header: Header, path: Path) -> np.ndarray:
    """The values after ``header``, from ``file`` (open, where they begin) at ``path``.

    They are read, not mapped: the process dies if somebody cuts a mapped file off meanwhile.
    """
    out = np.empty(header.shape, header.dtype, order="F" if header.fortran else "C")
    if out.nbytes:
        fill(file, out.reshape(-1, order="A").view(np.uint8), path)
    return _sound(out, path)


def _sound(values: np.ndarray, path: Path) -> np.ndarray:
    """``values`` whose bytes are those of their dtype: booleans 0 or 1, text in Unicode."""
    if values.dtype == bool:
        return values.view(np.uint8) != 0
    if values.dtype.kind == "U" and values.nbytes:
        characters = values.reshape(-1, order="A").view(np.dtype(np.uint32).newbyteorder(values.dtype.byteorder))
        if characters.max() > _LAST_CHARACTER:
            raise InputError(f"{path} holds text with a character that Unicode does not have")
    return values


@dataclass(frozen=True)
class NpyFile:
    """An array in a .npy file."""

    path: Path
    header: Header
    stamp: str  # of the file whose header it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    @property
    def dtype(self) -> np.dtype:
        return self.header.dtype

    def read(self) -> np.ndarray:
        """All values, in memory."""
        with readable(self.path), self.path.open("rb", buffering=0) as file:
            file.seek(self.header.offset)
            return read_values(file, self.header, self.path)

    def parts(self) -> FlatFile | None:
        """What reads some of the values; None for an array in Fortran order."""
        return _flat(self.path, self.header, 0, self.stamp)


def npy_file(path: Path) -> NpyFile:
    """The array of the .npy file at ``path``; see `read_header` for its errors."""
    with readable(path), path.open("rb") as file:
        stamp = stamp_of(path)
        return NpyFile(path, read_header(file, path.stat().st_size, str(path)), stamp)


class NpzMember:
    """An array of an open .npz.

    Parameters
    ----------
    path, stamp : the .npz, and the state in which it was opened, as of `stamp_of`.
    archive, info : what reads the .npz, and the entry of it.
    """

    def __init__(self, path: Path, stamp: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.path, self._stamp, self._archive, self._info = path, stamp, archive, info

    @property
    def name(self) -> str:
        return self._info.filename.removesuffix(".npy")

    @property
    def is_array(self) -> bool:
        """Whether its name is that of a .npy."""
        return self._info.filename.endswith(".npy")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def _where(self) -> str:
        return f"{self.path}: the entry {self.name!r}"

    @cached_property
    def header(self) -> Header:
        info = self._info
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{self._where} is compressed by method {info.compress_type}; accepted: numpy's savez")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise InputError(f"{self._where} is stored in {info.compress_size} bytes but has {info.file_size}")
        with readable(self.path), self._archive.open(info) as file:
            header = read_header(file, info.file_size, self._where)
        left = info.file_size - header.offset - header.nbytes
        if left:  # only at the end of a member its checksum is compared
            raise InputError(f"{self._where} has {left} bytes after its values; accepted: one array")
        return header

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    @property
    def dtype(self) -> np.dtype:
        return self.header.dtype

    def read(self) -> np.ndarray:
        """All values, in memory; the checksum of the archive is held against them."""
        with readable(self.path), self._archive.open(self._info) as file:
            file.read(self.header.offset)
            return read_values(file, self.header, self.path)

    def parts(self) -> FlatFile | None:
        """What reads some of the values; None for a member that is compressed, or in Fortran order.

        One pass over the values holds the checksum of the archive against them.
        """
        info = self._info
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with readable(self.path):
            with self._archive.open(info) as file:
                while file.read(2**20):  # at its end the checksum is compared
                    pass
            return _flat(self.path, self.header, self._start(), self._stamp)

    def _start(self) -> int:
        """Where the member begins in the file; its local header has names and extra fields of its own lengths."""
        with self.path.open("rb") as file:
            file.seek(self._info.header_offset + 26)
            n_name, n_extra = struct.unpack("<HH", file.read(4))
        return self._info.header_offset + 30 + n_name + n_extra


def _flat(path: Path, header: Header, start: int, stamp: str) -> FlatFile | None:
    one_axis = sum(size > 1 for size in header.shape) < 2
    if header.fortran and not one_axis:
        return None
    return FlatFile(path, start + header.offset, header.shape, header.dtype, stamp)


@contextlib.contextmanager
def npz_members(path: Path) -> Iterator[dict[str, NpzMember]]:
    """The arrays of a .npz by name; nothing of them is read yet.

    Raises
    ------
    InputError
        A file that is no .npz.
    """
    with readable(path):
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path} is truncated or no .npz; accepted: a zip of .npy files, as numpy.savez writes")
        stamp = stamp_of(path)
        with zipfile.ZipFile(path) as archive:
            members = [NpzMember(path, stamp, archive, info) for info in archive.infolist()]
            yield {member.name: member for member in members}
