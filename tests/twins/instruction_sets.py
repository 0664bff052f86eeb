"""The instruction sets of the C++ twins, and runs of the same call on several of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from mmphate_gpu.ops.launch import native

from .cases import assert_same

_ALL_ISAS = ("baseline", "avx2", "avx512")
_REASON = native.why_no_native()
# The instruction sets up to the widest one of this processor. The library has them all.
ISAS = _ALL_ISAS[: _ALL_ISAS.index(native.isa()) + 1] if _REASON is None else ()

needs_cpp = pytest.mark.skipif(_REASON is not None, reason=f"no C++ twins: {_REASON}")

Run = Callable[[], tuple[torch.Tensor, ...]]


def on_every_isa(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """``run`` has the same bits on every instruction set, with one thread and with two, and again."""
    results = []
    for name, n_threads in [*itertools.product(ISAS, (1, 2)), (ISAS[-1], 2)]:
        monkeypatch.setattr(native, "isa", lambda name=name: name)
        results.append(_with_threads(n_threads, run))
    _assert_all_same(results)


def with_one_and_two_threads(run: Run) -> None:
    """``run`` has the same bits with one thread, with two, and again."""
    _assert_all_same([_with_threads(n_threads, run) for n_threads in (1, 2, 2)])


def _with_threads(n_threads: int, run: Run) -> tuple[torch.Tensor, ...]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        return run()
    finally:
        torch.set_num_threads(before)


def _assert_all_same(results: list[tuple[torch.Tensor, ...]]) -> None:
    for other in results[1:]:
        assert_same(results[0], other)
