"""Locks on open files. The system releases them when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import weakref
from pathlib import Path

from ..errors import InputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_BEYOND = 2**20  # Windows locks bytes. This one lies after the text, so that others can read who holds the lock.


def take(lock: int) -> bool:
    """Lock an open file; False if it is locked already. Raises OSError on a file system without locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


class WriterLock:
    """A lock on a folder, which one writer at a time holds, of this process or another.

    The file ``path`` stays when the lock is released, because deleting it could take away the lock of the next holder.
    On a file system without locks every writer acquires it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this process has the lock: a forked child does not inherit it."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock. `InputError` names its holder. OSError is raised if the file cannot be made."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _release_in_children()
        _HELD.add(self)

    def _take(self, descriptor: int) -> None:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        taken = True
        with contextlib.suppress(OSError):  # a file system without locks
            taken = take(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        if not taken:
            holder = os.read(descriptor, 300).decode(errors="replace") or "another process"
            raise InputError(
                f"{self._path.parent} is being recorded by {holder}; accepted: another folder, or this one when that "
                "recorder has been closed"
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _HELD.discard(self)


_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


@functools.cache
def _release_in_children() -> None:
    # The lock lives as long as any process has the file open, and a child may outlive the process that records.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_release_all)


def _release_all() -> None:
    for lock in [*_HELD]:
        lock.release()
