"""SMACOF without reading from the device: replays of a CUDA graph give the bits of single sweeps."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmphate_gpu.mds.smacof import SmacofRun, smacof
from mmphate_gpu.ops.launch import repeat
from mmphate_gpu.ops.launch.repeat import repeat_until

from ..mds.distance_cases import points_5d, starts_of


def run_of(distances: np.ndarray, dtype: torch.dtype = torch.float64, **options: Any) -> SmacofRun:
    values, start = starts_of(distances)
    return SmacofRun(values.to(dtype), start - start.mean(0), **{"max_iter": 3000, "eps": 1e-6} | options)


def copies_of(run: SmacofRun) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in run.places]


ENDS = {
    "a plain step": {},
    "max_iter": {"max_iter": 7},
    "max_iter, after the first sweep": {"max_iter": 1},
    "max_iter, before long steps": {"max_iter": 3, "eps": 0.0},
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sweeps_after_the_end_change_no_bit(end, dtype):
    """So the end may be read a block of sweeps later."""
    run = run_of(points_5d(60, 1), dtype, **ENDS[end])
    repeat_until(run.done, run.advance)
    before = copies_of(run)
    for _ in range(20):
        run.advance()
    assert all(map(torch.equal, copies_of(run), before))
    assert 1 <= run.n_iter <= run.max_iter


class FakeGraphs:
    """Replaces torch.cuda: a call within a capture does nothing, and every replay calls it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capturing, self.captured, self.replays, self.resets = False, [], 0, 0
        self.broken, self.current = False, ["outside"]
        for name in ("current_stream", "Stream"):
            monkeypatch.setattr(torch.cuda, name, lambda *device: SimpleNamespace(wait_stream=lambda other: None))
        monkeypatch.setattr(torch.cuda, "stream", self.stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        for name in ("graph", "empty_cache", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, lambda *_, **__: pytest.fail("the allocator's cache is emptied"))

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.current.append(stream)
        try:
            yield
        finally:
            self.current.pop()

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        assert capture_error_mode == "thread_local" and not gc.isenabled()
        assert not self.capturing and len(self.current) == 2  # never on the stream that is current outside
        self.capturing = True

    def capture_end(self) -> None:
        assert self.capturing and len(self.current) == 2
        self.capturing = False
        if self.broken:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def replay(self) -> None:
        self.replays += 1
        for call in self.captured:
            call()

    def reset(self) -> None:
        self.resets += 1

    def calls(self, advance: Callable[[], None]) -> Callable[[], None]:
        return lambda: self.captured.append(advance) if self.capturing else advance()


@pytest.mark.parametrize("max_iter", [1, 2, 9, 10, 11, 17, 18, 3000])
def test_replays_of_a_graph_give_the_bits_of_single_sweeps(max_iter, monkeypatch):
    options = {"max_iter": max_iter, "eps": 1e-6 if max_iter == 3000 else 0.0}
    one_by_one, replayed = (run_of(points_5d(60, 1), **options) for _ in range(2))
    repeat_until(one_by_one.done, one_by_one.advance)
    graphs = FakeGraphs(monkeypatch)
    repeat._replay_until(replayed.done, graphs.calls(replayed.advance))
    assert all(map(torch.equal, copies_of(replayed), copies_of(one_by_one)))
    assert replayed.n_iter == (max_iter if max_iter < 3000 else one_by_one.n_iter)
    # The first sweep and `EAGER` more are single, and the others run in whole graphs.
    left = replayed.n_iter - 1 - repeat.EAGER
    assert graphs.replays == max(0, -(-left // repeat.BLOCK)) and graphs.resets == (left > 0)
    assert len(graphs.captured) == (repeat.BLOCK if left > 0 else 0)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_a_step_that_fails_leaves_no_capture_behind(error, broken, monkeypatch):
    """This also holds if ending the capture is another error."""
    graphs = FakeGraphs(monkeypatch)
    graphs.broken = broken
    steps = 0

    def advance() -> None:
        nonlocal steps
        steps += 1
        if graphs.capturing and steps > repeat.EAGER + 3:
            raise error("in a capture")

    with pytest.raises(error, match="in a capture"):
        repeat._replay_until(torch.zeros(()), advance)
    assert not graphs.capturing and graphs.resets == 1 and graphs.replays == 0
    assert graphs.current == ["outside"] and gc.isenabled()


def test_an_interrupt_between_replays_frees_the_graph(monkeypatch):
    graphs = FakeGraphs(monkeypatch)
    monkeypatch.setattr(graphs, "replay", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        repeat._replay_until(torch.zeros(()), lambda: None)
    assert graphs.resets == 1


def test_garbage_is_collected_again_after_a_capture():
    with pytest.raises(ZeroDivisionError), repeat._no_garbage_collection():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()
    gc.disable()
    try:
        with repeat._no_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_no_graph_on_the_cpu(monkeypatch):
    monkeypatch.setattr(repeat, "_replay_until", lambda *_: pytest.fail("a graph on the CPU"))
    monkeypatch.setattr(repeat.CUPY, "serves", lambda: True)
    assert smacof(*starts_of(points_5d(60, 1))).n_iter > 1


class OnCuda:
    """A flag on a GPU that is true after three steps."""

    is_cuda, device = True, "cuda"

    def __init__(self) -> None:
        self.steps = 0

    def __bool__(self) -> bool:
        return self.steps == 3

    def advance(self) -> None:
        self.steps += 1


def test_no_graph_without_the_cache_of_the_allocator(monkeypatch):
    """Without the cache, as under compute-sanitizer, every allocation in a capture is an error."""
    replayed: list[OnCuda] = []
    monkeypatch.setattr(repeat, "_replay_until", lambda done, advance: replayed.append(done))
    monkeypatch.setattr(repeat.CUPY, "serves", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.delenv(repeat.UNCACHED, raising=False)
    with_cache, without = OnCuda(), OnCuda()
    repeat_until(with_cache, with_cache.advance)
    monkeypatch.setenv(repeat.UNCACHED, "1")
    repeat_until(without, without.advance)
    assert replayed == [with_cache] and with_cache.steps == 0 and without.steps == 3
