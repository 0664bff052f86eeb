"""Repeat a step until it is done, as it decides on the device; on CUDA without reading that after every step."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from .twins import CUPY

# Steps before any are captured: a capture costs as much as a few steps, and many runs are done by then. The first step
# also compiles and loads the kernels, which is not allowed in a capture.
EAGER = 8
# Steps of a graph: the device is read once a graph, and at the end up to BLOCK - 1 steps are wasted.
BLOCK = 8
# This variable makes torch allocate without its cache, as a search for overruns needs. Such an allocation is an error
# while a graph is captured.
UNCACHED = "PYTORCH_NO_CUDA_MEMORY_CACHING"


def repeat_until(done: torch.Tensor, advance: Callable[[], None]) -> None:
    """Call ``advance`` until ``done`` (), which it sets on the device, is not 0.

    ``advance`` works in place on the same tensors each time, and changes nothing once ``done`` is set. Where the CUDA
    twins run, it reads nothing from the device either: it is captured in a CUDA graph, which is replayed. A portable
    version may wait for the device, which no graph can hold, so it is called step by step. The same holds where torch
    allocates without its cache.
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
    """A graph of `BLOCK` steps. If a step raises, the capture ends and the exception is raised.

    `torch.cuda.graph` would first wait for the device and return all cached memory to the driver, and the next stage
    would have to allocate again. The steps need a few megabytes, which the allocator keeps for the graph and reuses
    once the graph is gone.
    """
    graph = torch.cuda.CUDAGraph()
    with _no_garbage_collection(), torch.cuda.stream(side):
        # Check this thread only, so that other threads, such as those of a data loader, may allocate.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            for _ in range(BLOCK):
                advance()
        except BaseException:
            with suppress(RuntimeError):  # repeats that the capture failed
                graph.capture_end()
            graph.reset()
            raise
        graph.capture_end()
    return graph


def _on_stream(side: torch.cuda.Stream, advance: Callable[[], None]) -> None:
    """The first steps, on the stream of the capture, so that libraries set up what they need for a stream."""
    current = torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(EAGER):
            advance()
    current.wait_stream(side)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Stop garbage collection: an object that frees CUDA resources when it is collected would break the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
