"""How much longer the demonstration's training takes while `LiveEmbedding` follows it.

`python -m benchmarks.suites.watching` trains in turn with and without it, each time in a process of its own, and writes
the rows of both. The goal: the median of the followed trainings is less than a tenth longer. The random choices of a
training are the same each time. Making the object, which loads libraries before the training, is a number of its own.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.measure import records
from benchmarks.measure.conditions import conditions
from benchmarks.measure.rows import Row, timing
from benchmarks.measure.tasks import Task, emit, run_task, task_options

NAME = "watching"
ALONE, FOLLOWED = "alone", "followed"
EPOCHS, EPOCHS_QUICK = 50, 10
PAIRS, PAIRS_QUICK = 11, 1
MOST_OVERHEAD = 0.1


def training(by: str, *, quick: bool) -> Row:
    """A row of a single training in this process, ``by`` itself or followed."""
    from mmphate_gpu import LiveEmbedding, Recorder
    from mmphate_gpu.cli.demo import digits, train

    data, epochs, live, making = digits(), EPOCHS_QUICK if quick else EPOCHS, [], [0.0]

    def follow(recorder: Recorder) -> None:
        started = time.perf_counter()
        live.append(LiveEmbedding(recorder, out=folder))
        making.append(time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(data, epochs=epochs, **({"follow": follow} if by == FOLLOWED else {}))
        seconds = time.perf_counter() - started - making[-1]
    statistic = {"making": making[-1], "work": live[0].seconds} if live else {}
    return Row(
        suite=NAME, case=f"digits-{epochs}", by=by, statistics=statistic, **timing([seconds]), **conditions("cpu")
    )


def measured(*, quick: bool) -> list[Row]:
    """A row for each way to train. The trainings take turns."""
    rows: dict[str, list[Row]] = {ALONE: [], FOLLOWED: []}
    for _ in range(PAIRS_QUICK if quick else PAIRS):
        for by, of_way in rows.items():
            command = (sys.executable, "-m", f"benchmarks.suites.{NAME}", by, *["--quick"] * quick)
            of_way += run_task(Task(NAME, by, command))
    return [_joined(of_way) for of_way in rows.values()]


def _joined(rows: Sequence[Row]) -> Row:
    medians = {name: statistics.median(row.statistics[name] for row in rows) for name in rows[0].statistics}
    return replace(rows[0], statistics=medians, **timing([row.seconds or 0.0 for row in rows]))


def overhead(rows: Sequence[Row]) -> float:
    """How much longer a followed training takes, as a share of one alone.

    >>> overhead([Row(suite=NAME, case="", by=ALONE, seconds=4.0), Row(suite=NAME, case="", by=FOLLOWED, seconds=5.0)])
    0.25
    """
    seconds = {row.by: row.seconds or 0.0 for row in rows}
    return seconds[FOLLOWED] / seconds[ALONE] - 1


def main() -> int:
    options = task_options().parse_args()
    if options.names:
        emit([training(name, quick=options.quick) for name in options.names])
        return 0
    rows = measured(quick=options.quick)
    path = records.result_path(options.folder or records.RESULTS, NAME, rows[0].machine)
    with records.locked(path.parent):
        records.replace(path, rows)
    print(f"{path}: a followed training takes {overhead(rows):+.1%} of the time (goal: less than {MOST_OVERHEAD:+.0%})")
    return int(overhead(rows) >= MOST_OVERHEAD)


if __name__ == "__main__":
    sys.exit(main())
