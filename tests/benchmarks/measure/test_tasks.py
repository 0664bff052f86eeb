"""Tasks: their processes, their rows, and what is run again."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import tasks
from benchmarks.measure.tasks import Task

from ..made import WHERE, rows_file, run_all, some_task


def test_rows_of_a_task_are_kept_at_once_under_its_key(tmp_path):
    rows, code, said = run_all([some_task("a"), some_task("b", estimate=65)], tmp_path)
    assert code == 0 and [(r.case, r.task) for r in rows] == [("a", "a"), ("b", "b")]
    assert rows_file(tmp_path) == rows
    assert said[0].startswith("[1/2, 0:00, about 1:10 left] s a") and "about 1:05 left] s b" in said[1]


def counting(path: Path, **fields: Any) -> str:
    """A task that writes down that it ran, and prints one row."""
    printed = {"suite": "s", "case": "c", **WHERE, **fields}
    return f"open({str(path)!r}, 'a').write('x'); import json; print(json.dumps([{printed!r}]))"


def test_what_still_holds_is_not_measured_again(tmp_path):
    ran = tmp_path / "ran"
    again = counting(ran, seconds=1.0)
    for fresh, expected in ((False, "x"), (False, "x"), (True, "xx")):
        rows, _, said = run_all([some_task("a", again)], tmp_path, fresh=fresh)
        assert ran.read_text() == expected and len(rows_file(tmp_path)) == 1
        assert rows[0].seconds == 1.0
    assert "resumed" not in said[0]
    elsewhere = counting(ran, seconds=2.0, source="of other files")
    run_all([some_task("a", elsewhere)], tmp_path, fresh=True)
    rows, _, _ = run_all([some_task("a", again)], tmp_path)  # what is there has other sources
    assert ran.read_text() == "xxxx" and [r.seconds for r in rows_file(tmp_path)] == [1.0]


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
    rows, ended, said = run_all([some_task("a", code, timeout=1.0), some_task("b")], tmp_path)
    assert ended == exit_code
    assert reason in rows[0].skipped and rows[0].failed is failed and rows[0].machine == WHERE["machine"]
    assert reason in "".join(said) and rows[1].seconds == 1.0  # and the next one runs
    run_all([some_task("a")], tmp_path)
    assert [r.skipped for r in rows_file(tmp_path)] == ["", ""]


def test_a_task_says_what_it_would_have_measured(tmp_path):
    broken = some_task("a", "raise SystemExit('broke')", fields={"case": "picture", "by": "reference", "n_nodes": 9})
    (row,), code, _ = run_all([broken], tmp_path)
    assert (row.case, row.by, row.n_nodes, row.task, row.failed) == ("picture", "reference", 9, "a", True)
    assert code == 1 and row.machine == WHERE["machine"]


def test_what_is_not_installed_is_no_failure_and_tried_again(tmp_path):
    ran = tmp_path / "ran"
    code = counting(ran, skipped="not installed: faiss")
    for _ in range(2):
        assert run_all([some_task("a", code)], tmp_path)[1] == 0
    assert ran.read_text() == "xx"
    died = counting(tmp_path / "died", skipped="ran out of memory")
    for _ in range(2):
        run_all([some_task("b", died)], tmp_path)
    assert (tmp_path / "died").read_text() == "x"  # an answer too


def test_a_series_ends_where_a_task_gives_nothing(tmp_path):
    refuses = "import sys; sys.exit(2)"
    rows, code, _ = run_all(
        [some_task("a"), some_task("b", refuses, after="a"), some_task("c", after="b"), some_task("d", after="c")],
        tmp_path,
    )
    assert code == 0 and [r.skipped for r in rows] == [
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
