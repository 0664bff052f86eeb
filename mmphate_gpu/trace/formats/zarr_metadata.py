"""The metadata of a .zarr, read and checked here before zarr makes a codec or an array of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime.paths import entries_below
from .arrays import Layout, check_layout, json_of
from .zarr_chunks import MOST_TEXT, Sizes, sizes_of
from .zarr_text import TEXT

_SHARDS = "sharding_indexed"
# The codecs that only turn bytes into numbers or text. Others make Python objects, which may run code, or are unknown.
_CODECS = {
    *("adler32", "astype", "bitround", "blosc", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset", "fletcher32"),
    *("gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "quantize", "shuffle", "zlib", "zstd"),
}
_CODECS_OF = {
    2: {*_CODECS, TEXT},
    3: {
        *("blosc", "bytes", "crc32c", "gzip", _SHARDS, "transpose", TEXT, "zstd"),
        *(f"numcodecs.{name}" for name in _CODECS),
    },
}
# Data types of version 3 whose names NumPy shares.
_NUMBER = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
_NUMBER_TYPE = re.compile(_NUMBER.pattern + r"|[<>|=]?[biufc?]\d{0,2}")
_TYPES_OF_CODECS = {"dtype", "astype", "encode_dtype", "decode_dtype"}
_NUMPY_TYPE = re.compile(r"[<>|=]?[a-zA-Z?]\d{0,9}(\[\w{1,10}\])?")
_MOST_AXES = 32


@dataclass(frozen=True)
class Node:
    """An array or a group as its files describe it.

    Where a folder has files of both versions of zarr, `node_in` decides. Consolidated metadata, which may contradict
    the ``metadata`` of the array or group, are never used.
    """

    folder: Path
    version: int
    metadata: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def is_array(self) -> bool:
        return "shape" in self.metadata


def node_in(folder: Path) -> Node | None:
    """The array or group in ``folder``; None if there is none."""
    file = next((folder / name for name in ("zarr.json", ".zarray", ".zgroup") if (folder / name).exists()), None)
    if file is None:
        return None
    metadata, version = json_of(file), 3 if file.name == "zarr.json" else 2
    is_array = file.name == ".zarray" or (version == 3 and metadata.get("node_type") == "array")
    if is_array != ("shape" in metadata) or metadata.get("zarr_format") != version:
        raise InputError(f"{file} describes neither an array nor a group of zarr version {version}")
    if version == 3:
        attributes = metadata.get("attributes") or {}
    else:
        attributes = json_of(folder / ".zattrs") if (folder / ".zattrs").exists() else {}
    if not isinstance(attributes, dict):
        raise InputError(f"{folder} has attributes that are a {type(attributes).__name__}; accepted: a JSON object")
    return Node(folder, version, metadata, attributes)


# ---------------------------------------------------------------- checks


@dataclass(frozen=True)
class Claims:
    """What the metadata of an array claim; ``dtype`` is None for text of variable length."""

    dtype: np.dtype | None
    layout: Layout
    sizes: Sizes


def check_array(node: Node) -> Claims:
    """What an array claims, if nothing of it is hostile."""
    metadata = node.metadata
    shape = _sizes(node, "shape", metadata["shape"], least=0)
    if node.version == 2:
        codecs = [codec for codec in (metadata.get("compressor"), *(metadata.get("filters") or ())) if codec]
        chunk = part = _sizes(node, "chunks", metadata.get("chunks"), len(shape))
        separator = metadata.get("dimension_separator", ".")
        dtype = _dtype_2(node, metadata.get("dtype"))
    else:
        if metadata.get("storage_transformers"):
            raise InputError(f"{node.folder} has storage transformers; accepted: an array without them")
        separator = _settings(metadata.get("chunk_key_encoding")).get("separator", ".")
        codecs = list(_nested(node, metadata.get("codecs")))
        chunk = _sizes(node, "chunk_shape", _regular_chunk_shape(node), len(shape))
        inner = [_settings(codec).get("chunk_shape") for codec in codecs if _name_of(codec) == _SHARDS]
        part = _sizes(node, "chunk_shape", inner[-1], len(shape)) if inner else chunk
        dtype = _dtype_3(node, metadata.get("data_type"))
    if separator not in (".", "/"):  # it is part of the names of files
        raise InputError(f"{node.folder} has the separator {str(separator)[:50]!r}; accepted: '.' and '/'")
    itemsize = 16 if dtype is None else dtype.itemsize
    width = max(itemsize, _check_codecs(node, codecs, is_text=dtype is None))
    layout = Layout(shape, itemsize, chunk, part)
    check_layout(str(node.folder), layout, partial(stored_bytes, node.folder))
    return Claims(dtype, layout, Sizes(MOST_TEXT, MOST_TEXT) if dtype is None else sizes_of(layout, width))


def _sizes(node: Node, name: str, sizes: Any, n_axes: int | None = None, least: int = 1) -> tuple[int, ...]:
    """``sizes`` if they are the numbers of entries along ``n_axes`` axes."""
    valid = isinstance(sizes, list) and all(type(size) is int and least <= size < 2**63 for size in sizes)
    if not valid or len(sizes) > _MOST_AXES or n_axes not in (None, len(sizes)):
        raise InputError(
            f"{node.folder} has the {name} {str(sizes)[:100]}; accepted: whole numbers from {least} on, one per axis"
        )
    return tuple(sizes)


def _regular_chunk_shape(node: Node) -> Any:
    """The shape of the chunks of an array of version 3."""
    grid = node.metadata.get("chunk_grid")
    if _name_of(grid) != "regular":
        raise InputError(f"{node.folder} has the chunk grid {str(grid)[:100]}; accepted: a regular one")
    return _settings(grid).get("chunk_shape")


def _nested(node: Node, codecs: Any) -> Iterator[Any]:
    """The codecs of an array of version 3, with those inside shards."""
    if not isinstance(codecs, list):
        raise InputError(f"{node.folder} has the codecs {str(codecs)[:100]}; accepted: a list")
    for codec in codecs:
        yield codec
        if _name_of(codec) == _SHARDS:
            yield from _nested(node, _settings(codec).get("index_codecs", []))
            yield from _nested(node, _settings(codec).get("codecs"))


def _name_of(named: Any) -> Any:
    """The name of what version 3 writes as "name" or {"name": "name", "configuration": {...}}."""
    return named.get("name") if isinstance(named, dict) else named


def _settings(named: Any) -> dict[str, Any]:
    """The configuration of what has a name; empty where there is none."""
    settings = named.get("configuration") if isinstance(named, dict) else None
    return settings if isinstance(settings, dict) else {}


def _check_codecs(node: Node, codecs: list[Any], is_text: bool) -> int:
    """The most bytes of a number between two codecs."""
    if node.version == 2:
        pairs = [(codec.get("id"), codec) if isinstance(codec, dict) else (None, {}) for codec in codecs]
    else:
        pairs = [(_name_of(codec), _settings(codec)) for codec in codecs]
    known, names, width = _CODECS_OF[node.version], [name for name, _ in pairs], 0
    for name, settings in pairs:
        if not isinstance(name, str) or name not in known:
            reason = "whose Python objects are never loaded" if name == "pickle" else "which is unknown"
            raise InputError(f"{node.folder} has the codec {str(name)[:50]!r}, {reason}; accepted: {sorted(known)}")
        width = max(width, _check_dtypes(node, settings))
    if (TEXT in names) != is_text or names.count(TEXT) > 1:
        raise InputError(f"{node.folder} has a data type and codecs {names} that contradict each other on text")
    return width


def _check_dtypes(node: Node, settings: dict[str, Any]) -> int:
    """The most bytes of a number that a codec converts to; other entries, which might be of any length, are refused."""
    keys = _TYPES_OF_CODECS & set(settings)
    for key in keys:
        if not isinstance(settings[key], str) or not _NUMBER_TYPE.fullmatch(settings[key]):
            raise InputError(f"{node.folder} has a codec with {key}={str(settings[key])[:50]!r}; accepted: numbers")
    return max((np.dtype(settings[key]).itemsize for key in keys), default=0)


def _dtype_2(node: Node, dtype: Any) -> np.dtype | None:
    if dtype == "|O":
        return None
    if not isinstance(dtype, str) or not _NUMPY_TYPE.fullmatch(dtype) or np.dtype(dtype).kind not in "biufcSUmM":
        raise _dtype_error(node, dtype)
    return np.dtype(dtype)


def _dtype_3(node: Node, dtype: Any) -> np.dtype | None:
    name = _name_of(dtype)
    if name == "string":
        return None
    if isinstance(name, str) and _NUMBER.fullmatch(name):
        return np.dtype(name)
    if name in ("numpy.datetime64", "numpy.timedelta64"):
        return np.dtype(f"{name[6]}8".replace("d", "M").replace("t", "m"))
    characters = {"fixed_length_utf32": ("U", 4), "null_terminated_bytes": ("S", 1)}
    if isinstance(name, str) and name in characters:
        letter, width = characters[name]
        (length,) = _sizes(node, "length_bytes", [_settings(dtype).get("length_bytes")], least=0)
        return np.dtype((letter, min(length, 2**30) // width))
    raise _dtype_error(node, dtype)


def _dtype_error(node: Node, dtype: Any) -> InputError:
    return InputError(
        f"{node.folder} has the data type {str(dtype)[:100]!r}; accepted: numbers, booleans, times and text, no objects"
    )


def stored_bytes(folder: Path) -> int:
    """The bytes of the files below ``folder`` that are no metadata."""
    files = (entry for entry in entries_below(folder) if not entry.is_dir())
    return sum(file.stat().st_size for file in files if file.name not in (".zarray", ".zattrs", "zarr.json"))
