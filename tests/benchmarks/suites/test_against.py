"""Suite "against": tasks, rows, and what ends a peer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import suites
from benchmarks.measure import tasks
from benchmarks.measure.rows import NOT_INSTALLED, OURS, Row
from benchmarks.peers import POINTS_ONLY, Peer, Result, comparisons, peers
from benchmarks.suites import against

CPU = torch.device("cpu")


def test_larger_sizes_wait_for_smaller_ones():
    chosen = against.tasks("cpu", False, ["picture", "openTSNE"])
    assert [task.key for task in chosen[:2]] == ["picture-1008-opentsne", "picture-2016-opentsne"]
    assert [task.after for task in chosen] == [None, *[task.key for task in chosen[:-1]]]
    assert {task.suite for task in chosen} == {"against"} and suites.suite("against") is against
    quick = against.tasks("cpu", True)
    assert all(task.key.startswith(tasks.QUICK) and "--quick" in task.command and not task.after for task in quick)
    assert against.tasks("cuda:0", True, ["product", "cupy"])
    assert not against.tasks("cpu", True, ["cupy"])
    assert len({task.key for task in against.tasks("cpu", False)}) == len(against.tasks("cpu", False))


def test_the_reference_is_tried_at_every_size():
    chosen = against.tasks("cpu", False, ["picture", "reference"])
    assert [task.fields["n_nodes"] for task in chosen] == list(against.DOUBLED)
    assert not any(task.after for task in chosen)


def test_estimates_grow_to_what_a_peer_may_take():
    chosen = against.tasks("cpu", False, ["picture", "openTSNE"])
    estimates = [task.estimate for task in chosen]
    assert estimates == sorted(estimates) and estimates[0] < 10 < 90 < estimates[-1] < 130
    assert all(task.estimate < task.timeout for task in against.tasks("cpu", False))


def test_a_task_says_of_what_it_gave_nothing():
    (task,) = against.tasks("cpu", True, ["product", "scipy"])
    assert task.fields == {"case": "product", "by": "scipy", "n_nodes": 4032}
    (task,) = against.tasks("cpu", True, ["mds", "scikit-learn"])
    assert task.fields == {"case": "mds", "by": "scikit-learn", "n_landmark": 400}
    assert Row(suite="against", **task.fields).n_landmark == 400


def test_on_a_gpu_one_task_says_who_runs_on_the_cpu_only(tmp_path, monkeypatch):
    *_, task = against.tasks("cuda:0", False)
    assert [task.key for task in against.tasks("cuda:0", False) if "cpu-only" in task.key] == ["cpu-only"]
    (task,) = against.tasks("cuda:0", True, ["picture", "reference", "umap-learn"])
    assert task.key == "quick-cpu-only"
    command = tuple("--device=cpu" if part.startswith("--device") else part for part in task.command)  # none is there
    (row,) = tasks.run_task(replace(task, command=command), tmp_path)
    assert (row.case, row.by, row.skipped) == ("picture", "reference, umap-learn", against.CPU_ONLY)
    assert against.tables([row], "picture")[0].lines[0][-1] == against.CPU_ONLY


def peer_of(ready: Any, **changes: Any) -> Peer:
    return Peer("some", {"product": {"fast": ready}}, settings=POINTS_ONLY, **changes)


def test_a_row_has_times_memory_settings_and_the_judgement():
    calls = []

    def ready(product: Any) -> Any:
        def run() -> Result:
            calls.append(1)
            return Result(product.expected, {"settings": {"sweeps": 3}})

        return run

    row = against.work("product", 1008, peer_of(ready), "fast", "cpu", quick=False)
    assert len(calls) == 4 and (row.repeats, row.warmup) == (3, 1)
    assert (row.suite, row.case, row.by, row.n_nodes, row.error) == ("against", "product", "some", 1008, 0)
    assert row.settings == {"way": "fast", "sweeps": 3}
    assert row.peak_bytes > 1e8 and row.held_bytes > 1e8 and row.rate == pytest.approx(row.work / row.seconds)
    ((head, lines, _),) = against.tables([row], "product")
    assert lines[0][:3] == ("product", "1,008 nodes", "some (fast)") and lines[0][-1] == "error 0.0e+00"
    assert len(head) == len(lines[0]) and against.tables([row], "mds")[0].lines == []


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be reset")
def test_a_run_adds_what_it_takes_and_not_what_was_made_before_or_after():
    size = 100_000_000

    def ready(product: Any) -> Any:
        before = np.ones(2 * size, np.uint8)
        later = iter([size, 4 * size, 4 * size, 4 * size])  # what warm runs take does not count

        def run() -> Result:
            values = np.ones(next(later), np.uint8)
            return Result(np.zeros((1008, comparisons.COLUMNS)) if len(values) + len(before) else None)

        return run

    row = against.work("product", 1008, peer_of(ready), "fast", "cpu", quick=False)
    # Pages of code that are read first then add to it; Linux counts pages in lots, which left 0.2 MB
    # out.
    assert 0.98 * size < row.added_bytes < 1.1 * size
    assert row.peak_bytes - row.held_bytes == pytest.approx(row.added_bytes, abs=1e7)


def test_a_picture_of_points_says_what_it_saw():
    peer = Peer("some", {"picture": {"": lambda picture: lambda: Result(picture.points)}}, settings=POINTS_ONLY)
    row = against.work("picture", 1008, peer, "", "cpu", quick=True)
    assert row.settings == POINTS_ONLY and row.trustworthiness == 1 and row.preservation["10"] == 1


def test_what_takes_long_is_not_run_again(monkeypatch):
    spans: list[str] = []

    def repeats(least: int) -> int:
        result, times = against._runs(lambda: "x", CPU, least, False, spans.append)
        assert result == "x" and (times["repeats"] or times["seconds"] == times["cold_seconds"])
        return times["repeats"]

    monkeypatch.setattr(against, "LONG", 0.0)
    assert (repeats(0), repeats(1)) == (0, 1)
    monkeypatch.undo()
    monkeypatch.setattr(against, "ENOUGH", 1e-12)
    assert repeats(0) == 1 and spans == ["cold"] * 3


def ended(monkeypatch, code: int, stderr: str = "") -> None:
    done = SimpleNamespace(returncode=code, stderr=stderr, stdout="")
    monkeypatch.setattr(against, "_ended", lambda command, env: done)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return against._ended([sys.executable, "-c", code, *arguments], tasks.environment())


def test_a_run_that_takes_too_long_is_ended_with_its_children_and_no_judgement(tmp_path):
    child = "import sys, time; time.sleep(1.5); open(sys.argv[1], 'w')"
    code = (
        "import subprocess, sys, time; from benchmarks.suites.against import at_most\n"
        "with at_most(0.5): pass\n"
        "time.sleep(0.8)  # the clock has stopped\n"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])\n"
        "print('in it', flush=True)\n"
        "with at_most(0.5): sum(range(10**12))  # in C: no handler of Python's would run\n"
    )
    started = time.monotonic()
    done = python(code, child, str(tmp_path / "late"))
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, "in it\n")
    assert time.monotonic() - started < 60
    time.sleep(2)
    assert not (tmp_path / "late").exists()
    done = python("import sys; print(3); print(4, file=sys.stderr)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "4\n")


def test_a_run_that_is_stopped_takes_its_peer_with_it(tmp_path):
    note = tmp_path / "pid"
    peer = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(300)"
    code = (
        "import sys; from benchmarks.suites import against as b; from benchmarks.measure.tasks import environment\n"
        f"b.rows_of = lambda *a: b._ended([sys.executable, '-c', {peer!r}], environment())\n"
        "sys.argv[1:] = ['product', 'scipy', '--size=1008']; b.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=tasks.environment(), start_new_session=True)
    try:
        while not (note.exists() and note.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 1
    finally:
        tasks.end(process)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_what_stops_a_peer_stands_in_its_row(monkeypatch):
    dense, other = peers()["reference"], peers()["torchdr-phate"]
    monkeypatch.setattr(against, "conditions", lambda device, packages: {"device": device})
    monkeypatch.setattr(against, "memory_limit", lambda: 2_000_000_000)
    monkeypatch.setattr(Peer, "why_not", lambda self, device: None)

    def row_of(peer: Peer, code: int, stderr: str = "") -> Row:
        ended(monkeypatch, code, stderr)
        (row,) = against.rows_of("picture", 2016, peer, "cpu", True)
        assert (row.by, row.n_nodes, row.seconds) == (peer.name, 2016, None)
        return row

    row = row_of(dense, against.OUT_OF_MEMORY, "...\nno more")
    assert row.skipped == "ran out of memory: no more (2.00 GB allowed)"
    assert row_of(dense, -signal.SIGKILL).skipped == "ran out of memory: ended by the system (2.00 GB allowed)"
    assert row_of(dense, -signal.SIGALRM).skipped == "took more than 300 s"
    assert row_of(other, -signal.SIGALRM).skipped == "took more than 120 s"
    assert row_of(other, -signal.SIGSEGV).skipped == "ended by SIGSEGV (2.00 GB allowed)"
    assert row.failed is None
    for peer, code in ((dense, -signal.SIGSEGV), (other, -signal.SIGTERM), (other, 1)):
        row = row_of(peer, code, "ValueError: a fault")
        assert row.failed and row.skipped == "ValueError: a fault"


def test_every_way_has_a_process_and_a_row(monkeypatch):
    commands = []

    def ended(command: list[str], env: dict[str, str]) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=-signal.SIGALRM, stderr="", stdout="")

    monkeypatch.setattr(against, "_ended", ended)
    rows = against.rows_of("product", 4032, peers()[OURS], "cpu", True)
    ways = [*peers()[OURS].does["product"]]
    assert [row.settings["way"] for row in rows] == ways
    assert all(f"--way={way}" in command for way, command in zip(ways, commands, strict=True))
    cells = against.tables(rows, "product")[0].lines
    assert [line[2] for line in cells] == [f"{OURS} ({way})" for way in ways]


def test_what_is_not_there_or_was_refused():
    (row,) = against.rows_of("mds", 400, peer_of(None, packages=("no_such",)), "cpu", True)
    assert row.skipped.startswith(NOT_INSTALLED) and row.n_landmark == 400
    assert against.tables([row])[0].lines[0][-1] == row.skipped
    assert against.tables([replace(row, skipped="refused: the one before it gave nothing")])[0].lines == []


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_process_that_takes_too_much_ends_by_itself():
    code = (
        "import sys; from benchmarks.suites import against as b\n"
        "def work(*arguments): import torch; return torch.ones(2**33, dtype=torch.uint8)\n"
        "b.work = work\n"
        "sys.argv[1:] = ['product', 'scipy', '--size=1008', '--way=float64', '--bytes=4000000000']; sys.exit(b.main())"
    )
    done = python(code)
    assert done.returncode == against.OUT_OF_MEMORY and "allocate memory" in done.stderr


@pytest.mark.slow
def test_a_task_prints_its_rows(tmp_path):
    (task,) = against.tasks("cpu", True, ["product", "scipy"])
    command = tuple("--size=1008" if part.startswith("--size") else part for part in task.command)
    rows = tasks.run_task(replace(task, command=command), tmp_path)
    assert [row.settings["way"] for row in rows] == ["float64", "float32"] and rows[0].error == 0
    assert {row.task for row in rows} == {"quick-product-4032-scipy"} and all(row.import_seconds for row in rows)
