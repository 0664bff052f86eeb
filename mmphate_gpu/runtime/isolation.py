"""Keep the caller's settings of torch and NumPy out of a computation, and leave them unchanged."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch


@contextmanager
def isolated() -> Iterator[None]:
    """Compute the same bits whatever the caller has set; also a decorator, ``@isolated()``.

    Inside, gradients and inference mode are off (results are ordinary tensors), and so are autocast, float32 products
    of fewer digits, the flushing of denormal numbers, NumPy's report of underflow, and the caller's torch function and
    dispatch modes. The default device and the default dtype stay as they are: every call that makes a tensor names
    both. Reentrant; about 50 us. Other threads are not affected, except by `_ProcessWide`.
    """
    with (
        torch._C.DisableTorchFunction(),
        _without_dispatch_modes(),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        np.errstate(under="ignore"),
        _process_wide,
        _with_denormals(),
    ):
        yield


def _without_dispatch_modes() -> AbstractContextManager[None]:
    """Under a dispatch mode `torch.linalg.svdvals` also computes singular vectors, which changes the last bits."""
    # Only if there is a mode, because the guard would also disable the methods of a tensor subclass.
    return torch._C._DisableTorchDispatch() if torch._C._len_torch_dispatch_stack() else nullcontext()


@contextmanager
def _with_denormals() -> Iterator[None]:
    flushed = sys.float_info.min / 2 == 0  # torch has no getter, but Python's numbers are flushed too
    if flushed:
        torch.set_flush_denormal(False)
    try:
        yield
    finally:
        if flushed:
            torch.set_flush_denormal(True)


class _ProcessWide:
    """Settings of the whole process: reset only if the caller has changed them, restored by the last thread to leave.

    Inside, float32 products on a CPU are not rounded to bfloat16 or TF32 (on CUDA those that matter are in float64).
    torch does not repeat warnings that it gives once per process. A forked process computes on one thread: the OpenMP
    threads of its parent are gone, and OpenMP would wait for them without end.
    """

    def __init__(self, forked: bool = False) -> None:
        self._lock, self._n_inside, self._changed = threading.Lock(), 0, ExitStack()
        self._forked, self._warned = forked, False

    def __enter__(self) -> None:
        with self._lock:
            every: Any = torch.backends.mkldnn
            matmul = every.matmul
            if matmul.fp32_precision not in ("none", "ieee"):
                inherited = matmul.fp32_precision == every.fp32_precision
                before = "none" if inherited else matmul.fp32_precision
                self._changed.callback(setattr, matmul, "fp32_precision", before)
                matmul.fp32_precision = "ieee"
            if torch.is_warn_always_enabled():
                self._changed.callback(torch.set_warn_always, True)
                torch.set_warn_always(False)
            if self._forked and torch.get_num_threads() > 1:
                self._warn_once()
                self._changed.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(1)
            self._n_inside += 1

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            message = "this process was forked, so it computes on 1 thread; a spawned process computes on all threads"
            warnings.warn(message, RuntimeWarning, stacklevel=6)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._changed.close()


_process_wide = _ProcessWide()


def _after_fork() -> None:
    global _process_wide
    _process_wide = _ProcessWide(forked=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
