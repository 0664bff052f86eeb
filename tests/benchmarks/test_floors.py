"""The machine's rates, the shares that ops have of their floors, and the roofline."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import run as harness
from benchmarks.measure import records, rows, timer
from benchmarks.measure.rows import NOT_INSTALLED, Row
from benchmarks.measure.tasks import OUT
from benchmarks.report import report, roofline
from benchmarks.suites import floors, op_calls, op_inputs
from benchmarks.suites import ops as bench_ops
from mmphate_gpu.ops import descent_step

ROOT = Path(__file__).resolve().parents[2]

CPU = torch.device("cpu")
WHERE = {"device": "cpu", "machine": "some-cpu-2-cores", "threads": 2, "source": "abc", "date": "2026-01-02"}


def rate_row(case: str, rate: float, **changes: Any) -> Row:
    return Row(suite="floors", case=case, by="torch", rate=rate, unit="x", task="floors", **WHERE, **changes)


def op_row(op: str, flop: float, n_bytes: float, seconds: float) -> Row:
    times = {"seconds": seconds, "seconds_low": seconds / 2, "flop": flop, "moved_bytes": n_bytes}
    return Row(suite="ops", case="an input", stage=op, by="C++", task="guttman_transform", **WHERE, **times)


@pytest.fixture
def small(monkeypatch):
    """Arrays that take no time."""
    monkeypatch.setattr(floors, "LARGE_QUICK", 2**16)
    monkeypatch.setattr(floors, "REPEATS", 2)
    monkeypatch.setattr(timer, "LEAST", 0.0)


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
    assert names == [f"aten.{kind}.out" for kind in kinds]


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
    monkeypatch.setattr(records, "machine_name", lambda device: WHERE["machine"])
    monkeypatch.setattr(floors, "measure", lambda chosen, device, quick: [rate_row("copy", 1.0 if quick else 2.0)])
    path = records.result_path(tmp_path, "floors", WHERE["machine"])
    found = lambda quick: floors.rates_of(tmp_path, CPU, quick=quick)  # noqa: E731
    assert floors.rates_of(None, CPU, quick=False) == found(False) == {"copy": 2.0} and found(True) == {"copy": 1.0}
    small = replace(rate_row("copy", 3.0), task="quick-floors")
    records.replace(path, [small])
    assert found(True) == {"copy": 3.0} and found(False) == {"copy": 2.0}  # small inputs give no rates of the full run
    records.replace(path, [small, rate_row("copy", 4.0), rate_row("copy", 9.0, settings={"threads": 1})])
    assert found(True) == found(False) == {"copy": 4.0} == floors.rates(records.read(path)[1:])


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
    monkeypatch.setattr(records, "about", lambda device: WHERE)
    (row,) = floors.measure([floor], torch.device("cuda"), quick=True)
    assert row.skipped == f"{NOT_INSTALLED}: triton" and row.rate is None


def test_a_graphics_card_has_its_own_rates():
    names = {floor.name for floor in floors.floors(torch.device("cuda"))}
    assert {"copy", "read", "fma-float32", "fma-float64", "fma-tf32", "fma-float16", "exp-float32"} == names


# ---------------------------------------------------------------- the clock


def test_the_first_call_stands_apart():
    calls = []
    cold, warm = timer.cold_and_warm(lambda: calls.append(1), CPU, 3)
    assert len(calls) == 4 and len(warm) == 3 and cold > 0


class Queue:
    """A stream whose calls take ``seconds`` each, and the events that its clock stamps."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.now, self.calls, self.samples = seconds, 0.0, 0, []
        queue = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at, self.calls = queue.now, queue.calls

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, end: Event) -> float:
                queue.samples.append(end.calls - self.calls)
                return (end.at - self.at) * 1e3

        monkeypatch.setattr(torch.cuda, "Event", Event)

    def call(self) -> None:
        self.now += self.seconds
        self.calls += 1


@pytest.mark.parametrize("seconds, together", [(0.7e-6, 2048), (0.3e-3, 4), (0.02, 1)])
def test_events_lie_a_millisecond_apart(monkeypatch, seconds, together):
    queue = Queue(seconds, monkeypatch)
    cold, warm = timer.cold_and_warm(queue.call, torch.device("cuda"), 3)
    assert [cold, *warm] == pytest.approx([seconds] * 4)
    assert queue.samples[0] == 1 and queue.samples[-3:] == [together] * 3 and together * seconds >= 1e-3


def test_what_calls_change_is_put_back_outside_the_clock(monkeypatch):
    queue, put_back = Queue(0.3e-3, monkeypatch), []

    def restore(n):
        put_back.append(n)
        queue.now += 5.0

    assert timer.warm(queue.call, torch.device("cuda"), 2, restore) == pytest.approx([0.3e-3] * 2)
    assert put_back == queue.samples == [1, 2, 4, 4, 4]


# ---------------------------------------------------------------- ops


@pytest.fixture(scope="module")
def data():
    made = op_inputs.Data(CPU, True)
    made.n_landmark = 60
    made.points = made.points[:120]
    return made


def test_every_op_names_rates_that_some_machine_has(data):
    known = {floor.name for kind in ("cpu", "cuda") for floor in floors.floors(torch.device(kind))} | {"bytes"}
    listed = {op: make(data) for op, make in {**op_calls.OPS, **op_calls.TILE_OPS}.items()}
    for op, calls in listed.items():
        assert calls and all(one.op == op and one.work > 0 for one in calls)
        assert all(one.needs.keys() <= known and one.needs["bytes"] > 0 and one.flop > 0 for one in calls)
    product = next(one for one in listed["csr_matmul"] if one.what == "float64 x 32")
    assert product.flop == product.work == 2 * data.sparse.nnz * 32
    n_nodes = data.points.shape[0] * data.points.shape[1]
    assert product.needs["bytes"] == 8 * data.sparse.nnz + 2 * 8 * 32 * n_nodes
    square = listed["symmetric_product"][0]
    assert square.flop == 60**3  # each entry of one half: 60 products and sums


def test_a_share_is_the_floor_of_the_median_call():
    one = op_calls.Measured("op", "x", lambda: ROWS, "C++", 8.0, "flop", {"fma-float32": 8.0, "bytes": 2.0})
    row = bench_ops.measure(one, CPU, 3, {"copy": 1e12, "fma-float32": 1e9})
    assert (row.floor_seconds, row.bound, row.flop, row.moved_bytes) == (8e-9, "fma-float32", 8.0, 2.0)
    assert row.share_of_floor == pytest.approx(8e-9 / row.seconds) and row.rate == 8.0 / row.seconds
    assert row.portable_seconds is None and row.error is None
    unknown = bench_ops.measure(one, CPU, 1, {})
    assert unknown.share_of_floor is None and unknown.bound == ""


ROWS = torch.tensor([1.0, 4.0])


def test_an_error_is_that_of_what_serves():
    given = ("op", "x", lambda: ROWS + 0.5, "C++", 8.0, "flop", {"bytes": 2.0})
    beside = bench_ops.measure(op_calls.Measured(*given, lambda: ROWS), CPU, 1, {})
    assert beside.error == 0.125 and beside.portable_seconds > 0  # half of one, of the largest number
    judged = bench_ops.measure(op_calls.Measured(*given, judge=lambda found: float(found[0])), CPU, 1, {})
    assert judged.error == 1.5 and judged.portable_seconds is None
    assert op_calls.relative_error(ROWS, ROWS[:1]) == 1.0
    shown = replace(beside, share_of_floor=0.5, bound="read", added_bytes=3_000_000)
    ((*_, error, adds, share, bound),) = rows.op_cells([shown])[1]
    assert (error, adds, share, bound) == ("1.2e-01", "3 MB", "0.50", "read")


def test_a_row_has_what_the_first_call_added_to_the_memory():
    one = op_calls.Measured("op", "x", lambda: torch.ones(2**26), "C++", 8.0, "flop", {"bytes": 2.0})
    gc.collect()
    row = bench_ops.measure(one, CPU, 1, {})
    # 268 MB, all touched, give or take what else the process takes and gives back: with 34 MB that once decided.
    assert 200e6 < row.added_bytes < 400e6


def test_results_that_are_written_in_place_are_compared(data):
    (fill,) = op_calls.OPS["radius_fill"](data)
    (values,) = fill.call()
    assert values.numel() == fill.work and values.dtype == torch.float32
    row = bench_ops.measure(replace(fill, portable=lambda: [values.mul_(0)]), CPU, 1, {})
    assert row.error > 1  # a copy was kept of what the op wrote, before the portable version wrote to the same place


def test_the_portable_version_stands_beside_another_alone(data, monkeypatch):
    monkeypatch.setattr(op_calls.twins, "serving_op", lambda op, device: "portable torch (switched off)")
    listed = [one for make in op_calls.OPS.values() for one in make(data)]
    assert all(one.portable is None for one in listed)


def test_products_are_timed_as_the_library_does_them(data, monkeypatch):
    monkeypatch.setattr(op_calls.twins, "serving_op", lambda op, device: "C++ (some)")
    calls = {one.what: one for one in op_calls.OPS["csr_matmul"](data)}
    narrow = [what for what, one in calls.items() if one.by == "portable torch (narrow)"]
    assert narrow == ["float32 x 16", "float32 x 8", "float32 x 1"]
    assert all((one.portable is None) == (what in narrow) for what, one in calls.items())
    served = []
    monkeypatch.setitem(op_calls.twins.PORTABLE, "csr_matmul", lambda *given: served.append(1))
    calls["float32 x 8"].call()
    assert served


def test_every_timed_step_of_the_descent_is_the_same(data):
    (one,) = op_calls.OPS["descent_step"](data)
    found = []
    for _ in range(3):
        one.restore(2)
        found += [[tensor.clone() for tensor in one.call()] for _ in range(2)]
    assert all(torch.equal(a, b) for others in found for a, b in zip(others, found[0], strict=True))
    again = one.restore.__self__
    state, after = again.tensors[-1], again.copies[0][-1]
    assert state[descent_step.N_KEPT] == after[descent_step.N_KEPT] == descent_step.DEPTH
    # A long step that was taken: a better point, nothing refused, and a long one comes next.
    assert after[descent_step.BEST] < state[descent_step.BEST]
    assert after[descent_step.REFUSED] == 0 and not after[descent_step.PLAIN]


def test_suites_are_tasks():
    (full,), (quick,) = floors.tasks("cpu", False), floors.tasks("cpu", True)
    assert (full.key, quick.key) == ("floors", "quick-floors") and "--quick" in quick.command
    assert harness.suite_module("floors") is floors and harness.suite_module("ops") is bench_ops


def test_ops_are_tasks_of_their_own_at_full_size():
    apart = bench_ops.tasks("cpu", False)
    assert [task.key for task in apart] == [*op_calls.OPS] == [task.about["stage"] for task in apart]
    (quick,) = bench_ops.tasks("cpu", True)
    assert quick.key == "quick-all" and quick.about == {"stage": "all"}
    (one,) = bench_ops.tasks("cpu", False, ["csr_matmul"], 2)
    assert one.key == "csr_matmul-2" and {"--only=csr_matmul", "--repeats=2", "--folder", OUT} <= set(one.command)


def test_ops_share_processes_on_cuda():
    groups = bench_ops.tasks("cuda:0", False)
    assert [task.key for task in groups] == [*op_calls.GROUPS]
    asked = [part for task in groups for part in task.command if part.startswith("--only=")]
    assert asked == [f"--only={op}" for op in (*op_calls.OPS, *op_calls.TILE_OPS)]
    some = bench_ops.tasks("cuda:0", False, ["descent_step", "csr_matmul", "guttman_transform"])
    assert [task.key for task in some] == ["csr_matmul", "descent_step-guttman_transform"]


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
