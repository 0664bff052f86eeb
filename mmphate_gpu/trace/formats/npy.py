"""Read .npy arrays, from a file or from a .npz: the header is checked before any value is read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ..dims import AXES
from ..readers import changed, check_stamp, stamp_of
from .arrays import readable

_MAGIC = b"\x93NUMPY"
# Version 3.0 differs from 2.0 in the encoding of field names alone, which arrays of numbers do not have.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
_LONGEST_HEADER = 10_000  # bytes, as in NumPy
_MOST_AXES = 16  # far more than any array of a trace has
_LAST_CHARACTER = 0x10FFFF  # the last code point of Unicode


class PickledError(InputError):
    """An array holds pickled Python objects; its shape is known all the same."""

    def __init__(self, where: str, shape: tuple[int, ...]) -> None:
        super().__init__(f"{where} holds pickled Python objects, which are never loaded; accepted: numbers")
        self.shape = shape


class Header(NamedTuple):
    """The header of a .npy: how the values after it are stored."""

    shape: tuple[int, ...]
    fortran: bool  # whether the first index varies fastest
    dtype: np.dtype
    offset: int  # where the values begin, in bytes from the start

    @property
    def in_c_order(self) -> bool:
        return not self.fortran or sum(size > 1 for size in self.shape) < 2

    @property
    def nbytes(self) -> int:
        """How many bytes the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: Any, size: int, where: str) -> Header:
    """Read and check the header of the .npy in ``file``, which is open at its start and has ``size`` bytes.

    Raises `InputError`, which calls the array ``where``, if the file has another format, holds pickled objects, or is
    shorter than its header says.
    """
    magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        what = (
            "holds a Python pickle, which is never loaded"
            if magic[:1] == b"\x80"
            else "is truncated or not a .npy file"
        )
        raise InputError(f"{where} {what}; accepted: a .npy file of real numbers")
    version = tuple(file.read(2))
    if version not in _HEADERS:
        raise InputError(
            f"{where} has the .npy version {version}, which is unknown; accepted: {', '.join(map(str, _HEADERS))}"
        )
    start = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(start, "little")
    if length > _LONGEST_HEADER:  # NumPy would read all of it before it refuses it
        raise InputError(f"{where} has a header of {length} bytes; accepted: at most {_LONGEST_HEADER}")
    shape, fortran, dtype = _HEADERS[version](io.BytesIO(start + file.read(length)))
    header = Header(tuple(map(int, shape)), fortran, dtype, file.tell())  # int, because NumPy accepts True as a size
    if header.dtype.hasobject:
        raise PickledError(where, header.shape)
    if len(header.shape) > _MOST_AXES:
        raise InputError(f"{where} has {len(header.shape)} axes; accepted: at most {_MOST_AXES}")
    if min(header.shape, default=0) < 0:
        raise InputError(f"{where} has the shape {header.shape} in its header; accepted: sizes of 0 or more")
    n_bytes = size - header.offset
    if n_bytes < header.nbytes:
        raise InputError(
            f"{where} is truncated: its values have {n_bytes} bytes; accepted: {header.nbytes}, as its header says"
        )
    return header


def read_values(file: Any, header: Header, path: Path) -> np.ndarray:
    """Read the values that ``header`` describes from ``file``, which is open at the first of them.

    The file at ``path`` is not memory-mapped: the process would be killed if somebody truncated a mapped file.
    """
    out = np.empty(header.shape, header.dtype, order="F" if header.fortran else "C")
    if out.nbytes:
        _fill(file, out.reshape(-1, order="A").view(np.uint8), path)
    return _valid(out, path)


def _fill(file: Any, target: np.ndarray, path: Path) -> None:
    """Fill the bytes ``target`` from the open ``file`` at ``path``. Raises `InputError` if the file ends before."""
    view = target.data
    while view:  # a read may return fewer bytes than asked for; zipfile copies each read, so reads are small
        n_bytes = file.readinto(view[: 2**24])
        if not n_bytes:
            raise changed(path)
        view = view[n_bytes:]


def _valid(values: np.ndarray, path: Path) -> np.ndarray:
    """Make ``values`` valid for their dtype: any nonzero byte becomes True, and invalid Unicode text is refused."""
    if values.dtype == bool:
        return values.view(np.uint8) != 0
    if values.dtype.kind == "U" and values.nbytes:
        characters = values.reshape(-1, order="A").view(np.dtype(np.uint32).newbyteorder(values.dtype.byteorder))
        if characters.max() > _LAST_CHARACTER:
            raise InputError(f"{path} holds text with a character beyond Unicode; accepted: Unicode text")
    return values


@dataclass(frozen=True)
class NpyArray:
    """An array in a .npy file, or a member of a .npz that is not compressed.

    ``stamp`` is the state of the file when its header was read, as `stamp_of` gives it; the .npy begins at byte
    ``start``.
    """

    path: Path
    header: Header
    stamp: str
    start: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    @property
    def dtype(self) -> np.dtype:
        return self.header.dtype

    def read(self) -> np.ndarray:
        """All values, in memory."""
        with readable(self.path), self.path.open("rb", buffering=0) as file:
            file.seek(self.start + self.header.offset)
            values = read_values(file, self.header, self.path)
        self.check()  # another file may have taken its place since the header was read
        return values

    def blocks(self) -> NpyArray | None:
        """Itself, whose `block` reads parts of the values; None for an array in Fortran order."""
        return self if self.header.in_c_order else None

    def block(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        n_units, n_samples = self.shape[-2:]
        sizes = [part.stop - part.start for part in (slices, units, samples)]
        out = np.empty(sizes, self.dtype)
        first = slices.start * n_units + units.start  # node
        if sizes[1:] == [n_units, n_samples]:  # whole slices lie one behind the other
            runs = [(first, out)]
        elif sizes[2] == n_samples:
            runs = [(first + n_units * row, part) for row, part in enumerate(out)]
        else:
            runs = [(first + n_units * row + u, part) for row, block in enumerate(out) for u, part in enumerate(block)]
        with self._opened() as file:
            for node, part in runs:
                place = (node * n_samples + samples.start) * self.dtype.itemsize
                file.seek(self.start + self.header.offset + place)
                _fill(file, part.reshape(-1).view(np.uint8), self.path)
        return _valid(out, self.path)

    def _opened(self) -> Any:
        try:
            return self.path.open("rb", buffering=0)
        except OSError as error:
            raise changed(self.path) from error

    def check(self) -> None:
        check_stamp(self.path, self.stamp)


def npy_array(path: Path) -> NpyArray:
    """Open the .npy file at ``path``: read its header only. `read_header` lists the errors."""
    with readable(path), path.open("rb") as file:
        stamp = stamp_of(path)
        return NpyArray(path, read_header(file, path.stat().st_size, str(path)), stamp)


@dataclass(frozen=True, eq=False)
class NpzMember:
    """An array in an open .npz.

    ``stamp`` is the state of the .npz when it was opened, and ``info`` the entry of the array in its directory.
    """

    path: Path
    stamp: str
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    @property
    def name(self) -> str:
        return self.info.filename.removesuffix(".npy")

    def stored_bytes(self) -> int:
        """What it takes in the archive."""
        return self.info.compress_size

    @property
    def is_array(self) -> bool:
        """Whether the name of the entry ends in .npy."""
        return self.info.filename.endswith(".npy")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def _where(self) -> str:
        return f"{self.path}: the entry {self.name!r}"

    @cached_property
    def header(self) -> Header:
        info = self.info
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"{self._where} has the compression method {info.compress_type}; accepted: 0 (stored) and 8 (deflated)"
            )
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise InputError(
                f"{self._where} is stored in {info.compress_size} bytes; accepted: {info.file_size}, its size"
            )
        with readable(self.path), self.archive.open(info) as file:
            header = read_header(file, info.file_size, self._where)
        n_after = info.file_size - header.offset - header.nbytes
        if n_after:  # zipfile compares the checksum at the end of an entry only, so reading the values must end there
            size = "by the directory of the archive"
            raise InputError(f"{self._where} has {n_after} bytes after its values, {size}; accepted: one array")
        return header

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    @property
    def dtype(self) -> np.dtype:
        return self.header.dtype

    def read(self) -> np.ndarray:
        """All values, in memory; they are compared with the checksum in the archive."""
        with readable(self.path), self.archive.open(self.info) as file:
            file.read(self.header.offset)
            return read_values(file, self.header, self.path)

    def blocks(self) -> NpyArray | None:
        """The array as its file stores it, to read parts of it; None if it is compressed or in Fortran order.

        One pass over the values compares them with the checksum in the archive first.
        """
        if self.info.compress_type != zipfile.ZIP_STORED or not self.header.in_c_order:
            return None
        with readable(self.path):
            with self.archive.open(self.info) as file:
                while file.read(2**20):  # zipfile compares the checksum at the end of the entry
                    pass
            return NpyArray(self.path, self.header, self.stamp, self._start())

    def _start(self) -> int:
        """Where the entry begins in the file: after its local header, whose name and extra field vary in length."""
        with self.path.open("rb") as file:
            file.seek(self.info.header_offset + 26)
            n_name, n_extra = struct.unpack("<HH", file.read(4))
        return self.info.header_offset + 30 + n_name + n_extra


@contextlib.contextmanager
def npz_members(path: Path) -> Iterator[dict[str, NpzMember]]:
    """The arrays of a .npz by name. Only the directory of the archive is read."""
    with readable(path):
        if not zipfile.is_zipfile(path):
            raise InputError(
                f"{path} is truncated or not a .npz file; accepted: a zip of .npy files, as numpy.savez writes"
            )
        stamp = stamp_of(path)
        with zipfile.ZipFile(path) as archive:
            members = [NpzMember(path, stamp, archive, info) for info in archive.infolist()]
            yield {member.name: member for member in members}


# ---------------------------------------------------------------- writing


def write_npy(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Write the data alone. Raises `InputError` if there is more to keep than the default coordinates."""
    coordinates = [values for name, values in fields.items() if name in AXES]
    plain = all(np.array_equal(values, np.arange(len(values))) for values in coordinates)
    if not plain or set(fields) - {*AXES, "axes", "data"}:
        raise InputError(
            f"{path.name}: .npy holds no mask, label, layers, metrics or coordinates; accepted: .npz, .zarr or .h5"
        )
    save_array(path, fields["data"])


def save_array(path: Path, array: np.ndarray) -> str:
    """Write a .npy file and return its SHA-256.

    On a full disk it raises the OSError of the system, which `numpy.save` to a file loses.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def write(part: bytes) -> None:
            digest.update(part)
            file.write(part)

        np.save(SimpleNamespace(write=write), array, allow_pickle=False)
    return digest.hexdigest()


def write_npz(path: Path, fields: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # savez appends .npz to a path such as X.NPZ
        np.savez(file, allow_pickle=False, **fields)
