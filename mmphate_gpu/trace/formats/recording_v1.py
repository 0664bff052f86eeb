"""Recorders' folders of version 1: one meta.json lists the epochs, the .npy files and the arrays beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import InputError
from ..dims import check_length
from .arrays import padded_text
from .npy import npy_array
from .recording import META, Listed, Listing

_LONGEST_NAME = 255  # characters; no file system accepts a longer name of a file


def read_listing(folder: Path, meta: dict[str, Any]) -> Listing:
    """What the folder says of itself in ``meta``. Snapshots have the shape (T, M, P) or (M, P)."""
    _check(folder / META, meta)
    epochs = meta["epoch"]
    if any(isinstance(epoch, str) for epoch in epochs):
        epochs = padded_text(f"{folder}: epoch", list(map(str, epochs))).tolist()
    # Folders in a name are dropped, so that no file outside the recorder's folder is opened.
    files = [Path(name).name for name in meta["files"]]
    snapshots = tuple(Listed(epoch, file) for epoch, file in zip(epochs, files, strict=True))
    beside = {name: npy_array(folder / f"{name}.npy") for name in ("mask", "label") if name in meta["extra"]}
    return Listing(meta, snapshots, None, None, beside)


def _check(path: Path, meta: dict[str, Any]) -> None:
    for key in ("epoch", "files", "extra"):
        if not isinstance(meta.get(key), list):
            raise InputError(f"{path} has no list {key!r}; accepted: the meta.json that a recorder wrote")
    names = meta["files"]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} lists files that are no names; accepted: the meta.json that a recorder wrote")
    if any(len(name) > _LONGEST_NAME for name in names):
        raise InputError(
            f"{path} has a file name of more than {_LONGEST_NAME} characters; accepted: at most {_LONGEST_NAME}"
        )
    if len(set(names)) < len(names):
        raise InputError(f"{path} names a file twice; accepted: one file for each snapshot")
    if names:
        check_length("epoch", (len(meta["epoch"]),), len(names), "snapshot")
