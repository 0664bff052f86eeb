"""Paths that users give: with the home folder in the place of ~, and refused in one sentence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .params import InputError, InputTypeError


def expanded(path: str | os.PathLike[str]) -> Path:
    """``path`` with a leading ~ written out.

    Raises
    ------
    InputError, InputTypeError
        Something other than text or a path of text, characters that no file name has, the home of an unknown user.
    """
    try:
        written_out = Path(path).expanduser()
        valid = b"\0" not in os.fsencode(written_out)
    except TypeError as error:
        raise InputTypeError(f"path={path!r} is a {type(path).__name__}; accepted: a path as text") from error
    except RuntimeError as error:
        raise InputError(f"{path} names the home of an unknown user ({error})") from error
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise InputError(f"path={str(path)!r} holds a character that no file name has; accepted: others")
    return written_out


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns what the file system refuses (a name too long, a folder without permission) into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"path={str(path)!r} cannot be written ({error.strerror or error})") from error
