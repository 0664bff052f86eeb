"""The machine's rates, the shares that ops have of their floors, and the roofline."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import bench_ops, floors, harness, records, report, roofline, timer  # noqa: E402
from benchmarks.rows import NOT_INSTALLED, Row  # noqa: E402

CPU = torch.device("cpu")
WHERE = {"device": "cpu", "machine": "some-cpu-2-cores", "threads": 2, "source": "abc", "date": "2026-01-02"}


def rate_row(case: str, rate: float, **changes: Any) -> Row:
    return Row(suite="floors", case=case, by="torch", rate=rate, unit="x", task="floors", **WHERE, **changes)


def op_row(op: str, flop: float, n_bytes: float, seconds: float) -> Row:
    times = {"seconds": 2 * seconds, "seconds_low": seconds, "flop": flop, "moved_bytes": n_bytes}
    return Row(suite="ops", case="an input", stage=op, by="C++", task="guttman_transform", **WHERE, **times)


@pytest.fixture
def small(monkeypatch):
    """Arrays that take no time."""
    monkeypatch.setattr(floors, "LARGE_QUICK", 2**16)
    monkeypatch.setattr(floors, "WITHIN_CACHE", 2**10)
    monkeypatch.setattr(floors, "REPEATS", 2)


# ---------------------------------------------------------------- floors


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
    head, lines = floors.table(rows, "")
    assert len(lines) == len(names) and all(len(line) == len(head) for line in lines)


def test_work_is_counted_as_bytes_and_operations_are(small):
    work = {floor.name: floor.make(CPU, True)[1] for floor in floors.floors(CPU)}
    assert (work["copy"], work["read"]) == (2 * 2**16, 2**16)
    assert work["fma-float32"] == work["fma-float64"] == 2 * 1024**3
    assert work["exp-float32"] == work["sqrt-float64"] == 2**10


def test_the_exponentials_of_a_gpu_are_what_they_are_counted_as():
    code = (
        "import torch; from benchmarks.exp_loop import exp_loop, SIZE\n"
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
    row = floors.measure(floor, torch.device("cuda"), WHERE, quick=True)
    assert row.skipped == f"{NOT_INSTALLED}: triton" and row.rate is None


def test_a_graphics_card_has_its_own_rates():
    names = {floor.name for floor in floors.floors(torch.device("cuda"))}
    assert {"copy", "read", "fma-float32", "fma-float64", "fma-tf32", "fma-float16", "exp-float32"} == names


def test_the_first_call_stands_apart():
    calls = []
    cold, warm = timer.cold_and_warm(lambda: calls.append(1), CPU, 3)
    assert len(calls) == 4 and len(warm) == 3 and cold > 0


# ---------------------------------------------------------------- ops


@pytest.fixture(scope="module")
def data():
    made = bench_ops.Data(CPU, True)
    made.n_landmark = 60
    made.points = made.points[:120]
    return made


def test_every_op_names_rates_that_some_machine_has(data):
    known = {floor.name for kind in ("cpu", "cuda") for floor in floors.floors(torch.device(kind))} | {"bytes"}
    listed = {op: make(data) for op, make in {**bench_ops.OPS, **bench_ops.TILE_OPS}.items()}
    for op, calls in listed.items():
        assert calls and all(one.op == op and one.work > 0 for one in calls)
        assert all(one.needs.keys() <= known and one.needs["bytes"] > 0 and one.flop > 0 for one in calls)
    product = next(one for one in listed["csr_matmul"] if one.what == "float64 x 32")
    assert product.flop == product.work == 2 * data.sparse.nnz * 32
    n_nodes = data.points.shape[0] * data.points.shape[1]
    assert product.needs["bytes"] == 8 * data.sparse.nnz + 2 * 8 * 32 * n_nodes
    square = listed["symmetric_product"][0]
    assert square.flop == 60**3  # each entry of one half: 60 products and sums


def test_a_share_is_the_floor_of_the_best_call():
    one = bench_ops.Measured("op", "x", lambda: None, "C++", 8.0, "flop", {"fma-float32": 8.0, "bytes": 2.0})
    row = bench_ops.measure(one, CPU, 3, {"copy": 1e12, "fma-float32": 1e9})
    assert (row.floor_seconds, row.bound, row.flop, row.moved_bytes) == (8e-9, "fma-float32", 8.0, 2.0)
    assert row.share_of_floor == pytest.approx(8e-9 / row.seconds_low) and row.rate == 8.0 / row.seconds_low
    assert row.portable_seconds is None
    unknown = bench_ops.measure(one, CPU, 1, {})
    assert unknown.share_of_floor is None and unknown.bound == ""


def test_suites_are_tasks():
    (full,), (quick,) = floors.tasks("cpu", False), floors.tasks("cpu", True)
    assert (full.key, quick.key) == ("floors", "quick-floors") and "--quick" in quick.command
    assert harness.suite_module("floors") is floors and harness.suite_module("ops") is bench_ops


def test_ops_are_tasks_of_their_own_at_full_size():
    assert [task.key for task in bench_ops.tasks("cpu", False)] == [*bench_ops.OPS]
    assert [task.key for task in bench_ops.tasks("cpu", True)] == ["quick-all"]
    (on_cuda,) = bench_ops.tasks("cuda:0", False)
    assert on_cuda.key == "all" and f"--only={[*bench_ops.TILE_OPS][0]}" in on_cuda.command
    (one,) = bench_ops.tasks("cpu", False, ["csr_matmul"], 2)
    assert one.key == "csr_matmul-2" and {"--only=csr_matmul", "--repeats=2"} <= set(one.command)


# ---------------------------------------------------------------- the roofline

RATES = [rate_row("copy", 1e10), rate_row("read", 2e10), rate_row("fma-float32", 1e11), rate_row("fma-float64", 5e10)]
OPS = [op_row("few", 1e9, 1e9, 0.2), op_row("many", 1e11, 1e9, 2.0)]


def test_points_lie_under_their_roofs(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(roofline, "saved", lambda figure, path: drawn.append(figure) or path)
    alone = [replace(row, rate=row.rate / 2, settings={"threads": 1}) for row in RATES]
    roofline.roofline(OPS, [*RATES, *alone], tmp_path / "a.png")
    lines = drawn[0].axes[0].get_lines()
    points = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in lines[:2]}
    assert points == {"few": (1.0, 5e9), "many": (100.0, 5e10)}
    slope, *levels = lines[2:5]
    assert slope.get_ydata()[-1] / slope.get_xdata()[-1] == pytest.approx(2e10)  # the faster way of bytes
    assert [level.get_ydata()[0] for level in levels] == [1e11, 5e10]
    assert [level.get_xdata()[0] for level in levels] == [pytest.approx(5.0), pytest.approx(2.5)]
    assert [line.get_ydata()[0] for line in lines[6:8]] == [5e10, 2.5e10]


def test_the_report_draws_a_roofline_a_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "SUITES", ("floors", "ops"))
    results, images = tmp_path / "results", tmp_path / "images"
    records.replace(results / "ops-some-cpu-2-cores.jsonl", OPS)
    assert report.draw(results, images) == []  # no floors, no roofs
    records.replace(results / "floors-some-cpu-2-cores.jsonl", RATES)
    (path,) = report.draw(results, images)
    assert path.name == "roofline-some-cpu-2-cores.png" and path.stat().st_size > 10_000
    assert "| copy | 1.00e+10 |" in report.table("floors", results)
