"""Checks of the paths that users pass: ~ becomes the home folder, and each refusal is a single sentence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError, InputTypeError


def expanded(path: str | os.PathLike[str]) -> Path:
    """``path`` with a leading ~ replaced by the home folder.

    Raises `InputError` for what is neither text nor a path of text, for a character that no file name can have, and for
    the home of an unknown user.
    """
    try:
        written_out = Path(path).expanduser()
        valid = b"\0" not in os.fsencode(written_out)
    except TypeError as error:
        raise InputTypeError(f"path={path!r} is a {type(path).__name__}; accepted: a path as text") from error
    except RuntimeError as error:
        raise InputError(
            f"{path} names the home of an unknown user ({error}); accepted: the home of an existing user"
        ) from error
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise InputError(f"path={str(path)!r} holds a character that no file name can have; accepted: other characters")
    return written_out


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn an OSError, such as for a name too long or a folder without permission, into an `InputError`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise InputError(f"{path} cannot be written ({reason})") from error


def check_files(path: Path, *, follow_links: bool = False) -> None:
    """Refuse what is neither a regular file nor a folder, and links that lead out of a folder, unless ``follow_links``.

    Opening a FIFO would wait without end. A link in a folder that somebody else made can name any file. Of a folder,
    all files and folders in it are checked; ``path`` itself may be a link.
    """
    if not path.is_dir():
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a FIFO, a socket or a device; accepted: a regular file or a folder")
        return
    root = path.resolve()
    for entry in entries_below(path):
        if entry.is_symlink():
            _check_link(Path(entry.path), root, follow_links)
        if not (entry.is_file() or entry.is_dir()):
            what = "a link to nothing" if not os.path.exists(entry.path) else "a FIFO, a socket or a device"
            raise InputError(f"{entry.path} is {what}; accepted: regular files and folders")


def entries_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All that is in ``folder`` and in the folders below it, without following links; faster than `os.walk`."""
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def _check_link(link: Path, root: Path, follow_links: bool) -> None:
    target = Path(os.path.realpath(link))  # unlike Path.resolve, it accepts a link that refers to itself
    if not follow_links and not target.is_relative_to(root):
        raise InputError(
            f"{link} is a link out of {root} to {target}; accepted: files in the folder, or follow_links=True"
        )
