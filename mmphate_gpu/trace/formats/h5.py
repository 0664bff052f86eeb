"""Read from a .h5 the arrays that a trace can use, with the names of their dimensions, and write them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime.optional import require
from ..dims import common_name
from ..packing import ATTRIBUTES, encode_times
from .arrays import Variable, Variables, coordinates_attribute, padded_text, stored_names, with_dims, zones_of
from .h5_file import (
    attribute,
    check_lengths,
    check_storage,
    dataset,
    h5py,
    link,
    opened_dataset,
    opened_file,
    shape_of,
    stored_bytes,
)

# netCDF writes this text into the placeholder array of a dimension without coordinates.
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"
_BLOCK = 2**26  # bytes of text in one read


@contextlib.contextmanager
def open_h5(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    """Open the datasets of a file that a trace can use, without reading their values.

    With ``follow_links`` values may lie in other files, through external links, external storage or virtual datasets.
    That is for trusted files only: HDF5 then reads without the checks for damaged heaps. `InputError` refuses a dataset
    that holds neither numbers nor text, or fewer values than it claims.
    """
    with opened_file(path, follow_links) as file:
        by_id = _dimensions(file)
        names = [name for name in file if isinstance(name, str)]  # h5py gives names that are not UTF-8 as bytes
        stored = stored_names(path, names, partial(shape_of, file, follow_links=follow_links))
        arrays = {name: (key, dataset(file, key, follow_links)) for name, key in stored.items()}
        yield {
            name: _variable(path, array, key, follow_links, by_id)
            for name, (key, array) in arrays.items()
            if not str(attribute(array, "NAME")).startswith(_NO_VARIABLE)
        }


def _dimensions(file: Any) -> dict[int, str]:
    """{id of a netCDF dimension: its name}, without following links."""
    names = {}
    for name in (name for name in file if isinstance(name, str)):
        array = file[name] if link(file, name)[0] == h5py().h5l.TYPE_HARD else None
        if isinstance(array, h5py().Dataset) and "_Netcdf4Dimid" in array.attrs and _is_scale(array):
            names[int(attribute(array, "_Netcdf4Dimid"))] = name
    return names


# ---------------------------------------------------------------- reading


def _variable(path: Path, array: Any, key: str, follow_links: bool, by_id: dict[int, str]) -> Variable:
    check_storage(array)
    attributes = {name: value for name in ATTRIBUTES if (value := attribute(array, name)) is not None}
    # By the netCDF convention one-byte integers have no fill value, although the netCDF library stores one.
    numbers = array.shape is not None and array.dtype.kind in "iuf" and array.dtype.itemsize > 1
    fill = array.fillvalue if numbers and array.fillvalue != 0 else None
    opened, stored = partial(opened_dataset, path, key, follow_links), partial(stored_bytes, array.name, array)
    read = partial(_values, array, checked=None if follow_links else path)
    return Variable(array, read, _dims(array, by_id), opened, attributes, fill, stored_bytes=stored)


def _values(array: Any, checked: Path | None) -> np.ndarray:
    """All values. Texts of variable length are checked in the file ``checked`` first, unless that is None."""
    if h5py().check_string_dtype(array.dtype) is None:
        return np.asarray(array[...])
    if array.dtype.kind == "S" or array.ndim != 1:
        return np.asarray(array.asstr()[...], dtype=np.str_)
    if checked is not None:
        check_lengths(checked, array)
    return padded_text(array.name, list(_texts(array)))


def _texts(array: Any) -> Iterator[str]:
    """Read texts of variable length from an array with one axis, until together they are longer than the file.

    In a hostile file many entries may refer to the same text, so that a small file expands to endless text.
    """
    n_left = array.file.id.get_filesize()
    step = max(1, _BLOCK // n_left)
    for start in range(0, len(array), step):
        for text in array.asstr()[start : start + step]:
            n_left -= len(text)
            if n_left < 0:
                raise InputError(f"{array.name!r} holds more text than its file has bytes; accepted: an undamaged file")
            yield text


def _dims(array: Any, by_id: dict[int, str]) -> tuple[Any, ...]:
    """The name of each axis, from its label, its dimension scales, or the ids of netCDF dimensions."""
    if array.shape is None:
        return ()
    if _is_scale(array) and array.ndim == 1:
        return (_scale_name(array),)
    unnamed = [None] * array.ndim
    labels = np.ravel(attribute(array, "DIMENSION_LABELS")).tolist()
    numbers = np.ravel(attribute(array, "_Netcdf4Coordinates")).tolist()
    labels = labels if len(labels) == array.ndim else unnamed
    names = [by_id.get(number) for number in numbers] if len(numbers) == array.ndim else unnamed
    return tuple(
        common_name([_text(label), *map(_scale_name, scales), name])
        for label, scales, name in zip(labels, _scales(array), names, strict=True)
    )


def _scales(array: Any) -> list[list[Any]]:
    """The dimension scales of each axis. HDF5's own functions are not used, because they trust a damaged attribute."""
    key = "DIMENSION_LIST"
    lists = array.attrs.get_id(key) if key in array.attrs else None
    element = None if lists is None or lists.shape != (array.ndim,) else h5py().check_vlen_dtype(lists.dtype)
    if element is None or h5py().check_ref_dtype(element) is not h5py().Reference:
        return [[] for _ in range(array.ndim)]
    return [[array.file[reference] for reference in references if reference] for references in array.attrs[key]]


def _is_scale(array: Any) -> bool:
    return str(attribute(array, "CLASS")) == "DIMENSION_SCALE"


def _scale_name(scale: Any) -> Any:
    label = attribute(scale, "NAME")
    return common_name([(scale.name or "").rpartition("/")[2], None if str(label).startswith(_NO_VARIABLE) else label])


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


# ---------------------------------------------------------------- writing


def write_h5(path: Path, fields: dict[str, np.ndarray]) -> None:
    """Write ``fields`` with dimension scales, as netCDF-4 does, so that xarray can read the file."""
    try:
        _write(path, fields)
    except (OSError, RuntimeError) as error:  # h5py raises RuntimeError where it cannot close the file
        number = re.search(r"errno = ([0-9]+)", str(error))  # its message has many lines, and no errno attribute
        raise OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error)) from error


def _write(path: Path, fields: dict[str, np.ndarray]) -> None:
    package = require("h5py", extra="hdf5", purpose=f"{path.name}: writing .h5")
    arrays = with_dims(fields)
    with package.File(path, "w") as file:
        for name, (values, _) in arrays.items():
            if values.dtype.kind in "mM":
                coded, attributes = encode_times(name, values)
                file.create_dataset(name, data=coded).attrs.update(attributes)
            elif values.dtype.kind in "SU":
                try:
                    file.create_dataset(name, data=values.astype(object), dtype=package.string_dtype())
                except ValueError as error:  # the text holds a lone surrogate or the character NUL
                    raise InputError(
                        f"{name} holds text that .h5 cannot hold ({error}); accepted: .npz, .zarr, or other text"
                    ) from error
            else:
                file.create_dataset(name, data=values)
            # The netCDF library reads the booleans of h5py as bytes. This attribute tells xarray to convert them.
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
        file["data"].attrs.update(coordinates_attribute(fields))
        for name, zone in zones_of(fields).items():
            file[name].attrs["time_zone"] = zone
