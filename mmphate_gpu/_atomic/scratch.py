"""Scratch folders beside a target: hidden, closed to other users, and locked while their process lives.

The lock tells a later process whether the maker of a scratch folder lives. A lock belongs to an open file, so it ends
with its process. The number of a process would not do: a process in another container may have the same number. Some
network file systems hide the locks of one host from the others. So the name of the lock says on which host and in which
run of its kernel it was made, and a folder from elsewhere is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Names in a scratch folder: the whole new folder, whose place the old one takes in an exchange, and the old folder
# where there are no exchanges. What is still being written, and what may be deleted, has the name of the target.
READY, OLD = ".ready", ".old"
_SUFFIX = ".partial"
_LOCK = re.compile(r"mmphate-gpu\.(?P<host>\w*)\.(?P<boot>\w*)\.lock")


def new_scratch(path: Path) -> tuple[Path, int | None]:
    """A new folder beside ``path`` with a name that nobody can guess, and the descriptor of its lock.

    The lock is None on a file system without locks. A folder without a lock is never taken for abandoned.
    """
    while True:
        scratch = Path(tempfile.mkdtemp(_SUFFIX, _prefix(path.name), path.parent))
        try:
            with contextlib.suppress(FileNotFoundError):  # another process took the empty folder for abandoned
                return scratch, _locked(scratch / _lock_name())
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def abandoned_scratches(path: Path) -> Iterator[tuple[Path, int]]:
    """The scratch folders for ``path`` whose processes have ended, each with the descriptor of its lock."""
    try:
        names = os.listdir(path.parent)
    except PermissionError:  # a folder that may be written, but not read
        return
    for scratch in [path.parent / name for name in names if name.endswith(_SUFFIX)]:
        with contextlib.suppress(OSError):
            lock = _lock_of_dead(scratch) if is_scratch(scratch, path.name) else None
            if lock is not None:
                yield scratch, lock


def is_scratch(folder: Path, name: str) -> bool:
    """Whether ``folder`` is a scratch folder of this user for a target of the name ``name``, and holds nothing else."""
    if not re.fullmatch(re.escape(_prefix(name)) + r"\w+" + re.escape(_SUFFIX), folder.name):
        return False
    if folder.is_symlink() or not folder.is_dir() or (hasattr(os, "geteuid") and folder.stat().st_uid != os.geteuid()):
        return False
    names = {*os.listdir(folder)} - {name, READY, OLD}
    return not names or (len(names) == 1 and _LOCK.fullmatch(names.pop()) is not None)


def unlock(lock: int | None) -> None:
    """Give back the lock of a scratch folder."""
    if lock is not None:
        os.close(lock)


def _prefix(name: str) -> str:
    """What the names of all scratch folders for ``name`` begin with. It is cut: file systems take 143 to 255 bytes."""
    encoded = os.fsencode(name)
    short = name if len(encoded) <= 100 else f"{name[:20]}~{hashlib.sha256(encoded).hexdigest()[:16]}"
    return f".{short}."


def _locked(file: Path) -> int | None:
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if _take(lock) and os.fstat(lock).st_size == 0:
            return lock
    except OSError:  # a file system without locks
        os.close(lock)
        file.unlink()
        return None
    os.close(lock)
    raise FileNotFoundError(f"{file} is taken for abandoned by another process")


def _lock_of_dead(scratch: Path) -> int | None:
    """The lock of ``scratch``, which its process has left; None if that process lives or may live."""
    names = [name for name in os.listdir(scratch) if _LOCK.fullmatch(name)]
    if not names:
        scratch.rmdir()  # works on an empty folder only: the process ended before it made the lock
        return None
    if not _is_here(names[0]):
        return None
    lock = os.open(scratch / names[0], os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if _take(lock):
            os.ftruncate(lock, 1)  # tells a maker that has not locked it yet
            return lock
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _take(lock: int) -> bool:
    """Lock an open file; False if another open file has the lock. Raises OSError where there are no locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@functools.cache
def _boot() -> str:
    """A number that the kernel chose when it started; "" where there is none."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip().replace("-", "")
    return ""


def _lock_name() -> str:
    host = re.sub(r"\W", "_", platform.node())[:64]
    return f"mmphate-gpu.{host}.{_boot()}.lock"


def _is_here(lock_name: str) -> bool:
    """Whether a lock was made on this host, or under this kernel, where containers have other host names."""
    host, boot = _LOCK.fullmatch(lock_name).groups()
    own_host, own_boot = _LOCK.fullmatch(_lock_name()).groups()
    return host == own_host or (boot == own_boot != "")
