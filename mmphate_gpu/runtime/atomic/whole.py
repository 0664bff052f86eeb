"""Write beside a target, flush to disk, and move the result to the target by one rename or exchange."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...errors import InputError
from ..paths import writable
from .rename import EXCHANGE, UNSUPPORTED, move, renamed
from .scratch import OLD, READY, abandoned_scratches, new_scratch, unlock

# Seconds after each attempt to delete a folder. After an error threads of zarr may still write into it.
WAITS = (0.01, 0.1, 0.5, 0)

FLUSHES = 16  # files that are flushed at once


class PathExistsError(InputError):
    """The path exists, and ``overwrite`` is False."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"{path} exists; accepted: a new path, or overwrite=True")


@contextlib.contextmanager
def whole_file(path: Path, *, overwrite: bool, sweep: bool = True, flush_folder: bool = True) -> Iterator[Path]:
    """Give a temporary path to write a file to; once the block has succeeded, move that file to ``path``.

    A reader sees the old file or the complete new one. After an error ``path`` is unchanged, and no other file is left.
    Of several calls without ``overwrite`` exactly one succeeds. The new file has the mode of the file that it replaces,
    or else the mode that `open` gives. A link at ``path`` is replaced, and its target stays unchanged.

    ``sweep`` deletes the scratch folders that killed processes have left for ``path``; it lists the folder of ``path``,
    which takes long if that holds many files. Pass ``flush_folder=False`` if a later write flushes the same folder, and
    ``path`` is of no use before.

    Raises `PathExistsError` if ``path`` exists and ``overwrite`` is False, and `InputError` if ``path`` is a folder,
    its folder does not exist, or the file system refuses the write.
    """
    with writable(path):
        if not overwrite and os.path.lexists(path):
            raise PathExistsError(path)
        if path.is_dir():
            raise InputError(f"{path} is a folder; accepted: the path of a file to write")
        with scratch_folder(path, sweep=sweep) as scratch:
            target, new = scratch.with_name(path.name), scratch / path.name
            yield new
            _flush(new)
            if overwrite:
                _keep_mode(target, new)
                os.replace(new, target)
            else:
                _move(new, target)
            if flush_folder:
                _sync(scratch.parent)


def nothing(folder: Path) -> list[str]:
    """An empty list: nothing in ``folder`` has to be kept."""
    return []


def listing(names: list[str]) -> str:
    """The first three of ``names``, and how many more there are, as text for messages."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextlib.contextmanager
def whole_folder(path: Path, *, overwrite: bool, others: Callable[[Path], list[str]] = nothing) -> Iterator[Path]:
    """Give a temporary path to make a folder at; once the block has succeeded, move that folder to ``path``.

    The rest is as for `whole_file`. Where the system can exchange two names, ``path`` exists at every moment. Elsewhere
    it is missing for a moment between two renames. If the process is killed in that moment, the next write puts the old
    folder back.

    ``others`` lists the names in a folder that must not be deleted. If there are any, `InputError` is raised right
    before the exchange. If a file was added meanwhile, the old folder is kept beside ``path``, and a warning names it.
    """
    if not overwrite and os.path.lexists(path):
        raise PathExistsError(path)
    with scratch_folder(path, others) as scratch:
        target, new = scratch.with_name(path.name), scratch / path.name
        yield new
        with writable(path):
            _flush(new)
            os.rename(new, scratch / READY)
            if overwrite:
                _replace_folder(target, scratch, others)
            else:
                _move(scratch / READY, target)
            _sync(scratch.parent)


def _replace_folder(path: Path, scratch: Path, others: Callable[[Path], list[str]]) -> None:
    while True:
        with contextlib.suppress(FileExistsError):
            return move(scratch / READY, path)
        with contextlib.suppress(FileNotFoundError):  # another process has moved it meanwhile
            if names := names_to_keep(path, others):
                raise InputError(
                    f"{path} holds {listing(names)}, which would be deleted; accepted: a folder without other files"
                )
            _keep_mode(path, scratch / READY)
            if renamed(scratch / READY, path, EXCHANGE):
                return None
            _set_aside(scratch / OLD, path, others)  # from an earlier round, in which another process took the name
            os.rename(path, scratch / OLD)


def names_to_keep(path: Path, others: Callable[[Path], list[str]]) -> list[str]:
    """What ``others`` lists in ``path``, all of it in one folder. Raises FileNotFoundError if there is none."""
    while True:
        inode = path.lstat().st_ino
        names = others(path)
        if not names or path.lstat().st_ino == inode:  # else another process has replaced the folder meanwhile
            return names


def _move(source: Path, path: Path) -> None:
    try:
        move(source, path)
    except FileExistsError as error:
        raise PathExistsError(path) from error


def _keep_mode(path: Path, new: Path) -> None:
    if path.exists() and not path.is_symlink():
        shutil.copymode(path, new)


@contextlib.contextmanager
def scratch_folder(path: Path, others: Callable[[Path], list[str]] = nothing, *, sweep: bool = True) -> Iterator[Path]:
    """Make a folder beside ``path``, because renames work within one file system only, and delete it afterwards.

    Its path is absolute and without links. If the working folder is ``path`` and is replaced, or the block changes the
    working folder, ``path`` may lead elsewhere afterwards.
    """
    with writable(path):
        if not path.parent.is_dir():
            raise InputError(f"{path} is in a folder that does not exist; accepted: an existing folder")
        target = Path(os.path.realpath(path.parent), path.name)
        for abandoned, its_lock in abandoned_scratches(target) if sweep else ():
            with contextlib.suppress(OSError):
                _complete(abandoned, target)
                _clear(abandoned, its_lock, target, others)
        scratch, lock = new_scratch(target)
    try:
        yield scratch
    except InputError as error:
        # Messages have the path as the user wrote it.
        error.args = (str(error).replace(str(scratch / path.name), str(path)).replace(str(target), str(path)),)
        raise
    finally:
        with writable(path):
            _clear(scratch, lock, target, others)


def _complete(scratch: Path, path: Path) -> None:
    """Move the new folder to an empty ``path``: where `move` takes two steps, a process was killed between them."""
    if (scratch / READY).is_dir() and not (scratch / OLD).exists() and path.is_dir() and not path.is_symlink():
        with contextlib.suppress(OSError):  # the folder is not empty
            os.rename(scratch / READY, path)


def _clear(scratch: Path, lock: int | None, path: Path, others: Callable[[Path], list[str]]) -> None:
    """Delete ``scratch``. First put the old folder in it back to ``path``, if the new one was not moved there."""
    try:
        if (scratch / OLD).exists() and (scratch / READY).exists():
            with contextlib.suppress(OSError):
                path.rmdir()  # an empty folder that `move` made to reserve the name
            with contextlib.suppress(FileExistsError):
                move(scratch / OLD, path)
        for name in (READY, OLD):
            _set_aside(scratch / name, path, others)
    finally:
        unlock(lock)
    with contextlib.suppress(OSError):
        _delete(scratch / path.name)  # before the lock file, as without it only an empty folder counts as scratch
    _delete(scratch)


def _set_aside(item: Path, path: Path, others: Callable[[Path], list[str]]) -> None:
    """Delete a folder that lies in a scratch folder, or keep it beside ``path`` if it holds names to keep."""
    if not os.path.lexists(item):
        return
    if names := others(item):
        kept = path.with_name(f"{item.parent.name.removeprefix('.').removesuffix('.partial')}.kept")
        move(item, kept)
        with warnings.catch_warnings():
            # Whatever the filters say: nothing else names the folder, and an error would hide that ``path`` is written.
            warnings.simplefilter("always")
            reason = f"because it holds {listing(names)}"
            warnings.warn(f"{path} was replaced; the old folder is kept as {kept}, {reason}", stacklevel=2)
    else:
        unneeded = item.with_name(path.name)  # renamed first: a half-deleted folder must not look complete
        _delete(unneeded)
        os.rename(item, unneeded)
        _delete(unneeded)


def _delete(item: Path) -> None:
    if item.is_dir() and not item.is_symlink():
        for seconds in WAITS:
            shutil.rmtree(item, ignore_errors=True)
            if not item.exists():
                return
            time.sleep(seconds)
    else:
        item.unlink(missing_ok=True)


# ---------------------------------------------------------------- to disk


def _flush(path: Path) -> None:
    """Wait until ``path`` is on the disk, with all files in it if it is a folder."""
    if not path.is_dir():
        return _sync(path)
    paths = [Path(folder, name) for folder, _, files in os.walk(path) for name in ["", *files]]
    # A disk flushes many files together sooner than one after another. One call of syncfs would take no longer, but
    # it also waits for the files of all other programs, and only Linux has it.
    with ThreadPoolExecutor(FLUSHES) as pool:
        list(pool.map(_sync, paths))
    return None


def _sync(path: Path) -> None:
    is_folder = path.is_dir()
    if is_folder and sys.platform == "win32":
        return  # Windows cannot open a folder to flush it
    try:
        descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some file systems cannot flush a folder, and a folder that can be written may not be readable.
        if not is_folder or error.errno not in {*UNSUPPORTED, errno.EACCES}:
            raise
