"""Scratch folders beside a target. They are hidden, closed to other users, and locked while their process lives.

By the lock a later process sees whether the process that made a scratch folder still lives: a lock belongs to an open
file, so the system releases it when the process ends. A process number would not do, because a process in another
container may have the same number. Some network file systems hide the locks of one host from other hosts. Therefore the
name of the lock file contains the host and the boot of its kernel, and folders of other hosts are left alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..lock import take

# Names in a scratch folder. READY is the complete new folder; after an exchange, the old folder has this name. OLD is
# the old folder where the system cannot exchange. Anything unfinished, or ready to delete, has the name of the target.
READY, OLD = ".ready", ".old"
_SUFFIX = ".partial"
_RANDOM = "[a-z0-9_]{8}"  # what `tempfile.mkdtemp` puts between prefix and suffix
_LOCK = re.compile(r"mmphate-gpu\.(?P<host>\w*)\.(?P<boot>\w*)\.lock")


def new_scratch(path: Path) -> tuple[Path, int | None]:
    """Make a folder beside ``path`` with a name that nobody can guess; return it and the descriptor of its lock.

    The descriptor is None on a file system without locks. There every folder with a lock file counts as in use.
    """
    while True:
        scratch = Path(tempfile.mkdtemp(_SUFFIX, _prefix(path.name), path.parent))
        try:
            with contextlib.suppress(FileNotFoundError):  # another process deleted the folder, which was still empty
                return scratch, _locked(scratch / _lock_name())
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def abandoned_scratches(path: Path) -> Iterator[tuple[Path, int]]:
    """The scratch folders for ``path`` whose processes have ended, each with the descriptor of its lock."""
    try:
        names = os.listdir(path.parent)
    except PermissionError:  # the folder can be written but not listed
        return
    for scratch in [path.parent / name for name in names if name.endswith(_SUFFIX)]:
        with contextlib.suppress(OSError):
            lock = _lock_of_dead(scratch) if is_scratch(scratch, path.name) else None
            if lock is not None:
                yield scratch, lock


def is_scratch(folder: Path, name: str) -> bool:
    """Whether ``folder`` is a scratch folder of this user for a target called ``name``, and holds nothing else.

    Without a lock file it has to be empty: a folder that only has such a name may belong to the user.
    """
    if not re.fullmatch(re.escape(_prefix(name)) + _RANDOM + re.escape(_SUFFIX), folder.name):
        return False
    if folder.is_symlink() or not folder.is_dir() or (hasattr(os, "geteuid") and folder.stat().st_uid != os.geteuid()):
        return False
    names = os.listdir(folder)
    others = {*names} - {name, READY, OLD}
    return not names or (len(others) == 1 and _LOCK.fullmatch(others.pop()) is not None)


def unlock(lock: int | None) -> None:
    """Release the lock of a scratch folder; None is no lock."""
    if lock is not None:
        os.close(lock)


def short(name: str) -> str:
    """``name``, or a short name made from it that leaves room to append, as file systems allow 143 to 255 bytes."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 100 else f"{name[:20]}~{hashlib.sha256(encoded).hexdigest()[:16]}"


def _prefix(name: str) -> str:
    """The prefix of all scratch folders for ``name``."""
    return f".{short(name)}."


def _locked(file: Path) -> int | None:
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if take(lock) and os.fstat(lock).st_size == 0:
            return lock
    except OSError:  # a file system without locks; the file stays, because an empty folder counts as abandoned
        os.close(lock)
        return None
    os.close(lock)
    raise FileNotFoundError(f"{file} is being deleted by another process, as abandoned")


def _lock_of_dead(scratch: Path) -> int | None:
    """Lock ``scratch`` if its process has ended; None if that process lives or may live."""
    names = [name for name in os.listdir(scratch) if _LOCK.fullmatch(name)]
    if not names:
        scratch.rmdir()  # fails unless the folder is empty: its process ended before it made the lock
        return None
    if not _is_here(names[0]):
        return None
    lock = os.open(scratch / names[0], os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if take(lock):
            os.ftruncate(lock, 1)  # if the process lives but has not locked it yet, the size tells it to start anew
            return lock
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


@functools.cache
def _boot() -> str:
    """The random id of this boot of the Linux kernel; "" on other systems."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip().replace("-", "")
    return ""


def _lock_name() -> str:
    host = re.sub(r"\W", "_", platform.node())[:64]
    return f"mmphate-gpu.{host}.{_boot()}.lock"


def _is_here(lock_name: str) -> bool:
    """Whether a lock was made on this host, or in this boot of the kernel: its containers have different host names."""
    (host, boot), (current_host, current_boot) = _LOCK.findall(lock_name)[0], _LOCK.findall(_lock_name())[0]
    return host == current_host or (boot == current_boot != "")
