"""Progress of a run: a bar on stderr, and the user's own callback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import InputTypeError
from .runtime.streams import lenient
from .stages import STAGES, Callback


def progress_bar(total: int, **options: Any) -> Any:
    """A tqdm bar on stderr. If stderr cannot be written to, nothing is drawn and the run goes on."""
    from tqdm import tqdm

    return tqdm(total=total, file=lenient(sys.stderr), **options)


@contextmanager
def progress_callback(verbose: int | bool, callback: Callback | None) -> Iterator[Callback | None]:
    """A callback that draws a bar if ``verbose`` and passes on to ``callback``; the bar is closed on leaving."""
    if callback is not None and not callable(callback):
        raise InputTypeError(f"callback={callback!r} must be callable with (stage, done, total), or None")
    if not verbose:
        yield callback
        return
    with progress_bar(len(STAGES), desc="MM-PHATE", unit="stage") as bar:

        def both(stage: str, done: int, total: int) -> None:
            bar.set_postfix_str(stage, refresh=False)
            bar.update(done - bar.n)
            if callback is not None:
                callback(stage, done, total)

        yield both
