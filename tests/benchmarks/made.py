"""Rows and tasks for the tests."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from benchmarks import run
from benchmarks.measure import records, tasks
from benchmarks.measure.rows import Row
from benchmarks.measure.tasks import Task

WHERE = {
    "device": "cpu",
    "machine": "some-cpu-2-cores",
    "threads": 2,
    "memory_bytes": 16 * 10**9,
    "versions": {"torch": "2"},
    "source": "abc",
    "date": "2026-01-02",
}


SIZES = {"n_slices": 8080, "n_units": 6, "n_samples": 10, "n_nodes": 48480, "n_landmark": 4000}


def row(**changes: Any) -> Row:
    plain = {"suite": "pipeline", "case": "suite-hopf-sparse", "task": "suite-hopf-sparse", "storage": "sparse"}
    plain |= {**SIZES, **WHERE}
    return Row(**(plain | {"seconds": 20.0, "repeats": 0, "peak_bytes": 10**9} | changes))


PRINTED = "import json, sys; print('first'); print(json.dumps([{'suite': 's', 'case': sys.argv[1], 'seconds': 1.0}]))"


def some_task(key: str, code: str = PRINTED, **options: Any) -> Task:
    return Task("s", key, (sys.executable, "-c", code, key), **options)


def run_all(chosen: list[Task], out: Path, **options: Any) -> tuple[list[Row], int, list[str]]:
    said: list[str] = []
    rows, code = tasks.run_tasks(chosen, out, WHERE, say=said.append, **options)
    return rows, code, said


def rows_file(out: Path) -> list[Row]:
    return records.read(records.result_path(out, "s", WHERE["machine"]))


def fake_task(monkeypatch, outcomes: dict[str, list[Row] | str]) -> None:
    """Tasks give the rows of their case, or refuse (a reason) or fail (None)."""

    def run_task(task, out):
        outcome = next(value for name, value in outcomes.items() if task.key.startswith(name))
        if outcome is None:
            raise tasks.TaskFailed("broke")
        if isinstance(outcome, str):
            raise tasks.TaskRefused(outcome)
        return [dataclasses.replace(r, task=task.key) for r in outcome]

    monkeypatch.setattr(tasks, "run_task", run_task)
    monkeypatch.setattr(run, "conditions_of", lambda device: ("cpu", WHERE))


def scale_rows(*sizes: int, growth: float = 4.0, axis: str = "slices") -> list[Row]:
    """Two stages whose seconds grow by ``growth`` and not at all where a size doubles, and a total."""
    rows = []
    for turn, n in enumerate(sizes):
        n_units = n if axis == "units" else 30
        n_slices = n if axis == "slices" else 100
        common = {"suite": "scale", "case": f"{axis}-{n_slices}x{n_units}x6", "settings": {"axis": axis}}
        common |= {"n_slices": n_slices, "n_units": n_units, "n_nodes": n_slices * n_units, "task": f"{axis}-{n}"}
        seconds = 2 * growth**turn
        rows += [
            row(stage="landmarks", **common | {"cold_seconds": seconds}),
            row(stage="mds", **common | {"cold_seconds": 1.5}),
        ]
        peak = {"peak_bytes": 10**9 * (2**turn + 1), "held_bytes": 10**9, "added_bytes": 10**9 * 2**turn}
        rows.append(row(**common | peak | {"cold_seconds": seconds + 1.5, "t": 21}))
    return rows


def dense_rows() -> list[Row]:
    """The dense reference until time ends it and until memory does, and this library."""

    def picture(n: int, by: str, **fields: Any) -> Row:
        sizes = {"n_nodes": n, "n_units": 6, "n_samples": 10, "task": f"picture-{n}-{by}"}
        return row(suite="against", case="picture", by=by, **sizes, **{"seconds": None, "peak_bytes": None, **fields})

    sizes = [(1008, 10**8, 1.0), (2016, 4 * 10**8, 8.0)]
    measured = [picture(n, "reference", peak_bytes=peak, seconds=s, cold_seconds=2 * s) for n, peak, s in sizes]
    stopped = [
        picture(64512, "reference", skipped="ran out of memory: no more"),
        picture(4032, "reference", skipped="took more than 300 s"),
        picture(8064, "reference", skipped="took more than 300 s"),
    ]
    ours = picture(2016, "mmphate-gpu", peak_bytes=10**8, seconds=0.5, cold_seconds=0.6)
    return [*measured, *stopped, ours]
