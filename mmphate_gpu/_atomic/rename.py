"""Renames that replace nothing, and exchanges of two paths, by the call that the operating system has for them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

NO_REPLACE, EXCHANGE = "no replace", "exchange"
_LINUX_FLAGS = {NO_REPLACE: 1, EXCHANGE: 2}  # linux/fs.h
_MACOS_FLAGS = {NO_REPLACE: 4, EXCHANGE: 2}  # sys/stdio.h
_AT_FDCWD = -100
# What a kernel or a file system without the call returns. A sandbox that does not know it returns EPERM.
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


def move(source: Path, target: Path) -> None:
    """Rename the file or folder ``source`` to ``target``, which must not exist. Of several callers one succeeds.

    Without a call of the system for it, a file is linked to its new name, and the name of a folder is taken by an
    empty folder first. A file system without links has an empty file for a moment.

    Raises
    ------
    FileExistsError
        ``target`` exists, or is a link.
    OSError
        The file system refuses.
    """
    if sys.platform == "win32":
        os.rename(source, target)  # it replaces nothing on Windows
    elif not renamed(source, target, NO_REPLACE):
        if source.is_dir() and not source.is_symlink():
            _move_folder(source, target)
        else:
            _move_file(source, target)


def renamed(source: Path, target: Path, how: str) -> bool:
    """Rename ``source`` to ``target`` in the way of ``how``; False where the system or the file system cannot.

    `NO_REPLACE` raises FileExistsError if ``target`` exists. `EXCHANGE` gives each the name of the other, at once.
    """
    call = _system_call(how)
    if call is None:
        return False
    ctypes.set_errno(0)
    if call(os.fsencode(source), os.fsencode(target)) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(target))


@functools.cache
def _system_call(how: str) -> Callable[[bytes, bytes], int] | None:
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if function is None:
            return None
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
        return lambda source, target: function(_AT_FDCWD, source, _AT_FDCWD, target, _LINUX_FLAGS[how])
    if sys.platform == "darwin":
        function = ctypes.CDLL(None, use_errno=True).renamex_np
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint]
        return lambda source, target: function(source, target, _MACOS_FLAGS[how])
    return None


def _move_folder(source: Path, target: Path) -> None:
    target.mkdir()  # POSIX lets a folder replace an empty one
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise
    finally:
        if source.exists():  # the rename failed, or Ctrl-C came before it
            with contextlib.suppress(OSError):
                target.rmdir()


def _move_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {*UNSUPPORTED, errno.EMLINK}:
            raise
        os.close(os.open(target, os.O_CREAT | os.O_EXCL))
        try:
            os.replace(source, target)
        except BaseException:
            target.unlink()
            raise
    else:
        source.unlink()
