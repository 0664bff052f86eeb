"""Time, peak memory and accuracy, suite by suite: what `mmphate-gpu bench` runs.

python benchmarks/run.py --quick                                        a little of every suite
python benchmarks/run.py ops pipeline                                   two suites
python benchmarks/run.py against --only picture --only umap-learn       a part of a suite
python benchmarks/run.py --case suite-hopf-sparse --device cuda         a case of the pipeline
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout is measured, whether installed or not

from benchmarks import suites
from benchmarks.cases import CASES
from benchmarks.measure import records
from benchmarks.measure.records import RESULTS
from benchmarks.measure.rows import Row
from benchmarks.measure.tables import not_measured, plain_table
from benchmarks.measure.tasks import NoDevice, Task, clock, conditions_of, run_tasks, through_its_end

ELSEWHERE = "bench-results"


def default_out() -> Path:
    """The results of the checkout, or a folder in the current one if that is not writable."""
    return RESULTS if os.access(RESULTS, os.W_OK) else Path(ELSEWHERE)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="mmphate-gpu bench", description=__doc__.splitlines()[0])
    add = made.add_argument
    add("suite", nargs="*", metavar="SUITE", help=", ".join(suites.NAMES))
    add("--quick", action="store_true", help="small inputs; all suites within three minutes on two cores")
    add("--full", action="store_true", help="all suites")
    add("--only", action="append", default=[], metavar="PART", help="a part of the suite; may be repeated")
    add("--case", action="append", default=[], metavar="NAME", help="a case of the pipeline; may be repeated")
    add("--storage", choices=("auto", "sparse", "tiles", "lazy"), help="of --case")
    add("--repeats", type=int, help="of --case: warm runs, whose median counts")
    add("--list", action="store_true", help="print the tasks and the cases")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    add("--out", type=Path, default=default_out(), metavar="DIR", help="folder of the results")
    add("--fresh", action="store_true", help="also run tasks whose rows are still valid")
    return made


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser()
    options = made.parse_args(argv)
    for name in options.suite:
        if name not in suites.NAMES:
            made.error(f"SUITE {name} is unknown; accepted: {', '.join(suites.NAMES)}")
    for name in options.case:
        if name not in CASES:
            made.error(f"--case {name} is unknown; accepted: {', '.join(CASES)}")
    if options.only and len(options.suite) != 1:
        made.error("--only needs one SUITE")
    for name in options.only:
        if name not in (parts := suites.suite(options.suite[0]).PARTS):
            made.error(f"--only {name} is unknown; accepted: {', '.join(parts)}")
    if options.repeats is not None and options.repeats < 0:
        made.error(f"--repeats {options.repeats} must not be negative")
    if options.quick and options.full:
        made.error("--quick and --full exclude each other")
    if not (options.quick or options.full or options.case or options.suite or options.list):
        made.error("nothing to run; give --quick, --full, SUITE, --case NAME or --list")
    return options


def chosen_tasks(options: argparse.Namespace, device: str) -> list[Task]:
    """The tasks that the options ask for, in the order of the suites."""
    from benchmarks.suites.pipeline import case_task

    tasks = [case_task(name, device, storage=options.storage, repeats=options.repeats) for name in options.case]
    for name in options.suite or (suites.NAMES if options.quick or options.full else ()):
        tasks += suites.suite(name).tasks(device, options.quick, options.only)
    return tasks


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tasks and print the tables; 1 if a task failed or a goal is missed, 2 for bad usage.

    It also ends with 2 if there is no such device, if another run writes into the folder, and if a file in the folder
    holds no rows.
    """
    options = parse(argv)
    if options.list:
        return listed(options)
    try:
        device, now = conditions_of(options.device)
        with records.locked(options.out), through_its_end():
            tasks = chosen_tasks(options, device)
            print(f"{len(tasks)} tasks, about {clock(sum(t.estimate for t in tasks))} on two cores", file=sys.stderr)
            rows, code = run_tasks(tasks, options.out, now, fresh=options.fresh)
    except (NoDevice, records.Busy, records.BadRows) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    for name in dict.fromkeys(row.suite for row in rows):
        print(f"written: {records.result_path(options.out, name, now['machine'])}", file=sys.stderr)
    return conclude(rows, code)


def conclude(rows: Sequence[Row], code: int) -> int:
    """Print the tables of each suite, what was not measured, and the missed goals; 1 if any, else ``code``."""
    for name in dict.fromkeys(row.suite for row in rows):
        of_suite = [row for row in rows if row.suite == name]
        tables = suites.suite(name).tables(of_suite)
        blocks = [block for t in tables for block in (plain_table(t.head, t.lines) if t.lines else "", t.note) if block]
        print(name, *blocks, *not_measured(of_suite, tables), sep="\n", end="\n\n")
    missed = suites.missed_goals(rows)
    print("\n".join(missed or ["No goal is missed."]))
    return code or int(bool(missed))


def listed(options: argparse.Namespace) -> int:
    """Print the tasks of the suites, and the cases that ``--case`` accepts."""
    tasks = [task for name in options.suite or suites.NAMES for task in suites.suite(name).tasks("cpu", options.quick)]
    print(plain_table(("suite", "task", "seconds"), [(t.suite, t.key, f"{t.estimate:.0f}") for t in tasks]))
    print()
    print(plain_table(("case", "what it is"), [(case.name, case.what) for case in CASES.values()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
