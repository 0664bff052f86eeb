"""Open a recorder's folder: its snapshots as one array, on request without those that are damaged."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime.atomic import listing as shown
from ..readers import rectangles
from . import recording, recording_v1
from .arrays import Variable, Variables, naming, padded_text, readable
from .flat import variable_of
from .npy import NpyArray, npy_array
from .recording import LIST, META, Listed, Listing

_BLOCK = 2**20  # bytes


@contextlib.contextmanager
def open_recording(path: Path, *, follow_links: bool = False, damaged: str = "raise") -> Iterator[Variables]:
    """The arrays of a recorder's folder, whose links `check_files` has checked.

    Checksums are compared when the values are read. With ``damaged="skip"`` they are compared before, to find the
    snapshots that can be loaded.
    """
    with naming(path):
        with readable(path / META):
            listing = read_listing(path)
        intact, problems = intact_snapshots(path, listing, thorough=damaged == "skip")
        if problems and damaged == "raise":
            raise damage(problems)
        if problems:
            warnings.warn(f"{path}: damaged snapshots are left out: {shown(problems)}", RuntimeWarning, 6)
        if not intact:
            raise InputError(f"{path} holds no snapshot; accepted: a recorder's folder with at least 1")
        yield _variables(path, listing, intact, verified=damaged == "skip")


def read_listing(folder: Path) -> Listing:
    """The content of the text files in the folder, of either version."""
    header = recording.read_header(folder)
    return recording_v1.read_listing(folder, header) if header["version"] == 1 else recording.read_listing(folder)


def _variables(
    path: Path, listing: Listing, intact: list[tuple[Listed, NpyArray]], *, verified: bool
) -> dict[str, Variable]:
    listed, files = zip(*intact, strict=True)
    shape, dtype = (len(files), *files[0].shape), np.result_type(*{file.dtype for file in files})
    snapshots = Snapshots(path, files, shape, dtype, () if verified else listed)
    metrics = {name for snapshot in listed for name in snapshot.metrics}
    beside: dict[str, Any] = {"epoch": _epochs(path, [snapshot.epoch for snapshot in listed])} | listing.beside
    beside |= {f"metrics_{name}": _metric(name, listed) for name in sorted(metrics)}
    return {"data": Variable(snapshots, snapshots.read, (None,) * len(shape), blocks=snapshots.blocks)} | {
        name: _array_variable(array) for name, array in beside.items()
    }


def _array_variable(array: np.ndarray | NpyArray) -> Variable:
    return variable_of(array) if isinstance(array, NpyArray) else Variable(array, lambda: array, (None,) * array.ndim)


def _epochs(path: Path, epochs: list[Any]) -> np.ndarray:
    names = any(isinstance(epoch, str) for epoch in epochs)
    return padded_text(f"{path}: epoch", list(map(str, epochs))) if names else np.asarray(epochs)


def _metric(name: str, listed: tuple[Listed, ...]) -> np.ndarray:  # (E,)
    values = (snapshot.metrics.get(name) for snapshot in listed)
    return np.array([np.nan if value is None else value for value in values], np.float64)


# ---------------------------------------------------------------- which snapshots are intact


def intact_snapshots(
    folder: Path, listing: Listing, *, thorough: bool
) -> tuple[list[tuple[Listed, NpyArray]], list[str]]:
    """The intact snapshots with their files, and what is wrong with the others, by epoch and file.

    All headers are read. ``thorough`` also compares every file with its checksum.
    """
    intact: list[tuple[Listed, NpyArray]] = []
    problems = [*listing.problems, *(f"{file}, which is not in {LIST}" for file in listing.unlisted)]
    shape = listing.shape
    for snapshot in listing.snapshots:
        try:
            array = _opened(folder / snapshot.file, shape, listing.dtype)
            if thorough:
                _verify(folder, snapshot)
        except InputError as error:
            problems.append(_problem(folder, snapshot, error))
        else:
            shape = array.shape
            intact.append((snapshot, array))
    return intact, problems


def damage(problems: list[str]) -> InputError:
    """The error that names damaged snapshots."""
    n = f"{len(problems)} snapshots are" if len(problems) > 1 else "a snapshot is"
    return InputError(
        f'{n} damaged: {shown(problems)}; accepted: intact snapshots, or damaged="skip", which loads the others'
    )


def _problem(folder: Path, snapshot: Listed, error: InputError) -> str:
    reason = str(error).partition("; accepted")[0].replace(f"{folder / snapshot.file}", snapshot.file)
    return f"that of epoch {snapshot.epoch} ({reason})"


def _opened(path: Path, shape: tuple[int, ...] | None, dtype: str | None) -> NpyArray:
    if not path.is_file():
        raise InputError(f"{path} is missing")
    array = npy_array(path)
    if shape not in (None, array.shape) or dtype not in (None, array.dtype.name):
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}, and others have {dtype or ''}{shape}")
    return array


def _verify(folder: Path, snapshot: Listed) -> None:
    digest = hashlib.sha256()
    path = folder / snapshot.file
    with readable(path), path.open("rb") as file:
        while part := file.read(_BLOCK):
            digest.update(part)
    if snapshot.sha256 not in (None, digest.hexdigest()):
        raise InputError(f"{path} differs from its checksum")


@dataclass(frozen=True)
class Snapshots:
    """Arrays of one shape in the files of a folder, stacked along a new first axis, the epochs.

    ``unverified`` has the snapshots whose checksums are still to be compared.
    """

    folder: Path
    files: tuple[NpyArray, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    unverified: tuple[Listed, ...]

    def read(self) -> np.ndarray:
        """All values, in memory."""
        self._verify()
        out = np.empty(self.shape, self.dtype)
        for place, file in zip(out, self.files, strict=True):
            place[...] = file.read()
        return out

    def blocks(self) -> Snapshots | None:
        """Itself, whose `block` reads parts of the values; None if a file is in Fortran order.

        One pass over the files compares them with their checksums first.
        """
        if not all(file.header.in_c_order for file in self.files):
            return None
        self._verify()
        return self

    def _verify(self) -> None:
        problems = []
        for snapshot in self.unverified:
            try:
                _verify(self.folder, snapshot)
            except InputError as error:
                problems.append(_problem(self.folder, snapshot, error))
        if problems:
            raise damage(problems)

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
