"""Open and write .h5: links, storage, data types and attributes are looked at before anything is read through them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ._optional import require
from ._paths import check_files
from ._trace_dims import common_name
from ._trace_formats import (
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
from .params import InputError

# With these words netCDF marks the array of a dimension that has no coordinates.
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"
_MOST_LINKS = 16  # on the way to one array, as in HDF5
_MOST_BYTES = 8192  # of an attribute that is read
_BLOCK = 2**26  # bytes of text in one read


def _h5py() -> Any:
    return require("h5py", extra="hdf5", purpose="reading .h5")


@contextlib.contextmanager
def _h5_file(path: Path) -> Iterator[Any]:
    h5py = require("h5py", extra="hdf5", purpose=f"{path}: reading .h5")
    with readable(path):
        check_files(path)
        with h5py.File(path, "r") as file:
            yield file


@dataclass(frozen=True)
class _H5Array:
    """Opens an array of a file."""

    path: Path
    name: str
    follow_links: bool

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Any]:
        with _h5_file(self.path) as file:
            yield _dataset(file, self.name, self.follow_links)


@contextlib.contextmanager
def open_h5(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    """The datasets of a file that a trace can use, opened but not read.

    Parameters
    ----------
    follow_links : whether values may lie in other files: by external links, external storage and virtual datasets.

    Raises
    ------
    InputError
        Anything else than datasets of numbers and text that hold what they claim.
    """
    with _h5_file(path) as file:
        by_id = _dimensions(file)
        stored = stored_names(path, file, partial(_shape_of, file, follow_links=follow_links))
        arrays = {name: (key, _dataset(file, key, follow_links)) for name, key in stored.items()}
        yield {
            name: _variable(array, _H5Array(path, key, follow_links), by_id)
            for name, (key, array) in arrays.items()
            if not str(_attribute(array, "NAME")).startswith(_NO_VARIABLE)
        }


def _dimensions(file: Any) -> dict[int, str]:
    """{number of a dimension of netCDF: its name}; no link is followed."""
    h5py, names = _h5py(), {}
    for name in file:
        array = file[name] if _link(file, name)[0] == h5py.h5l.TYPE_HARD else None
        if isinstance(array, h5py.Dataset) and _is_scale(array) and "_Netcdf4Dimid" in array.attrs:
            names[int(_attribute(array, "_Netcdf4Dimid"))] = name
    return names


def _shape_of(file: Any, name: str, follow_links: bool) -> Any:
    try:
        _check_links(file, name, follow_links)
    except KeyError:  # a link leads nowhere
        return None
    return getattr(file.get(name), "shape", None)


# ---------------------------------------------------------------- checks


def _dataset(file: Any, name: str, follow_links: bool) -> Any:
    """The dataset ``name``, after all that can be known of it without reading values."""
    _check_links(file, name, follow_links)
    array, what = file[name], f"{file.filename}: {name!r}"
    if not isinstance(array, _h5py().Dataset):
        raise InputError(f"{file.filename}: the entry {name!r} is no array")
    if not follow_links and (array.is_virtual or array.external):
        kind = "virtual dataset" if array.is_virtual else "dataset in external files"
        raise InputError(f"{what} is a {kind}; accepted: values in the file itself, or follow_links=True")
    _check_dtype(what, array.dtype)
    if array.dtype.kind == "O" and array.ndim > 1:
        raise InputError(f"{what} holds text in {array.ndim} axes; accepted: numbers, or text in one axis")
    stored_bytes = _stored_bytes(what, array)
    if array.shape is not None:
        layout = Layout(array.shape, array.dtype.itemsize, array.chunks, array.chunks)
        check_layout(what, layout, lambda: stored_bytes)
    return array


def _check_links(file: Any, name: str, follow_links: bool, n_links: int = 0) -> None:
    """Walk to ``name`` link by link, opening no other file unless links may be followed.

    Raises
    ------
    KeyError
        The name leads nowhere.
    InputError
        A link out of the file, or more links than HDF5 follows.
    """
    h5py, group, parts = _h5py(), file, name.split("/")
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        if not isinstance(group, h5py.Group):
            raise KeyError(part)
        kind, target = _link(group, part)
        if kind == h5py.h5l.TYPE_HARD:
            group = group[part]
            continue
        n_links += 1
        if n_links > _MOST_LINKS or kind not in (h5py.h5l.TYPE_SOFT, h5py.h5l.TYPE_EXTERNAL):
            raise InputError(f"{file.filename}: {name!r} is a link in a circle or of a kind that is not known")
        if kind == h5py.h5l.TYPE_SOFT:
            path = target.decode()
            group, parts = file if path.startswith("/") else group, [*path.split("/"), *parts]
            continue
        other = _beside(file, os.fsdecode(target[0]))
        if not follow_links:
            raise InputError(
                f"{file.filename}: {name!r} is a link to {other}; accepted: an array, or follow_links=True"
            )
        with _h5_file(other) as linked:
            _check_links(linked, "/".join([target[1].decode(), *parts]), follow_links, n_links)
        return


def _link(group: Any, name: str) -> tuple[int, Any]:
    """The type of a link, and what a link other than a hard one leads to: (path,), or (file, path)."""
    links, stored = group.id.links, name.encode(errors="surrogateescape")
    if not links.exists(stored):
        raise KeyError(name)
    kind = links.get_info(stored).type
    return kind, None if kind == _h5py().h5l.TYPE_HARD else links.get_val(stored)


def _beside(file: Any, name: str) -> Path:
    """The path of another file that ``file`` names."""
    return Path(file.filename).parent / name


def _check_dtype(what: str, dtype: np.dtype) -> None:
    if dtype.kind not in "biufcSUmM" and _h5py().check_string_dtype(dtype) is None:
        raise InputError(f"{what} has the data type {str(dtype)[:100]}; accepted: numbers, booleans, times and text")


def _stored_bytes(what: str, array: Any) -> int:
    """How many bytes of values there are in the files in which they lie."""
    if array.is_virtual:
        sources = {(source.file_name, source.dset_name) for source in array.virtual_sources()}
        return sum(_source_bytes(what, array, *source) for source in sources)
    if array.external:
        files = {Path(name) for name, _, _ in array.external}
        for each in files:
            check_files(each)
        return sum(each.stat().st_size for each in files)
    return min(array.id.get_storage_size(), os.path.getsize(array.file.filename))


def _source_bytes(what: str, array: Any, file_name: str, name: str) -> int:
    """The stored bytes of a source of a virtual dataset, which is none itself: HDF5 would recur without end."""
    path = Path(array.file.filename) if file_name == "." else _beside(array.file, file_name)
    if "%" in file_name + name or not path.is_file():
        raise InputError(f"{what} has its values in {path}, which is no file; accepted: sources that exist")
    with _h5_file(path) as file:
        _check_links(file, name, follow_links=True)
        source = file[name]
        if source.is_virtual:
            raise InputError(
                f"{what} is a virtual dataset of virtual datasets ({path}: {name!r}); accepted: plain sources"
            )
        return _stored_bytes(what, source)


def _attribute(array: Any, key: str) -> Any:
    """An attribute of numbers or text, with text decoded; None where it is absent or empty."""
    if key not in array.attrs:
        return None
    attribute, what = array.attrs.get_id(key), f"{array.file.filename}: {array.name!r}"
    if attribute.shape is None:
        return None
    _check_dtype(f"{what}, attribute {key},", attribute.dtype)
    if attribute.get_storage_size() > _MOST_BYTES:
        raise InputError(f"{what} has an attribute {key} of more than {_MOST_BYTES} bytes; accepted: shorter ones")
    value = array.attrs[key]
    check_attribute(what, key, value)
    return value.decode() if isinstance(value, bytes) else value


# ---------------------------------------------------------------- reading


def _variable(array: Any, opened: _H5Array, by_id: dict[int, str]) -> Variable:
    attributes = {key: _attribute(array, key) for key in ATTRIBUTES}
    attributes = {key: value for key, value in attributes.items() if value is not None}
    # Integers of one byte have no fill value in netCDF, although its library writes one.
    numbers = array.shape is not None and array.dtype.kind in "iuf" and array.dtype.itemsize > 1
    fill = array.fillvalue if numbers and array.fillvalue != 0 else None
    return Variable(array, partial(_values, array), _dims(array, by_id), opened, attributes, fill)


def _values(array: Any) -> np.ndarray:
    if _h5py().check_string_dtype(array.dtype) is None:
        return np.asarray(array[...])
    if array.dtype.kind == "S" or array.ndim != 1:
        return np.asarray(array.asstr()[...], dtype=np.str_)
    return padded_text(array.name, list(_texts(array)))


def _texts(array: Any) -> Iterator[str]:
    """The texts of variable length in one axis; refused if together they are longer than their file.

    Entries may share one text, so that a small file can hold endless text; a file holds each that it needs once.
    """
    n_left = os.path.getsize(array.file.filename)
    step = max(1, _BLOCK // n_left)
    for start in range(0, len(array), step):
        for text in array.asstr()[start : start + step]:
            n_left -= len(text)
            if n_left < 0:
                raise InputError(f"{array.file.filename}: {array.name!r} holds more text than its file has bytes")
            yield text


def _dims(array: Any, by_id: dict[int, str]) -> tuple[Any, ...]:
    """The name of each axis, from its label, its dimension scales, or netCDF's numbers of dimensions."""
    if array.shape is None:
        return ()
    if _is_scale(array) and array.ndim == 1:
        return (_scale_name(array),)
    nobody = [None] * array.ndim
    labels = np.ravel(_attribute(array, "DIMENSION_LABELS")).tolist()
    numbers = np.ravel(_attribute(array, "_Netcdf4Coordinates")).tolist()
    labels = labels if len(labels) == array.ndim else nobody
    names = [by_id.get(number) for number in numbers] if len(numbers) == array.ndim else nobody
    return tuple(
        common_name([_text(label), *map(_scale_name, scales), name])
        for label, scales, name in zip(labels, _scales(array), names, strict=True)
    )


def _scales(array: Any) -> list[list[Any]]:
    """The dimension scales of each axis, without HDF5's functions for them, which trust the type of the attribute."""
    h5py, key = _h5py(), "DIMENSION_LIST"
    lists = array.attrs.get_id(key) if key in array.attrs else None
    element = None if lists is None else h5py.check_vlen_dtype(lists.dtype)
    if element is None or h5py.check_ref_dtype(element) is not h5py.Reference or lists.shape != (array.ndim,):
        return [[] for _ in range(array.ndim)]
    return [[array.file[reference] for reference in references if reference] for references in array.attrs[key]]


def _is_scale(array: Any) -> bool:
    return _text(_attribute(array, "CLASS")) == "DIMENSION_SCALE"


def _scale_name(scale: Any) -> Any:
    label = _attribute(scale, "NAME")
    return common_name([(scale.name or "").rpartition("/")[2], None if str(label).startswith(_NO_VARIABLE) else label])


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


# ---------------------------------------------------------------- writing


def write_h5(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Write ``fields`` with dimension scales, as netCDF-4 does."""
    h5py = require("h5py", extra="hdf5", purpose=f"{path.name}: writing .h5")
    arrays = with_dims(fields)
    with h5py.File(path, "w") as file:
        for name, (values, _) in arrays.items():
            if values.dtype.kind in "mM":
                raise InputError(f"{name} has dtype {values.dtype}, which .h5 cannot hold; accepted: .npz or numbers")
            if values.dtype.kind in "SU":
                try:
                    file.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
                except ValueError as error:  # a lone surrogate, or the character of number 0
                    raise InputError(
                        f"{name} holds text that .h5 cannot hold ({error}); accepted: .npz, .zarr, or other text"
                    ) from error
            else:
                file.create_dataset(name, data=values)
            # netCDF has no booleans: its library reads those of h5py as bytes. By this attribute xarray converts them.
            if values.dtype == bool:
                file[name].attrs["dtype"] = "bool"
        for name, (_, dims) in arrays.items():
            if dims == [name]:
                file[name].make_scale(name)
        for name, (_, dims) in arrays.items():
            for dim, axis in zip(file[name].dims, dims, strict=True):
                dim.label = axis
                if axis in arrays and axis != name:  # a scale cannot have scales
                    dim.attach_scale(file[axis])
        if "label" in fields:
            file["data"].attrs["coordinates"] = "label"
