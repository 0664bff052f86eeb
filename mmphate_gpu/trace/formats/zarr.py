"""Open and write .zarr."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime.optional import require
from ...runtime.paths import check_files
from ..dims import common_name, is_metric
from ..packing import ATTRIBUTES
from .arrays import (
    BESIDE,
    Variable,
    Variables,
    check_attribute,
    coordinates_attribute,
    padded_text,
    readable,
    stored_names,
    with_dims,
    zones_of,
)
from .zarr_chunks import check_chunk_files, with_checked_codecs
from .zarr_metadata import Node, check_array, node_in, stored_bytes
from .zarr_text import read_text

_METADATA = {".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"}
_CHUNK = re.compile(r"c|[0-9]+(\.[0-9]+)*")


@contextlib.contextmanager
def _opened_again(path: Path, folder: Path) -> Iterator[Any]:
    """Open an array of the store at ``path``, or a store that is an array, once more.

    Links in the store are looked at when it is first opened, which takes a pass over its files; the metadata each time.
    """
    with readable(path):
        node = node_in(folder)
        if node is None or not node.is_array:
            raise InputError(f"{folder} is no array any more")
        yield with_checked_codecs(folder, _opened_by_zarr(node), check_array(node).sizes)


def _opened_by_zarr(node: Node) -> Any:
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

    Unless ``follow_links``, symbolic links must not lead out of the store. `InputError` refuses anything else than a
    store of numbers and text that holds what it claims.
    """
    require("zarr", extra="zarr", purpose=f"{path}: reading .zarr")
    with readable(path):
        check_files(path, follow_links=follow_links)
        node = node_in(path)
        if node is None:
            raise InputError(f"{path} is no zarr store; accepted: a folder with zarr.json, .zgroup or .zarray")
        if node.is_array:
            yield {"data": _variable(path, node)}
            return
        used = ("data", "trace", *BESIDE)
        items = [item for item in path.iterdir() if item.name.lower() in used or is_metric(item.name)]
        nodes = {item.name: each for item in items if (each := node_in(item)) is not None}
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
    return Variable(array, lambda: array, (None,))


def _variable(path: Path, node: Node) -> Variable:
    if not node.is_array:
        raise InputError(f"{path}: the entry {node.folder.name!r} is no array")
    claims, every = check_array(node), node.attributes
    dtype = claims.dtype
    check_chunk_files(path, node.folder, claims.layout, claims.sizes.chunk)
    array = with_checked_codecs(node.folder, _opened_by_zarr(node), claims.sizes)
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
        name_of_chunk = getattr(getattr(array, "metadata", None), "encode_chunk_key", lambda index: str(index[0]))
        read = partial(read_text, node.folder, node.version, node.metadata, name_of_chunk)
    opened, stored = partial(_opened_again, path, node.folder), partial(stored_bytes, node.folder)
    return Variable(array, read, dims, opened, attributes, fill, stored_bytes=stored)


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
    group["data"].attrs.update(coordinates_attribute(group.array_keys()))
    for name, zone in zones_of(fields).items():
        group[name].attrs["time_zone"] = zone


def others_than_zarr(folder: Path) -> list[str]:
    """The names in ``folder`` that zarr did not write. Empty for a link: replacing it deletes no file of its target."""
    if folder.is_symlink():
        return []
    if not folder.is_dir():
        return ["a file"]
    names = {*os.listdir(folder)}
    is_array = not names.isdisjoint({".zarray", "zarr.json"})
    others = [name for name in names - _METADATA if not (is_array and _CHUNK.fullmatch(name))]
    return sorted(name for name in others if not any((folder / name / file).is_file() for file in _METADATA))
