"""Rename without replacing, and exchange two paths, by the system calls for it where they exist."""

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
# Errors of a kernel or a file system that lacks the call. A sandbox that does not know the call returns EPERM.
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


def move(source: Path, target: Path) -> None:
    """Rename the file or folder ``source`` to ``target``, which must not exist. Of several callers one succeeds.

    Where no system call does this, a file gets a hard link of the new name, and the old name is removed. A folder
    replaces an empty folder that is made under the new name first. Without hard links, an empty file has the new name
    for a moment. Raises FileExistsError if ``target`` exists or is a link, and OSError if the file system refuses the
    rename.
    """
    if sys.platform == "win32":
        os.rename(source, target)  # on Windows it replaces nothing
    elif not renamed(source, target, NO_REPLACE):
        if source.is_dir() and not source.is_symlink():
            _move_folder(source, target)
        else:
            _move_file(source, target)


def renamed(source: Path, target: Path, how: str) -> bool:
    """Rename ``source`` to ``target`` by one system call; False where the system or the file system lacks the call.

    With ``how=NO_REPLACE`` it raises FileExistsError if ``target`` exists. With ``how=EXCHANGE`` the two swap names.
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
    made = not os.path.lexists(target)
    try:
        target.mkdir()  # in POSIX a rename may replace an empty folder
        os.rename(source, target)
    except FileExistsError:
        made = False
        raise
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise
    finally:
        if made and source.exists():  # the rename failed, or Ctrl-C came before the rename
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
