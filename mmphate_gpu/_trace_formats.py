"""What .zarr and .h5 share: arrays by name whose values are still in the file, judged before they are read."""

from __future__ import annotations

import contextlib
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ._trace_dims import AXES, axes_of, is_meant
from ._trace_shapes import LONGEST_TEXT
from .ops.memory import check_fits, format_bytes
from .params import InputError

# What numpy, zipfile, json, zarr and h5py raise on damaged files. The base classes stand for many: RecursionError and
# NotImplementedError are RuntimeErrors, ZeroDivisionError is an ArithmeticError, KeyError is a LookupError.
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
# The arrays beside the data that a trace can use.
BESIDE = ("slice", *AXES, "label", "mask", "axes")
# Bounds on what a file may claim. A constant mask of 2 GB compresses to 1 / 32,000 (zstd); no honest file goes further.
_SMALL = 2**26  # bytes that nobody needs to ask about
_MOST_COMPRESSED = 100_000
_MOST_CHUNKS = 10_000_000
_FEW_CHUNKS = 50_000  # zarr and HDF5 take up to 4 kB and 0.2 ms for each chunk of an array
_SMALL_CHUNK = 1024  # bytes
_LONGEST_TEXT, _MOST_ENTRIES = 1000, 64  # characters and entries of an attribute


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a broken file raises into an `InputError` of one sentence that names the file."""
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        message = " ".join(str(error).split("\n")[0].split())[:200]
        raise InputError(f"{path} cannot be read: {type(error).__name__}: {message}") from error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path of the file before the message of an `InputError`."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(str(path)):  # by who opened the file once more
            raise
        raise type(error)(f"{path}: {error}") from error


def data_key(path: Path, names: Any) -> str:
    """The one of ``names`` that holds the trace."""
    keys = [key for key in ("data", "trace") if key in names]
    if len(keys) != 1:
        shown = sorted(name[:100] for name in names)[:20]
        raise InputError(f"{path} holds {shown}; accepted: the trace as either 'data' or 'trace'")
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
        if field in BESIDE and field not in names and is_meant(field, shape_of(name) or (), shape or ()):
            stored[field] = name
    return stored | {name: name for name in names if name in BESIDE} | {"data": data}


# ---------------------------------------------------------------- checks


@dataclass(frozen=True)
class Layout:
    """How an array claims to lie in a file.

    Attributes
    ----------
    itemsize : bytes of an entry.
    chunk : the shape of what is stored in one piece; None if that is the array.
    part : the shape of the smallest part that can be read alone; other than ``chunk`` where chunks hold chunks.
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
    """Refuse an array that claims far more than its file holds, or more chunks than can be read.

    Parameters
    ----------
    what : the file and the array, for the message.
    stored_bytes : counts the bytes of its values in the file; called only where the answer matters.

    Raises
    ------
    InputError
        Entries too long; too many or too small chunks; a chunk beyond the memory; values or a chunk of more than
        64 MiB and 100,000 times what is stored.
    """
    if layout.itemsize > LONGEST_TEXT:
        raise InputError(f"{what} has entries of {layout.itemsize} bytes; accepted: up to {LONGEST_TEXT}")
    n_chunks, claimed = layout.n_chunks, max(layout.n_bytes, layout.chunk_bytes)
    tiny = n_chunks > _FEW_CHUNKS and layout.n_bytes < _SMALL_CHUNK * n_chunks
    if n_chunks > _MOST_CHUNKS or tiny:
        raise InputError(
            f"{what} has {n_chunks} chunks of shape {layout.part}; accepted: up to {_FEW_CHUNKS} chunks, "
            f"or {_MOST_CHUNKS} of {_SMALL_CHUNK} bytes or more"
        )
    if claimed > _SMALL or n_chunks > _FEW_CHUNKS:
        n_stored = stored_bytes()
        if claimed > max(_SMALL, _MOST_COMPRESSED * n_stored) or n_chunks > max(_FEW_CHUNKS, n_stored):
            raise InputError(
                f"{what} claims {format_bytes(claimed)} in {n_chunks} chunks, of which {format_bytes(n_stored)} "
                "are stored; accepted: a file that holds its values"
            )
    check_fits(f"one chunk of {what}", layout.chunk_bytes, torch.device("cpu"), remedy="store it in smaller chunks")


def check_attribute(what: str, key: str, value: Any) -> None:
    """Refuse an attribute of a size that no number, date or word has, before something is made of it."""
    entries = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    entries = entries if isinstance(entries, list) else [entries]
    nested = any(isinstance(entry, list | dict) for entry in entries)
    if nested or len(entries) > _MOST_ENTRIES or any(len(str(entry)) > _LONGEST_TEXT for entry in entries):
        raise InputError(
            f"{what} has the attribute {key}, which is nested or too long; accepted: a number, text of up to "
            f"{_LONGEST_TEXT} characters, or a list of up to {_MOST_ENTRIES} of them"
        )


def padded_text(what: str, texts: Sequence[str]) -> np.ndarray:
    """``texts`` as a NumPy array, which gives every text the length of the longest.

    Raises
    ------
    InputError
        That takes more than 64 MiB and a hundred times what the texts take.
    """
    lengths = [len(text) for text in texts]
    needed = 4 * len(texts) * max(lengths, default=0)
    if needed > max(_SMALL, 400 * sum(lengths)):
        raise InputError(f"{what} holds a text of {max(lengths)} characters among {len(texts)}; accepted: short texts")
    return np.array(texts, dtype=np.str_)


# ---------------------------------------------------------------- writing


def with_dims(fields: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, list[str]]]:
    """{name in a file: (array, names of its dimensions)}; these names replace the field "axes"."""
    axes = list(axes_of(fields["data"].ndim))
    along = {"data": axes, "mask": axes, "label": ["sample"]} | {name: [name] for name in ("slice", *AXES)}
    names = {"epoch": axes[0]}
    return {names.get(name, name): (v, along[names.get(name, name)]) for name, v in fields.items() if name != "axes"}
