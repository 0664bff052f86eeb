"""What the machine can do at most: bytes, multiply-adds, exponentials, roots and divisions a second.

Run ``python benchmarks/suites/floors.py``. The ops are set against the rates that it wrote (`rates_of`, `floor_of`). Every
rate is the best of its repeats, which take turns with those of the others, by torch: a matrix product for
multiply-adds; arrays far beyond the caches for bytes, which are counted as those read and those written (a cache that
fetches a line before it writes it moves more); for the rest arrays that stay in the second-level cache of each thread,
again and again for a millisecond, and larger ones, where to wake the threads takes no time beside the work; on CUDA a
loop in registers for exponentials. Numbers are random, because a GPU may multiply constants faster: they take less
power. Where a rate is taken in several ways the fastest counts.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.measure import records
from benchmarks.measure.devices import use_device
from benchmarks.measure.rows import NOT_INSTALLED, Row, plain_table, timing
from benchmarks.measure.tasks import QUICK, Task, emit, python_task
from benchmarks.measure.timer import enough, once, one_of
from benchmarks.run import add_run_arguments, run_suite
from mmphate_gpu.runtime.devices import one_thread
from mmphate_gpu.runtime.optional import available

NAME = "floors"
BY = "torch"
# What a work of bytes is held against: whichever way to move them is faster here.
BYTES = ("copy", "read")
# Bytes of the arrays of these: many times any cache, on a GPU with tens of megabytes of it too.
LARGE = {"cpu": 2**29, "cuda": 2**30}
LARGE_QUICK = 2**27
# Bytes of an array of each thread: two of them stay in a second-level cache of a megabyte, or in the third-level one.
# With less torch would give the work to fewer threads: it shares out 32,768 numbers at least.
WITHIN_CACHE = (2**18, 2**22)
PRODUCT = (2048, 4096)  # rows of the matrices; twice as many on CUDA
ROUNDS = 512  # of the loop in registers
REPEATS = 9


Work = tuple[Callable[[], Any], float]  # a call, and how much it does
Way = Callable[[torch.device, bool], Work]  # (device, quick)


@dataclass(frozen=True)
class Floor:
    """One rate: the ways in which it is taken, and in what it is counted."""

    name: str
    unit: str
    ways: tuple[Way, ...]


def _copy(device: torch.device, quick: bool) -> Work:
    source, target = _large(device, quick)
    return lambda: target.copy_(source), 2.0 * source.nbytes


def _read(device: torch.device, quick: bool) -> Work:
    """An inner product, for which nothing is written."""
    one, other = _large(device, quick)
    return lambda: torch.dot(one, other), float(one.nbytes + other.nbytes)


def _large(device: torch.device, quick: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return _pair(device, LARGE_QUICK if quick else LARGE[device.type])


@functools.lru_cache(maxsize=1)
def _pair(device: torch.device, n_bytes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two arrays that copies and reads share. They repeat one short run of random numbers, which takes little time."""
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
    kinds = {"float32": torch.float32, "float64": torch.float64}
    return [Floor(f"{name}-{kind}", unit, ways(dtype)) for kind, dtype in kinds.items()]


MOVES = [Floor("copy", "bytes", (_copy,)), Floor("read", "bytes", (_read,))]
PRODUCTS = _of_both("fma", "flop", _product)
ON_CPU = [
    *_of_both("exp", "exp", lambda dtype: _each(dtype, torch.exp)),
    # What torch's root does beside it takes longer than the division in `rsqrt`.
    *_of_both("sqrt", "sqrt", lambda dtype: _each(dtype, torch.sqrt, torch.rsqrt)),
    *_of_both("division", "divisions", lambda dtype: _each(dtype, torch.reciprocal)),
]
ON_CUDA = [
    Floor("fma-tf32", "flop", _product(torch.float32, "high")),
    Floor("fma-float16", "flop", _product(torch.float16)),
    Floor("exp-float32", "exp", (_exp_in_registers,)),
]


def floors(device: torch.device) -> list[Floor]:
    """The rates that are taken on ``device``."""
    return [*MOVES, *PRODUCTS, *(ON_CUDA if device.type == "cuda" else ON_CPU)]


def why_not(floor: Floor) -> str | None:
    """What the machine lacks for it, or None."""
    missing = _exp_in_registers in floor.ways and not available("triton")
    return f"{NOT_INSTALLED}: triton" if missing else None


@dataclass
class _Taken:
    """One way to a rate, and what its calls took."""

    call: Callable[[], Any]
    work: float
    n: int  # calls of a sample
    cold: float
    warm: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.work / min(self.warm)


def measure(chosen: Sequence[Floor], device: torch.device, *, quick: bool) -> list[Row]:
    """The rows of these rates; the repeats of all take turns, so that a mood of the machine decides none of them."""
    about = records.about(device)
    taken = {floor.name: [] if why_not(floor) else _taken(floor, device, quick) for floor in chosen}
    _pair.cache_clear()  # so that it lasts no longer than the calls
    for _ in range(REPEATS):
        for one in itertools.chain(*taken.values()):
            one.warm.append(one_of(one.n, one.call, device))
    return [_row(floor, taken[floor.name], about) for floor in chosen]


def _taken(floor: Floor, device: torch.device, quick: bool) -> list[_Taken]:
    found = []
    for call, work in (make(device, quick) for make in floor.ways):
        cold = once(call, device)
        found.append(_Taken(call, work, enough(call, device), cold))
    return found


def _row(floor: Floor, taken: Sequence[_Taken], about: Mapping[str, Any]) -> Row:
    row = Row(suite=NAME, case=floor.name, by=BY, unit=floor.unit, **about)
    if not taken:
        return replace(row, skipped=why_not(floor))
    best = max(taken, key=lambda one: one.rate)
    return replace(row, work=best.work, rate=best.rate, cold_seconds=best.cold, warmup=1, **timing(best.warm))


def measured(device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of all rates, with all threads, and on the CPU with one thread too."""
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
    """The rates that this suite has written for the machine into ``folder``; measured here where it has not.

    The rates of small inputs serve a ``quick`` op alone, and no op where there are those of the full run.
    """
    there = [] if folder is None else records.read(records.result_path(folder, NAME, records.machine_name(device)))
    small = rates([row for row in there if row.task.startswith(QUICK)])
    full = rates([row for row in there if not row.task.startswith(QUICK)])
    return full or (quick and small) or rates(measure(floors(device), device, quick=quick))


def floor_of(needs: Mapping[str, float], rate: Mapping[str, float]) -> tuple[float, str] | None:
    """The least seconds of a work, and the rate that decides them; None where no rate is known.

    ``needs`` counts the work by the rate it is done at; "bytes" go at the faster of those of `BYTES`.

    >>> floor_of({"bytes": 30.0, "fma-float32": 8.0}, {"copy": 10.0, "read": 15.0, "fma-float32": 2.0})
    (4.0, 'fma-float32')
    """
    best = max((name for name in BYTES if name in rate), key=rate.__getitem__, default="")
    named = {best if name == "bytes" else name: work for name, work in needs.items()}
    found = [(work / rate[name], name) for name, work in named.items() if name in rate and work > 0]
    return max(found, default=None)


def tasks(device: str, quick: bool) -> list[Task]:
    """One process: the rates of all ops, tables and pictures."""
    options = ["--rows", f"--device={device}", *["--quick"] * quick]
    time = {"timeout": 600.0, "estimate": 5.0 if quick else 90.0}
    return [python_task(NAME, QUICK * quick + NAME, "suites/floors.py", *options, **time)]


def table(rows: Sequence[Row], which: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of the table of floors: one line a rate, all threads beside one."""
    alone = {row.case: row for row in rows if row.settings and row.rate}
    whole = [row for row in rows if row.rate is not None and not row.settings]
    lines = [
        (row.case, f"{row.rate:.2e}", f"{alone[row.case].rate:.2e}" if row.case in alone else "", f"{row.unit}/s")
        for row in whole
    ]
    return ("floor", "all threads", "one thread", "in"), lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", action="store_true", help="measure in this process and print the rows: a task")
    options = add_run_arguments(parser).parse_args(argv)
    if options.rows:
        emit(measured(use_device(options.device), quick=options.quick))
        return 0
    rows, code = run_suite(lambda device: tasks(device, options.quick), options)
    print(plain_table(*table(rows, "")))
    return code


if __name__ == "__main__":
    sys.exit(main())
