"""How much longer a fit takes beside processes that compute: with sleeping waits, and as GNU OpenMP waits by itself.

`python -m benchmarks.suites.busy` fits each case alone and beside busy loops, up to one loop for each core, and writes
the rows. `... busy CASE N` does so for one case beside N loops. The ways to wait take turns. Each fit has a process of
its own, which has fitted the walk before. The goal: beside one loop for each core, a fit takes at most 2.5 times as
long as alone. It needs a machine without other work, so `run.py` leaves it out.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.cases import CASES, Case
from benchmarks.measure import records
from benchmarks.measure.conditions import conditions, n_cores
from benchmarks.measure.rows import Row, timing
from benchmarks.measure.tables import Table
from benchmarks.measure.tasks import Task, emit, run_task, task_options, through_its_end

NAME = "busy"
SLEEPS, SPINS = "sleeping waits", "GNU OpenMP's waits"
WALK, SUITE = "walk-60x40x20", "suite-hopf_pitchfork-sparse"
PAIRS = {WALK: 3, SUITE: 1}
MOST_TIMES = 2.5
LOOP = (sys.executable, "-c", "while True: pass")


def _case(name: str) -> Case:
    from mmphate_gpu.datasets import random_walk

    walk = Case(WALK, "a walk with 1,500 landmarks", lambda folder: random_walk(60, 40, 20), {"n_landmark": 1500})
    return walk if name == WALK else CASES[name]


@contextlib.contextmanager
def busy_loops(n: int) -> Iterator[None]:
    """``n`` processes that compute without end, until the block ends."""
    loops = [subprocess.Popen(LOOP, stdin=subprocess.DEVNULL) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def fit(name: str, by: str) -> Row:
    """The row of a single fit in this process."""
    from mmphate_gpu import MMPHATE
    from mmphate_gpu.runtime import busy_cores

    if by == SPINS:
        busy_cores._gnu_openmp = lambda: None  # type: ignore[assignment]  # nothing is watched
    for case in (_case(WALK), _case(name)):
        trace = case.trace(None)
        started = time.perf_counter()
        MMPHATE(**case.options, random_state=0, device="cpu").fit(trace)
        seconds = time.perf_counter() - started
    sizes = {size: getattr(trace, size) for size in ("n_slices", "n_units", "n_samples", "n_nodes")}
    return Row(suite=NAME, case=name, by=by, **sizes, **timing([seconds]), **conditions("cpu"))


def measured(name: str, n_loops: int) -> list[Row]:
    """The rows of both ways to wait, beside ``n_loops`` loops. The fits take turns."""
    rows: dict[str, list[Row]] = {SPINS: [], SLEEPS: []}
    with busy_loops(n_loops):
        for _ in range(PAIRS[name]):
            for by, of_way in rows.items():
                of_way += run_task(Task(NAME, by, (sys.executable, "-m", f"benchmarks.suites.{NAME}", name, by)))
    return [_joined(of_way, n_loops) for of_way in rows.values()]


def _joined(rows: Sequence[Row], n_loops: int) -> Row:
    times = timing([row.seconds or 0.0 for row in rows])
    return replace(rows[0], stage=_beside(n_loops), task=f"{rows[0].case}, {n_loops}", **times)


def _beside(n_loops: int) -> str:
    return f"beside {n_loops}" if n_loops else "alone"


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """A task for each case and number of loops."""
    numbers = range(n_cores() + 1)
    return [Task(NAME, f"{name}, {n}", (sys.executable, "-m", NAME, name, str(n))) for name in PAIRS for n in numbers]


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """A line for each case and way to wait: the seconds alone and beside loops, and the last over the first."""
    numbers = [_beside(n) for n in range(1 + max((int(row.task.split()[-1]) for row in rows), default=0))]
    head = ("case", "waits", *(f"{number}, s" for number in numbers), f"{numbers[-1]} / alone")
    lines = []
    for case, by in dict.fromkeys((row.case, row.by) for row in rows):
        seconds = {row.stage: row.seconds or 0.0 for row in rows if (row.case, row.by) == (case, by)}
        cells = (f"{seconds[number]:.1f}" if number in seconds else "" for number in numbers)
        lines.append((case, by, *cells, f"{times_as_long(rows, case, by):.1f}"))
    return [Table(head, lines)]


def times_as_long(rows: Sequence[Row], case: str, by: str) -> float:
    """The seconds beside the most loops over those alone.

    >>> row = Row(suite=NAME, case="a", by=SLEEPS, stage="alone", seconds=2.0)
    >>> times_as_long([row, replace(row, stage="beside 1", seconds=3.0)], "a", SLEEPS)
    1.5
    """
    seconds = {row.stage: row.seconds or 0.0 for row in rows if (row.case, row.by) == (case, by)}
    return seconds[max(seconds, key=lambda stage: (len(stage), stage))] / seconds["alone"]


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """A sentence for each case that takes too long beside busy loops."""
    cases = dict.fromkeys(row.case for row in rows if row.by == SLEEPS)
    times = {case: times_as_long(rows, case, SLEEPS) for case in cases}
    return [
        f"{NAME} of {case}: {n:.1f} times as long as alone, goal at most {MOST_TIMES}"
        for case, n in times.items()
        if n > MOST_TIMES
    ]


def main() -> int:
    options = task_options().parse_args()
    if options.names and options.names[1] in (SLEEPS, SPINS):
        emit([fit(*options.names)])
        return 0
    wanted = [options.names] if options.names else [(name, n) for name in PAIRS for n in range(n_cores() + 1)]
    missed: list[str] = []
    for name, n in wanted:
        with through_its_end():
            rows = measured(name, int(n))
        path = records.result_path(options.folder or records.RESULTS, NAME, rows[0].machine)
        with records.locked(path.parent):
            others = [row for row in records.read(path) if row.task != rows[0].task]
            records.replace(path, sorted([*others, *rows], key=lambda row: (row.case != WALK, row.by, row.task)))
            missed = missed_goals(records.read(path))
    print("\n".join(missed))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
