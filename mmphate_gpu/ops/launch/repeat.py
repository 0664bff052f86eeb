"""A step on the device, over and over until it says that it is done; on CUDA without asking after every one."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from .twins import CUPY

# Steps done one by one before any are captured: a capture costs as much as some of them, and many a run is done by
# then. The first one also compiles and loads the kernels, which no capture may.
EAGER = 8
# Steps of a graph, one after another: the device is asked once a graph, and at the end as many, less one, are for
# nothing.
BLOCK = 8
# In the environment it has torch allocate without its cache, as a search for overruns wants it: such an allocation is
# an error while a graph is captured.
UNCACHED = "PYTORCH_NO_CUDA_MEMORY_CACHING"


def repeat_until(done: torch.Tensor, advance: Callable[[], None]) -> None:
    """Call ``advance`` until ``done`` (), which it sets on the device, is not 0.

    ``advance`` works in place on the same tensors each time, and changes nothing once ``done`` is set. Where the CUDA
    twins serve it reads nothing back either, so it is captured in a CUDA graph, which is replayed. Portable versions
    may wait for the device whenever they like, and no graph can hold that: there each call is a call, and so it is
    where torch allocates without its cache.
    """
    if done.is_cuda and UNCACHED not in os.environ and CUPY.serves():
        with torch.cuda.device(done.device):  # a graph is replayed on the current stream of the current device
            _replay_until(done, advance)
    else:
        while not done:
            advance()


def _replay_until(done: torch.Tensor, advance: Callable[[], None]) -> None:
    side = torch.cuda.Stream(done.device)
    _on_stream(side, advance)
    if done:
        return
    graph = _captured(side, advance)
    try:
        while not done:
            graph.replay()
    finally:
        graph.reset()


def _captured(side: torch.cuda.Stream, advance: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """A graph of `BLOCK` steps. If a step raises, the capture is ended and the exception goes on.

    `torch.cuda.graph` is not used. It would first wait for the device and return all cached memory to the driver, and
    the next stage would allocate it anew. The steps need a few megabytes, which the allocator keeps for the graph. It
    reuses them when memory is short and the graph is gone.
    """
    graph = torch.cuda.CUDAGraph()
    with _no_garbage_collection(), torch.cuda.stream(side):
        # Only this thread is checked, so that other threads, such as a data loader's, may allocate.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            for _ in range(BLOCK):
                advance()
        except BaseException:
            with suppress(RuntimeError):  # it only repeats that the capture failed
                graph.capture_end()
            graph.reset()
            raise
        graph.capture_end()
    return graph


def _on_stream(side: torch.cuda.Stream, advance: Callable[[], None]) -> None:
    """The first steps, where the capture will be: what a library sets up for a stream is then there."""
    current = torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(EAGER):
            advance()
    current.wait_stream(side)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """An object that lets go of something of CUDA's while it is collected would break the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
