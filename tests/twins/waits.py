"""A check that code does not wait for the GPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """Code inside that waits for the GPU raises an error, as far as torch notices it.

    The first call of `set_sync_debug_mode` sets the mode and then warns. If the warning were an error, the mode would
    remain, and every later test of the process would fail.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Synchronization debug mode")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
