"""What the machine can do at most: bytes, multiply-adds, exponentials, roots and divisions a second.

Run ``python benchmarks/floors.py``. The other suites set their ops against these rates (`floor_of`). Every rate is the
best of its repeats, by torch: a matrix product for multiply-adds; arrays far beyond the caches for bytes, which are
counted as those read and those written (a cache that fetches a line before it writes it moves more); arrays within the
third-level cache for the rest, and on CUDA a loop in registers for exponentials.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import records
from benchmarks.harness import add_run_arguments, run_suite
from benchmarks.rows import NOT_INSTALLED, Row, plain_table, timing
from benchmarks.tasks import QUICK, Task, emit, python_task
from benchmarks.timer import cold_and_warm
from mmphate_gpu._optional import available
from mmphate_gpu.ops.devices import one_thread, resolve_device

NAME = "floors"
BY = "torch"
# What a work of bytes is held against: whichever way to move them is faster here.
BYTES = ("copy", "read")
# Bytes of the arrays of these: many times any cache, on a GPU with tens of megabytes of it too.
LARGE = {"cpu": 2**29, "cuda": 2**31}
LARGE_QUICK = 2**27
# Numbers of an array within the third-level cache, large enough that to wake the threads takes no time beside it.
WITHIN_CACHE = 2**20
ROUNDS = 512  # of the loop in registers
REPEATS = 15


@dataclass(frozen=True)
class Floor:
    """One rate: how it is taken, and in what it is counted."""

    name: str
    unit: str
    make: Callable[[torch.device, bool], tuple[Callable[[], Any], float]]  # (device, quick) -> a call and its work


def _copy(device: torch.device, quick: bool) -> tuple[Callable[[], Any], float]:
    source, target = _large(device, quick), _large(device, quick)
    return lambda: target.copy_(source), 2.0 * source.nbytes


def _read(device: torch.device, quick: bool) -> tuple[Callable[[], Any], float]:
    source = _large(device, quick)
    return source.amax, float(source.nbytes)


def _large(device: torch.device, quick: bool) -> torch.Tensor:
    n_bytes = LARGE_QUICK if quick else LARGE[device.type]
    return torch.ones(n_bytes // 8, dtype=torch.float64, device=device)


def _product(dtype: torch.dtype, precision: str = "highest") -> Callable:
    def make(device: torch.device, quick: bool) -> tuple[Callable[[], Any], float]:
        n = 8192 if device.type == "cuda" else 2048
        n = n // 2 if quick else n
        square = torch.ones(n, n, dtype=dtype, device=device)
        target = torch.empty_like(square)

        def call() -> None:
            with _precision(precision):
                torch.mm(square, square, out=target)

        return call, 2.0 * n**3

    return make


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _each(function: Callable, dtype: torch.dtype) -> Callable:
    def make(device: torch.device, quick: bool) -> tuple[Callable[[], Any], float]:
        source = torch.linspace(0.5, 1.5, WITHIN_CACHE, dtype=dtype, device=device)
        target = torch.empty_like(source)
        return lambda: function(source, out=target), float(WITHIN_CACHE)

    return make


def _division(dtype: torch.dtype) -> Callable:
    return _each(lambda source, out: torch.div(source, source.flip(0), out=out), dtype)


def _exp_in_registers(device: torch.device, quick: bool) -> tuple[Callable[[], Any], float]:
    from benchmarks.exp_loop import exp_loop

    source = torch.rand(2**22, device=device)
    return lambda: exp_loop(source, ROUNDS), float(source.numel() * ROUNDS)


def _of_both(name: str, unit: str, make: Callable[[torch.dtype], Callable]) -> list[Floor]:
    kinds = {"float32": torch.float32, "float64": torch.float64}
    return [Floor(f"{name}-{kind}", unit, make(dtype)) for kind, dtype in kinds.items()]


MOVES = [Floor("copy", "bytes", _copy), Floor("read", "bytes", _read)]
PRODUCTS = _of_both("fma", "flop", _product)
ON_CPU = [
    *_of_both("exp", "exp", lambda dtype: _each(torch.exp, dtype)),
    *_of_both("sqrt", "sqrt", lambda dtype: _each(torch.sqrt, dtype)),
    *_of_both("division", "divisions", _division),
]
ON_CUDA = [
    Floor("fma-tf32", "flop", _product(torch.float32, "high")),
    Floor("fma-float16", "flop", _product(torch.float16)),
    Floor("exp-float32", "exp", _exp_in_registers),
]


def floors(device: torch.device) -> list[Floor]:
    """The rates that are taken on ``device``."""
    return [*MOVES, *PRODUCTS, *(ON_CUDA if device.type == "cuda" else ON_CPU)]


def why_not(floor: Floor) -> str | None:
    """What the machine lacks for it, or None."""
    missing = floor.make is _exp_in_registers and not available("triton")
    return f"{NOT_INSTALLED}: triton" if missing else None


def measure(floor: Floor, device: torch.device, about: Mapping[str, Any], *, quick: bool) -> Row:
    """The row of one rate; the best of the repeats counts."""
    row = Row(suite=NAME, case=floor.name, by=BY, unit=floor.unit, **about)
    if reason := why_not(floor):
        return replace(row, skipped=reason)
    call, work = floor.make(device, quick)
    cold, warm = cold_and_warm(call, device, REPEATS)
    return replace(row, work=work, rate=work / min(warm), cold_seconds=cold, warmup=1, **timing(warm))


def whole_machine(device: torch.device, *, quick: bool) -> list[Row]:
    """Rows of all rates, with all threads."""
    about = records.about(device)
    return [measure(floor, device, about, quick=quick) for floor in floors(device)]


def measured(device: torch.device, *, quick: bool) -> list[Row]:
    """Those, and on the CPU the same with one thread."""
    rows = whole_machine(device, quick=quick)
    if device.type == "cuda" or rows[0].threads == 1:
        return rows
    with one_thread():
        alone = whole_machine(device, quick=quick)
    return [*rows, *(replace(row, machine=rows[0].machine, settings={"threads": 1}) for row in alone)]


def rates(rows: Sequence[Row]) -> dict[str, float]:
    """Each rate with all threads, by name."""
    return {row.case: row.rate for row in rows if row.rate is not None and not row.settings}


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
    """One process: rates of one machine in one mood."""
    options = ["--rows", f"--device={device}", *["--quick"] * quick]
    time = {"timeout": 300.0, "estimate": 5.0 if quick else 30.0}
    return [python_task(NAME, QUICK * quick + NAME, "floors.py", *options, **time)]


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
        emit(measured(resolve_device(options.device), quick=options.quick))
        return 0
    rows, code = run_suite(lambda device: tasks(device, options.quick), options)
    print(plain_table(*table(rows, "")))
    return code


if __name__ == "__main__":
    sys.exit(main())
