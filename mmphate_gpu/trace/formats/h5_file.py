"""Open a .h5 and its datasets. Links and sizes that HDF5 would trust are checked before HDF5 reads."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime.optional import require
from ...runtime.paths import check_files
from .arrays import Layout, check_attribute, check_layout, naming, readable

_MOST_LINKS = 16  # links on the way to one array; HDF5 has the same limit
_MOST_BYTES = 8192  # of an attribute that is read
# The first bytes of a "global heap" of HDF5, which holds text, and of a "local heap", which holds names of a group.
_HEAP_OF_TEXT, _HEAP_OF_NAMES = b"GCOL\1\0\0\0", b"HEAP\0\0\0\0"
_END_OF_LIST = 1  # HDF5 writes it instead of the offset of a next place


def h5py() -> Any:
    return require("h5py", extra="hdf5", purpose="reading .h5")


class _CheckedFile(io.FileIO):
    """A file that checks heaps before HDF5 gets their bytes, because HDF5 loops without end over a damaged heap."""

    width = 8  # bytes of a size in this file
    address_width, base = 8, 0  # bytes of an address in this file, and the offset of address 0

    def readinto(self, buffer: Any) -> int:
        n_read = super().readinto(buffer)
        content = memoryview(buffer).cast("B")[:n_read]
        if bytes(content[:8]) == _HEAP_OF_TEXT:
            self._check_text(content)
        elif bytes(content[:8]) == _HEAP_OF_NAMES:
            self._check_names(content)
        return n_read

    def _check_text(self, heap: memoryview) -> None:
        """A heap of text has a header of 16 bytes and then objects.

        An object has a header of 16 bytes, which contains its number and its size, and then its content. Object 0 is
        free space; its size includes its header.
        """
        start = 16
        while start + 16 <= len(heap):
            number = int.from_bytes(heap[start : start + 2], "little")
            size = _number(heap, start + 8, self.width)
            if number == 0 and size < 16:
                raise InputError("the file holds a damaged heap of text; accepted: an undamaged file")
            start += size if number == 0 else 16 + -(-size // 8) * 8

    def _check_names(self, heap: memoryview) -> None:
        """Refuse a heap of names whose list of free places runs in a circle or leaves the heap.

        ``heap`` is a header: it has the size of the data segment that holds the names, the offset in it of the first
        free place, and the address of the segment. A free place begins with the offset of the next free place.
        """
        size, place = (_number(heap, 8 + start, self.width) for start in (0, self.width))
        address = self.base + _number(heap, 8 + 2 * self.width, self.address_width)
        visited: set[int] = set()
        n_file = os.fstat(self.fileno()).st_size
        while place != _END_OF_LIST:
            if place in visited or place + self.width > size or address + place + self.width > n_file:
                raise InputError("the file holds a damaged heap of names; accepted: an undamaged file")
            visited.add(place)
            self.seek(address + place)
            place = int.from_bytes(self.read(self.width), "little")


def _number(content: memoryview, start: int, width: int) -> int:
    return int.from_bytes(content[start : start + width], "little")


@contextlib.contextmanager
def opened_file(path: Path, follow_links: bool = False) -> Iterator[Any]:
    """Open the file at ``path``. Unless ``follow_links``, HDF5 reads no other file, and this one by `_CheckedFile`."""
    package = require("h5py", extra="hdf5", purpose=f"{path}: reading .h5")
    with readable(path), naming(path):
        check_files(path)
        if not package.is_hdf5(path):
            raise InputError(f"{path} is truncated or no HDF5 file; accepted: an .h5 file")
        with package.File(path, "r") as file:  # opening by path also locks the file against writers
            if follow_links:
                yield file
                return
            with _CheckedFile(path) as checked, package.File(checked, "r") as checked_file:
                settings = file.id.get_create_plist()
                (checked.address_width, checked.width), checked.base = settings.get_sizes(), settings.get_userblock()
                yield checked_file


@contextlib.contextmanager
def opened_dataset(path: Path, name: str, follow_links: bool) -> Iterator[Any]:
    """Open the file at ``path`` and give its array ``name`` to a ``with`` block."""
    with opened_file(path, follow_links) as file:
        yield dataset(file, name, follow_links)


def shape_of(file: Any, name: str, follow_links: bool) -> Any:
    """The shape of the array ``name``; None if there is no array of that name."""
    try:
        return getattr(_item(file, name, follow_links), "shape", None)
    except KeyError:  # the name is a link to nothing
        return None


def dataset(file: Any, name: str, follow_links: bool) -> Any:
    """The dataset ``name``. It is refused unless it holds numbers or text in this file, or in one it may link to."""
    try:
        array = _item(file, name, follow_links)
    except KeyError as error:
        raise InputError(f"the entry {name!r} is a link to nothing; accepted: an HDF5 dataset") from error
    if not isinstance(array, h5py().Dataset):
        raise InputError(f"the entry {name!r} is no array; accepted: an HDF5 dataset")
    _check_filters(name, array)
    _check_dtype(repr(name), array.dtype)
    if array.dtype.kind == "O" and array.ndim > 1:
        raise InputError(f"{name!r} holds text in {array.ndim} axes; accepted: numbers, or text in one axis")
    return array


def _check_filters(name: str, array: Any) -> None:
    created = array.id.get_create_plist()
    for number, *_, label in map(created.get_filter, range(created.get_nfilters())):
        if not h5py().h5z.filter_avail(number):
            shown = f"{number} ({label.decode(errors='replace')[:50]})"
            raise InputError(
                f"{name!r} is compressed by the HDF5 filter {shown}, which is not installed; "
                "accepted: filters of HDF5 itself, or those of hdf5plugin once it is imported"
            )


def _item(file: Any, name: str, follow_links: bool) -> Any:
    """The object ``name``. Sources of a virtual dataset are checked first, since HDF5 opens them to find its shape."""
    _check_links(file, name, follow_links)
    item = file[name]
    if isinstance(item, h5py().Dataset) and (item.is_virtual or item.external):
        if not follow_links:
            storage = "virtual dataset" if item.is_virtual else "dataset in external files"
            raise InputError(f"{name!r} is a {storage}; accepted: values in the file itself, or follow_links=True")
        stored_bytes(name, item)
    return item


# ---------------------------------------------------------------- links


def link(group: Any, name: str) -> tuple[int, Any]:
    """The type of the link ``name``, and its target: None for a hard link, else a path or (file, path)."""
    links, stored = group.id.links, name.encode(errors="surrogateescape")
    if not links.exists(stored):
        raise KeyError(name)
    link_type = links.get_info(stored).type
    return link_type, None if link_type == h5py().h5l.TYPE_HARD else links.get_val(stored)


def _check_links(file: Any, name: str, follow_links: bool, n_links: int = 0) -> None:
    """Follow the path ``name`` link by link. No other file is opened unless ``follow_links``.

    Raises KeyError if there is no object ``name``, and `InputError` if a link leads out of the file, or there are more
    links than HDF5 follows.
    """
    link_types, group, parts = h5py().h5l, file, name.split("/")
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        if not isinstance(group, h5py().Group):
            raise KeyError(part)
        link_type, target = link(group, part)
        if link_type == link_types.TYPE_HARD:
            group = group[part]
            continue
        n_links += 1
        if n_links > _MOST_LINKS or link_type not in (link_types.TYPE_SOFT, link_types.TYPE_EXTERNAL):
            raise InputError(f"{name!r} is a link of unknown type or behind {_MOST_LINKS} others; accepted: an array")
        if link_type == link_types.TYPE_EXTERNAL:
            if not follow_links:
                raise InputError(
                    f"{name!r} is a link to the file {os.fsdecode(target[0])}; accepted: an array, or follow_links=True"
                )
            with opened_file(_beside(file, os.fsdecode(target[0])), follow_links) as other:
                _check_links(other, "/".join([target[1].decode(), *parts]), follow_links, n_links)
            return
        path = target.decode()
        group, parts = file if path.startswith("/") else group, [*path.split("/"), *parts]


def _beside(file: Any, name: str) -> Path:
    """The path of another file ``name`` that ``file`` refers to; a relative name counts from the folder of ``file``."""
    return Path(file.filename).parent / name


# ---------------------------------------------------------------- values


def _check_dtype(what: str, dtype: np.dtype) -> None:
    if dtype.kind not in "biufcSUmM" and h5py().check_string_dtype(dtype) is None:
        raise InputError(f"{what} has the data type {str(dtype)[:100]}; accepted: numbers, booleans, times and text")


def stored_bytes(name: str, array: Any) -> int:
    """How many bytes of values are stored, in this file or in others, and the checks of those others."""
    if array.is_virtual:
        sources = {(source.file_name, source.dset_name) for source in array.virtual_sources()}
        return sum(_source_bytes(name, array, *source) for source in sources)
    if array.external:
        files = {Path(file) for file, _, _ in array.external}
        for file in files:
            check_files(file)
        return sum(file.stat().st_size for file in files)
    return min(array.id.get_storage_size(), array.file.id.get_filesize())


def _source_bytes(name: str, array: Any, file_name: str, source_name: str) -> int:
    """The stored bytes of a source of a virtual dataset. Refuses virtual sources: HDF5 could recurse without end."""
    path = Path(array.file.filename) if file_name == "." else _beside(array.file, file_name)
    if "%" in file_name + source_name or not path.is_file():
        raise InputError(f"{name!r} has its values in {path}, which is no file; accepted: existing files")
    with opened_file(path, follow_links=True) as file:
        _check_links(file, source_name, follow_links=True)
        source = file[source_name]
        if source.is_virtual:
            raise InputError(
                f"{source_name!r} is a virtual dataset and a source of one; accepted: sources that are not virtual"
            )
        return stored_bytes(source_name, source)


def attribute(array: Any, key: str) -> Any:
    """The attribute ``key``, of numbers or text, with text decoded; None if it is missing or empty."""
    if key not in array.attrs:
        return None
    header = array.attrs.get_id(key)
    if header.shape is None:
        return None
    _check_dtype(f"the attribute {key} of {array.name!r}", header.dtype)
    if header.get_storage_size() > _MOST_BYTES:
        raise InputError(
            f"{array.name!r} has an attribute {key} of more than {_MOST_BYTES} bytes; accepted: at most {_MOST_BYTES}"
        )
    value = array.attrs[key]
    check_attribute(repr(array.name), key, value)
    return value.decode() if isinstance(value, bytes) else value


# ---------------------------------------------------------------- sizes that HDF5 does not check itself


def check_storage(array: Any) -> None:
    """Refuse a dataset that claims more than is stored, or has chunks of no bytes, of a wrong size or beyond the file.

    HDF5 crashes at a chunk of no bytes. All chunks are checked at once, so that reading a part need not check again.
    """
    if array.shape is None:
        return
    layout = Layout(array.shape, array.dtype.itemsize, array.chunks, array.chunks)
    check_layout(repr(array.name), layout, partial(stored_bytes, array.name, array))
    if array.chunks is None:
        return
    any_size = array.dtype.kind == "O" or array.id.get_create_plist().get_nfilters() > 0
    n_file = array.file.id.get_filesize()
    for chunk in _chunks(array):
        whole = chunk.size > 0 if any_size else chunk.size == layout.chunk_bytes
        if not whole or (chunk.byte_offset or 0) + chunk.size > n_file:
            raise InputError(f"{array.name!r} has a damaged chunk of {chunk.size} bytes; accepted: an undamaged file")


def _chunks(array: Any) -> list[Any]:
    """(chunk_offset, filter_mask, byte_offset, size) of each chunk of an array."""
    if not hasattr(
        array.id, "chunk_iter"
    ):  # HDF5 before 1.12.3; slower, because each call searches from the first chunk
        return [array.id.get_chunk_info(number) for number in range(array.id.get_num_chunks())]
    chunks: list[Any] = []
    array.id.chunk_iter(chunks.append)
    return chunks


def check_lengths(path: Path, array: Any) -> None:
    """Refuse texts of variable length that claim more bytes than the file has: HDF5 would allocate them first.

    An entry is a length, the address of a heap and the number of an object in it. Compressed entries are not checked.
    """
    stored = array.id
    if stored.get_create_plist().get_nfilters():
        return
    if array.chunks is None:
        parts = [] if stored.get_offset() is None else [(stored.get_offset(), stored.get_storage_size())]
    else:
        parts = [(chunk.byte_offset, chunk.size) for chunk in _chunks(array)]
    n_address = array.file.id.get_create_plist().get_sizes()[0]
    entry, n_left = np.dtype([("length", "<u4"), ("heap", f"V{n_address}"), ("number", "<u4")]), os.path.getsize(path)
    with path.open("rb") as file:
        for start, size in parts:
            file.seek(start)
            content = file.read(size)
            entries = np.frombuffer(content, entry, len(content) // entry.itemsize)
            n_left -= int(entries["length"].sum(dtype=np.int64))
            if n_left < 0:
                raise InputError(f"{array.name!r} holds more text than its file has bytes; accepted: an undamaged file")
