"""What the readers of all formats share: arrays whose values are still in the file, and checks before they are read."""

from __future__ import annotations

import contextlib
import json
import lzma
import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...runtime.memory import check_fits, format_bytes
from ..dims import AXES, BESIDE_AXES, LONGEST_TEXT, ZONES, axes_of, data_key, is_meant, is_metric
from ..stored import Blocks

# Exceptions of numpy, zipfile, json, zarr and h5py on damaged files. Some are listed by their base classes, such as
# RecursionError by RuntimeError and KeyError by LookupError.
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
# The names of the arrays other than the data and the metrics that a trace can use.
BESIDE = ("slice", *AXES, *BESIDE_AXES, "mask", "axes", *ZONES.values())
# Limits on the sizes that the metadata of a file may claim. The most compressible array of an honest file is a constant
# mask: 2 GB of it compress to 1 / 32,000 (zstd).
_SMALL = 2**26  # bytes; an array below this is not compared with what the file stores
_MOST_COMPRESSED = 100_000  # claimed bytes for each stored byte
_MOST_COMPRESSED_DATA = 900  # claimed bytes for each stored byte; deflate compresses zeros to 1 / 1,030
MOST_METADATA = 2**22  # bytes; parsed JSON takes up to twenty times as much memory
_MOST_CHUNKS = 10_000_000
_FEW_CHUNKS = 50_000  # each chunk of an array costs zarr and HDF5 up to 4 kB and 0.2 ms
_SMALL_CHUNK = 1024  # bytes; an array of more than _FEW_CHUNKS chunks needs chunks of this size on average
_LONGEST_TEXT, _MOST_ENTRIES = 8000, 1000  # characters and entries of an attribute


_ADDRESS = re.compile(" at 0x[0-9a-f]+")  # of a Python object; it differs in every process


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the exceptions that a damaged file causes into an `InputError` of one sentence that names the file."""
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        message = " ".join(str(error).split("\n")[0].split())[:200]
        message = f"{type(error).__name__}: {_ADDRESS.sub('', message)}".removesuffix(": ")
        raise InputError(f"{path} cannot be read: {message}") from error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path of the file before the message of an `InputError`."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(str(path)):  # the message names the file already
            raise
        raise type(error)(f"{path}: {error}") from error


@dataclass(frozen=True)
class Variable:
    """An array whose values are still in the file.

    Attributes
    ----------
    array : an array of any library, of which only ``shape`` and ``dtype`` are read.
    read : returns all values.
    dims : for each dimension its name, or None.
    opened : opens an array of a .zarr or .h5 again, to read blocks of it; None for other formats and for text. It
        can be pickled, unlike a nested function.
    attributes : the attributes of the array that are listed in `ATTRIBUTES`.
    fill : the value that stands for entries that were never written, or None.
    blocks : returns the values as `Blocks`, or None if they have to be read at once; None for .zarr and .h5.
    stored_bytes : counts the bytes that the values take in the file; None if they cannot be compressed.
    """

    array: Any
    read: Callable[[], Any]
    dims: tuple[Any, ...]
    opened: Callable[[], AbstractContextManager[Any]] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    fill: Any = None
    blocks: Callable[[], Blocks | None] | None = None
    stored_bytes: Callable[[], int] | None = None


Variables = dict[str, Variable]


def stored_names(path: Path, names: Iterable[str], shape_of: Callable[[str], Any]) -> dict[str, str]:
    """{field of a trace: name of its array in the file}. Names in capitals count too, if the shape of the array fits.

    ``shape_of`` gives the shape of an array by its name in the file, and None if that name is not an array.
    """
    names = sorted(names)
    data = data_key(f"{path} holds", names)
    shape = shape_of(data)
    stored = {}
    for name in names:
        field = name.lower()
        if field in BESIDE and field not in names and is_meant(field, shape_of(name) or (), shape or ()):
            stored[field] = name
    return stored | {name: name for name in names if name in BESIDE or is_metric(name)} | {"data": data}


# ---------------------------------------------------------------- checks


@dataclass(frozen=True)
class Layout:
    """How an array lies in a file, according to its metadata.

    ``chunk`` is the shape of what is stored separately, or None. ``part`` is the shape of the smallest part that can be
    read alone: smaller than ``chunk`` if chunks consist of chunks.
    """

    shape: tuple[int, ...]
    itemsize: int
    chunk: tuple[int, ...] | None
    part: tuple[int, ...] | None

    @property
    def n_chunks(self) -> int:
        sizes = zip(self.shape, self.part or self.shape, strict=True)
        return math.prod(-(-size // part) for size, part in sizes if size)

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.itemsize

    @property
    def chunk_bytes(self) -> int:
        return math.prod(self.chunk or ()) * self.itemsize


def check_layout(what: str, layout: Layout, stored_bytes: Callable[[], int]) -> None:
    """Refuse an array that claims far more values than its file stores, or more chunks than can be read.

    The values or a chunk may take 64 MiB, or 100,000 times their bytes in the file, which ``stored_bytes`` counts; it
    is called only if the result matters. Entries must not be too long, nor chunks too many or too small, and a chunk
    has to fit in memory. ``what`` names the file or the array in the message.
    """
    if layout.itemsize > LONGEST_TEXT:
        raise InputError(f"{what} has entries of {layout.itemsize} bytes; accepted: at most {LONGEST_TEXT}")
    n_chunks, claimed = layout.n_chunks, max(layout.n_bytes, layout.chunk_bytes)
    tiny = n_chunks > _FEW_CHUNKS and layout.n_bytes < _SMALL_CHUNK * n_chunks
    if n_chunks > _MOST_CHUNKS or tiny:
        raise InputError(
            f"{what} has {n_chunks} chunks of shape {layout.part}; accepted: at most {_FEW_CHUNKS} chunks, "
            f"or {_MOST_CHUNKS} of {_SMALL_CHUNK} bytes or more; store it in larger chunks, or as .npz"
        )
    if claimed > _SMALL or n_chunks > _FEW_CHUNKS:
        n_stored = stored_bytes()
        if claimed > max(_SMALL, _MOST_COMPRESSED * n_stored) or n_chunks > max(_FEW_CHUNKS, n_stored):
            raise InputError(
                f"{what} claims {format_bytes(claimed)} in {n_chunks} chunks, of which {format_bytes(n_stored)} "
                "are stored; accepted: a file that stores its values"
            )
    check_fits(f"one chunk of {what}", layout.chunk_bytes, torch.device("cpu"), remedy="store it in smaller chunks")


def check_attribute(what: str, key: str, value: Any) -> None:
    """Refuse an attribute that is too long for a number, a date or a word, before it is used."""
    entries = value.ravel().tolist() if isinstance(value, np.ndarray | np.generic) else value
    entries = entries if isinstance(entries, list) else [entries]
    nested = any(isinstance(entry, list | dict) for entry in entries)
    if nested or len(entries) > _MOST_ENTRIES or any(len(str(entry)) > _LONGEST_TEXT for entry in entries):
        raise InputError(
            f"{what} has the attribute {key}, which is nested or too long; accepted: a number, text of at most "
            f"{_LONGEST_TEXT} characters, or a list of at most {_MOST_ENTRIES} of them"
        )


def padded_text(what: str, texts: Sequence[str]) -> np.ndarray:
    """``texts`` as a NumPy array, in which every text takes as many bytes as the longest.

    `InputError` refuses a text that is longer than any name, and an array of more than 64 MiB that would take more than
    a hundred times the bytes of the texts.
    """
    lengths = [len(text) for text in texts]
    longest = max(lengths, default=0)
    if 4 * longest > LONGEST_TEXT or 4 * len(texts) * longest > max(_SMALL, 400 * sum(lengths)):
        raise InputError(f"{what} holds {len(texts)} texts, one of {longest} characters; accepted: short texts")
    return np.array(texts, dtype=np.str_)


def json_of(file: Path) -> dict[str, Any]:
    """The object in a .json that describes other files; `InputError` if it is too large or something else."""
    if file.stat().st_size > MOST_METADATA:
        raise InputError(f"{file} has {file.stat().st_size} bytes; accepted: metadata of at most {MOST_METADATA}")
    content = json.loads(file.read_bytes())
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}; accepted: a JSON object")
    return content


def check_compression(what: str, n_bytes: int, stored_bytes: Callable[[], int]) -> None:
    """Refuse values that are nearly all the same, by how far they are compressed: 64 MiB and more.

    A megabyte of a file would take gigabytes of memory, and a trace of constant units has no picture.
    """
    if n_bytes > _SMALL and n_bytes > _MOST_COMPRESSED_DATA * (n_stored := stored_bytes()):
        sizes = f"{format_bytes(n_bytes)}, of which {format_bytes(n_stored)} are stored"
        raise InputError(f"{what} has values of {sizes}, so nearly all are equal; accepted: values that differ")


# ---------------------------------------------------------------- writing


def coordinates_attribute(names: Iterable[str]) -> dict[str, str]:
    """The attribute by which netCDF and xarray know which arrays beside the data are its coordinates."""
    beside = [name for name in names if name in BESIDE_AXES or is_metric(name)]
    return {"coordinates": " ".join(beside)} if beside else {}


def with_dims(fields: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, list[str]]]:
    """{name in a file: (array, names of its dimensions)}, without axes and time zones, which become attributes."""
    axes = list(axes_of(fields["data"].ndim))
    short = [axes[-3], axes[-1]] if "mask" in fields and fields["mask"].ndim == 2 else axes
    along = {"data": axes, "mask": short} | {name: [name] for name in ("slice", *AXES)}
    along |= {name: [axis] for name, axis in BESIDE_AXES.items()}
    along |= {name: axes[:1] for name in fields if is_metric(name)}
    names = {name: axes[0] if name == "epoch" else name for name in fields if name not in ("axes", *ZONES.values())}
    return {stored: (fields[name], along[stored]) for name, stored in names.items()}


def zones_of(fields: dict[str, np.ndarray]) -> dict[str, str]:
    """{name of a coordinate in a file: name of its time zone}."""
    first = axes_of(fields["data"].ndim)[0]
    return {first if axis == "epoch" else axis: str(fields[key]) for axis, key in ZONES.items() if key in fields}
