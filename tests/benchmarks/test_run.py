"""The command that runs the suites."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from benchmarks import cases, run, suites
from benchmarks.measure import records, tables
from benchmarks.measure.tasks import Task
from benchmarks.suites import pipeline
from mmphate_gpu import cli
from mmphate_gpu.params import STORAGES

from .made import WHERE, rows_file, some_task


@pytest.fixture
def some_suites(monkeypatch):
    """Two suites whose tasks print a row."""
    table = {"tables": lambda rows: [tables.Table(("case",), [(r.case,) for r in rows])]}
    good = SimpleNamespace(tasks=lambda device, quick, only: [some_task(f"one-{device}-{quick}")], **table)
    broken = Task("two", "b", (sys.executable, "-c", "raise SystemExit('broke')"))
    two = SimpleNamespace(tasks=lambda device, quick, only: [broken], **table)
    monkeypatch.setattr(suites, "NAMES", ("s", "two"))
    monkeypatch.setattr(suites, "suite", {"s": good, "two": two}.__getitem__)
    monkeypatch.setattr(run, "conditions_of", lambda device: (device, WHERE))


def test_the_harness_runs_suites_and_goes_on_after_a_failure(tmp_path, some_suites, capsys):
    assert run.main(["s", "--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert run.main(["--full", "--device", "cpu", "--out", str(tmp_path)]) == 1
    _, err = capsys.readouterr()
    assert "broke" in err and "2 tasks, about 0:10 on two cores" in err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s-some-cpu-2-cores.jsonl", "two-some-cpu-2-cores.jsonl"]
    assert [r.task for r in rows_file(tmp_path)] == ["one-cpu-True", "one-cpu-False"]


def test_the_command_line_reaches_the_harness(tmp_path, some_suites, capsys):
    assert cli.main(["bench", "s", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "s\ncase\none-cpu-False\n\nNo goal is missed.\n"
    assert len(rows_file(tmp_path)) == 1


def test_a_file_that_is_cut_is_not_taken_as_whole(tmp_path, some_suites, capsys):
    options = ["s", "--device", "cpu", "--out", str(tmp_path)]
    assert run.main(options) == 0
    (file,) = tmp_path.glob("s-*.jsonl")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(SystemExit) as end:
        run.main(options)
    assert end.value.code == 2 and "line 1, holds no benchmark rows" in capsys.readouterr().err


@pytest.mark.skipif(records.fcntl is None, reason="the system has no locks")
def test_a_second_run_into_one_folder_ends_with_2(tmp_path, some_suites, capsys):
    with records.locked(tmp_path), pytest.raises(SystemExit) as end:
        run.main(["s", "--device", "cpu", "--out", str(tmp_path)])
    assert end.value.code == 2 and "--out" in capsys.readouterr().err
    assert not list(tmp_path.glob("s-*"))


def test_settings_given_by_hand_make_another_task():
    keys = [
        pipeline.case_task("walk-small", "cpu", **settings).key
        for settings in ({}, {"repeats": 0}, {"storage": "lazy"})
    ]
    assert keys == ["walk-small", "walk-small-repeats=0", "walk-small-storage=lazy"]


def test_a_device_that_is_not_there_ends_with_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run.main(["--case", "walk-small", "--device", "cuda:99", "--out", str(tmp_path / "out")])
    assert end.value.code == 2 and "cuda:99" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_harness_lists_tasks_and_cases(capsys):
    assert run.main(["--list", "pipeline", "scale"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cases.CASES) and "slices-508x30x6-storage=lazy" in text


@pytest.mark.parametrize("name", suites.NAMES)
def test_every_suite_has_tasks_with_keys_of_their_own(name):
    module = suites.suite(name)
    for quick in (True, False):
        tasks = module.tasks("cpu", quick)
        assert tasks and len({task.key for task in tasks}) == len(tasks)
        assert {task.suite for task in tasks} == {name}
    keys = [task.key for task in module.tasks("cpu", False)]
    assert all(task.after is None or task.after in keys for task in module.tasks("cpu", False))


def test_a_quick_run_is_meant_to_take_under_three_minutes():
    estimates = [task.estimate for name in suites.NAMES for task in suites.suite(name).tasks("cpu", True)]
    assert sum(estimates) <= 170


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to run"),
        (["--case", "nope"], "--case nope is unknown; accepted: walk-small"),
        (["nope"], "SUITE nope is unknown; accepted: floors, ops"),
        (["--quick", "--full"], "exclude each other"),
        (["--quick", "--only", "units"], "--only needs one SUITE"),
        (["scale", "--only", "nope"], "--only nope is unknown; accepted: slices, units"),
        (["--case", "walk-small", "--repeats", "-1"], "must not be negative"),
    ],
)
def test_bad_usage_ends_with_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        run.main([*arguments, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_harness_knows_every_form_of_storage():
    action = next(a for a in run.parser()._actions if a.dest == "storage")
    assert tuple(action.choices) == STORAGES  # written again there: listing the cases loads no torch
