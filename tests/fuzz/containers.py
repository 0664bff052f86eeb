"""Change the content of a .h5 through h5py, because a file with random damaged bytes is seldom readable."""

from __future__ import annotations

import contextlib
import io
import random
from typing import Any

import numpy as np

_NAMES = ("data", "trace", "mask", "label", "epoch", "timestep", "unit", "sample", "axes", "Label", "DATA", "x")
_ATTRIBUTES = (
    *("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "dtype", "units", "calendar"),
    *("_Netcdf4Dimid", "_Netcdf4Coordinates", "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"),
    *("coordinates", "valid_range", "_ARRAY_DIMENSIONS", "flag_values"),
)
_VALUES: tuple[Any, ...] = (
    *(
        0,
        1,
        -1,
        2**40,
        1.5,
        0.0,
        -0.0,
        np.nan,
        np.inf,
        1e308,
        True,
        "x",
        "",
        "true",
        "bool",
        "days since 1-1-1",
        b"\xff",
    ),
    *("seconds since 9999999999-01-01", "DIMENSION_SCALE", "DIMENSION_SCALX", "e" * 5000, b"DIMENSION_SCALX\0"),
    *([1, 2], [[1]], [], ["a", "b"], [np.nan, 1.0], np.float16(2), np.complex64(1j), np.uint64(2**64 - 1)),
    *(np.zeros(3, "V8"), np.zeros(2, [("a", "<f4")]), np.bytes_("true"), np.int8(-128), np.float32("inf")),
)
_DTYPES = (
    *("<f4", ">f8", "<f2", "|i1", "<u8", "|b1", "|S4", "|V8", "<c8", "<c16", "<i8", "<U5", "|O"),
    *([("a", "<f4")], [("a", "<f4"), ("b", "<i8")], ("<f4", (3,))),
)
_SHAPES = (
    *(
        (4, 3, 2, 5),
        (4, 2, 5),
        (5,),
        (4,),
        (),
        (0,),
        (4, 0, 2, 5),
        (3, 5),
        (1, 1, 1, 1),
        (120,),
        (2, 3, 4, 2, 5),
        (1,) * 32,
    ),
    *((2**31, 3, 2, 5), (2**20, 2**20), (2**40,), (2**62,), (2**31, 2**31, 2), (10**6, 3, 2, 5), (10**8,)),
)
# Exceptions of h5py for changes that HDF5 refuses, such as an attribute beyond 64 kB or the dims of a group.
_IMPOSSIBLE = (TypeError, ValueError, OSError, LookupError, RuntimeError, OverflowError, AttributeError)


def mutated_h5(rng: random.Random, content: bytes) -> bytes:
    """Make one to three changes of arrays, attributes and links."""
    import h5py

    buffer = io.BytesIO(content)
    chosen = rng.choices(
        (_attribute, _attribute, _array, _array, _remove, _link, _dims, _values), k=rng.randrange(1, 4)
    )
    with h5py.File(buffer, "r+") as file:
        # Scales come first, because HDF5 2.0 itself crashes on some values of their attributes.
        for change in sorted(chosen, key=lambda change: change is not _dims):
            with contextlib.suppress(*_IMPOSSIBLE):
                change(rng, file)
    return buffer.getvalue()


def _attribute(rng: random.Random, file: Any) -> None:
    item = file[rng.choice((*file, "/"))]
    name = rng.choice((*item.attrs, *_ATTRIBUTES))
    if rng.random() < 0.15:
        del item.attrs[name]
    elif rng.random() < 0.5 and isinstance(value := rng.choice(_VALUES), str):
        _put_text(item, name, value)
    else:
        item.attrs[name] = rng.choice(_VALUES)


def _put_text(item: Any, name: str, value: str) -> None:
    """An attribute of fixed length that ends with a zero, as programs in C write it."""
    import h5py

    text = h5py.h5t.C_S1.copy()
    text.set_size(len(value) + 1)
    with contextlib.suppress(KeyError):
        del item.attrs[name]
    attribute = h5py.h5a.create(item.id, name.encode(), text, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(value.encode(), dtype=f"S{len(value) + 1}"))


def _array(rng: random.Random, file: Any) -> None:
    """Replace an array by another; of a large new one, most values are not stored."""
    import h5py

    name, shape = rng.choice((*file, *_NAMES)), rng.choice(_SHAPES)
    dtypes = (*_DTYPES, h5py.string_dtype(), h5py.vlen_dtype(np.float32), h5py.enum_dtype({"a": 1}), h5py.ref_dtype)
    dtype = rng.choice(dtypes)
    if name in file:
        del file[name]
    if rng.random() < 0.1:
        file[name] = h5py.Empty("f4")
        return
    options: dict[str, Any] = {}
    if shape and min(shape) > 0 and rng.random() < 0.6:
        chunks = rng.choice((shape, (1,) * len(shape), tuple(min(size, 1000) for size in shape)))
        filters = rng.choice(({}, {"compression": "gzip"}, {"shuffle": True}, {"scaleoffset": 2}, {"fletcher32": True}))
        options = {"chunks": chunks, **filters}
    file.create_dataset(name, shape, dtype, fillvalue=rng.choice((None, None, 1)), **options)


def _remove(rng: random.Random, file: Any) -> None:
    name = rng.choice(list(file))
    if rng.random() < 0.5:
        file.move(name, rng.choice(_NAMES))
    else:
        del file[name]


def _link(rng: random.Random, file: Any) -> None:
    import h5py

    name = rng.choice((*file, *_NAMES))
    if name in file:
        del file[name]
    links = (
        *(h5py.SoftLink("/"), h5py.SoftLink("/" + name), h5py.SoftLink("/nothing"), h5py.SoftLink("/data")),
        *(h5py.ExternalLink("/dev/zero", "/data"), h5py.ExternalLink("mutated-trace.h5", "/" + name)),
    )
    draw = rng.randrange(8)
    if draw < len(links):
        file[name] = links[draw]
    elif draw == 6:
        file.create_group(name)["data"] = 1.0
    else:
        file[name] = np.dtype([("a", "<f4")])  # a type, no array


def _dims(rng: random.Random, file: Any) -> None:
    array, other = file[rng.choice(list(file))], file[rng.choice(list(file))]
    draw = rng.randrange(3)
    if draw == 0:
        array.make_scale(
            rng.choice(("", "epoch", "unit", "This is a netCDF dimension but not a netCDF variable", "\xff"))
        )
    elif draw == 1:
        array.dims[rng.randrange(array.ndim)].label = rng.choice((*_NAMES, "", "data", "x" * 300))
    else:
        other.make_scale()
        array.dims[rng.randrange(array.ndim)].attach_scale(other)


def _values(rng: random.Random, file: Any) -> None:
    array = file[rng.choice(list(file))]
    value = rng.choice((0, -999, np.nan, np.inf, 2**40, True, "x", "\x00", b"\xff\xfe", "\U0010ffff"))
    if array.size < 1000:
        array[...] = value
