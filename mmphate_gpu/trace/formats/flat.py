"""Open .npy files, .npz files and recorders' folders: their arrays by name, with only the headers read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..dims import check_length
from ..readers import rectangles
from .arrays import Variable, Variables, json_of, naming, padded_text, readable, stored_names
from .npy import NpyArray, NpzMember, PickledError, npy_array, npz_members

META = "meta.json"
RECORDING = "mmphate-gpu recording"
_LONGEST_NAME = 255  # characters; no file system accepts a longer name of a file


@contextlib.contextmanager
def open_npy(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    """The array of a .npy as "data". A .npy has no links, so ``follow_links`` changes nothing."""
    yield {"data": _variable(npy_array(path))}


@contextlib.contextmanager
def open_npz(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    """The arrays of a .npz that a trace can use. A .npz has no links, so ``follow_links`` changes nothing."""
    with npz_members(path) as members:
        stored = stored_names(path, members, partial(_shape_in, members))
        yield {field: _variable(members[name]) for field, name in stored.items()}


@contextlib.contextmanager
def open_recording(path: Path, *, follow_links: bool = False) -> Iterator[Variables]:
    """The arrays of a recorder's folder.

    Its meta.json lists the epochs and their .npy files, each of shape (timestep, unit, sample) or (unit, sample).
    """
    with readable(path / META), naming(path / META):
        meta = _meta(path)
        snapshots = _snapshots(path, meta["files"])
        epoch = _epochs(path, meta["epoch"])
        beside = [name for name in ("mask", "label") if name in meta["extra"]]
        yield {
            "data": _variable(snapshots),
            "epoch": Variable(epoch, lambda: epoch, (None,) * epoch.ndim),
        } | {name: _variable(npy_array(path / f"{name}.npy")) for name in beside}


def _shape_in(members: dict[str, NpzMember], name: str) -> tuple[int, ...] | None:
    if not members[name].is_array:
        return None
    try:
        return members[name].shape
    except InputError as error:
        if name == name.lower():  # in capitals it may be anything
            raise
        return error.shape if isinstance(error, PickledError) else None


def _variable(array: NpyArray | NpzMember | Snapshots) -> Variable:
    stored_bytes = getattr(array, "stored_bytes", None)  # only a .npz is compressed
    return Variable(array, array.read, (None,) * len(array.shape), blocks=array.blocks, stored_bytes=stored_bytes)


@dataclass(frozen=True)
class Snapshots:
    """Arrays of one shape in the files of a folder, stacked along a new first axis, the epochs."""

    files: tuple[NpyArray, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """All values, in memory."""
        out = np.empty(self.shape, self.dtype)
        for place, file in zip(out, self.files, strict=True):
            place[...] = file.read()
        return out

    def blocks(self) -> Snapshots | None:
        """Itself, whose `block` reads parts of the values; None if a file is in Fortran order."""
        return self if all(file.header.in_c_order for file in self.files) else None

    def block(self, slices: slice, units: slice, samples: slice) -> np.ndarray:  # (B, m, d)
        n_timesteps = 1 if len(self.shape) == 3 else self.shape[1]
        parts = [
            self.files[epoch].block(timesteps, units, samples)
            for epochs, timesteps in rectangles(slices, n_timesteps)
            for epoch in range(epochs.start, epochs.stop)
        ]
        return np.concatenate(parts).astype(self.dtype, copy=False)

    def check(self) -> None:
        for file in self.files:
            file.check()


def _snapshots(path: Path, names: list[str]) -> Snapshots:
    if any(len(name) > _LONGEST_NAME for name in names):
        raise InputError(
            f"{path / META} has a file name of more than {_LONGEST_NAME} characters; accepted: at most {_LONGEST_NAME}"
        )
    if len(set(names)) < len(names):
        raise InputError(f"{path / META} names a file twice; accepted: one file for each snapshot")
    # Folders in a name are dropped, so that no file outside the recorder's folder is opened.
    files = tuple(npy_array(path / Path(name).name) for name in names)
    shapes = {file.shape for file in files}
    if len(shapes) > 1:
        raise InputError(f"{path} holds snapshots of the shapes {sorted(shapes)}; accepted: the same shape for all")
    return Snapshots(files, (len(files), *files[0].shape), np.result_type(*{file.dtype for file in files}))


def _epochs(path: Path, epochs: list[Any]) -> np.ndarray:
    names = any(isinstance(epoch, str) for epoch in epochs)
    return padded_text(f"{path}: epoch", list(map(str, epochs))) if names else np.asarray(epochs)


def _meta(path: Path) -> dict[str, Any]:
    meta = json_of(path / META)
    if meta.get("format") != RECORDING or meta.get("version") != 1:
        raise InputError(f"{path / META} does not describe a recording; accepted: format {RECORDING!r}, version 1")
    for key in ("epoch", "files", "extra"):
        if not isinstance(meta.get(key), list):
            raise InputError(f"{path / META} has no list {key!r}; accepted: the meta.json that a recorder wrote")
    if not all(isinstance(name, str) for name in meta["files"]):
        raise InputError(f"{path / META} lists files that are no names; accepted: the meta.json that a recorder wrote")
    if not meta["files"]:
        raise InputError(f"{path} holds no snapshot; accepted: a recorder's folder with at least 1")
    check_length("epoch", (len(meta["epoch"]),), len(meta["files"]), "snapshot")
    return meta
