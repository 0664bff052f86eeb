"""Runs what a suite asks for, each task in a process of its own, and keeps the rows of each as soon as it has them."""

from __future__ import annotations

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
from benchmarks.measure.records import RESULTS, ROOT
from benchmarks.measure.rows import FOLLOWS, NOT_INSTALLED, REFUSED, Row

# In a task's command: the folder of the results, where it reads what another suite has written.
OUT = "{out}"
# How the key of a task begins whose input is smaller than that of the full run; tables leave its rows out.
QUICK = "quick-"
# Bad input, by the convention of the command line: the library refused the run.
REFUSAL = 2


@dataclass(frozen=True)
class Task:
    """A process that measures something and prints one JSON list of rows on its last line (`emit`)."""

    suite: str
    key: str  # within the suite
    command: tuple[str, ...]
    timeout: float = 600.0  # seconds
    estimate: float = 5.0  # seconds on two cores, or on the GPU
    after: str | None = None  # the key of a task before it that has to have given numbers
    about: dict[str, Any] = field(default_factory=dict)  # fields of the row that says why there is none


class TaskFailed(RuntimeError):
    """A task that gave no rows; the message is the last of what it wrote."""


class TaskRefused(TaskFailed):
    """A task that the library refused: most often one that does not fit in memory."""


def python_task(suite: str, key: str, script: str, *arguments: str, **options: Any) -> Task:
    """A task that runs ``benchmarks/<script>`` with this interpreter; ``options`` are those of `Task`."""
    return Task(suite, key, (sys.executable, str(ROOT / "benchmarks" / script), *arguments), **options)


def emit(rows: Sequence[Row]) -> None:
    """Print ``rows`` as a task has to."""
    print(json.dumps([row.asdict() for row in rows], allow_nan=False), flush=True)


def run_task(task: Task, out: Path = RESULTS) -> list[Row]:
    """The rows that ``task`` prints.

    Raises
    ------
    TaskRefused
        The library refused it (exit code 2).
    TaskFailed
        It ended otherwise, took more than its time, or printed no rows.
    """
    command = [str(out) if part == OUT else part for part in task.command]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    # A session of its own, so that its children end with it.
    process = subprocess.Popen(command, env=environment(), start_new_session=True, **streams)
    try:
        written, told = process.communicate(timeout=task.timeout)
    except subprocess.TimeoutExpired as error:
        raise TaskFailed(f"took more than {task.timeout:.0f} s") from error
    finally:
        if process.returncode is None:
            end(process)
    if process.returncode != 0:
        kind = TaskRefused if process.returncode == REFUSAL else TaskFailed
        raise kind(tail(told) or f"ended with exit code {process.returncode}")
    try:
        entries = json.loads(written.splitlines()[-1])
        return [replace(row, task=task.key) for row in records.rows_of(entries, "its last line")]
    except (IndexError, ValueError) as error:
        raise TaskFailed(f"printed no rows: {tail(written + told)}") from error


@contextlib.contextmanager
def through_its_end() -> Iterator[None]:
    """Where this process is asked to end, it goes through the code that ends the process in hand."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that leads a session of its own, and its children; asked first, so that it can end its own."""
    for sent, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=patience)


def run_tasks(
    tasks: Sequence[Task],
    out: Path,
    about: dict[str, Any],
    *,
    fresh: bool = False,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> tuple[list[Row], int]:
    """Run the tasks one by one, and put the rows of each into its suite's file at once.

    Parameters
    ----------
    tasks : sequence of Task
    out : Path
        The folder of ``<suite>-<machine>.jsonl``.
    about : dict
        `records.about` of the device: rows of the same machine, sources, packages and memory still hold, and their
        tasks are not run again; a task that failed gets a row with its reason, and is tried again the next time.
    fresh : bool
        Run everything.

    Returns
    -------
    The rows of all tasks, and the exit code: 1 if one failed; what is not installed or refused is no failure.

    Raises
    ------
    records.BadRows
        A file of results holds something else.
    """
    rows: list[Row] = []
    started, left = time.monotonic(), sum(task.estimate for task in tasks)
    for number, task in enumerate(tasks, 1):
        path = records.result_path(out, task.suite, about["machine"])
        found = [] if fresh else _still_holds(records.read(path), task, about)
        elapsed = time.monotonic() - started
        head = f"[{number}/{len(tasks)}, {clock(elapsed)}, about {clock(left)} left] {task.suite} {task.key}"
        left -= task.estimate
        if found:
            say(f"{head}: resumed, {found[0].date}")
        else:
            say(f"{head} ...")
            found = _measured(task, rows, about, out)
            _put(path, task, found)
            for row in found:
                if row.skipped:
                    say(f"  {row.case}, {row.by}: {row.skipped}")
        rows += found
    return rows, int(any(row.failed for row in rows))


def _still_holds(rows: Sequence[Row], task: Task, about: dict[str, Any]) -> list[Row]:
    """The rows of ``task`` if they are of the same settings and another try would give no more."""
    own = [row for row in rows if row.task == task.key]
    failed = any(row.failed for row in own)
    nothing = all(row.skipped.startswith((NOT_INSTALLED, REFUSED)) for row in own)
    return own if not (failed or nothing) and all(records.same_settings(row, about) for row in own) else []


def _measured(task: Task, before: Sequence[Row], about: dict[str, Any], out: Path) -> list[Row]:
    """The rows of ``task``, or one that says why there are none."""
    nothing = Row(**{"suite": task.suite, "case": task.key, "task": task.key, **about, **task.about})
    first = [row for row in before if (row.suite, row.task) == (task.suite, task.after)]
    if first and all(row.skipped for row in first):
        return [replace(nothing, skipped=f"{REFUSED}: {task.after} {FOLLOWS}")]
    try:
        return run_task(task, out)
    except TaskRefused as error:
        return [replace(nothing, skipped=f"{REFUSED}: {error}")]
    except TaskFailed as error:
        return [replace(nothing, skipped=str(error), failed=True)]


def _put(path: Path, task: Task, rows: Sequence[Row]) -> None:
    """Add ``rows``, in place of those that ``task`` wrote before."""
    records.replace(path, [*(row for row in records.read(path) if row.task != task.key), *rows])


def environment() -> dict[str, str]:
    """This process's environment, with the checkout first on the path."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def tail(text: str, lines: int = 15) -> str:
    """The last lines, where an error says what it is."""
    return "\n".join(text.strip().splitlines()[-lines:])


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
