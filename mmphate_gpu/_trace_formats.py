"""Open and write .zarr and .h5: arrays by name, with their dimensions and the attributes that change their values."""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ._optional import require
from ._trace_dims import AXES, axes_of, common_name, is_meant
from ._trace_packing import ATTRIBUTES
from .params import InputError

# What numpy, zipfile, json, zarr and h5py are known to raise on damaged files (RuntimeError: h5py, zipfile).
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,  # RecursionError and NotImplementedError among them
    ArithmeticError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    AttributeError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# The arrays beside the data that a trace can use.
_BESIDE = ("slice", *AXES, "label", "mask", "axes")
# With these words netCDF marks the array of a dimension that has no coordinates.
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a broken file raises into an `InputError` that names the file."""
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path of the file before the message of an `InputError`."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(str(path)):
            raise
        raise type(error)(f"{path}: {error}") from error


def data_key(path: Path, names: Any) -> str:
    """The one of ``names`` that holds the trace."""
    keys = [key for key in ("data", "trace") if key in names]
    if len(keys) != 1:
        raise InputError(f"{path} holds {sorted(names)}; accepted: the trace as either 'data' or 'trace'")
    return keys[0]


@dataclass(frozen=True)
class Variable:
    """An array of a container, whose values are still in the file.

    Attributes
    ----------
    array : zarr array, h5py dataset, or a NumPy array of text.
    read : returns all its values.
    dims : the name of each dimension, or None.
    opened : opens the array again; None for text.
    attributes : those of `ATTRIBUTES` that it has.
    fill : the fill value, which stands where nothing was written, or None.
    parts : returns what reads some of the values of an array that lies in one piece, or None; not for a container.
    """

    array: Any
    read: Callable[[], Any]
    dims: tuple[Any, ...]
    opened: Callable[[], AbstractContextManager[Any]] | None
    attributes: dict[str, Any]
    fill: Any
    parts: Callable[[], Any] | None = None


Variables = dict[str, Variable]


def stored_names(path: Path, names: Iterable[str], shape_of: Callable[[str], Any]) -> dict[str, str]:
    """The name in the file of "data" and of every array beside it, which may be in capitals if its shape is right.

    ``shape_of`` gives the shape of an array by its name in the file, and None for what is no array.
    """
    names = sorted(names)
    data = data_key(path, names)
    shape = shape_of(data)
    stored = {}
    for name in names:
        field = name.lower()
        if field in _BESIDE and field not in names and is_meant(field, shape_of(name) or (), shape or ()):
            stored[field] = name
    return stored | {name: name for name in names if name in _BESIDE} | {"data": data}


def _shape_in(group: Any, name: str) -> Any:
    return getattr(group.get(name), "shape", None)  # a link may lead nowhere


def _array(path: Path, group: Any, name: str) -> Any:
    array = group[name]
    if not hasattr(array, "dtype"):
        raise InputError(f"{path}: the entry {name!r} is no array")
    return array


# ---------------------------------------------------------------- .zarr


@contextlib.contextmanager
def _zarr_node(path: Path) -> Iterator[Any]:
    zarr = require("zarr", extra="zarr", purpose=f"{path}: reading .zarr")
    with readable(path):
        yield zarr.open(str(path), mode="r")


@dataclass(frozen=True)
class _ZarrArray:
    """Opens an array of a store, or a store that is an array. Unlike a nested function it can be pickled."""

    path: Path
    name: str | None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Any]:
        with _zarr_node(self.path) as node:
            yield node if self.name is None else node[self.name]


@contextlib.contextmanager
def _zarr_variables(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    with _zarr_node(path) as node:
        if hasattr(node, "shape"):
            yield {"data": _zarr_variable(node, _ZarrArray(path, None))}
            return
        texts = {name: np.asarray(values) for name, values in node.attrs.items() if isinstance(values, list)}
        stored = stored_names(path, node, partial(_shape_in, node))
        yield {name: _text_variable(texts[name]) for name in _BESIDE if name in texts} | {
            name: _zarr_variable(_array(path, node, key), _ZarrArray(path, key)) for name, key in stored.items()
        }


def _text_variable(texts: np.ndarray) -> Variable:
    return Variable(texts, lambda: texts, (None,) * texts.ndim, None, {}, None)


def _zarr_variable(array: Any, opened: _ZarrArray) -> Variable:
    every, metadata = dict(array.attrs), getattr(array, "metadata", None)  # zarr 2 has no metadata
    attributes = {key: every[key] for key in ATTRIBUTES if key in every}
    fill = array.fill_value if np.dtype(array.dtype).kind in "iuf" else None
    # In zarr version 2, xarray takes the fill value of the array for _FillValue. It is 0 by default.
    by_xarray = "_ARRAY_DIMENSIONS" in every and getattr(metadata, "zarr_format", 2) == 2
    packed = "scale_factor" in every or "add_offset" in every
    if by_xarray and fill is not None and (fill != 0 or packed):
        attributes.setdefault("_FillValue", fill)
    elif fill == 0 and not by_xarray:
        fill = None
    names = getattr(metadata, "dimension_names", None), every.get("_ARRAY_DIMENSIONS")
    return Variable(
        array, lambda: _zarr_values(array), _merged(opened.path, names, array.ndim), opened, attributes, fill
    )


def _merged(path: Path, names: Iterable[Any], n_axes: int) -> tuple[Any, ...]:
    """One name for each axis, from several lists of names, of which some are None."""
    lists = [[each] if isinstance(each, str) else list(each) for each in names if each is not None]
    for each in lists:
        if len(each) != n_axes:
            raise InputError(f"{path} has an array with the dims {each}; accepted: one name for each of {n_axes} axes")
    return tuple(common_name(each[axis] for each in lists) for axis in range(n_axes))


def _zarr_values(array: Any) -> np.ndarray:
    if any(getattr(codec, "codec_id", None) == "pickle" for codec in array.filters or ()):  # zarr 2 would load it
        raise InputError(f"{array.name} holds pickled Python objects, which are never loaded; store numbers or text")
    return np.asarray(array[...])


def write_zarr(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Write ``fields`` with the names of their dimensions, so that xarray can read the store."""
    zarr = require("zarr", extra="zarr", purpose=f"{path.name}: writing .zarr")
    names_dims = hasattr(zarr.Group, "create_array")  # zarr 3
    group = zarr.open_group(str(path), mode="w", **({"zarr_format": 3} if names_dims else {}))
    for name, (values, dims) in _with_dims(fields).items():
        if values.dtype.kind in "SU":  # zarr 3 has no standard form for arrays of text
            group.attrs[name] = values.astype(np.str_).tolist()
        elif names_dims:
            group.create_array(name, data=values, dimension_names=dims)
        else:  # xarray would read the default fill value, 0, as a missing value.
            group.array(name, values, fill_value=None).attrs["_ARRAY_DIMENSIONS"] = dims
    if "label" in fields:
        group["data"].attrs["coordinates"] = "label"


# ---------------------------------------------------------------- .h5


@contextlib.contextmanager
def _h5_file(path: Path) -> Iterator[Any]:
    h5py = require("h5py", extra="hdf5", purpose=f"{path}: reading .h5")
    with readable(path), h5py.File(path, "r") as file:
        yield file


@dataclass(frozen=True)
class _H5Array:
    """Opens an array of a file."""

    path: Path
    name: str

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Any]:
        with _h5_file(self.path) as file:
            yield file[self.name]


@contextlib.contextmanager
def _h5_variables(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    with _h5_file(path) as file:
        by_id = {
            int(array.attrs["_Netcdf4Dimid"]): name
            for name, array in file.items()
            if getattr(array, "is_scale", False) and "_Netcdf4Dimid" in array.attrs
        }
        stored = stored_names(path, file, partial(_shape_in, file))
        arrays = {name: _array(path, file, key) for name, key in stored.items()}
        yield {
            name: _h5_variable(array, _H5Array(path, array.name), by_id)
            for name, array in arrays.items()
            if not _text(array.attrs.get("NAME", "")).startswith(_NO_VARIABLE)
        }


def _h5_variable(array: Any, opened: _H5Array, by_id: dict[int, str]) -> Variable:
    attributes = {key: _text(array.attrs[key]) for key in ATTRIBUTES if key in array.attrs}
    # Integers of one byte have no fill value in netCDF, although its library writes one.
    numbers = array.shape is not None and array.dtype.kind in "iuf" and array.dtype.itemsize > 1
    fill = array.fillvalue if numbers and array.fillvalue != 0 else None
    return Variable(array, lambda: _h5_values(array), _h5_dims(array, by_id), opened, attributes, fill)


def _h5_values(array: Any) -> np.ndarray:
    h5py = require("h5py", extra="hdf5", purpose="reading .h5")
    if h5py.check_string_dtype(array.dtype) is not None:
        return np.asarray(array.asstr()[...], dtype=np.str_)
    return np.asarray(array[...])


def _h5_dims(array: Any, by_id: dict[int, str]) -> tuple[Any, ...]:
    """The name of each axis, from its label, its dimension scales, or netCDF's numbers of dimensions."""
    if array.shape is None:
        return ()
    if array.is_scale and array.ndim == 1:
        return (_scale_name(array),)
    numbers = np.ravel(array.attrs.get("_Netcdf4Coordinates", ())).tolist()
    names = [by_id.get(number) for number in numbers] if len(numbers) == array.ndim else [None] * array.ndim
    return tuple(
        common_name([dim.label, *map(_scale_name, dim.values()), name])
        for dim, name in zip(array.dims, names, strict=True)
    )


def _scale_name(scale: Any) -> Any:
    label = _text(scale.attrs.get("NAME", ""))
    return common_name([(scale.name or "").rpartition("/")[2], None if label.startswith(_NO_VARIABLE) else label])


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def write_h5(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Write ``fields`` with dimension scales, as netCDF-4 does."""
    h5py = require("h5py", extra="hdf5", purpose=f"{path.name}: writing .h5")
    arrays = _with_dims(fields)
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


def _with_dims(fields: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, list[str]]]:
    """{name in a file: (array, names of its dimensions)}; these names replace the field "axes"."""
    axes = list(axes_of(fields["data"].ndim))
    along = {"data": axes, "mask": axes, "label": ["sample"]} | {name: [name] for name in ("slice", *AXES)}
    names = {"epoch": axes[0]}
    return {names.get(name, name): (v, along[names.get(name, name)]) for name, v in fields.items() if name != "axes"}


OPENERS = {".zarr": _zarr_variables, ".h5": _h5_variables}
