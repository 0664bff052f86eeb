"""A stand-in for CuPy 14: its solvers work on the CPU, and it records kernels instead of starting them."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch


@dataclass
class FakeCupy:
    """The parts of CuPy's interface that the package uses. It records what was compiled and started, and where."""

    modules: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    devices: list[int | None] = field(default_factory=list)  # device contexts that are open, the innermost last
    allocators: list[Any] = field(default_factory=list)
    fault: Exception | None = None  # raised by the compiler
    gate: threading.Event = field(default_factory=threading.Event)  # the compiler waits for it

    def __post_init__(self) -> None:
        self.gate.set()
        self.cuda = SimpleNamespace(
            Device=lambda index: _within(self.devices, index),
            ExternalStream=_external_stream,
            PythonFunctionAllocator=lambda malloc, free: SimpleNamespace(malloc=malloc),
            using_allocator=lambda malloc: _within(self.allocators, malloc),
        )
        self.linalg = SimpleNamespace(eigvalsh=np.linalg.eigvalsh, eigh=np.linalg.eigh)

    from_dlpack = staticmethod(np.from_dlpack)

    def RawModule(self, *, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> Any:
        thread = threading.current_thread().name
        module = {"code": code, "options": options, "backend": backend}
        self.modules.append({**module, "device": self.devices[-1], "thread": thread})
        return SimpleNamespace(get_function=self._function)

    def _function(self, name: str) -> Any:
        self.gate.wait(10)  # CuPy compiles when a function is asked for
        if self.fault is not None:
            raise self.fault

        def kernel(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], **kwargs: Any) -> None:
            _check_keywords(**kwargs)
            call = {"name": name, "grid": grid, "block": block, "arguments": args, "device": self.devices[-1]}
            self.calls.append({**call, **kwargs})

        return kernel


def _check_keywords(*, shared_mem: int = 0, stream: Any = None) -> None:
    """The keywords are those of CuPy's `Function`, which reads only the address of the stream."""
    assert shared_mem >= 0 and isinstance(stream.ptr, int)


@contextlib.contextmanager
def _within(stack: list[Any], value: Any) -> Iterator[None]:
    stack.append(value)
    yield
    stack.pop()


def _external_stream(*_: Any) -> None:
    warnings.warn("ExternalStream is deprecated. Use Stream.from_external() instead", DeprecationWarning, stacklevel=2)


def without_cuda(monkeypatch: pytest.MonkeyPatch, devices: list[Any] | None = None, stream: int = 1234) -> None:
    """Replaces the parts of torch's CUDA that a launch uses. ``devices`` is that of `FakeCupy`."""
    entered = [] if devices is None else devices
    monkeypatch.setattr(torch.cuda, "device", lambda device: _within(entered, device.index))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=stream))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
