"""Suite "floors": how many bytes, multiply-adds, exponentials, roots and divisions a second the machine can do.

A rate is the best of its repeats, which take turns with the repeats of the other rates. A matrix product of torch gives
the multiply-adds. Copies and inner products of arrays far larger than the caches give the bytes, counted as read and
written. (A cache that fetches a line before writing it moves more.) The other rates come from arrays that stay in the
second-level cache of each thread, and from larger ones, for which the time to wake the threads does not count; on CUDA
exponentials come from a loop in registers. Numbers are random, because a GPU takes less power for constants and may
multiply them faster. If a rate is measured in several ways the fastest counts.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import records
from benchmarks.measure.conditions import conditions, machine_name
from benchmarks.measure.device import use_device
from benchmarks.measure.rows import NOT_INSTALLED, Row, timing
from benchmarks.measure.tables import Table
from benchmarks.measure.tasks import QUICK, Task, emit, python_task, task_options
from benchmarks.measure.timer import enough, once, seconds_each
from mmphate_gpu.runtime.devices import one_thread
from mmphate_gpu.runtime.optional import available

NAME = "floors"
PARTS = ()  # it is not divided
BY = "torch"
# The rate of bytes is the faster of these.
BYTES = ("copy", "read")
# Bytes of the arrays of these two rates: many times any cache, also that of a GPU with tens of megabytes.
LARGE = {"cpu": 2**29, "cuda": 2**30}
LARGE_QUICK = 2**27
# Bytes of an array for each thread: two of them fit in a second-level cache of a megabyte, or in the third-level cache.
# Torch gives a thread at least 32,768 numbers, so that smaller arrays would leave threads without work.
WITHIN_CACHE = (2**18, 2**22)
PRODUCT = (2048, 4096)  # rows of the matrices; twice as many on CUDA
ROUNDS = 512  # of the loop in registers
REPEATS = 9


Work = tuple[Callable[[], Any], float]  # a call, and how much it does
Way = Callable[[torch.device, bool], Work]  # (device, quick)


@dataclass(frozen=True)
class Floor:
    """A rate, its unit, and the ways in which it is measured."""

    name: str
    unit: str
    ways: tuple[Way, ...]


def _copy(device: torch.device, quick: bool) -> Work:
    source, target = _large(device, quick)
    return lambda: target.copy_(source), 2.0 * source.nbytes


def _read(device: torch.device, quick: bool) -> Work:
    """An inner product, which writes nothing."""
    first, second = _large(device, quick)
    return lambda: torch.dot(first, second), float(first.nbytes + second.nbytes)


def _large(device: torch.device, quick: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return _pair(device, LARGE_QUICK if quick else LARGE[device.type])


@functools.lru_cache(maxsize=1)
def _pair(device: torch.device, n_bytes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two arrays for copies and reads. Both repeat a short array of random numbers, which is made quickly."""
    some = torch.randn(min(2**18, n_bytes // 8), dtype=torch.float64, device=device)
    first, second = (some.repeat(n_bytes // some.nbytes) for _ in range(2))
    return first, second


def _product(dtype: torch.dtype, precision: str = "highest") -> tuple[Way, ...]:
    def of(n: int) -> Way:
        def make(device: torch.device, quick: bool) -> Work:
            rows = (2 * n if device.type == "cuda" else n) // (4 if quick else 1)
            square = torch.randn(rows, rows, dtype=dtype, device=device)
            target = torch.empty_like(square)

            def call() -> None:
                with _precision(precision):
                    torch.mm(square, square, out=target)

            return call, 2.0 * rows**3

        return make

    return tuple(of(n) for n in PRODUCT)


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _each(dtype: torch.dtype, *functions: Callable[..., Any]) -> tuple[Way, ...]:
    def of(function: Callable[..., Any], n_bytes: int) -> Way:
        def make(device: torch.device, quick: bool) -> Work:
            n = torch.get_num_threads() * n_bytes // dtype.itemsize
            source = torch.linspace(0.5, 1.5, n, dtype=dtype, device=device)
            target = torch.empty_like(source)
            return lambda: function(source, out=target), float(n)

        return make

    return tuple(of(function, n_bytes) for function in functions for n_bytes in WITHIN_CACHE)


def _exp_in_registers(device: torch.device, quick: bool) -> Work:
    from benchmarks.suites.exp_loop import exp_loop

    source = torch.rand(2**22, device=device)
    return lambda: exp_loop(source, ROUNDS), float(source.numel() * ROUNDS)


def _of_both(name: str, unit: str, ways: Callable[[torch.dtype], tuple[Way, ...]]) -> list[Floor]:
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    return [Floor(f"{name}-{dtype_name}", unit, ways(dtype)) for dtype_name, dtype in dtypes.items()]


MOVES = [Floor("copy", "bytes", (_copy,)), Floor("read", "bytes", (_read,))]
PRODUCTS = _of_both("fma", "flop", _product)
ON_CPU = [
    *_of_both("exp", "exp", lambda dtype: _each(dtype, torch.exp)),
    # Torch's square root also handles special cases, which takes longer than the division in `rsqrt`.
    *_of_both("sqrt", "sqrt", lambda dtype: _each(dtype, torch.sqrt, torch.rsqrt)),
    *_of_both("division", "divisions", lambda dtype: _each(dtype, torch.reciprocal)),
]
ON_CUDA = [
    Floor("fma-tf32", "flop", _product(torch.float32, "high")),
    Floor("fma-float16", "flop", _product(torch.float16)),
    Floor("exp-float32", "exp", (_exp_in_registers,)),
]


def floors(device: torch.device) -> list[Floor]:
    """The rates that are measured on ``device``."""
    return [*MOVES, *PRODUCTS, *(ON_CUDA if device.type == "cuda" else ON_CPU)]


def why_not(floor: Floor) -> str | None:
    """What the machine lacks to measure the rate, or None."""
    missing = _exp_in_registers in floor.ways and not available("triton")
    return f"{NOT_INSTALLED}: triton" if missing else None


@dataclass
class _Timed:
    """A way to measure a rate, and the seconds of its calls."""

    call: Callable[[], Any]
    work: float
    n: int  # calls in a sample
    cold: float
    warm: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.work / min(self.warm)


def measure(chosen: Sequence[Floor], device: torch.device, *, quick: bool) -> list[Row]:
    """The rows of these rates. Their repeats take turns, so that a slow moment of the machine decides no rate."""
    now = conditions(device)
    timed = {floor.name: [] if why_not(floor) else _timed(floor, device, quick) for floor in chosen}
    _pair.cache_clear()  # the calls keep the arrays as long as they are needed
    for _ in range(REPEATS):
        for way in itertools.chain(*timed.values()):
            way.warm.append(seconds_each(way.n, way.call, device))
    return [_row(floor, timed[floor.name], now) for floor in chosen]


def _timed(floor: Floor, device: torch.device, quick: bool) -> list[_Timed]:
    ways = []
    for call, work in (make(device, quick) for make in floor.ways):
        cold = once(call, device)
        ways.append(_Timed(call, work, enough(call, device), cold))
    return ways


def _row(floor: Floor, ways: Sequence[_Timed], now: Mapping[str, Any]) -> Row:
    row = Row(suite=NAME, case=floor.name, by=BY, unit=floor.unit, **now)
    if not ways:
        return replace(row, skipped=why_not(floor))
    best = max(ways, key=lambda way: way.rate)
    return replace(row, work=best.work, rate=best.rate, cold_seconds=best.cold, warmup=1, **timing(best.warm))


def measured(device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of all rates with all threads, and on the CPU also with one thread."""
    rows = measure(floors(device), device, quick=quick)
    if device.type == "cuda" or rows[0].threads == 1:
        return rows
    with one_thread():
        alone = measure(floors(device), device, quick=quick)
    return [*rows, *(replace(row, machine=rows[0].machine, settings={"threads": 1}) for row in alone)]


def rates(rows: Sequence[Row]) -> dict[str, float]:
    """Each rate with all threads, by name."""
    return {row.case: row.rate for row in rows if row.rate is not None and not row.settings}


def rates_of(folder: Path | None, device: torch.device, *, quick: bool) -> dict[str, float]:
    """The rates that this suite has written into ``folder`` for the machine; without any they are measured.

    The rates of small inputs are used only for a ``quick`` op, and only if there are none of the full run.
    """
    written = [] if folder is None else records.read(records.result_path(folder, NAME, machine_name(device)))
    small = rates([row for row in written if row.task.startswith(QUICK)])
    full = rates([row for row in written if not row.task.startswith(QUICK)])
    return full or (quick and small) or rates(measure(floors(device), device, quick=quick))


def floor_of(needs: Mapping[str, float], rate: Mapping[str, float]) -> tuple[float, str] | None:
    """The least seconds of a work, and the rate that decides them; None if no rate is known.

    ``needs`` has amounts of work by the name of their rate. "bytes" have the faster rate of `BYTES`.

    >>> floor_of({"bytes": 30.0, "fma-float32": 8.0}, {"copy": 10.0, "read": 15.0, "fma-float32": 2.0})
    (4.0, 'fma-float32')
    """
    best = max((name for name in BYTES if name in rate), key=rate.__getitem__, default="")
    named = {best if name == "bytes" else name: work for name, work in needs.items()}
    return max(((work / rate[name], name) for name, work in named.items() if name in rate and work > 0), default=None)


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """One process, so that all ops, tables and plots have the same rates."""
    limits = {"timeout": 600.0, "estimate": 5.0 if quick else 90.0}
    return [python_task(NAME, QUICK * quick + NAME, NAME, device=device, quick=quick, **limits)]


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """One table, with a line for each rate: all threads, and one thread."""
    alone = {row.case: row for row in rows if row.settings and row.rate}
    whole = [row for row in rows if row.rate is not None and not row.settings]
    lines = [
        (row.case, f"{row.rate:.2e}", f"{alone[row.case].rate:.2e}" if row.case in alone else "", f"{row.unit}/s")
        for row in whole
    ]
    return [Table(("floor", "all threads", "one thread", "in"), lines)]


def main() -> int:
    options = task_options().parse_args()
    emit(measured(use_device(options.device), quick=options.quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
