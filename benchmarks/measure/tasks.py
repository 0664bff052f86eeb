"""Run the tasks of the suites, each in a process of its own, and write the rows of each as soon as it ends."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import records
from benchmarks.measure.conditions import same_conditions
from benchmarks.measure.records import RESULTS, ROOT
from benchmarks.measure.rows import FOLLOWS, NOT_INSTALLED, REFUSED, Row

# Stands in a task's command for the folder of the results, where a task reads what another suite has written.
OUT = "{out}"
# Begins the key of a task with smaller inputs than those of the full run. The tables leave its rows out.
QUICK = "quick-"
# Exit code for bad input, as in the command line of the library: the library refused the run.
REFUSAL = 2


@dataclass(frozen=True)
class Task:
    """A process that measures something and prints a JSON list of rows on its last line (`emit`)."""

    suite: str
    key: str  # unique within the suite
    command: tuple[str, ...]
    timeout: float = 600.0  # seconds
    estimate: float = 5.0  # seconds on two cores, or on the GPU
    after: str | None = None  # key of an earlier task, without whose numbers this one is not tried
    fields: dict[str, Any] = field(default_factory=dict)  # of the row that says why there are no numbers


class TaskFailed(RuntimeError):
    """A task gave no rows. The message is the end of its output."""


class TaskRefused(TaskFailed):
    """The library refused the task, most often because it does not fit in memory."""


class NoDevice(ValueError):
    """There is no such device. The message names the devices that exist."""


def python_task(
    suite: str, key: str, module: str, *names: str, device: str, quick: bool = False, **fields: Any
) -> Task:
    """A task that runs ``benchmarks.suites.<module>`` with `task_options`; ``fields`` are those of `Task`."""
    options = [f"--device={device}", "--folder", OUT, *["--quick"] * quick]
    return Task(suite, key, (sys.executable, "-m", f"benchmarks.suites.{module}", *names, *options), **fields)


def task_options() -> argparse.ArgumentParser:
    """The options of a task's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="what to measure")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, help="the results of other suites, and what takes long to make")
    parser.add_argument("--quick", action="store_true", help="small inputs")
    return parser


def emit(rows: Sequence[Row]) -> None:
    """Print ``rows``, as the last output of a task."""
    print(json.dumps([row.asdict() for row in rows], allow_nan=False), flush=True)


def run_task(task: Task, out: Path = RESULTS) -> list[Row]:
    """The rows that ``task`` prints.

    Raises
    ------
    TaskRefused
        The library refused it (exit code 2).
    TaskFailed
        It ended otherwise, took longer than its timeout, or printed no rows.
    """
    command = [str(out.resolve()) if part == OUT else part for part in task.command]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    # A session of its own, so that its children end with it.
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), start_new_session=True, **streams)
    try:
        stdout, stderr = process.communicate(timeout=task.timeout)
    except subprocess.TimeoutExpired as error:
        raise TaskFailed(f"took more than {task.timeout:.0f} s") from error
    finally:
        if process.returncode is None:
            end(process)
    if process.returncode != 0:
        failure = TaskRefused if process.returncode == REFUSAL else TaskFailed
        raise failure(tail(stderr) or f"ended with exit code {process.returncode}")
    try:
        entries = json.loads(stdout.splitlines()[-1])
        return [replace(row, task=task.key) for row in records.rows_of(entries, "its last line")]
    except (IndexError, ValueError) as error:
        raise TaskFailed(f"printed no rows: {tail(stdout + stderr)}") from error


@contextlib.contextmanager
def through_its_end() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that ``finally`` clauses end the process that is running."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that leads a session, and its children. SIGTERM comes first, so that it can end them itself."""
    for sent, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=patience)


def run_tasks(
    tasks: Sequence[Task],
    out: Path,
    now: dict[str, Any],
    *,
    fresh: bool = False,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> tuple[list[Row], int]:
    """Run the tasks one by one, and write the rows of each into the file of its suite in ``out`` at once.

    A task whose rows in the file have the conditions ``now`` is not run again, unless ``fresh``. A task that failed
    leaves a row with the reason, and is tried again by the next run. Returns the rows of all tasks, and 1 if a task
    failed; a package that is not installed and a run that the library refuses are no failures.

    Raises
    ------
    records.BadRows
        A result file holds something else.
    """
    rows: list[Row] = []
    started, left = time.monotonic(), sum(task.estimate for task in tasks)
    for number, task in enumerate(tasks, 1):
        path = records.result_path(out, task.suite, now["machine"])
        of_task = [] if fresh else _still_valid(records.read(path), task, now)
        elapsed = time.monotonic() - started
        head = f"[{number}/{len(tasks)}, {clock(elapsed)}, about {clock(left)} left] {task.suite} {task.key}"
        left -= task.estimate
        if of_task:
            say(f"{head}: resumed, {of_task[0].date}")
        else:
            say(f"{head} ...")
            of_task = _measured(task, rows, now, out)
            records.replace(path, [*(row for row in records.read(path) if row.task != task.key), *of_task])
            for row in of_task:
                if row.skipped:
                    say(f"  {row.case}, {row.by}: {row.skipped}")
        rows += of_task
    return rows, int(any(row.failed for row in rows))


def _still_valid(rows: Sequence[Row], task: Task, now: dict[str, Any]) -> list[Row]:
    """The rows of ``task`` if they have the same conditions and another try would give no more."""
    of_task = [row for row in rows if row.task == task.key]
    failed = any(row.failed for row in of_task)
    nothing = all(row.skipped.startswith((NOT_INSTALLED, REFUSED)) for row in of_task)
    return of_task if not (failed or nothing) and all(same_conditions(row, now) for row in of_task) else []


def _measured(task: Task, before: Sequence[Row], now: dict[str, Any], out: Path) -> list[Row]:
    """The rows of ``task``, or one row that says why there are none."""
    nothing = Row(**{"suite": task.suite, "case": task.key, "task": task.key, **now, **task.fields})
    first = [row for row in before if (row.suite, row.task) == (task.suite, task.after)]
    if first and all(row.skipped for row in first):
        return [replace(nothing, skipped=f"{REFUSED}: {task.after} {FOLLOWS}")]
    try:
        return run_task(task, out)
    except TaskRefused as error:
        return [replace(nothing, skipped=f"{REFUSED}: {error}")]
    except TaskFailed as error:
        return [replace(nothing, skipped=str(error), failed=True)]


def conditions_of(device: str) -> tuple[str, dict[str, Any]]:
    """The full name of ``device`` and its conditions, from another process, so that this one uses no memory there.

    Raises
    ------
    NoDevice
        There is no device of that name.
    """
    command = [sys.executable, "-m", "benchmarks.measure.conditions", device]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise NoDevice(tail(done.stderr, 1))
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["name"], answer["conditions"]


def environment() -> dict[str, str]:
    """This process's environment, with the checkout first on Python's path."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def tail(text: str, lines: int = 15) -> str:
    """The last lines, where an error names itself."""
    return "\n".join(text.strip().splitlines()[-lines:])


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours if there are any.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
