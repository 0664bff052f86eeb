"""Suite "floors": the rates of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import suites
from benchmarks.measure import records, timer
from benchmarks.measure.records import ROOT
from benchmarks.measure.rows import NOT_INSTALLED, Row
from benchmarks.suites import floors

from ..made import WHERE

CPU = torch.device("cpu")


def rate_row(case: str, rate: float, **changes: Any) -> Row:
    return Row(suite="floors", case=case, by="torch", rate=rate, unit="x", task="floors", **WHERE, **changes)


@pytest.fixture
def small(monkeypatch):
    """Arrays that take no time."""
    monkeypatch.setattr(floors, "LARGE_QUICK", 2**16)
    monkeypatch.setattr(floors, "REPEATS", 2)
    monkeypatch.setattr(timer, "LEAST", 0.0)


def test_a_floor_is_the_slowest_of_what_has_to_be_done():
    rate = {"copy": 10.0, "read": 20.0, "fma-float32": 4.0, "exp-float64": 1.0}
    assert floors.floor_of({"bytes": 40.0}, rate) == (2.0, "read")  # bytes go the faster way
    assert floors.floor_of({"bytes": 40.0, "fma-float32": 16.0}, rate) == (4.0, "fma-float32")
    assert floors.floor_of({"bytes": 40.0, "exp-float64": 9.0, "fma-float32": 16.0}, rate) == (9.0, "exp-float64")
    # A rate that was not taken decides nothing.
    assert floors.floor_of({"bytes": 40.0, "fma-float16": 1e9}, rate) == (2.0, "read")
    assert floors.floor_of({"fma-float16": 1e9}, rate) is None and floors.floor_of({"bytes": 0.0}, rate) is None


def test_rates_are_those_of_the_whole_machine():
    rows = [rate_row("copy", 8.0), rate_row("copy", 5.0, settings={"threads": 1})]
    assert floors.rates([*rows, Row(suite="floors", case="exp-float32", skipped="not installed: triton")]) == {
        "copy": 8.0
    }


def test_every_rate_is_taken_with_all_threads_and_with_one(small):
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(2)
    try:
        rows = floors.measured(CPU, quick=True)
        assert torch.get_num_threads() == 2 and torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_num_threads(threads)
    whole = [row for row in rows if not row.settings]
    names = [floor.name for floor in floors.floors(CPU)]
    assert [row.case for row in whole] == names == [row.case for row in rows if row.settings]
    assert {row.threads for row in whole} == {2} and {row.threads for row in rows if row.settings} == {1}
    assert len({row.machine for row in rows}) == 1  # or they would go to two files
    assert all(row.rate == pytest.approx(row.work / row.seconds_low) for row in rows)
    ((head, lines, _),) = floors.tables(rows)
    assert len(lines) == len(names) and all(len(line) == len(head) for line in lines)


def test_work_is_counted_as_bytes_and_operations_are(small):
    threads = torch.get_num_threads()
    work = {floor.name: [make(CPU, True)[1] for make in floor.ways] for floor in floors.floors(CPU)}
    assert work["copy"] == work["read"] == [2 * 2**16]
    assert work["fma-float32"] == work["fma-float64"] == [2 * 512**3, 2 * 1024**3]
    assert work["exp-float32"] == [threads * 2**16, threads * 2**20]
    # Enough for every thread: torch gives none less than 32,768 numbers.
    assert work["division-float64"] == [threads * 2**15, threads * 2**19] and work["sqrt-float64"] == 2 * [
        threads * 2**15,
        threads * 2**19,
    ]


def test_nothing_is_made_within_the_clock():
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, called, types, args=(), kwargs=None):
            names.append(str(called))
            return called(*args, **(kwargs or {}))

    names: list[str] = []
    calls = [make(CPU, True)[0] for floor in floors.ON_CPU for make in floor.ways[::2]]
    with Seen():
        for call in calls:
            call()
    # The operations alone: nothing is copied, turned round or allocated beside them.
    kinds = [*["exp"] * 2, *["sqrt", "rsqrt"] * 2, *["reciprocal"] * 2]
    assert names == [f"aten.{name}.out" for name in kinds]


def test_the_fastest_way_is_the_rate(small):
    ways = tuple(lambda device, quick, work=work: (lambda: None, work) for work in (1.0, 1e6, 2.0))
    (row,) = floors.measure([floors.Floor("some", "flop", ways)], CPU, quick=True)
    assert row.work == 1e6 and row.rate == row.work / row.seconds_low and row.repeats == floors.REPEATS


def test_repeats_of_all_rates_take_turns(small):
    called = []
    chosen = [floors.Floor(name, "x", (lambda d, q, name=name: (lambda: called.append(name), 1.0),)) for name in "ab"]
    floors.measure(chosen, CPU, quick=True)
    assert "".join(called[-2 * floors.REPEATS :]) == "ab" * floors.REPEATS


def test_ops_take_the_rates_that_the_suite_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(floors, "machine_name", lambda device: WHERE["machine"])
    monkeypatch.setattr(floors, "measure", lambda chosen, device, quick: [rate_row("copy", 1.0 if quick else 2.0)])
    path = records.result_path(tmp_path, "floors", WHERE["machine"])
    rates = lambda quick: floors.rates_of(tmp_path, CPU, quick=quick)  # noqa: E731
    assert floors.rates_of(None, CPU, quick=False) == rates(False) == {"copy": 2.0} and rates(True) == {"copy": 1.0}
    small = replace(rate_row("copy", 3.0), task="quick-floors")
    records.replace(path, [small])
    assert rates(True) == {"copy": 3.0} and rates(False) == {"copy": 2.0}  # small inputs give no rates of the full run
    records.replace(path, [small, rate_row("copy", 4.0), rate_row("copy", 9.0, settings={"threads": 1})])
    assert rates(True) == rates(False) == {"copy": 4.0} == floors.rates(records.read(path)[1:])


def test_the_exponentials_of_a_gpu_are_what_they_are_counted_as():
    code = (
        "import torch; from benchmarks.suites.exp_loop import exp_loop, SIZE\n"
        "x = torch.linspace(0, 1, 2 * SIZE); y = x\n"
        "for _ in range(3): y = torch.exp2(-y)\n"
        "assert (exp_loop(x, 3) - y).abs().max() < 2e-7, 'off'"  # two units in the last place of numbers below 1
    )
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    pytest.importorskip("triton")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_rate_that_needs_a_package_says_so(monkeypatch):
    floor = next(floor for floor in floors.ON_CUDA if floor.name == "exp-float32")
    monkeypatch.setattr(floors, "available", lambda name: False)
    monkeypatch.setattr(floors, "conditions", lambda device: WHERE)
    (row,) = floors.measure([floor], torch.device("cuda"), quick=True)
    assert row.skipped == f"{NOT_INSTALLED}: triton" and row.rate is None


def test_a_graphics_card_has_its_own_rates():
    names = {floor.name for floor in floors.floors(torch.device("cuda"))}
    assert {"copy", "read", "fma-float32", "fma-float64", "fma-tf32", "fma-float16", "exp-float32"} == names


def test_suites_are_tasks():
    (full,), (quick,) = floors.tasks("cpu", False), floors.tasks("cpu", True)
    assert (full.key, quick.key) == ("floors", "quick-floors") and "--quick" in quick.command
    assert suites.suite("floors") is floors
