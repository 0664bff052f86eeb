"""Suite "pipeline" and its goals."""

from __future__ import annotations

from typing import Any

from benchmarks import run
from benchmarks.measure import records
from benchmarks.suites import pipeline

from ..made import fake_task, row

GOOD: dict[str, Any] = {"preservation": {"10": 0.21, "40": 0.39}, "t": 20, "stress": 0.1}


def test_goals_that_are_missed_are_told():
    good = row(**GOOD)
    assert pipeline.missed_goals([good]) == []
    bad = row(
        case="suite-hopf-lazy",
        seconds=91.0,
        peak_bytes=5 * 10**9,
        preservation={"10": 0.2, "40": 0.39},
        t=21,
        stress=0.2,
    )
    missed = "\n".join(pipeline.missed_goals([good, bad]))
    for part in ("91.0 s", "5.00 GB", "0.2000 of 10", "t = 21, the sparse form has 20", "stress 0.2000"):
        assert part in missed
    assert "40 neighbors" not in missed


def test_a_plan_that_is_off_is_told():
    near, off = (row(**GOOD, peak_bytes=10**9, predicted_peak_bytes=int(planned * 1e9)) for planned in (0.86, 1.16))
    assert pipeline.missed_goals([near]) == []
    missed = ["suite-hopf-sparse: peak 1.00 GB, planned 1.16 GB, goal within 15%"]
    assert pipeline.missed_goals([off]) == missed


def test_a_stage_has_a_goal_of_its_own():
    slow, quick = row(stage="mds", seconds=1.9), row(stage="mds", seconds=1.4)
    elsewhere = row(case="walk-1600x6x10", stage="mds", seconds=9.0)
    missed = pipeline.slow_stages([slow, quick, elsewhere, row(stage="landmarks", seconds=9.0), row()])
    assert missed == ["suite-hopf-sparse, mds: 1.90 s, goal at most 1.5 s"]


def test_the_pipeline_bench_keeps_the_rows_of_other_cases(tmp_path, monkeypatch, capsys):
    made = {
        name: [row(case=name, stage="mds", seconds=1.0), row(case=name, **GOOD)]
        for name in ("suite-hopf-lazy", "suite-hopf-sparse")
    }
    fake_task(monkeypatch, made)
    for only in ("suite-hopf-lazy", "suite-hopf-sparse", "suite-hopf-lazy"):
        assert run.main(["--fresh", "--case", only, "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    assert [r.case for r in records.read(file)] == ["suite-hopf-sparse"] * 2 + ["suite-hopf-lazy"] * 2
    text = capsys.readouterr().out
    assert "suite-hopf-lazy" in text and text.count("No goal is missed.") == 3


def test_the_pipeline_bench_ends_with_1_if_a_goal_is_missed(tmp_path, monkeypatch, capsys):
    slow = row(case="suite-hopf-lazy", **(GOOD | {"seconds": 91.0}))
    fake_task(monkeypatch, {"suite-hopf-sparse": [row(**GOOD)], "suite-hopf-lazy": [slow]})
    only = ["--out", str(tmp_path), "--case", "suite-hopf-sparse"]
    assert run.main(only) == 0
    assert run.main([*only, "--case", "suite-hopf-lazy"]) == 1
    assert "suite-hopf-lazy: 91.0 s, goal at most 90 s" in capsys.readouterr().out
    (file,) = tmp_path.iterdir()
    assert [r.case for r in records.read(file)] == ["suite-hopf-sparse", "suite-hopf-lazy"]  # written all the same


def test_the_pipeline_bench_ends_with_1_if_a_case_fails(tmp_path, monkeypatch, capsys):
    fake_task(monkeypatch, {"suite-hopf-lazy": None})
    assert run.main(["pipeline", "--only", "suite-hopf-lazy", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "suite-hopf-lazy, mmphate-gpu: broke" in err and "No goal is missed." in out


def test_the_memory_of_a_goal_is_that_of_the_device():
    fields = GOOD | {"peak_bytes": 9 * 10**9, "device_peak_bytes": 10**9, "predicted_peak_bytes": 10**9, "seconds": 0.1}
    assert pipeline.missed_goals([row(**fields)]) == []
    assert len(pipeline.missed_goals([row(**(fields | {"device_peak_bytes": 4 * 10**9}))])) == 2


def test_only_a_gpu_gets_the_large_run():
    keys = {device: [task.key for task in pipeline.tasks(device, False)] for device in ("cpu", "cuda")}
    assert set(keys["cuda"]) - set(keys["cpu"]) == {"large-125x400x200x50"}
