"""Suite "ops": calls, rows and tasks."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import run
from benchmarks.measure import records
from benchmarks.measure.rows import Row
from benchmarks.measure.tasks import OUT
from benchmarks.suites import floors, op_calls, op_inputs, ops
from mmphate_gpu.ops import descent_step

from ..made import WHERE

CPU = torch.device("cpu")


def op_row(**changes: Any) -> Row:
    fields = {
        "suite": "ops",
        "stage": "guttman_transform",
        "case": "4000 x 3, float32",
        "by": "C++ (avx2)",
        "seconds": 0.002,
        "rate": 1e10,
    }
    return Row(**({**fields, "unit": "pairs", "portable_seconds": 0.06, **WHERE} | changes))


def test_op_goals_are_ratios_and_rates_of_one_run():
    double = op_row(case="4000 x 3, float64", seconds=0.004, portable_seconds=0.04)
    assert ops.sweep_ratio([double, op_row()]) == pytest.approx(30)
    assert ops.missed_goals([op_row(), double]) == []
    slow = op_row(seconds=0.01)
    counts = op_row(stage="radius_counts", rate=1e9, goal=3e9)
    missed = ops.missed_goals([slow, double, counts])
    assert len(missed) == 2 and "1e+09 pairs/s, goal 3e+09" in missed[0] and "6.0 times the portable" in missed[1]
    assert ops.missed_goals([op_row(device="cuda", seconds=0.01), double]) == []


@pytest.mark.slow
def test_bench_ops_measures_what_serves_and_writes_it(tmp_path, capsys):
    only = ["--only", "guttman_transform", "--only", "assign_nearest"]
    assert run.main(["ops", "--quick", "--device", "cpu", "--out", str(tmp_path), *only]) == 0
    (file,) = tmp_path.iterdir()
    results = records.read(file)
    assert [r.stage for r in results] == ["guttman_transform"] * 8 + ["assign_nearest"]
    assert all(r.seconds > 0 and r.rate > 0 for r in results)
    out = capsys.readouterr().out
    assert "500 x 3, float32" in out and "times portable" in out and "assign_nearest" in out


@pytest.mark.slow
def test_every_op_of_the_bench_runs(tmp_path):
    assert run.main(["ops", "--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    from mmphate_gpu.ops.launch.twins import PORTABLE

    assert {r.stage for r in records.read(file)} >= {*PORTABLE}


@pytest.fixture(scope="module")
def data():
    made = op_inputs.Data(CPU, True)
    made.n_landmark = 60
    made.points = made.points[:120]
    return made


def test_every_op_names_rates_that_some_machine_has(data):
    known = {floor.name for device in ("cpu", "cuda") for floor in floors.floors(torch.device(device))} | {"bytes"}
    listed = {op: make(data) for op, make in {**op_calls.OPS, **op_calls.TILE_OPS}.items()}
    for op, calls in listed.items():
        assert calls and all(call.op == op and call.work > 0 for call in calls)
        assert all(call.needs.keys() <= known and call.needs["bytes"] > 0 and call.flop > 0 for call in calls)
    product = next(call for call in listed["csr_matmul"] if call.case == "float64 x 32")
    assert product.flop == product.work == 2 * data.sparse.nnz * 32
    n_nodes = data.points.shape[0] * data.points.shape[1]
    assert product.needs["bytes"] == 8 * data.sparse.nnz + 2 * 8 * 32 * n_nodes
    square = listed["symmetric_product"][0]
    assert square.flop == 60**3  # each entry of one half: 60 products and sums


def test_a_share_is_the_floor_of_the_median_call():
    call = op_calls.Call("op", "x", lambda: ROWS, "C++", 8.0, "flop", {"fma-float32": 8.0, "bytes": 2.0})
    row = ops.measure(call, CPU, 3, {"copy": 1e12, "fma-float32": 1e9})
    assert (row.floor_seconds, row.bound, row.flop, row.moved_bytes) == (8e-9, "fma-float32", 8.0, 2.0)
    assert row.share_of_floor == pytest.approx(8e-9 / row.seconds) and row.rate == 8.0 / row.seconds
    assert row.portable_seconds is None and row.error is None
    unknown = ops.measure(call, CPU, 1, {})
    assert unknown.share_of_floor is None and unknown.bound == ""


ROWS = torch.tensor([1.0, 4.0])


def test_an_error_is_that_of_what_serves():
    arguments = ("op", "x", lambda: ROWS + 0.5, "C++", 8.0, "flop", {"bytes": 2.0})
    beside = ops.measure(op_calls.Call(*arguments, lambda: ROWS), CPU, 1, {})
    assert beside.error == 0.125 and beside.portable_seconds > 0  # half of one, of the largest number
    judged = ops.measure(op_calls.Call(*arguments, judge=lambda result: float(result[0])), CPU, 1, {})
    assert judged.error == 1.5 and judged.portable_seconds is None
    assert op_calls.relative_error(ROWS, ROWS[:1]) == 1.0
    shown = replace(beside, share_of_floor=0.5, bound="read", added_bytes=3_000_000)
    ((*_, error, adds, share, bound),) = ops.tables([shown])[0].lines
    assert (error, adds, share, bound) == ("1.2e-01", "3 MB", "0.50", "read")


def test_a_row_has_what_the_first_call_added_to_the_memory():
    call = op_calls.Call("op", "x", lambda: torch.ones(2**26), "C++", 8.0, "flop", {"bytes": 2.0})
    gc.collect()
    row = ops.measure(call, CPU, 1, {})
    # 268 MB, all touched, give or take what else the process takes and gives back: with 34 MB that once decided.
    assert 200e6 < row.added_bytes < 400e6


def test_results_that_are_written_in_place_are_compared(data):
    (fill,) = op_calls.OPS["radius_fill"](data)
    (values,) = fill.run()
    assert values.numel() == fill.work and values.dtype == torch.float32
    row = ops.measure(replace(fill, portable=lambda: [values.mul_(0)]), CPU, 1, {})
    assert row.error > 1  # a copy was kept of what the op wrote, before the portable version wrote to the same place


def test_the_portable_version_stands_beside_another_alone(data, monkeypatch):
    monkeypatch.setattr(op_calls.twins, "serving_op", lambda op, device: "portable torch (switched off)")
    listed = [call for make in op_calls.OPS.values() for call in make(data)]
    assert all(call.portable is None for call in listed)


def test_products_are_timed_as_the_library_does_them(data, monkeypatch):
    monkeypatch.setattr(op_calls.twins, "serving_op", lambda op, device: "C++ (some)")
    calls = {call.case: call for call in op_calls.OPS["csr_matmul"](data)}
    narrow = [what for what, call in calls.items() if call.by == "portable torch (narrow)"]
    assert narrow == ["float32 x 16", "float32 x 8", "float32 x 1"]
    assert all((call.portable is None) == (what in narrow) for what, call in calls.items())
    served = []
    monkeypatch.setitem(op_calls.twins.PORTABLE, "csr_matmul", lambda *arguments: served.append(1))
    calls["float32 x 8"].run()
    assert served


def test_every_timed_step_of_the_descent_is_the_same(data):
    (call,) = op_calls.OPS["descent_step"](data)
    results = []
    for _ in range(3):
        call.restore(2)
        results += [[tensor.clone() for tensor in call.run()] for _ in range(2)]
    assert all(torch.equal(a, b) for others in results for a, b in zip(others, results[0], strict=True))
    copies = call.restore.__self__
    state, after = copies.tensors[-1], copies.copies[0][-1]
    assert state[descent_step.N_KEPT] == after[descent_step.N_KEPT] == descent_step.DEPTH
    # A long step that was taken: a better point, nothing refused, and a long one comes next.
    assert after[descent_step.BEST] < state[descent_step.BEST]
    assert after[descent_step.REFUSED] == 0 and not after[descent_step.PLAIN]


def test_ops_are_tasks_of_their_own_at_full_size():
    apart = ops.tasks("cpu", False)
    assert [task.key for task in apart] == [*op_calls.OPS] == [task.fields["stage"] for task in apart]
    (quick,) = ops.tasks("cpu", True)
    assert quick.key == "quick-all" and quick.fields == {"stage": "all"}
    (task,) = ops.tasks("cpu", False, ["csr_matmul"])
    assert task.key == "csr_matmul" and {"csr_matmul", "--folder", OUT} <= set(task.command)


def test_ops_share_processes_on_cuda():
    groups = ops.tasks("cuda:0", False)
    assert [task.key for task in groups] == [*op_calls.GROUPS]
    asked = [part for task in groups for part in task.command if part in ops.PARTS]
    assert asked == [*ops.PARTS]
    some = ops.tasks("cuda:0", False, ["descent_step", "csr_matmul", "guttman_transform"])
    assert [task.key for task in some] == ["csr_matmul", "descent_step-guttman_transform"]
