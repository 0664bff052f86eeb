"""Decode the chunks of a .zarr within the bytes that they may have.

The decoders of numcodecs trust a chunk. Blosc reads behind its end if its header says so, and all of them take as much
memory as a chunk asks for. Here a header is looked at before its decoder runs, and formats without one are decoded up
to a limit.
"""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...runtime.optional import require
from ...runtime.paths import entries_below
from .arrays import Layout

MOST_TEXT = 2**26  # bytes of a chunk of text of variable length
_FEW_CHUNKS, _CHUNKS_PER_FILE = 10_000, 100  # zarr takes 0.1 ms to look for a chunk that is not stored
_CHUNK_NAME = re.compile(r"(c\.)?\d+(\.\d+)*")
_BLOSC_COPIED = 2  # a flag: the chunk holds the bytes as they are
_ZSTD_BLOCK = 2**17  # bytes of a block at most
_ZSTD_UNKNOWN = 2**20  # bytes by which the bound on a frame of unknown size may exceed what it holds


class Sizes(NamedTuple):
    """How many bytes a stored chunk may have, whole and decoded, and a part of it that can be read alone."""

    chunk: int
    part: int


def sizes_of(layout: Layout, width: int) -> Sizes:
    """An honest codec adds a few bytes, and a shard an entry to its index for each part.

    An entry has ``width`` bytes before it is compressed, which may have another data type than the array.
    """
    n_chunk, n_part = (width * math.prod(shape or ()) for shape in (layout.chunk, layout.part))
    n_parts = -(-n_chunk // max(1, n_part))
    return Sizes(2 * n_chunk + 256 * n_parts + 4096, 2 * n_part + 4096)


# ---------------------------------------------------------------- files


def check_chunk_files(store: Path, folder: Path, layout: Layout, most: int) -> None:
    """Refuse an array of many chunks of which hardly any is stored, and files of more than ``most`` bytes.

    The files of the whole ``store`` are counted: of a mask in ``folder`` that is True everywhere, there may be none.
    """
    n_chunks = replace(layout, part=layout.chunk).n_chunks  # for what is in shards, zarr looks in one file
    if n_chunks > _FEW_CHUNKS:
        n_files = sum(not entry.is_dir() for entry in entries_below(store))
        if n_chunks > _FEW_CHUNKS + _CHUNKS_PER_FILE * n_files:
            raise InputError(
                f"{folder} has {n_chunks} chunks in a store of {n_files} files; accepted: up to {_FEW_CHUNKS}, "
                f"and {_CHUNKS_PER_FILE} more for each file"
            )
    for entry in entries_below(folder):
        if _CHUNK_NAME.fullmatch(entry.name) and entry.is_file() and entry.stat().st_size > most:
            raise InputError(f"{entry.path} has {entry.stat().st_size} bytes; accepted: a chunk of up to {most}")


# ---------------------------------------------------------------- decoders


@dataclass(frozen=True)
class Decoder:
    """Decodes what a codec of `DECODED` has encoded.

    ``owner`` is the array or file, for messages. Only LZMA needs the ``settings`` of the codec. A chunk may hold
    ``most`` bytes.
    """

    owner: Path
    name: str
    settings: dict[str, Any]
    most: int

    def __call__(self, chunk: Any, out: Any = None) -> Any:
        """The decoded bytes, written into ``out`` if it is not None.

        `InputError` refuses a damaged chunk, and one that holds more than ``most`` bytes or, if it is of Blosc, other
        than ``out`` takes.
        """
        content = memoryview(chunk)
        content = content.cast("B") if content.nbytes else memoryview(b"")
        if self.name not in _PROMISED:
            decoded = self._decompressed(content)
        else:
            promised = _PROMISED[self.name](content)
            if promised is None:
                raise self._damaged()
            if promised > self.most:
                raise self._too_long()
            if out is not None and self.name == "blosc" and promised == out.nbytes:
                return self._codec.decode(content, out)
            decoded = self._codec.decode(content)
        return decoded if out is None else self._numcodecs.compat.ndarray_copy(decoded, out)

    @property
    def _numcodecs(self) -> Any:
        return require("numcodecs", extra="zarr", purpose=f"{self.owner}: reading .zarr")

    @cached_property
    def _codec(self) -> Any:
        return self._numcodecs.get_codec({"id": self.name})

    def _decompressed(self, content: memoryview) -> bytes:
        """What the streams of a chunk hold, of which zlib has only one."""
        if self.name == "zlib":
            decompressor = zlib.decompressobj()
            decoded = decompressor.decompress(content, self.most + 1)
            complete = decompressor.eof
        else:
            with _OPENED[self.name](io.BytesIO(content), self.settings) as file:
                decoded, complete = file.read(self.most + 1), True
        if len(decoded) > self.most:
            raise self._too_long()
        if not complete:
            raise self._damaged()
        return decoded

    def _damaged(self) -> InputError:
        return InputError(f"{self.owner} has a damaged or truncated chunk; accepted: whole ones, by {self.name}")

    def _too_long(self) -> InputError:
        return InputError(
            f"{self.owner} has a chunk that {self.name} decodes to more than {self.most} bytes; accepted: its values"
        )


def _lzma(stream: io.BytesIO, settings: dict[str, Any]) -> Any:
    return lzma.LZMAFile(stream, format=settings.get("format", lzma.FORMAT_XZ), filters=settings.get("filters"))


_OPENED: dict[str, Callable[[io.BytesIO, dict[str, Any]], Any]] = {
    "bz2": lambda stream, settings: bz2.BZ2File(stream),
    "gzip": lambda stream, settings: gzip.GzipFile(fileobj=stream),
    "lzma": _lzma,
}


def _blosc_bytes(chunk: memoryview) -> int | None:
    """How many bytes a chunk promises; None if Blosc would read behind its end.

    Its header: two versions, flags, the bytes of a value; then, as 4 bytes, the bytes decoded, of a block, and encoded.
    Then, for each block, come 4 bytes that say where it starts.
    """
    if len(chunk) < 16:
        return None
    flags, typesize = chunk[2:4]
    decoded, block, encoded = (int.from_bytes(chunk[at : at + 4], "little", signed=True) for at in (4, 8, 12))
    if encoded != len(chunk) or decoded < 0 or block < 0 or typesize == 0:
        return None
    if flags & _BLOSC_COPIED:
        return decoded if decoded + 16 == encoded else None
    n_blocks = -(-decoded // max(1, block))
    return decoded if 16 + 4 * n_blocks <= encoded else None


def _lz4_bytes(chunk: memoryview) -> int | None:
    """How many bytes a chunk promises, in its first 4 bytes."""
    promised = int.from_bytes(chunk[:4], "little", signed=True)
    return promised if len(chunk) > 4 and promised >= 0 else None


def _zstd_bytes(chunk: memoryview) -> int | None:
    """How many bytes the frames of a chunk promise; None if they are truncated.

    A frame need not say how many: then its blocks bound them, of which each holds up to 128 KiB.
    """
    start, promised, n_blocks, unknown = 0, 0, 0, False
    while start + 8 <= len(chunk):
        magic, flags = int.from_bytes(chunk[start : start + 4], "little"), chunk[start + 4]
        if magic >> 4 == 0x184D2A5:  # a frame to be skipped, which has its size here
            start += 8 + int.from_bytes(chunk[start + 4 : start + 8], "little")
            continue
        if magic != 0xFD2FB528:
            return None
        single = flags >> 5 & 1  # then the size of the window is missing
        start += 6 - single + (0, 1, 2, 4)[flags & 3]
        width = (single, 2, 4, 8)[flags >> 6]
        promised += int.from_bytes(chunk[start : start + width], "little") + 256 * (width == 2)
        unknown |= width == 0
        start, n_more = _end_of_blocks(chunk, start + width)
        n_blocks += n_more
        start += 4 * (flags >> 2 & 1)  # the checksum
    if start != len(chunk) or start == 0:
        return None
    return max(promised, _ZSTD_BLOCK * n_blocks - _ZSTD_UNKNOWN) if unknown else promised


def _end_of_blocks(chunk: memoryview, start: int) -> tuple[int, int]:
    """Where the blocks of a frame of zstd end, and how many they are; beyond the chunk if they are truncated.

    A block has a header of 3 bytes: whether it is the last one, its type (1: one byte, repeated) and its size.
    """
    n_blocks, last = 0, False
    while not last and start < len(chunk):
        header = int.from_bytes(chunk[start : start + 3], "little")
        last = bool(header & 1)
        start += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)
        n_blocks += 1
    return (start if last else len(chunk) + 1), n_blocks


_PROMISED = {"blosc": _blosc_bytes, "lz4": _lz4_bytes, "zstd": _zstd_bytes}
DECODED = {"zlib", *_OPENED, *_PROMISED}


# ---------------------------------------------------------------- arrays


def with_checked_codecs(folder: Path, array: Any, sizes: Sizes) -> Any:
    """``array``, which decodes by `Decoder`; other arrays keep their codecs."""
    metadata = getattr(array, "metadata", array)  # zarr 2 has none
    if getattr(metadata, "zarr_format", 2) == 2:
        for codec in (metadata.compressor, *(metadata.filters or ())):
            if codec is not None and codec.codec_id in DECODED:  # each codec is made for its array
                codec.decode = Decoder(folder, codec.codec_id, codec.get_config(), sizes.part)
        return array
    zarr = require("zarr", extra="zarr", purpose=f"{folder}: reading .zarr")
    checked = replace(metadata, codecs=tuple(_checked(folder, metadata.codecs, sizes)))
    store = _store_class()(array.store_path.store.root, read_only=True)
    return zarr.Array(zarr.AsyncArray(checked, zarr.storage.StorePath(store, array.store_path.path)))


def _checked(folder: Path, codecs: Iterable[Any], sizes: Sizes) -> Iterable[Any]:
    """The codecs of an array of version 3, with those inside shards."""
    sharding = require("zarr.codecs", extra="zarr", purpose=f"{folder}: reading .zarr").ShardingCodec
    holds_parts = any(isinstance(codec, sharding) for codec in codecs)
    for codec in codecs:
        if isinstance(codec, sharding):
            yield replace(codec, codecs=tuple(_checked(folder, codec.codecs, sizes)))
            continue
        described = codec.to_dict()
        name = described["name"].removeprefix("numcodecs.")
        if name in DECODED:
            most = sizes.chunk if holds_parts else sizes.part
            yield _codec_class()(Decoder(folder, name, described.get("configuration", {}), most))
        else:
            yield codec


@cache
def _codec_class() -> Any:
    """A codec of zarr 3; its base class is there only when zarr is."""
    base = require("zarr.abc.codec", extra="zarr", purpose="reading .zarr").BytesBytesCodec

    @dataclass(frozen=True)
    class CheckedCodec(base):  # type: ignore[misc, valid-type]
        decoder: Decoder
        is_fixed_size = False
        compute_encoded_size = None  # that is for writers

        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            decoded = await asyncio.to_thread(self.decoder, chunk_bytes.as_numpy_array())
            return chunk_spec.prototype.buffer.from_bytes(decoded)

    return CheckedCodec


@cache
def _store_class() -> Any:
    """A folder for zarr 3, which takes a part of a shard that lies behind the end of its file for one not stored."""
    base = require("zarr.storage", extra="zarr", purpose="reading .zarr").LocalStore

    class CheckedStore(base):  # type: ignore[misc, valid-type]
        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            end, file = getattr(byte_range, "end", None), self.root / key
            if end is not None and file.exists() and not byte_range.start < end <= file.stat().st_size:
                raise InputError(f"{file} has an index that leads out of it; accepted: a whole shard")
            return await super().get(key, prototype, byte_range)

    return CheckedStore
