"""The suite that measures fits beside busy loops."""

from __future__ import annotations

import pytest

from benchmarks.measure import records
from benchmarks.measure.rows import Row
from benchmarks.suites import busy

from ..made import WHERE


def rows_of(seconds):
    """Rows of the walk with sleeping waits, by how many loops ran."""
    return [
        Row(suite=busy.NAME, case=busy.WALK, by=busy.SLEEPS, stage=busy._beside(n), task=f"{busy.WALK}, {n}", seconds=s)
        for n, s in seconds.items()
    ]


def test_loops_end_with_their_block_even_after_an_error(monkeypatch):
    started = []
    popen = busy.subprocess.Popen
    monkeypatch.setattr(busy.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with pytest.raises(KeyError), busy.busy_loops(2):
        assert [loop.poll() for loop in started] == [None, None]
        raise KeyError
    assert [loop.poll() for loop in started] == [-9, -9]


def test_ways_take_turns_and_other_rows_stay(monkeypatch, tmp_path):
    turns = []

    def run_task(task):
        turns.append(task.key)
        return [Row(suite=busy.NAME, case=busy.WALK, by=task.key, seconds=float(len(turns)), **WHERE)]

    monkeypatch.setattr(busy, "run_task", run_task)
    monkeypatch.setattr(busy, "LOOP", (busy.sys.executable, "-c", "pass"))
    for n_loops in ("0", "1", "0"):
        monkeypatch.setattr("sys.argv", ["busy", busy.WALK, n_loops, "--folder", str(tmp_path)])
        turns.clear()
        busy.main()
        assert turns == [busy.SPINS, busy.SLEEPS] * 3
    rows = records.read(tmp_path / "busy-some-cpu-2-cores.jsonl")
    assert [(row.by, row.stage, row.seconds) for row in rows] == [
        (busy.SPINS, "alone", 3.0),
        (busy.SPINS, "beside 1", 3.0),
        (busy.SLEEPS, "alone", 4.0),
        (busy.SLEEPS, "beside 1", 4.0),
    ]
    assert {row.task for row in rows} <= {task.key for task in busy.tasks("cpu", False)}


def test_the_table_and_the_goal():
    (table,) = busy.tables(rows_of({0: 2.0, 1: 3.0, 2: 4.9}))
    assert table.lines == [(busy.WALK, busy.SLEEPS, "2.0", "3.0", "4.9", "2.5")]
    assert not busy.missed_goals(rows_of({0: 2.0, 2: 5.0}))
    assert busy.missed_goals(rows_of({0: 2.0, 2: 5.2})) == [
        f"busy of {busy.WALK}: 2.6 times as long as alone, goal at most 2.5"
    ]


def test_a_fit_without_the_watch_is_measured(monkeypatch):
    from mmphate_gpu.runtime import busy_cores

    monkeypatch.setattr(busy, "_case", lambda name: busy.CASES["walk-small"])
    monkeypatch.setattr(busy_cores, "_gnu_openmp", busy_cores._gnu_openmp)  # it is restored
    row = busy.fit(busy.WALK, busy.SPINS)
    assert busy_cores._gnu_openmp() is None
    assert row.seconds > 0
    assert row.n_nodes == 180
