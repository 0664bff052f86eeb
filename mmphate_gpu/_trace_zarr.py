"""Open and write .zarr: the metadata is read and checked here, before zarr makes a codec or an array of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ._optional import require
from ._paths import check_files
from ._trace_dims import common_name
from ._trace_formats import (
    BESIDE,
    Layout,
    Variable,
    Variables,
    check_attribute,
    check_layout,
    padded_text,
    readable,
    stored_names,
    with_dims,
)
from ._trace_packing import ATTRIBUTES
from ._trace_zarr_text import TEXT, read_text
from .params import InputError

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
_MOST_METADATA = 2**24  # bytes; parsed JSON takes up to twenty times as much memory
_MOST_AXES = 32


@dataclass(frozen=True)
class _Node:
    """An array or a group as its own files describe it.

    Attributes
    ----------
    version : of the format of zarr; `_node` decides between the two where a folder has both.
    metadata : of the array or group. Consolidated metadata, which may contradict it, is never used.
    """

    folder: Path
    version: int
    metadata: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def is_array(self) -> bool:
        return "shape" in self.metadata


def _node(folder: Path) -> _Node | None:
    """The array or group in ``folder``; None if there is none."""
    if (folder / "zarr.json").exists():
        metadata = _json(folder / "zarr.json")
        is_array = metadata.get("node_type") == "array"
        if is_array != ("shape" in metadata) or metadata.get("zarr_format") != 3:
            raise InputError(f"{folder / 'zarr.json'} describes neither an array nor a group of zarr version 3")
        attributes = metadata.get("attributes") or {}
    else:
        present = [name for name in (".zarray", ".zgroup") if (folder / name).exists()]
        if not present:
            return None
        metadata = _json(folder / present[0])
        if (present[0] == ".zarray") != ("shape" in metadata) or metadata.get("zarr_format") != 2:
            raise InputError(f"{folder / present[0]} describes neither an array nor a group of zarr version 2")
        attributes = _json(folder / ".zattrs") if (folder / ".zattrs").exists() else {}
    if not isinstance(attributes, dict):
        raise InputError(f"{folder} has attributes that are a {type(attributes).__name__}; accepted: a JSON object")
    return _Node(folder, 3 if (folder / "zarr.json").exists() else 2, metadata, attributes)


def _json(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MOST_METADATA:
        raise InputError(f"{file} has {file.stat().st_size} bytes; accepted: metadata of up to {_MOST_METADATA}")
    content = json.loads(file.read_bytes())
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}; accepted: a JSON object")
    return content


# ---------------------------------------------------------------- checks


def _check_array(node: _Node) -> np.dtype | None:
    """The dtype of an array whose metadata claim nothing hostile; None for text of variable length."""
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
        chunk = _sizes(node, "chunk_shape", _regular(node), len(shape))
        inner = [_settings(codec).get("chunk_shape") for codec in codecs if _name_of(codec) == _SHARDS]
        part = _sizes(node, "chunk_shape", inner[-1], len(shape)) if inner else chunk
        dtype = _dtype_3(node, metadata.get("data_type"))
    if separator not in (".", "/"):  # it is part of the names of files
        raise InputError(f"{node.folder} has the separator {str(separator)[:50]!r}; accepted: '.' and '/'")
    _check_codecs(node, codecs, is_text=dtype is None)
    layout = Layout(shape, 16 if dtype is None else dtype.itemsize, chunk, part)
    check_layout(str(node.folder), layout, partial(_stored_bytes, node.folder))
    return dtype


def _sizes(node: _Node, name: str, sizes: Any, n_axes: int | None = None, least: int = 1) -> tuple[int, ...]:
    """``sizes`` if they are the numbers of entries along ``n_axes`` axes."""
    valid = isinstance(sizes, list) and all(type(size) is int and least <= size < 2**63 for size in sizes)
    if not valid or len(sizes) > _MOST_AXES or n_axes not in (None, len(sizes)):
        raise InputError(
            f"{node.folder} has the {name} {str(sizes)[:100]}; accepted: whole numbers from {least} on, one an axis"
        )
    return tuple(sizes)


def _regular(node: _Node) -> Any:
    """The shape of the chunks of an array of version 3."""
    grid = node.metadata.get("chunk_grid")
    if _name_of(grid) != "regular":
        raise InputError(f"{node.folder} has the chunk grid {str(grid)[:100]}; accepted: a regular one")
    return _settings(grid).get("chunk_shape")


def _nested(node: _Node, codecs: Any) -> Iterator[Any]:
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


def _check_codecs(node: _Node, codecs: list[Any], is_text: bool) -> None:
    if node.version == 2:
        pairs = [(codec.get("id"), codec) if isinstance(codec, dict) else (None, {}) for codec in codecs]
    else:
        pairs = [(_name_of(codec), _settings(codec)) for codec in codecs]
    known, names = _CODECS_OF[node.version], [name for name, _ in pairs]
    for name, settings in pairs:
        if not isinstance(name, str) or name not in known:
            reason = "whose Python objects are never loaded" if name == "pickle" else "which is unknown"
            raise InputError(f"{node.folder} has the codec {str(name)[:50]!r}, {reason}; accepted: {sorted(known)}")
        _check_dtypes(node, settings)
    if (TEXT in names) != is_text or names.count(TEXT) > 1:
        raise InputError(f"{node.folder} has a data type and codecs {names} that contradict each other on text")


def _check_dtypes(node: _Node, settings: dict[str, Any]) -> None:
    """Refuse a codec that converts to something other than numbers, whose entries might be of any length."""
    for key in _TYPES_OF_CODECS & set(settings):
        if not isinstance(settings[key], str) or not _NUMBER_TYPE.fullmatch(settings[key]):
            raise InputError(f"{node.folder} has a codec with {key}={str(settings[key])[:50]!r}; accepted: numbers")


def _dtype_2(node: _Node, dtype: Any) -> np.dtype | None:
    if dtype == "|O":
        return None
    if not isinstance(dtype, str) or not _NUMPY_TYPE.fullmatch(dtype) or np.dtype(dtype).kind not in "biufcSUmM":
        raise _no_values(node, dtype)
    return np.dtype(dtype)


def _dtype_3(node: _Node, dtype: Any) -> np.dtype | None:
    name = _name_of(dtype)
    if name == "string":
        return None
    if isinstance(name, str) and _NUMBER.fullmatch(name):
        return np.dtype(name)
    if name in ("numpy.datetime64", "numpy.timedelta64"):
        return np.dtype(f"{name[6]}8".replace("d", "M").replace("t", "m"))
    characters = {"fixed_length_utf32": ("U", 4), "null_terminated_bytes": ("S", 1)}
    if isinstance(name, str) and name in characters:
        kind, width = characters[name]
        (length,) = _sizes(node, "length_bytes", [_settings(dtype).get("length_bytes")], least=0)
        return np.dtype((kind, min(length, 2**30) // width))
    raise _no_values(node, dtype)


def _no_values(node: _Node, dtype: Any) -> InputError:
    return InputError(
        f"{node.folder} has the data type {str(dtype)[:100]!r}; accepted: numbers, booleans, times and text, no objects"
    )


def _stored_bytes(folder: Path) -> int:
    """The bytes of the files below ``folder`` that are no metadata."""
    return sum(
        os.path.getsize(os.path.join(parent, name))
        for parent, _, names in os.walk(folder)
        for name in names
        if name not in (".zarray", ".zattrs", "zarr.json")
    )


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class _ZarrArray:
    """Opens an array of a store, or a store that is an array. Unlike a nested function it can be pickled.

    Links in the store are looked at when it is first opened, which takes a pass over its files; the metadata each time.
    """

    path: Path
    folder: Path

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Any]:
        with readable(self.path):
            node = _node(self.folder)
            if node is None or not node.is_array:
                raise InputError(f"{self.folder} is no array any more")
            _check_array(node)
            yield _zarr_array(node)


def _zarr_array(node: _Node) -> Any:
    zarr = require("zarr", extra="zarr", purpose=f"{node.folder}: reading .zarr")
    if hasattr(zarr.Group, "create_array"):  # zarr 3
        return zarr.open_array(str(node.folder), mode="r", zarr_format=node.version)
    if node.version == 3:
        raise InputError(f"{node.folder} is of zarr version 3, and the package zarr {zarr.__version__} reads version 2")
    try:
        return zarr.open_array(str(node.folder), mode="r")
    except zarr.errors.MetadataError as error:  # unlike the errors of zarr 3 a plain Exception
        raise InputError(f"{node.folder} has metadata that the package zarr cannot read ({error.__cause__})") from error


@contextlib.contextmanager
def open_zarr(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    """The arrays of a store that a trace can use, opened but not read.

    Parameters
    ----------
    follow_links : whether symbolic links in the store may lead out of it.

    Raises
    ------
    InputError
        Anything else than a store of numbers and text that holds what it claims.
    """
    require("zarr", extra="zarr", purpose=f"{path}: reading .zarr")
    with readable(path):
        check_files(path, follow_links=follow_links)
        node = _node(path)
        if node is None:
            raise InputError(f"{path} is no zarr store; accepted: a folder with zarr.json, .zgroup or .zarray")
        if node.is_array:
            yield {"data": _variable(path, node)}
            return
        nodes = {item.name: _node(item) for item in path.iterdir() if item.name.lower() in ("data", "trace", *BESIDE)}
        nodes = {name: each for name, each in nodes.items() if each is not None}
        stored = stored_names(path, nodes, lambda name: nodes[name].metadata.get("shape"))
        texts = {name: values for name, values in node.attributes.items() if name in BESIDE and type(values) is list}
        yield {name: _text_variable(path, name, values) for name, values in texts.items()} | {
            name: _variable(path, nodes[key]) for name, key in stored.items()
        }


def _text_variable(path: Path, name: str, values: list[Any]) -> Variable:
    """A list among the attributes of the group, which is where `write_zarr` puts text."""
    if values and all(isinstance(value, str) for value in values):
        array = padded_text(f"{path}: {name}", values)
    elif all(isinstance(value, int | float) for value in values):
        array = np.asarray(values)
    else:
        raise InputError(f"{path} has an attribute {name} that is a list of other things; accepted: text or numbers")
    return Variable(array, lambda: array, (None,), None, {}, None)


def _variable(path: Path, node: _Node) -> Variable:
    if not node.is_array:
        raise InputError(f"{path}: the entry {node.folder.name!r} is no array")
    dtype, array, every = _check_array(node), _zarr_array(node), node.attributes
    attributes = {key: every[key] for key in ATTRIBUTES if key in every}
    for key, value in attributes.items():
        check_attribute(str(node.folder), key, value)
    fill = array.fill_value if dtype is not None and dtype.kind in "iuf" else None
    # In zarr version 2, xarray takes the fill value of the array for _FillValue. It is 0 by default.
    by_xarray = "_ARRAY_DIMENSIONS" in every and node.version == 2
    packed = "scale_factor" in every or "add_offset" in every
    if by_xarray and fill is not None and (fill != 0 or packed):
        attributes.setdefault("_FillValue", fill)
    elif fill == 0 and not by_xarray:
        fill = None
    names = node.metadata.get("dimension_names") if node.version == 3 else None, every.get("_ARRAY_DIMENSIONS")
    dims = _merged(path, names, array.ndim)
    read = partial(_values, array)
    if dtype is None:
        if array.ndim != 1:
            raise InputError(f"{node.folder} holds text in {array.ndim} axes; accepted: text in one axis")
        name_of_chunk = array.metadata.encode_chunk_key if hasattr(array, "metadata") else _key_2
        read = partial(read_text, node.folder, node.version, node.metadata, name_of_chunk)
    return Variable(array, read, dims, _ZarrArray(path, node.folder), attributes, fill)


def _merged(path: Path, names: Iterable[Any], n_axes: int) -> tuple[Any, ...]:
    """One name for each axis, from several lists of names, of which some are None."""
    lists = [[each] if isinstance(each, str) else each for each in names if each is not None]
    for each in lists:
        valid = isinstance(each, list) and all(
            name is None or (isinstance(name, str) and len(name) < 1000) for name in each
        )
        if not valid or len(each) != n_axes:
            raise InputError(
                f"{path} has an array with the dims {str(each)[:200]}; accepted: one name for each of {n_axes} axes"
            )
    return tuple(common_name(each[axis] for each in lists) for axis in range(n_axes))


def _key_2(index: tuple[int]) -> str:
    return str(index[0])


def _values(array: Any) -> np.ndarray:
    return np.asarray(array[...])


# ---------------------------------------------------------------- writing


def write_zarr(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Write ``fields`` with the names of their dimensions, so that xarray can read the store."""
    zarr = require("zarr", extra="zarr", purpose=f"{path.name}: writing .zarr")
    names_dims = hasattr(zarr.Group, "create_array")  # zarr 3
    group = zarr.open_group(str(path), mode="w", **({"zarr_format": 3} if names_dims else {}))
    for name, (values, dims) in with_dims(fields).items():
        if values.dtype.kind in "SU":  # zarr 3 has no standard form for arrays of text
            group.attrs[name] = values.astype(np.str_).tolist()
        elif names_dims:
            group.create_array(name, data=values, dimension_names=dims)
        else:  # xarray would read the default fill value, 0, as a missing value.
            group.array(name, values, fill_value=None).attrs["_ARRAY_DIMENSIONS"] = dims
    if "label" in fields:
        group["data"].attrs["coordinates"] = "label"
