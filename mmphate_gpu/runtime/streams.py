"""Write text to streams that may fail (closed, full, of another encoding) without failing the command or the fit."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, TextIO


def encodable(text: str, encoding: str = "utf-8") -> str:
    """``text`` with an escape such as \\xe9 for each character that ``encoding`` lacks."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def fill_closed_descriptors() -> None:
    """Open the null device on each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next file that is opened gets that number, and what a library prints goes into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, descriptor)  # its copy is inheritable, for child processes
            if opened != descriptor:
                os.close(opened)


class LenientStream:
    """A text stream that can always be written to; for ``stream=None``, as `sys.stdout` may be, it discards the text.

    Characters that its encoding lacks are written as escapes. After the first write that fails (a closed pipe, a full
    disk) nothing more is written, and ``error`` is the exception.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream if stream is not None else io.StringIO()
        self.error: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda: self._write(text))
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            self.stream.write(encodable(text, self.stream.encoding))

    def flush(self) -> None:
        self._attempt(self.stream.flush)

    def _attempt(self, call: Callable[[], None]) -> None:
        if self.error is None:
            try:
                call()
            except (OSError, ValueError) as error:  # ValueError means that the stream is closed
                self.error = error

    def __getattr__(self, name: str) -> Any:  # isatty, fileno, encoding
        return getattr(self.stream, name)

    def discard(self) -> None:
        """Point the descriptor of a stream that failed to the null device. Call it only right before the process ends.

        The interpreter flushes the stream once more at exit, which would fail on what its buffer still holds.
        """
        if self.error is None:
            return
        try:
            descriptor = self.stream.fileno()
        except (OSError, ValueError, AttributeError):
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def lenient(stream: TextIO | LenientStream | None) -> LenientStream:
    """``stream`` as a `LenientStream`; a `LenientStream` itself."""
    return stream if isinstance(stream, LenientStream) else LenientStream(stream)
