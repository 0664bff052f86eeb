"""The pretended GPU: torch's device "cuda" over the memory and the kernels of the CPU.

The C++ files beside this one give torch the device. This module puts stand-ins for streams, graphs, events and the
numbers of a device into `torch.cuda`. The package ``cupy`` in ``packages`` starts kernels of csrc/cuda under
csrc/emulation, and Triton's kernels run in its interpreter. So the whole package runs as on a GPU, slowly, and what is
wrong around the kernels shows: tensors of two devices in an op, a read while a graph is captured, a name that
`torch.cuda` or CuPy lacks, a read of memory that was never written. It can show no race, no fault of a compiler, and no
time.

A process either has the pretended GPU or has not. So it is made when Python starts, through the variables of
`environment`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from .build import library

LIBRARY = library()

import torch  # noqa: E402 - torch asks once what CUDA can do, when it is imported

DEVICES = LIBRARY.pretend_device_count()
NAME = "pretended GPU"
TOTAL = LIBRARY.pretend_capacity(0)  # bytes

# ---------------------------------------------------------------- launches within graphs

_launches: dict[int, Callable[[], None]] = {}  # of all graphs, by their numbers
_faults: list[Exception] = []  # of launches of the replay that runs; C++ does not hand on an exception of Python
_numbers = itertools.count()


@ctypes.CFUNCTYPE(None, ctypes.c_int64)
def _launch(number: int) -> None:
    try:
        _launches[number]()
    except Exception as error:
        _faults.append(error)


def start(run: Callable[[], None]) -> None:
    """Run a kernel, or record it while a graph is captured."""
    if CUDAGraph.captured is None:
        run()
    else:
        number = next(_numbers)
        _launches[number] = run
        CUDAGraph.captured.launches.append(number)
        LIBRARY.pretend_record(_launch, ctypes.c_int64(number))


def device_of(pointer: int) -> int:
    """The index of the device whose memory holds an address; -1 for memory of the host."""
    return LIBRARY.pretend_device_of(ctypes.c_void_p(pointer))


# ---------------------------------------------------------------- torch.cuda


class Stream:
    """A stream. Work is done at once, so that all streams are in order."""

    _made = 0

    def __init__(self, device: Any = None, priority: int = 0, number: int | None = None) -> None:
        self.device = torch.device("cuda", _index(device))
        if number is None:
            Stream._made += 1
            number = Stream._made
        self.cuda_stream = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device, self.cuda_stream) == (other.device, other.cuda_stream)

    def __hash__(self) -> int:
        return hash((self.device, self.cuda_stream))

    def wait_stream(self, stream: Stream) -> None:
        assert isinstance(stream, Stream)

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)

    def record_event(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def synchronize(self) -> None:
        synchronize()

    def query(self) -> bool:
        return True


class Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self.timed, self.at = enable_timing, None

    def record(self, stream: Stream | None = None) -> None:
        self.at = time.perf_counter()

    def wait(self, stream: Stream | None = None) -> None:
        pass

    def synchronize(self) -> None:
        synchronize()

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: Event) -> float:
        assert self.timed and end.timed, "both events need enable_timing=True"
        return 1e3 * (end.at - self.at)


class CUDAGraph:
    """The calls of a capture, which run at each replay."""

    captured: CUDAGraph | None = None  # the graph whose capture has begun

    def __init__(self, keep_graph: bool = False) -> None:
        self.launches: list[int] = []
        self._graph: ctypes.c_void_p | None = None

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        if current_stream().cuda_stream == 0:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream")
        if CUDAGraph.captured is not None:
            raise RuntimeError("a CUDA graph is being captured already")
        self._graph = ctypes.c_void_p(LIBRARY.pretend_capture_begin())
        CUDAGraph.captured = self

    def capture_end(self) -> None:
        LIBRARY.pretend_capture_end()
        CUDAGraph.captured = None

    def replay(self) -> None:
        fault = LIBRARY.pretend_replay(self._graph)
        if fault is not None:
            raise RuntimeError(fault.decode())
        if _faults:
            error = _faults[0]
            _faults.clear()
            raise error

    def reset(self) -> None:
        if self._graph is not None:
            LIBRARY.pretend_forget(self._graph)
        for number in self.launches:
            del _launches[number]
        self.launches, self._graph = [], None

    def __del__(self) -> None:
        self.reset()


def _index(device: Any = None) -> int:
    if device is None or (isinstance(device, int) and device < 0):
        return LIBRARY.pretend_get_device()
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {device}")
    if device.index is not None and device.index >= DEVICES:
        raise RuntimeError("CUDA error: invalid device ordinal")
    return LIBRARY.pretend_get_device() if device.index is None else device.index


def set_device(device: Any) -> None:
    LIBRARY.pretend_set_device(_index(device))


def exchange_device(device: int) -> int:
    before = LIBRARY.pretend_get_device()
    if device >= 0:
        set_device(device)
    return before


def current_stream(device: Any = None) -> Stream:
    index = _index(device)
    return Stream(index, number=LIBRARY.pretend_get_stream(index))


def set_stream(stream: Stream) -> None:
    set_device(stream.device)
    LIBRARY.pretend_set_stream(stream.device.index, ctypes.c_int64(stream.cuda_stream))


@contextlib.contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    if stream is None:
        yield
        return
    device, before = _index(), current_stream(stream.device)
    set_stream(stream)
    try:
        yield
    finally:
        set_stream(before)
        LIBRARY.pretend_set_device(device)


def synchronize(device: Any = None) -> None:
    _index(device)
    if LIBRARY.pretend_capturing():
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


def mem_get_info(device: Any = None) -> tuple[int, int]:
    index = _index(device)
    return LIBRARY.pretend_capacity(index) - LIBRARY.pretend_allocated(index), LIBRARY.pretend_capacity(index)


def get_device_properties(device: Any = None) -> SimpleNamespace:
    total = LIBRARY.pretend_capacity(_index(device))
    return SimpleNamespace(
        name=NAME, total_memory=total, major=9, minor=0, multi_processor_count=132, L2_cache_size=50 * 2**20
    )


def set_memory_fraction(fraction: float, device: Any = None) -> None:
    LIBRARY.pretend_set_capacity(_index(device), ctypes.c_int64(int(fraction * TOTAL)))


_sync_mode = 0


def set_sync_debug_mode(mode: int | str) -> None:
    global _sync_mode
    _sync_mode = {"default": 0, "warn": 1, "error": 2}.get(mode, mode)
    LIBRARY.pretend_forbid_reads(_sync_mode == 2)


def caching_allocator_alloc(size: int, device: Any = None, stream: Any = None) -> int:
    return LIBRARY.pretend_reserve(ctypes.c_size_t(size), _index(device)) or 0


def caching_allocator_delete(pointer: int) -> None:
    LIBRARY.pretend_release(ctypes.c_void_p(pointer))


def new_storage(cls: type, *arguments: Any, device: Any = None, **options: Any) -> Any:
    """`torch.UntypedStorage`, whose constructor knows only the devices for which torch was built."""
    if device is None or torch.device(device).type != "cuda":
        return _new_storage(cls, *arguments, device=device, **options)
    return torch.empty(arguments[0], dtype=torch.uint8, device=device).untyped_storage()


_new_storage = torch.UntypedStorage.__new__


def _quiet_interpreter() -> None:
    """Triton's interpreter computes with NumPy, which warns where a GPU gives inf or NaN without a word."""
    if importlib.util.find_spec("triton") is None:
        return
    import numpy as np
    from triton.runtime import interpreter

    run = interpreter.GridExecutor.__call__

    def quietly(*arguments: Any, **options: Any) -> Any:
        with np.errstate(all="ignore"):
            return run(*arguments, **options)

    interpreter.GridExecutor.__call__ = quietly


def install() -> None:
    """Make the device, and put the stand-ins into `torch.cuda`."""
    cuda = torch.cuda
    replaced: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "_initialized": True,
        "_exchange_device": exchange_device,
        "_maybe_exchange_device": lambda device: exchange_device(device),  # torch's compiler wants two functions
        "init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: bool(LIBRARY.pretend_capturing()),
        "device_count": lambda: DEVICES,
        "current_device": _index,
        "set_device": set_device,
        "current_stream": current_stream,
        "default_stream": lambda device=None: Stream(device, number=0),
        "set_stream": set_stream,
        "stream": stream,
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": CUDAGraph,
        "synchronize": synchronize,
        "mem_get_info": mem_get_info,
        "memory_allocated": lambda device=None: LIBRARY.pretend_allocated(_index(device)),
        "memory_reserved": lambda device=None: LIBRARY.pretend_reserved(_index(device)),
        "max_memory_allocated": lambda device=None: LIBRARY.pretend_most_allocated(_index(device)),
        "max_memory_reserved": lambda device=None: LIBRARY.pretend_most_allocated(_index(device)),
        "reset_peak_memory_stats": lambda device=None: LIBRARY.pretend_reset_most(_index(device)),
        "empty_cache": lambda: LIBRARY.pretend_empty_cache(),
        "set_per_process_memory_fraction": set_memory_fraction,
        "memory_stats": lambda device=None: {"num_alloc_retries": 0, "num_ooms": 0},
        "get_device_properties": get_device_properties,
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: (9, 0),
        "set_sync_debug_mode": set_sync_debug_mode,
        "get_sync_debug_mode": lambda: _sync_mode,
        "caching_allocator_alloc": caching_allocator_alloc,
        "caching_allocator_delete": caching_allocator_delete,
        "default_generators": tuple(torch.Generator(f"cuda:{index}") for index in range(DEVICES)),
        "_is_in_bad_fork": lambda: False,
    }
    for name, value in replaced.items():
        assert hasattr(cuda, name), name
        for module in (cuda, cuda.random, cuda.memory):
            if hasattr(module, name):
                setattr(module, name, value)
    torch.UntypedStorage.__new__ = staticmethod(new_storage)
    torch.backends.cudnn.is_acceptable = lambda tensor: False
    _quiet_interpreter()
