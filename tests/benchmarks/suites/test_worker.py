"""The process of a case."""

from __future__ import annotations

import weakref

import pytest
import torch

from benchmarks import cases
from benchmarks.measure import conditions, device, tasks
from benchmarks.suites import pipeline, worker
from mmphate_gpu import MMPHATE, plan
from mmphate_gpu.datasets import random_walk
from mmphate_gpu.stages import STAGES


def test_a_case_is_measured_in_a_process_of_its_own():
    rows = tasks.run_task(pipeline.case_task("golden-walk", "cpu", storage="tiles"))
    assert [r.stage for r in rows] == [*STAGES, "total"]
    total = rows[-1]
    assert {r.storage for r in rows} == {"tiles"} and total.settings == {"n_landmark": 120, "storage": "tiles"}
    assert total.seconds_low <= total.seconds <= total.seconds_high and total.repeats == worker.REPEATS
    assert total.cold_seconds > 0 and total.import_seconds > 0
    assert total.cold_seconds >= sum(r.cold_seconds for r in rows[:-1]) > 0
    assert total.peak_bytes == max(r.peak_bytes for r in rows) > total.held_bytes > 5e7
    assert total.predicted_peak_bytes == max(r.predicted_peak_bytes for r in rows)
    assert total.device_peak_bytes is None and total.main_peak_bytes == total.peak_bytes
    assert 0 < total.added_bytes <= total.peak_bytes - total.held_bytes + 2**20  # held is asked for twice
    assert total.predicted_peak_bytes > total.held_bytes
    assert (total.n_slices, total.n_units, total.n_samples, total.n_nodes) == (28, 20, 12, 560)
    # The second start of MDS ends 1.8 % below the published stress, which has one start.
    assert (total.t, total.stress) == (total.t_expected, pytest.approx(0.982 * total.stress_expected, rel=1e-3))
    assert total.affinity_error_max < 5e-4 and total.pattern_differences == 0
    assert total.statistics["islands"] == 1 and total.statistics["interslice_share"] == 1
    assert {r.task for r in rows} == {"golden-walk-storage=tiles"} and total.source == conditions.source()
    assert conditions.same_conditions(total, conditions.conditions("cpu"))


def test_a_case_that_is_refused_ends_with_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["worker", "walk-small", "--device", "cuda:99"])
    with pytest.raises(SystemExit) as end:
        worker.main()
    assert end.value.code == tasks.REFUSAL and "cuda:99" in capsys.readouterr().err


def test_long_runs_are_not_repeated_and_leave_nothing_behind(monkeypatch):
    walk = random_walk(30, 3, 4)
    meter = device.PeakMeter(torch.device("cpu"))
    options = {"n_landmark": 20, "random_state": 0, "device": "cpu"}
    seconds = worker.runs(walk, options, meter, None)[1]
    assert {len(of_stage) for of_stage in seconds.values()} == {1 + worker.REPEATS}
    assert worker.times(seconds["total"])["repeats"] == worker.REPEATS
    monkeypatch.setattr(worker, "LONG", 0.0)
    cold = worker.times(worker.runs(walk, options, meter, None)[1]["affinity"])
    assert (cold["repeats"], cold["seconds"]) == (0, cold["cold_seconds"]) and "seconds_low" not in cold
    alive: list[weakref.ref] = []

    class Counted(MMPHATE):
        def fit(self, *args):
            assert not any(ref() for ref in alive)  # the results of the run before are gone
            alive.append(weakref.ref(self))
            return super().fit(*args)

    monkeypatch.setattr(worker, "MMPHATE", Counted)
    worker.runs(walk, options, meter, 2)
    assert len(alive) == 3


def test_nothing_of_the_library_runs_before_the_cold_run(monkeypatch):
    done = []

    class Noted(MMPHATE):
        def fit(self, *args):
            done.append("fit")
            return super().fit(*args)

    def noted_plan(trace, **options):
        done.append(f"plan {options['storage']}")
        return plan(trace, **options)

    monkeypatch.setattr(worker, "MMPHATE", Noted)
    monkeypatch.setattr(worker, "plan", noted_plan)
    total = worker.run_case(cases.CASES["walk-small"], device=torch.device("cpu"), repeats=1)[-1]
    assert done == ["fit", "fit", "plan sparse"]
    assert total.predicted_peak_bytes >= total.held_bytes
