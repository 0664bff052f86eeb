"""Open .npy and .npz files: their arrays by name, with only the headers read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...errors import InputError
from .arrays import Variable, Variables, stored_names
from .npy import NpyArray, NpzMember, PickledError, npy_array, npz_members


@contextlib.contextmanager
def open_npy(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    """The array of a .npy as "data". A .npy has no links, so ``follow_links`` changes nothing."""
    yield {"data": variable_of(npy_array(path))}


@contextlib.contextmanager
def open_npz(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    """The arrays of a .npz that a trace can use. A .npz has no links, so ``follow_links`` changes nothing."""
    with npz_members(path) as members:
        stored = stored_names(path, members, partial(_shape_in, members))
        yield {field: variable_of(members[name]) for field, name in stored.items()}


def _shape_in(members: dict[str, NpzMember], name: str) -> tuple[int, ...] | None:
    if not members[name].is_array:
        return None
    try:
        return members[name].shape
    except InputError as error:
        if name == name.lower():  # in capitals it may be anything
            raise
        return error.shape if isinstance(error, PickledError) else None


def variable_of(array: NpyArray | NpzMember) -> Variable:
    stored_bytes = getattr(array, "stored_bytes", None)  # only a .npz is compressed
    return Variable(array, array.read, (None,) * len(array.shape), blocks=array.blocks, stored_bytes=stored_bytes)
