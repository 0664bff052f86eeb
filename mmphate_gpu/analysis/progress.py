"""The progress of a long analysis: a bar on stderr, and calls of the user's function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import InputTypeError
from ..stages import Callback, progress_bar

Advance = Callable[..., None]  # of the number of parts that are done since the last call, 1 by default


@contextmanager
def progress(total: int, verbose: int | bool, callback: Callback | None, desc: str) -> Iterator[Advance]:
    """A function to be called after each of the ``total`` parts of the stage ``desc``, or after several of them.

    Each call of it draws the bar if ``verbose``, and calls ``callback(desc, done, total)``. The bar is closed when the
    block ends. `InputTypeError` refuses a callback that cannot be called.

    Examples
    --------
    >>> with progress(3, 0, lambda stage, done, total: print(stage, done, total), "probe") as advance:
    ...     advance()
    ...     advance(2)
    probe 1 3
    probe 3 3
    """
    if callback is not None and not callable(callback):
        raise InputTypeError(f"callback={callback!r} must be callable with (stage, done, total), or None")
    with progress_bar(total, desc=desc, disable=not verbose) as bar:
        done = 0

        def advance(parts: int = 1) -> None:
            nonlocal done
            done += parts
            bar.update(parts)
            if callback is not None:
                callback(desc, done, total)

        yield advance
