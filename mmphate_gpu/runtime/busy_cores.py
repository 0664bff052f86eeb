"""Threads that wait for one another sleep while other processes need the cores, and spin while the cores are free.

torch and the C++ twins share the threads of GNU OpenMP. A thread that waits for its partners spins for milliseconds
before it sleeps. On a quiet machine this is fastest. On a busy one it takes the time of a core from the very partner
that it waits for. GNU OpenMP reads how long to spin when it is loaded, before this package can choose. But it all but
stops spinning while it has more threads than cores (`GOMP_SPINCOUNT
<https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html>`_). So an idle team of threads is added while the
machine is busy. It computes nothing, and the teams that compute stay as they are, so no bit of a result changes.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from .memory_limits import resource_limits

# Variables of GNU OpenMP with which users choose how threads wait. Their choice stays.
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
PERIOD = 0.1  # seconds between two readings
# The cores are free again after a quiet period that is longer. Otherwise the state flips: a thread that sleeps often is
# delayed less, now and then by less than the share below.
QUIET_PERIOD = 1.0
# Cores are busy if a thread of this process waited for one during more than this share of a period. Measured on two
# cores: at most 0.14 on a quiet machine, and mostly 0.3 to 0.55 beside a process that computes.
DELAYED = 0.2
TASKS = Path("/proc/self/task")


@contextmanager
def sharing_cores(device: torch.device) -> Iterator[None]:
    """Watch, while a computation on ``device`` runs, whether the cores are busy, and let its threads sleep if they are.

    Only on Linux, with GNU OpenMP, on the CPU, with several threads, and without a limit on the address space;
    elsewhere it does nothing. The waits of all GNU OpenMP threads of the process change, and change back at the end.
    """
    done, watch = threading.Event(), None
    if device.type == "cpu" and torch.get_num_threads() > 1 and _gnu_openmp() and _may_add_threads():
        watch = _started(_watch, done, max(2, n_cores() - torch.get_num_threads() + 2))
    try:
        yield
    finally:
        done.set()
        if watch is not None:
            watch.join()


def _may_add_threads() -> bool:
    """Whether the user has neither chosen how threads wait nor limited the address space, which more threads take."""
    return not any(name in os.environ for name in CHOICES) and not any(resource_limits())


def n_cores() -> int:
    """The cores that this process may use, as OpenMP counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _gnu_openmp() -> ctypes.CDLL | None:
    """A library of torch that finds the functions of GNU OpenMP; None if torch uses another one, and outside Linux."""
    if not TASKS.exists():
        return None
    library = ctypes.CDLL(torch._C.__file__)
    # The OpenMP of LLVM and of Intel has this function too, but waits in its own way.
    return library if hasattr(library, "GOMP_parallel") and not hasattr(library, "__kmpc_fork_call") else None


def _started(work: Callable[..., object], *arguments: object) -> threading.Thread | None:
    thread = threading.Thread(target=work, args=arguments, name="busy cores", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # a limit on threads is reached, and the computation runs without a watch
        return None
    return thread


def _watch(done: threading.Event, n_threads: int) -> None:
    while _wait_until(True, done):
        # An idle team belongs to the thread that made it, and ends with it.
        held = _started(_hold_team, done, n_threads)
        if held is None:
            return
        held.join()


def _hold_team(done: threading.Event, n_threads: int) -> None:
    if _may_start(n_threads - 1):
        add_idle_team(n_threads)
        _wait_until(False, done)


def _may_start(n_threads: int) -> bool:
    """Whether no limit on threads is reached by ``n_threads`` more: they are started, and have ended on return.

    libgomp ends the process where it cannot start a thread.
    """
    leave = threading.Event()
    threads = [_started(leave.wait) for _ in range(n_threads)]
    leave.set()
    started = [thread for thread in threads if thread]
    while any((TASKS / str(thread.native_id)).exists() for thread in started):
        time.sleep(0.001)  # the kernel counts a thread until it has left this list
    return len(started) == n_threads


def add_idle_team(n_threads: int) -> None:
    """Start ``n_threads - 1`` threads that sleep in the pool of the calling thread, until that thread ends."""
    if openmp := _gnu_openmp():
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL) has no effect
        openmp.GOMP_parallel(nothing, None, ctypes.c_uint(n_threads), ctypes.c_uint(0))


class Reading(NamedTuple):
    """When it was read, and how long each thread of the process has waited for a core until then, in seconds."""

    at: float
    delays: Mapping[str, float]


def reading() -> Reading:
    delays = {}
    for task in os.listdir(TASKS):
        with suppress(OSError):  # the thread has ended, or the kernel does not count its delays
            delays[task] = int((TASKS / task / "schedstat").read_text().split()[1]) * 1e-9
    return Reading(time.perf_counter(), delays)


def cores_are_busy(before: Reading, now: Reading) -> bool:
    """Whether a thread waited for a core during much of the time between two readings.

    >>> cores_are_busy(Reading(0.0, {"1": 5.0, "2": 0.0}), Reading(0.1, {"1": 5.001, "2": 0.04}))
    True
    """
    longest = max((delay - before.delays.get(task, delay) for task, delay in now.delays.items()), default=0.0)
    return longest > DELAYED * (now.at - before.at)


def _wait_until(busy: bool, done: threading.Event) -> bool:
    """Wait until the cores are ``busy``, or are not; False if the computation is done before."""
    before = reading()
    while not done.wait(PERIOD if busy else QUIET_PERIOD):
        now = reading()
        if cores_are_busy(before, now) == busy:
            return True
        before = now
    return False
