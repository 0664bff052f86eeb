"""The labels of samples in a file: .npy, .npz or text. Nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from ..trace.formats.npy import NpyArray, NpzMember

ACCEPTED = "a .npy, a .npz with the entry label or labels, or a .csv or .txt with a label a line"
TEXTS = (".csv", ".txt")
MAX_TEXT = 1 << 26  # bytes; a million labels have some millions


def read_labels(path: Path, n_samples: int) -> np.ndarray:  # (P,)
    """The labels of ``n_samples`` samples: whole numbers, numbers, or else text.

    Raises
    ------
    InputError
        The file is missing, damaged or of another format, or has another number of labels. The header of an array is
        checked before its values are read.
    """
    from ..runtime.paths import check_files
    from ..trace.formats.arrays import readable

    with readable(path):
        if not path.is_file():
            raise InputError(f"--labels {path} is no file; accepted: {ACCEPTED}")
        check_files(path)
        return _of_text(path, n_samples) if path.suffix.lower() in TEXTS else _of_arrays(path, n_samples)


def _of_text(path: Path, n_samples: int) -> np.ndarray:
    import numpy as np

    if path.stat().st_size > MAX_TEXT:
        raise InputError(f"--labels {path} has more than {MAX_TEXT} bytes; accepted: {ACCEPTED}")
    lines = path.read_text(encoding="utf-8-sig").replace(",", "\n").split("\n")
    words = [word for line in lines if (word := line.strip())]
    _check(path, (len(words),), n_samples, ", without a header")
    for dtype in (np.int64, np.float64):
        try:
            return np.array(words, dtype=dtype)
        except (ValueError, OverflowError):
            continue
    return np.array(words)


def _of_arrays(path: Path, n_samples: int) -> np.ndarray:
    from ..trace.formats.npy import npy_array, npz_members

    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _read(path, npy_array(path), n_samples)
    if suffix != ".npz":
        raise InputError(f"--labels {path} has an unknown ending; accepted: {ACCEPTED}")
    with npz_members(path) as members:
        name = next((name for name in ("label", "labels") if name in members), None)
        if name is None:
            raise InputError(f"--labels {path} has no entry label or labels; accepted: {ACCEPTED}")
        return _read(path, members[name], n_samples)


def _read(path: Path, array: NpyArray | NpzMember, n_samples: int) -> np.ndarray:
    from ..trace.formats.arrays import naming

    _check(path, array.shape, n_samples)
    with naming(path):
        return array.read()


def _check(path: Path, shape: tuple[int, ...], n_samples: int, more: str = "") -> None:
    if shape != (n_samples,):
        accepted = f"({n_samples},), a label for each sample{more}"
        raise InputError(f"--labels {path} has shape {shape}; accepted: {accepted}")
