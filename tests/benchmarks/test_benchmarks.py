"""The benchmark scripts: their rows, files, exit codes, and that what they report is so."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import cases, peers
from benchmarks import run as harness
from benchmarks.gpu import twins
from benchmarks.measure import records, rows, tasks
from benchmarks.report import plots, report, story
from benchmarks.suites import accuracy, worker
from benchmarks.suites import ops as bench_ops
from benchmarks.suites import pipeline as bench_pipeline
from benchmarks.suites import scale as bench_scale
from mmphate_gpu import MMPHATE, cli, multislice_affinity, plan, reference, to_scipy
from mmphate_gpu.datasets import random_walk
from mmphate_gpu.ops.launch import twins as native_twins
from mmphate_gpu.params import STORAGES
from mmphate_gpu.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]

Row = rows.Row
Task = tasks.Task
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


# ---------------------------------------------------------------- rows and files


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "pipeline-box.jsonl"
    written = [
        row(),
        row(stage="mds", form="MDSResult"),
        row(t=0, preservation={"10": 0.2}, settings={"axis": "units"}),
    ]
    records.replace(path, written)
    assert records.read(path) == written
    assert path.read_text().count("\n") == 3
    assert json.loads(path.read_text().splitlines()[0])["versions"] == {"torch": "2"}  # a line says everything itself
    assert "stress" not in path.read_text()  # and nothing that it does not know
    records.replace(path, written[:1])
    assert records.read(path) == written[:1]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_torn_line_is_no_row(tmp_path):
    path = tmp_path / "a.jsonl"
    records.replace(path, [row(), row(case="other")])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(records.BadRows, match="line 2, holds no benchmark rows"):
        records.read(path)
    assert records.read(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize("line", ["[1]", "{", '{"unknown": 1}', '{"suite": "x"}'])
def test_lines_that_are_no_rows_are_refused(tmp_path, line):
    path = tmp_path / "a.jsonl"
    records.replace(path, [row()])
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match="line 2, holds no benchmark rows"):
        records.read(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    records.replace(path, [row()])
    with pytest.raises(ValueError, match="JSON"):
        records.replace(path, [row(seconds=float("nan"))])

    def ended(*arguments):
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(records.os, name, ended)
            records.replace(path, [row(), row(case="other")])
    assert records.read(path) == [row()]
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


WRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from benchmarks.measure import records
path, name = Path(sys.argv[1]), sys.argv[2]
setattr(records.os, name, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
records.replace(path, records.read(path) * 2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_that_is_killed_while_it_writes_leaves_the_file_whole(tmp_path):
    path = records.result_path(tmp_path, "pipeline", "box")
    records.replace(path, [row(stage="mds"), row()])
    command = [sys.executable, "-c", WRITES_AND_DIES, str(path), "replace"]
    assert subprocess.run(command, env=tasks.environment()).returncode == -signal.SIGKILL
    assert records.read(path) == [row(stage="mds"), row()]
    assert list(tmp_path.glob("pipeline-*.jsonl")) == [path]  # what it had begun is taken for no result


@pytest.mark.skipif(records.fcntl is None, reason="the system has no locks")
def test_one_run_at_a_time_writes_into_a_folder(tmp_path):
    folder = tmp_path / "new"
    with records.locked(folder):
        with pytest.raises(records.Busy, match="--out"), records.locked(folder):
            pass
        with records.locked(tmp_path / "other"):
            pass
    with records.locked(folder):
        assert (folder / records.LOCK).exists()
    assert list(folder.iterdir()) == []
    (folder / records.LOCK).touch()  # of a run that was killed
    with records.locked(folder):
        pass


def test_what_a_row_was_measured_on():
    found = records.about("cpu", ("pytest", "no-such-package"))
    assert found["device"] == "cpu" and found["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == torch.__version__ and found["versions"]["pytest"] == pytest.__version__
    serving = native_twins.serving("cpu")
    assert found["versions"]["twins"] == (serving if serving.startswith("C++") else "none")
    assert found["memory_bytes"] > 1e9
    assert "no-such-package" not in found["versions"]
    assert len(found["source"]) == 12 and found["source"] == records.source()
    assert Row(suite="a", case="b", **found).machine == records.machine_name(torch.device("cpu"))


def test_the_source_is_what_decides_a_number(tmp_path, monkeypatch):
    decides = {
        "mmphate_gpu/a/b.py": True,
        "csrc/cpu/c.cpp": True,
        "benchmarks/cases.py": True,
        "benchmarks/peers/d.py": True,
        "benchmarks/run.py": False,
        "benchmarks/report/e.py": False,
        "benchmarks/gpu/f.py": False,
        "docs/g.md": False,
    }
    for name in decides:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(records, "ROOT", tmp_path)
    for name, changes in decides.items():
        before = records.source()
        (tmp_path / name).write_text("two")
        assert (records.source() != before) is changes, name
    assert records.commit() == ""  # no checkout of git


def test_cells_show_what_was_measured_beside_what_was_expected():
    one = row(t=21, t_expected=22, affinity_error_max=2e-7, cold_seconds=25.0, **rows.timing([19.0, 20.0, 22.0]))
    cells = dict(zip(rows.HEAD, rows.total_cells(one), strict=True))
    assert (cells["t"], cells["affinity error"], cells["peak"]) == ("21 (22)", "2.0e-07", "1.00 GB")
    assert (cells["seconds"], cells["cold"], cells["kept 10 / 40"]) == ("20.0 ± 1.50", "25.0", "")
    assert rows.spread_text(row(repeats=0)) == "20.0"


def test_a_cell_is_one_line():
    told = "Traceback:\n  a | b"
    assert rows.plain_table(("x", "y"), [("1", told)]) == "x  y\n1  a | b"
    assert rows.markdown_table(("x",), [(told,)]) == "| x |\n| --- |\n| a \\| b |"
    assert row(skipped="first\n  last.\n").reason == "last" and row().reason == ""


# ---------------------------------------------------------------- tasks

PRINTED = "import json, sys; print('first'); print(json.dumps([{'suite': 's', 'case': sys.argv[1], 'seconds': 1.0}]))"


def some_task(key: str, code: str = PRINTED, **options: Any) -> Task:
    return Task("s", key, (sys.executable, "-c", code, key), **options)


def run(chosen: list[Task], out: Path, **options: Any) -> tuple[list[Row], int, list[str]]:
    said: list[str] = []
    found, code = tasks.run_tasks(chosen, out, WHERE, say=said.append, **options)
    return found, code, said


def rows_file(out: Path) -> list[Row]:
    return records.read(records.result_path(out, "s", WHERE["machine"]))


def test_rows_of_a_task_are_kept_at_once_under_its_key(tmp_path):
    found, code, said = run([some_task("a"), some_task("b", estimate=65)], tmp_path)
    assert code == 0 and [(r.case, r.task) for r in found] == [("a", "a"), ("b", "b")]
    assert rows_file(tmp_path) == found
    assert said[0].startswith("[1/2, 0:00, about 1:10 left] s a") and "about 1:05 left] s b" in said[1]


def counting(path: Path, **fields: Any) -> str:
    """A task that writes down that it ran, and prints one row."""
    printed = {"suite": "s", "case": "c", **WHERE, **fields}
    return f"open({str(path)!r}, 'a').write('x'); import json; print(json.dumps([{printed!r}]))"


def test_what_still_holds_is_not_measured_again(tmp_path):
    ran = tmp_path / "ran"
    again = counting(ran, seconds=1.0)
    for fresh, expected in ((False, "x"), (False, "x"), (True, "xx")):
        found, _, said = run([some_task("a", again)], tmp_path, fresh=fresh)
        assert ran.read_text() == expected and len(rows_file(tmp_path)) == 1
        assert found[0].seconds == 1.0
    assert "resumed" not in said[0]
    elsewhere = counting(ran, seconds=2.0, source="of other files")
    run([some_task("a", elsewhere)], tmp_path, fresh=True)
    found, _, _ = run([some_task("a", again)], tmp_path)  # what is there has other sources
    assert ran.read_text() == "xxxx" and [r.seconds for r in rows_file(tmp_path)] == [1.0]


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"versions": {"torch": "2", "no-such-peer": "0.5"}}, True),  # of a peer that is no longer installed
        ({"versions": {"torch": "2", "pytest": pytest.__version__}}, True),
        ({"versions": {"torch": "2", "pytest": "0.5"}}, False),  # of a peer that is another now
        ({"memory_bytes": 15 * 10**9}, True),
        ({"versions": {"torch": "3"}}, False),
        ({"versions": {"torch": "2", "cupy": "13"}}, False),  # it is gone
        ({"versions": {}}, False),
        ({"memory_bytes": 12 * 10**9}, False),
        ({"memory_bytes": None}, False),
        ({"source": "of other files"}, False),
    ],
)
def test_rows_hold_on_one_machine_with_the_same_packages(changes, holds):
    assert records.same_settings(row(**changes), WHERE) is holds


def test_rows_hold_while_the_same_twins_serve():
    native = WHERE | {"versions": {"torch": "2", "twins": "C++ (avx2)"}}
    none = row(versions={"torch": "2", "twins": "none"})
    assert records.same_settings(row(versions=native["versions"]), native)
    assert not records.same_settings(none, native)
    assert records.same_settings(dataclasses.replace(none, by=rows.PORTABLE), native)  # has none by its nature
    assert "MMPHATE_GPU_NATIVE" in peers.peers()[rows.PORTABLE].environment


def test_a_file_that_is_cut_is_not_taken_as_whole(tmp_path, some_suites, capsys):
    options = ["--suite", "s", "--device", "cpu", "--out", str(tmp_path)]
    assert harness.main(options) == 0
    (file,) = tmp_path.glob("s-*.jsonl")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(SystemExit) as end:
        harness.main(options)
    assert end.value.code == 2 and "line 1, holds no benchmark rows" in capsys.readouterr().err


@pytest.mark.skipif(records.fcntl is None, reason="the system has no locks")
def test_a_second_run_into_one_folder_ends_with_2(tmp_path, some_suites, capsys):
    with records.locked(tmp_path), pytest.raises(SystemExit) as end:
        harness.main(["--suite", "s", "--device", "cpu", "--out", str(tmp_path)])
    assert end.value.code == 2 and "--out" in capsys.readouterr().err
    assert not list(tmp_path.glob("s-*"))


@pytest.mark.parametrize(
    ("code", "reason", "failed", "exit_code"),
    [
        ("import sys; print('no luck', file=sys.stderr); sys.exit(3)", "no luck", True, 1),
        ("pass", "printed no rows", True, 1),
        ("print('[1]')", "printed no rows", True, 1),
        ("import sys; print('too large', file=sys.stderr); sys.exit(2)", "refused: too large", None, 0),
        ("import time; time.sleep(60)", "took more than 1 s", True, 1),
    ],
)
def test_a_task_without_rows_leaves_its_reason_and_is_tried_again(tmp_path, code, reason, failed, exit_code):
    found, ended, said = run([some_task("a", code, timeout=1.0), some_task("b")], tmp_path)
    assert ended == exit_code
    assert reason in found[0].skipped and found[0].failed is failed and found[0].machine == WHERE["machine"]
    assert reason in "".join(said) and found[1].seconds == 1.0  # and the next one runs
    run([some_task("a")], tmp_path)
    assert [r.skipped for r in rows_file(tmp_path)] == ["", ""]


def test_a_task_says_what_it_would_have_measured(tmp_path):
    broken = some_task("a", "raise SystemExit('broke')", about={"case": "picture", "by": "reference", "n_nodes": 9})
    (found,), code, _ = run([broken], tmp_path)
    assert (found.case, found.by, found.n_nodes, found.task, found.failed) == ("picture", "reference", 9, "a", True)
    assert code == 1 and found.machine == WHERE["machine"]


def test_what_is_not_installed_is_no_failure_and_tried_again(tmp_path):
    ran = tmp_path / "ran"
    code = counting(ran, skipped="not installed: faiss")
    for _ in range(2):
        assert run([some_task("a", code)], tmp_path)[1] == 0
    assert ran.read_text() == "xx"
    died = counting(tmp_path / "died", skipped="ran out of memory")
    for _ in range(2):
        run([some_task("b", died)], tmp_path)
    assert (tmp_path / "died").read_text() == "x"  # an answer too


def test_a_series_ends_where_a_task_gives_nothing(tmp_path):
    refuses = "import sys; sys.exit(2)"
    found, code, _ = run(
        [some_task("a"), some_task("b", refuses, after="a"), some_task("c", after="b"), some_task("d", after="c")],
        tmp_path,
    )
    assert code == 0 and [r.skipped for r in found] == [
        "",
        "refused: ended with exit code 2",
        "refused: b before it gave nothing",
        "refused: c before it gave nothing",
    ]


def test_a_task_is_told_the_folder_of_the_results(tmp_path):
    code = "import json, sys; print(json.dumps([{'suite': 's', 'case': sys.argv[1]}]))"
    task = Task("s", "a", (sys.executable, "-c", code, tasks.OUT))
    assert tasks.run_task(task, tmp_path)[0].case == str(tmp_path)


def test_children_of_a_task_end_with_it(tmp_path):
    child = f"import time; time.sleep(2); open({str(tmp_path / 'alive')!r}, 'w')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    with pytest.raises(tasks.TaskFailed, match="more than 1 s"):
        tasks.run_task(some_task("a", code, timeout=1.0))
    time.sleep(1.5)
    assert not (tmp_path / "alive").exists()


# ---------------------------------------------------------------- cases and the harness


def test_every_case_has_the_name_it_is_listed_under():
    assert all(name == case.name for name, case in cases.CASES.items())
    assert set(cases.QUICK) <= cases.CASES.keys()
    assert {case for names in story.RUNS.values() for case in names} <= cases.CASES.keys()


@pytest.mark.parametrize("axis", cases.AXES)
def test_a_series_doubles_one_size_alone(axis):
    for names in (cases.SERIES[axis], cases.SMALL_SERIES[axis]):
        found = [sizes_of(name) for name in names]
        for before, after in zip(found[:-1], found[1:], strict=True):
            assert [b / a for b, a in zip(after, before, strict=True)] == [1 + (a == axis) for a in cases.AXES], names


def sizes_of(name: str) -> tuple[int, ...]:
    case = cases.CASES[name]
    sizes = next(part for part in name.split("-") if "x" in part)
    assert (case.axis, bench_scale.n_nodes(name)) == (case.axis, int(sizes.split("x")[0]) * int(sizes.split("x")[1]))
    return (*map(int, sizes.split("x")), case.options.get("n_landmark", 4000))


def test_the_slices_pass_through_har():
    sizes = [sizes_of(name)[:3] for name in cases.SERIES["slices"]]
    assert (127 * 128, 30, 6) in sizes and sizes[-1] == (130_048, 30, 6)
    first = cases.CASES[cases.SERIES["slices"][0]].trace()
    assert (first.n_slices, first.n_units, first.n_samples) == sizes[0]


@pytest.mark.slow
def test_the_digits_are_trained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "DIGITS_EPOCHS", 2)
    with monkeypatch.context() as m:
        m.setattr("mmphate_gpu.cli.demo.train", None)  # in a process of its own
        first = cases.digits_trace(tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert first.data.shape == (3, 8, 20, 50)
    assert torch.equal(first.data, cases.digits_trace(tmp_path).data) and file.stat().st_mtime_ns == written
    assert torch.equal(first.data, cases.digits_trace().data)


def test_a_case_is_measured_in_a_process_of_its_own():
    found = tasks.run_task(bench_pipeline.case_task("golden-walk", "cpu", storage="tiles"))
    assert [r.stage for r in found] == [*STAGES, "total"]
    total = found[-1]
    assert {r.storage for r in found} == {"tiles"} and total.settings == {"n_landmark": 120, "storage": "tiles"}
    assert total.seconds_low <= total.seconds <= total.seconds_high and total.repeats == worker.REPEATS
    assert total.cold_seconds > 0 and total.import_seconds > 0
    assert total.cold_seconds >= sum(r.cold_seconds for r in found[:-1]) > 0
    assert total.peak_bytes == max(r.peak_bytes for r in found) > total.held_bytes > 5e7
    assert total.predicted_peak_bytes == max(r.predicted_peak_bytes for r in found)
    assert total.device_peak_bytes is None and total.main_peak_bytes == total.peak_bytes
    assert 0 < total.added_bytes <= total.peak_bytes - total.held_bytes + 2**20  # held is asked for twice
    assert total.predicted_peak_bytes > total.held_bytes
    assert (total.n_slices, total.n_units, total.n_samples, total.n_nodes) == (28, 20, 12, 560)
    assert (total.t, total.stress) == (total.t_expected, pytest.approx(total.stress_expected, rel=1e-3))
    assert total.affinity_error_max < 5e-4 and total.pattern_differences == 0
    assert total.statistics["islands"] == 1 and total.statistics["interslice_share"] == 1
    assert {r.task for r in found} == {"golden-walk-storage=tiles"} and total.source == records.source()
    assert records.same_settings(total, records.about("cpu"))


def test_a_case_that_is_refused_ends_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        worker.main(["walk-small", "--device", "cuda:99"])
    assert end.value.code == tasks.REFUSAL and "cuda:99" in capsys.readouterr().err


@pytest.fixture
def some_suites(monkeypatch):
    """Two suites whose tasks print a row."""
    table = {"table": lambda rows, which: (("case",), [(r.case,) for r in rows])}
    one = SimpleNamespace(tasks=lambda device, quick: [some_task(f"one-{device}-{quick}")], **table)
    broken = Task("two", "b", (sys.executable, "-c", "raise SystemExit('broke')"))
    two = SimpleNamespace(tasks=lambda device, quick: [broken], **table)
    monkeypatch.setattr(harness, "SUITES", {"s": "one", "two": "two"})
    monkeypatch.setattr(harness, "suite_module", {"s": one, "two": two}.__getitem__)
    monkeypatch.setattr(harness, "about_device", lambda device: (device, WHERE))


def test_the_harness_runs_suites_and_goes_on_after_a_failure(tmp_path, some_suites, capsys):
    assert harness.main(["--suite", "s", "--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert harness.main(["--full", "--device", "cpu", "--out", str(tmp_path)]) == 1
    _, err = capsys.readouterr()
    assert "broke" in err and "2 tasks, about 0:10 on two cores" in err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s-some-cpu-2-cores.jsonl", "two-some-cpu-2-cores.jsonl"]
    assert [r.task for r in rows_file(tmp_path)] == ["one-cpu-True", "one-cpu-False"]


def test_the_command_line_reaches_the_harness(tmp_path, some_suites, capsys):
    assert cli.main(["bench", "--suite", "s", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "s\ncase\none-cpu-False\n\nNo goal is missed.\n"
    assert len(rows_file(tmp_path)) == 1


def test_settings_given_by_hand_make_another_task():
    keys = [
        bench_pipeline.case_task("walk-small", "cpu", **given).key
        for given in ({}, {"repeats": 0}, {"storage": "lazy"})
    ]
    assert keys == ["walk-small", "walk-small-repeats=0", "walk-small-storage=lazy"]


def test_a_device_that_is_not_there_ends_with_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        harness.main(["--case", "walk-small", "--device", "cuda:99", "--out", str(tmp_path / "out")])
    assert end.value.code == 2 and "cuda:99" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_harness_lists_tasks_and_cases(capsys):
    assert harness.main(["--list", "--suite", "pipeline", "--suite", "scale"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cases.CASES) and "slices-508x30x6-storage=lazy" in text


@pytest.mark.parametrize("name", harness.SUITES)
def test_every_suite_has_tasks_with_keys_of_their_own(name):
    module = harness.suite_module(name)
    for quick in (True, False):
        found = module.tasks("cpu", quick)
        assert found and len({task.key for task in found}) == len(found)
        assert {task.suite for task in found} == {name}
    keys = [task.key for task in module.tasks("cpu", False)]
    assert all(task.after is None or task.after in keys for task in module.tasks("cpu", False))


def test_a_quick_run_is_meant_to_take_under_three_minutes():
    found = [task.estimate for name in harness.SUITES for task in harness.suite_module(name).tasks("cpu", True)]
    assert sum(found) <= 170


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to run"),
        (["--case", "nope"], "--case nope is unknown; accepted: walk-small"),
        (["--suite", "nope"], "invalid choice: 'nope'"),
        (["--quick", "--full"], "exclude each other"),
        (["--case", "walk-small", "--repeats", "-1"], "must not be negative"),
    ],
)
def test_bad_usage_ends_with_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        harness.main([*arguments, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_harness_knows_every_form_of_storage():
    action = next(a for a in harness.parser()._actions if a.dest == "storage")
    assert tuple(action.choices) == STORAGES  # written again there: listing the cases loads no torch


# ---------------------------------------------------------------- what the worker measures


@pytest.mark.skipif(not os.access(worker.CLEAR, os.W_OK), reason="the high-water mark cannot be reset here")
def test_peaks_belong_to_their_spans():
    meter = worker.PeakMeter(torch.device("cpu"))
    block = np.ones(25_000_000)  # 200 MB
    meter("large")
    del block
    meter("between")  # begins with the block still there
    meter("small")
    assert meter.spans["large"] - meter.spans["small"] > 150e6


def test_affinity_errors_count_entries_that_only_one_side_has():
    operator = multislice_affinity(np.random.default_rng(0).normal(size=(30, 3, 6)).cumsum(0), device="cpu")
    expected = to_scipy(operator).toarray()
    assert accuracy.affinity_errors(operator, expected)["affinity_error_max"] == 0
    expected[0, 0] += 1e-3
    i, j = np.argwhere(expected == 0)[0]
    expected[i, j] = 2e-4
    found = accuracy.affinity_errors(operator, expected)
    assert found["affinity_error_max"] == pytest.approx(1e-3)
    assert found["pattern_differences"] == 1


def test_sampled_rows_are_those_of_the_dense_reference():
    walk = random_walk(60, 5, 6)
    expected = reference.multislice_affinity(walk.data.numpy())
    nodes = accuracy.SampledNodes(walk, bandwidth=-1.0)
    assert nodes.exact and len(nodes.nodes) == accuracy.SAMPLED_NODES
    # Sums of squares in another order than cdist's: 4e-16 was seen.
    assert all(np.allclose(nodes.row(node), expected[node], rtol=0, atol=1e-14) for node in nodes.nodes)


def test_errors_of_a_sample_are_seen_as_the_operator_applies_them():
    walk = random_walk(60, 5, 6)
    nodes = accuracy.SampledNodes(walk, bandwidth=-1.0)
    operator = multislice_affinity(walk, device="cpu")
    assert nodes.errors(operator)["affinity_error_max"] < 1e-7  # rounding to float32: 3e-8

    class Twice:
        def __matmul__(self, block):
            return 2 * (operator @ block)

    assert nodes.errors(Twice())["affinity_error_max"] == pytest.approx(1, abs=1e-6)  # the diagonal


def test_statistics_of_an_input():
    points = np.zeros((40, 2, 3))
    points[:, 0] = np.random.default_rng(0).normal(size=(40, 3))
    points[:, 1] = [0.0, 1.0, 3.0]  # the same at all slices
    points[0, 1] = [9.0, 0.0, 1.0]  # but one
    trace = SimpleNamespace(data=torch.from_numpy(points), n_slices=40, n_units=2, n_nodes=80)
    nodes = accuracy.SampledNodes(trace, bandwidth=-1.0)
    nodes.bandwidth = 1e-6  # no two random slices are neighbours now
    found = nodes.statistics()
    assert found["interslice_share"] == pytest.approx(39 * 38 / (80 * 39))
    assert found["without_interslice"] == pytest.approx(41 / 80)


def test_the_bandwidth_of_the_kd_trees_is_that_of_the_reference():
    points = np.random.default_rng(0).normal(size=(60, 4, 5))
    points[10:50, 0] = points[10, 0]  # more duplicates than neighbours
    expected = reference.interslice_bandwidth(points, knn=25)
    assert accuracy.exact_bandwidth(points, 25) == pytest.approx(expected, rel=1e-12)


def test_preservation_of_some_units_is_that_of_these_units(monkeypatch):
    walk = random_walk(30, 6, 8)
    places = SimpleNamespace(coordinates=np.random.default_rng(0).normal(size=(180, 2)))
    whole = accuracy.preserved(places, walk, (5, 40))
    assert list(whole) == ["preservation"] and list(whole["preservation"]) == ["5"]  # 40 is more than there are
    monkeypatch.setattr(accuracy, "MOST_PAIRS", 2 * 30**2)
    part = accuracy.preserved(places, walk, (5,))
    assert part["statistics"] == {"preservation_units": 2}
    chosen = accuracy.units_for(walk, accuracy.MOST_PAIRS)
    own = places.coordinates.reshape(30, 6, 2)[:, chosen].reshape(-1, 2)
    expected = reference.neighborhood_preservation(walk.data.numpy()[:, :, chosen], own, 5)[1]
    assert part["preservation"]["5"] == pytest.approx(expected)


def test_long_runs_are_not_repeated_and_leave_nothing_behind(monkeypatch):
    walk = random_walk(30, 3, 4)
    meter = worker.PeakMeter(torch.device("cpu"))
    options = {"n_landmark": 20, "random_state": 0, "device": "cpu"}
    runs = worker._runs(walk, options, meter, None)
    assert len(runs.seconds) == 1 + worker.REPEATS and runs.times(None)["repeats"] == worker.REPEATS
    monkeypatch.setattr(worker, "LONG", 0.0)
    cold = worker._runs(walk, options, meter, None).times(0)
    assert (cold["repeats"], cold["seconds"]) == (0, cold["cold_seconds"]) and "seconds_low" not in cold
    alive: list[weakref.ref] = []

    class Counted(MMPHATE):
        def fit(self, *args):
            assert not any(ref() for ref in alive)  # the results of the run before are gone
            alive.append(weakref.ref(self))
            return super().fit(*args)

    monkeypatch.setattr(worker, "MMPHATE", Counted)
    worker._runs(walk, options, meter, 2)
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


# ---------------------------------------------------------------- the pipeline bench and its goals


GOOD: dict[str, Any] = {"preservation": {"10": 0.21, "40": 0.39}, "t": 20, "stress": 0.1}


def test_goals_that_are_missed_are_told():
    good = row(**GOOD)
    assert bench_pipeline.missed_goals([good]) == []
    bad = row(
        case="suite-hopf-lazy",
        seconds=91.0,
        peak_bytes=5 * 10**9,
        preservation={"10": 0.2, "40": 0.39},
        t=21,
        stress=0.2,
    )
    told = "\n".join(bench_pipeline.missed_goals([good, bad]))
    for part in ("91.0 s", "5.00 GB", "0.2000 of 10", "t = 21, the sparse form has 20", "stress 0.2000"):
        assert part in told
    assert "40 neighbours" not in told


def test_a_plan_that_is_off_is_told():
    near, off = (row(**GOOD, peak_bytes=10**9, predicted_peak_bytes=int(planned * 1e9)) for planned in (0.86, 1.16))
    assert bench_pipeline.missed_goals([near]) == []
    told = ["suite-hopf-sparse: peak 1.00 GB, planned 1.16 GB, goal within 15%"]
    assert bench_pipeline.missed_goals([off]) == told


def test_a_stage_has_a_goal_of_its_own():
    slow, quick = row(stage="mds", seconds=1.9), row(stage="mds", seconds=1.4)
    elsewhere = row(case="walk-1600x6x10", stage="mds", seconds=9.0)
    told = bench_pipeline.slow_stages([slow, quick, elsewhere, row(stage="landmarks", seconds=9.0), row()])
    assert told == ["suite-hopf-sparse, mds: 1.90 s, goal at most 1.5 s"]


def fake_task(monkeypatch, found: dict[str, list[Row] | str]) -> None:
    """Tasks give the rows of their case, or refuse (a reason) or fail (None)."""

    def run_task(task, out):
        given = next(value for name, value in found.items() if task.key.startswith(name))
        if given is None:
            raise tasks.TaskFailed("broke")
        if isinstance(given, str):
            raise tasks.TaskRefused(given)
        return [dataclasses.replace(r, task=task.key) for r in given]

    monkeypatch.setattr(tasks, "run_task", run_task)
    monkeypatch.setattr(harness, "about_device", lambda device: ("cpu", WHERE))


def test_the_pipeline_bench_keeps_the_rows_of_other_cases(tmp_path, monkeypatch, capsys):
    made = {
        name: [row(case=name, stage="mds", seconds=1.0), row(case=name, **GOOD)]
        for name in ("suite-hopf-lazy", "suite-hopf-sparse")
    }
    fake_task(monkeypatch, made)
    for only in ("suite-hopf-lazy", "suite-hopf-sparse", "suite-hopf-lazy"):
        assert bench_pipeline.main(["--fresh", "--only", only, "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    assert [r.case for r in records.read(file)] == ["suite-hopf-sparse"] * 2 + ["suite-hopf-lazy"] * 2
    text = capsys.readouterr().out
    assert "mds" in text and text.count("No goal is missed.") == 3


def test_the_pipeline_bench_ends_with_1_if_a_goal_is_missed(tmp_path, monkeypatch, capsys):
    slow = row(case="suite-hopf-lazy", **(GOOD | {"seconds": 91.0}))
    fake_task(monkeypatch, {"suite-hopf-sparse": [row(**GOOD)], "suite-hopf-lazy": [slow]})
    only = ["--out", str(tmp_path), "--only", "suite-hopf-sparse"]
    assert bench_pipeline.main(only) == 0
    assert bench_pipeline.main([*only, "--only", "suite-hopf-lazy"]) == 1
    assert "suite-hopf-lazy: 91.0 s, goal at most 90 s" in capsys.readouterr().out
    (file,) = tmp_path.iterdir()
    assert [r.case for r in records.read(file)] == ["suite-hopf-sparse", "suite-hopf-lazy"]  # written all the same


def test_the_pipeline_bench_ends_with_1_if_a_case_fails(tmp_path, monkeypatch, capsys):
    fake_task(monkeypatch, {"suite-hopf-lazy": None})
    assert bench_pipeline.main(["--only", "suite-hopf-lazy", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "suite-hopf-lazy, mmphate-gpu: broke" in err and "No goal is missed." in out


def test_the_memory_of_a_goal_is_that_of_the_device():
    given = GOOD | {"peak_bytes": 9 * 10**9, "device_peak_bytes": 10**9, "predicted_peak_bytes": 10**9, "seconds": 0.1}
    assert bench_pipeline.missed_goals([row(**given)]) == []
    assert len(bench_pipeline.missed_goals([row(**(given | {"device_peak_bytes": 4 * 10**9}))])) == 2


def test_only_a_gpu_gets_the_large_run():
    keys = {device: [task.key for task in bench_pipeline.tasks(device, False)] for device in ("cpu", "cuda")}
    assert set(keys["cuda"]) - set(keys["cpu"]) == {"large-125x400x200x50"}


# ---------------------------------------------------------------- growth


def scale_rows(*sizes: int, growth: float = 4.0, axis: str = "slices") -> list[Row]:
    """Two stages whose seconds grow by ``growth`` and not at all where a size doubles, and a total."""
    found = []
    for turn, n in enumerate(sizes):
        n_units = n if axis == "units" else 30
        n_slices = n if axis == "slices" else 100
        common = {"suite": "scale", "case": f"{axis}-{n_slices}x{n_units}x6", "settings": {"axis": axis}}
        common |= {"n_slices": n_slices, "n_units": n_units, "n_nodes": n_slices * n_units, "task": f"{axis}-{n}"}
        seconds = 2 * growth**turn
        found += [
            row(stage="landmarks", **common | {"cold_seconds": seconds}),
            row(stage="mds", **common | {"cold_seconds": 1.5}),
        ]
        peak = {"peak_bytes": 10**9 * (2**turn + 1), "held_bytes": 10**9, "added_bytes": 10**9 * 2**turn}
        found.append(row(**common | peak | {"cold_seconds": seconds + 1.5, "t": 21}))
    return found


def test_growth_beyond_the_pairs_is_told():
    assert bench_scale.missed_goals(scale_rows(508, 1016, 2032)) == []
    assert bench_scale.missed_goals(scale_rows(508, 1016, growth=4.4)) == [
        "slices-1016x30x6, landmarks: 4.40 times slices-508x30x6, goal at most 4.2"
    ]
    assert bench_scale.missed_goals(scale_rows(508, 1016, growth=4.4, axis="units")) == []  # a goal of the slices
    assert bench_scale.missed_goals(scale_rows(508, 2032, growth=16)) == []  # not twice the slices
    short = [dataclasses.replace(r, cold_seconds=r.cold_seconds / 100) for r in scale_rows(508, 1016, growth=9)]
    assert bench_scale.missed_goals(short) == []
    other = [dataclasses.replace(r, storage="tiles") for r in scale_rows(508, growth=9)]
    assert bench_scale.missed_goals([*other, *scale_rows(508, 1016, growth=9)[3:]]) == []  # not the same form


def test_only_what_doubles_alike_is_compared():
    series = scale_rows(508, 1016, 2032, 4064, 8128)
    first, second, third, fourth, fifth = rows.totals(series)
    other_form = dataclasses.replace(second, storage="lazy (torch)")
    assert rows.doubling([first, second, third, fourth, fifth], "slices") == [first, second, third, fourth, fifth]
    assert rows.doubling([first, other_form, third, fourth], "slices") == [third, fourth]
    assert rows.doubling([first, second, fourth], "slices") == [first, second]
    wider = dataclasses.replace(fifth, n_units=200, n_samples=50)
    assert rows.doubling([third, fourth, wider], "slices") == [third, fourth]
    assert rows.doubling([first, third, wider], "slices") == []
    fewer = dataclasses.replace(second, n_landmark=3999)  # k-means lost one: as many were asked for
    assert rows.doubling([first, fewer], "slices") == [first, fewer]
    changed = [r if r.case != first.case else dataclasses.replace(r, storage="tiles") for r in series[:6]]
    assert [line[4] for line in rows.scale_cells(changed, "slices")[1]] == ["", ""]
    assert rows.slopes(changed, "slices") == (
        "Exponents of the slices: no two cases of one form of which one doubles the other."
    )


def test_exponents_and_shares_of_every_axis():
    mixed = [*scale_rows(508, 1016, 2032), *scale_rows(8, 16, growth=2.0, axis="units")]
    series = rows.by_axis([*reversed(mixed), row(skipped="refused", settings={"axis": "units"}, suite="scale")])
    assert list(series) == ["slices", "units"]
    own = [r for r in mixed if r.settings == {"axis": "slices"}]
    assert rows.totals(series["slices"]) == rows.totals(own)  # in the order of their size
    told = "Exponents of the slices from 508 to 2,032, by the seconds of cold runs: "
    assert rows.slopes(own, "slices") == f"{told}landmarks 2.00, mds 0.00, total 1.63, added memory 1.00."
    assert "landmarks 1.00" in rows.slopes(series["units"], "units")
    head, lines = rows.scale_cells(own, "slices")
    assert head[-2:] == ("landmarks", "mds") and [line[4] for line in lines] == ["", "2.71", "3.53"]
    assert lines[-1] == ("2,032", "60,960", "sparse", "33.5", "3.53", "5.00 GB", "4.00 GB", "21", "96 %", "4 %")


@pytest.mark.parametrize(("refusal", "code"), [("does not fit", 0), (None, 1)])
def test_the_scale_bench_ends_a_series_where_a_case_does_not_fit(refusal, code, tmp_path, monkeypatch, capsys):
    first, second = scale_rows(508, 1016)[:3], scale_rows(508, 1016)[3:]
    fake_task(monkeypatch, {"slices-508x": first, "slices-1016x": second, "slices-": refusal})
    assert bench_scale.main(["--axis", "slices", "--device", "cpu", "--out", str(tmp_path)]) == code
    out = capsys.readouterr()
    assert "No goal is missed." in out.out and "Exponents of the slices from 508 to 1,016" in out.out
    assert (refusal or "broke") in out.err and "slices-2032x30x6-storage=lazy before it gave nothing" in out.err
    written = records.read(records.result_path(tmp_path, "scale", WHERE["machine"]))
    assert sum(not r.skipped for r in written) == 6 and "16256" in written[-1].case
    table = report.table("scale", tmp_path, "slices")
    assert "times the one before" in table and report.table("scale", tmp_path).count("Exponents") == 1
    told = f"Not measured: slices-2032x30x6 (mmphate-gpu): {'refused: ' * bool(refusal)}{refusal or 'broke'}."
    assert told in table and told in out.out and table.count("Not measured") == 1  # the larger ones follow from it


def test_the_cpu_ends_with_har_and_is_matrix_free():
    found = bench_scale.tasks("cpu", False, ("slices",))
    assert found[-1].key == "slices-16256x30x6-storage=lazy" and found[-1].after == "slices-8128x30x6-storage=lazy"
    assert bench_scale.tasks("cuda", False, ("slices",))[-1].key == "slices-130048x30x6"
    assert [task.key for task in bench_scale.tasks("cpu", False, ("slices",), "sparse", 20_000)] == [
        "slices-508x30x6-storage=sparse"
    ]


# ---------------------------------------------------------------- the report


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    mine = [row(stage="mds", seconds=1.5), row(t=21), row(case="small", task="quick-small"), row(skipped="refused: x")]
    records.replace(folder / "pipeline-some-cpu-2-cores.jsonl", mine)
    records.replace(folder / "pipeline-other.jsonl", [row(machine="other", seconds=7.0)])
    records.replace(folder / "pipelines-third.jsonl", [row(machine="third")])
    return folder


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


def test_the_story_has_the_runs_of_the_paper_and_where_the_reference_stops(results):
    text = report.table("story", results)
    line = "| bifurcation suite, Hopf (paper) | 8,080 x 6 x 10 | 48,480 | 18.80 GB | 7.00 | 1.00 GB | 20.0 | 1.00 GB |"
    assert line in text and "other: seconds" in text and "small" not in text and "reference on" not in text
    records.replace(results / "against-some-cpu-2-cores.jsonl", dense_rows())
    told = (
        "The dense float64 reference on some-cpu-2-cores: 2,016 nodes in 8.00 s and 400 MB, stopped at 4,032 nodes "
        "(took more than 300 s), stopped at 64,512 nodes (ran out of memory: no more)."
    )
    assert told in report.table("story", results)
    assert report.table("against", results, "neighbors") == ""  # a table without a line is none


def test_a_reference_that_crashed_is_in_the_story(results):
    crashed = row(suite="against", case="picture", by="reference", task="picture-1008-reference", n_nodes=1008)
    crashed = dataclasses.replace(crashed, seconds=None, skipped="Traceback\n  broke.", failed=True)
    records.replace(results / "against-some-cpu-2-cores.jsonl", [crashed])
    assert "on some-cpu-2-cores: stopped at 1,008 nodes (broke)." in report.table("story", results)


def test_rows_of_other_tasks_are_left_out_and_counted(results, capsys):
    file = results / "pipeline-some-cpu-2-cores.jsonl"
    by_hand = row(task="suite-hopf-sparse-storage=lazy", storage="lazy (torch)", seconds=99.0)
    gone = row(case="removed", task="removed", seconds=98.0)
    records.replace(file, [*records.read(file), by_hand, gone])
    text = report.table("pipeline", results)
    assert "99.0" not in text and "removed" not in text
    assert text.count("2 rows of other tasks left out.") == 1  # nor are those of quick tasks counted
    assert "2 rows of other tasks left out." in report.table("story", results)
    records.replace(results / "pipeline-other.jsonl", [gone])
    with pytest.raises(report.NoResults):
        report.table("pipeline-other", results)


@pytest.mark.parametrize("suite", harness.SUITES)
def test_the_tasks_of_a_full_run_are_known_without_a_gpu(suite):
    assert report.full_tasks(suite, "cpu") and report.full_tasks(suite, "cuda")


def test_what_was_not_measured_is_told_below_the_table(results):
    file = results / "pipeline-some-cpu-2-cores.jsonl"
    died = row(
        case="har-127x128x30x6", task="har-127x128x30x6", seconds=None, skipped="a\nended by SIGKILL", failed=True
    )
    records.replace(file, [*records.read(file), died])
    text = report.table("pipeline-some-cpu-2-cores", results)
    assert "\n\nNot measured: har-127x128x30x6 (mmphate-gpu): ended by SIGKILL.\n\n" in text
    assert "Not measured: suite-hopf-sparse (mmphate-gpu): refused: x." in text
    assert "Not measured" not in report.table("pipeline-some-cpu-2-cores", results, "stages")
    records.replace(results / "against-some-cpu-2-cores.jsonl", dense_rows())
    assert "Not measured" not in report.table("against", results, "picture")  # these stand in the table


def test_what_rows_were_measured_on_is_told_whole():
    found = [row(commit="a1"), row(commit="b2+", versions={"torch": "3", "numpy": "2"}, date="2026-01-05"), row()]
    told = "some-cpu-2-cores, 2 threads, 16.00 GB, 2026-01-02 to 2026-01-05, commit a1, b2+, unknown"
    assert report.about(found) == f"{told}; torch 2 / 3, numpy 2."


@pytest.fixture
def drawn(results, tmp_path):
    mixed = [*scale_rows(508, 1016, 2032), *scale_rows(8, 16, growth=2.0, axis="units")]
    mixed = [dataclasses.replace(r, task=f"{r.case}-storage=lazy") for r in mixed]
    full = report.full_tasks("scale", "cpu")
    mixed = [r for r in mixed if r.task in full]
    records.replace(results / "scale-some-cpu-2-cores.jsonl", mixed)
    records.replace(results / "against-some-cpu-2-cores.jsonl", dense_rows())
    arguments = ["--results", str(results), "--images", str(tmp_path / "images")]
    assert report.main(["--draw", *arguments]) == 0
    return arguments, tmp_path / "images"


def test_plots_are_drawn_of_every_machine(drawn):
    _, images = drawn
    names = [f"{name}-some-cpu-2-cores.png" for name in ("against", "scale")]
    assert sorted(f.name for f in images.iterdir()) == [*names, "scaling.png"]
    assert all(f.stat().st_size > 1000 for f in images.iterdir())


def test_plots_of_other_rows_are_told(drawn, results, monkeypatch, capsys):
    arguments, images = drawn
    monkeypatch.setattr(report, "default_texts", lambda: [])
    assert report.main(["--check", *arguments]) == 0
    file = results / "scale-some-cpu-2-cores.jsonl"
    records.replace(file, [dataclasses.replace(r, cold_seconds=r.cold_seconds + 1) for r in records.read(file)])
    assert report.main(["--check", *arguments]) == 1
    told = capsys.readouterr().out
    assert told.count("run report.py --draw") == 2 and "scaling.png: differs" in told and "against" not in told
    (images / "against-some-cpu-2-cores.png").unlink()
    assert report.main(["--check", *arguments]) == 1 and "against-some" in capsys.readouterr().out
    assert report.main(["--draw", *arguments]) == report.main(["--check", *arguments]) == 0
    assert "scaling.png drawn" in capsys.readouterr().out


def test_a_plot_shows_what_was_measured(monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr(plots, "saved", lambda figure, path: kept.append(figure))
    plots.scaling({"box": scale_rows(508, 1016)}, dense_rows(), tmp_path / "a.png")
    plots.growth(scale_rows(8, 16, axis="units"), tmp_path / "b.png")
    time_lines = {line.get_label(): line.get_xydata().tolist() for line in kept[0].axes[0].lines}
    where = "some-cpu-2-cores"
    assert time_lines["the planned form, 30 units x 10 samples, box"] == [[15240, 3.5], [30480, 9.5]]
    assert time_lines[f"dense reference (6 units x 10 samples), {where}"] == [[1008, 2.0], [2016, 16.0]]
    assert time_lines[f"this library (6 units x 10 samples), {where}"] == [[2016, 0.6]]
    assert [x for x, _ in time_lines[f"the reference ended: time, {where}"]] == [4032, 4032]
    assert [x for x, _ in time_lines[f"the reference ended: memory, {where}"]] == [64512, 64512]
    lazy = [dataclasses.replace(r, storage="lazy (torch)") for r in scale_rows(508, 1016)]
    plots.scaling({"box": lazy}, [], tmp_path / "c.png")
    assert [line.get_label() for line in kept[2].axes[0].lines] == ["matrix-free, 30 units x 10 samples, box"]
    assert {line.get_label() for line in kept[1].axes[0].lines} == {"total", "landmarks", "mds", "power 1"}


def test_a_report_has_one_table_a_machine(results, capsys):
    assert report.main(["pipeline", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert "| suite-hopf-sparse | cpu | sparse | 48,480 | 20.0 |  | 1.00 GB | 21 |" in text
    assert "some-cpu-2-cores, 2 threads, 16.00 GB, 2026-01-02, commit unknown; torch 2." in text
    assert "other, 2 threads, 16" in text
    assert "third" not in text
    assert report.main(["pipeline-some-cpu-2-cores:stages", "--results", str(results)]) == 0
    assert "| mds | 1.50 s, 1.00 GB |" in capsys.readouterr().out


def test_marked_places_are_filled_and_checked(results, tmp_path, capsys):
    text = tmp_path / "README.md"
    text.write_text("before\n<!-- bench:pipeline-other -->\nstale\n<!-- /bench -->\nafter\n")
    arguments = [str(text), "--results", str(results)]
    assert report.main(["--check", *arguments]) == 1
    assert "differs" in capsys.readouterr().out and "stale" in text.read_text()
    assert report.main(["--write", *arguments]) == 0
    assert "7.00" in text.read_text() and "stale" not in text.read_text()
    assert text.read_text().startswith("before\n<!-- bench") and text.read_text().endswith("<!-- /bench -->\nafter\n")
    assert report.main(["--check", *arguments]) == 0
    text.write_text(text.read_text().replace("7.00", "6.00"))  # a digit typed by hand
    assert report.main(["--check", *arguments]) == 1


def test_a_marked_place_without_results_has_to_be_empty(results, tmp_path):
    text = tmp_path / "README.md"
    text.write_text("<!-- bench:ops-nowhere -->\n<!-- /bench -->\n")
    arguments = ["--check", str(text), "--results", str(results)]
    assert report.main(arguments) == 0
    text.write_text("<!-- bench:ops-nowhere -->\n| 3.00 |\n<!-- /bench -->\n")
    assert report.main(arguments) == 1


def test_a_report_without_results_says_so(results, capsys):
    assert report.main(["nothing", "--results", str(results)]) == 1
    assert "nothing-MACHINE.jsonl" in capsys.readouterr().err


def test_the_texts_of_this_checkout_agree_with_its_results():
    assert report.main(["--check"]) == 0


# ---------------------------------------------------------------- twins


def test_a_finding_beyond_its_bound_fails_the_section():
    good, bad, none = twins.Finding("a", 0.1, 0.2), twins.Finding("b", 0.3, 0.2), twins.Finding("c", float("nan"), 0.2)
    assert twins.Section([good], []).asdict()["status"] == "passed"
    assert twins.Section([good, bad], []).asdict()["status"] == "failed"
    assert twins.Section([none], []).asdict()["status"] == "failed"


def test_missing_keops_is_said(monkeypatch):
    monkeypatch.setattr(twins, "why_no_keops", lambda: "pykeops is not installed")
    section = twins.operators(torch.device("cpu"), quick=True)
    assert section.missing == ["KeOps: pykeops is not installed"]
    assert section.findings and all("keops" not in finding.what for finding in section.findings)


# ---------------------------------------------------------------- the ops


def op_row(**changes: Any) -> Row:
    given = {
        "suite": "ops",
        "stage": "guttman_transform",
        "case": "4000 x 3, float32",
        "by": "C++ (avx2)",
        "seconds": 0.002,
        "rate": 1e10,
    }
    return Row(**({**given, "unit": "pairs", "portable_seconds": 0.06, **WHERE} | changes))


def test_op_goals_are_ratios_and_rates_of_one_run():
    double = op_row(case="4000 x 3, float64", seconds=0.004, portable_seconds=0.04)
    assert bench_ops.sweep_ratio([double, op_row()]) == pytest.approx(30)
    assert bench_ops.missed_goals([op_row(), double]) == []
    slow = op_row(seconds=0.01)
    counts = op_row(stage="radius_counts", rate=1e9, goal=3e9)
    told = bench_ops.missed_goals([slow, double, counts])
    assert len(told) == 2 and "1e+09 pairs/s, goal 3e+09" in told[0] and "6.0 times the portable" in told[1]
    assert bench_ops.missed_goals([op_row(device="cuda", seconds=0.01), double]) == []


@pytest.mark.slow
def test_bench_ops_measures_what_serves_and_writes_it(tmp_path, capsys):
    only = ["--only", "guttman_transform", "--only", "assign_nearest"]
    assert bench_ops.main(["--quick", "--repeats", "2", "--device", "cpu", "--out", str(tmp_path), *only]) == 0
    (file,) = tmp_path.iterdir()
    found = records.read(file)
    assert [r.stage for r in found] == ["guttman_transform"] * 8 + ["assign_nearest"]
    assert all(r.seconds > 0 and r.rate > 0 for r in found)
    out = capsys.readouterr().out
    assert "500 x 3, float32" in out and "times portable" in out and "assign_nearest" in out


@pytest.mark.slow
def test_every_op_of_the_bench_runs(tmp_path):
    assert bench_ops.main(["--quick", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    from mmphate_gpu.ops.launch.twins import PORTABLE

    assert {r.stage for r in records.read(file)} >= {*PORTABLE}
