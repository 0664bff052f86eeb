"""Time, peak memory and accuracy of everything, suite by suite: what `mmphate-gpu bench` runs.

python benchmarks/run.py --quick
python benchmarks/run.py --suite pipeline --suite ops
python benchmarks/run.py --case suite-hopf-sparse --device cuda
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout is what is measured, installed or not

from benchmarks.cases import CASES
from benchmarks.measure import records
from benchmarks.measure.records import RESULTS, ROOT
from benchmarks.measure.rows import Row, not_measured, plain_table
from benchmarks.measure.tasks import Task, clock, environment, run_tasks, tail, through_its_end

# In the order of a full run: the machine's rates first, what takes longest last. A suite is a module with
# ``tasks(device, quick) -> list[Task]`` and ``table(rows, which) -> (head, lines)``, and with ``missed_goals(rows) ->
# list[str]`` if it has goals.
SUITES = {
    "floors": "benchmarks.suites.floors",
    "ops": "benchmarks.suites.ops",
    "pipeline": "benchmarks.suites.pipeline",
    "against": "benchmarks.suites.against",
    "ablations": "benchmarks.suites.ablations",
    "scale": "benchmarks.suites.scale",
}
ELSEWHERE = "bench-results"


def suite_module(name: str) -> ModuleType:
    return importlib.import_module(SUITES[name])


def default_out() -> Path:
    """The results of the checkout, or a folder here where that cannot be written."""
    return RESULTS if os.access(RESULTS, os.W_OK) else Path(ELSEWHERE)


class NoDevice(ValueError):
    """There is no such device; the message says what there is."""


def about_device(device: str) -> tuple[str, dict[str, Any]]:
    """The full name of ``device`` and what rows on it say, found in another process: this one holds no memory there.

    Raises
    ------
    NoDevice
        There is no device of that name.
    """
    command = [sys.executable, str(ROOT / "benchmarks" / "measure" / "records.py"), device]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise NoDevice(tail(done.stderr, 1))
    found = json.loads(done.stdout.splitlines()[-1])
    return found["name"], found["about"]


def chosen_tasks(options: argparse.Namespace, device: str) -> list[Task]:
    """What the options ask for, in the order of the suites."""
    from benchmarks.suites.pipeline import case_task

    found = [case_task(name, device, storage=options.storage, repeats=options.repeats) for name in options.case]
    suites = options.suite or (SUITES if options.quick or options.full else ())
    for name in suites:
        found += suite_module(name).tasks(device, options.quick)
    return found


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """One sentence for each goal of any suite that ``rows`` miss."""
    found: list[str] = []
    for name in dict.fromkeys(row.suite for row in rows):
        told = getattr(suite_module(name), "missed_goals", lambda own: [])
        found += told([row for row in rows if row.suite == name and not row.skipped])
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="mmphate-gpu bench", description=__doc__.splitlines()[0])
    made.add_argument("--full", action="store_true", help="everything")
    made.add_argument("--suite", action="append", default=[], choices=SUITES, metavar="NAME", help=", ".join(SUITES))
    made.add_argument("--case", action="append", default=[], metavar="NAME", help="a case of the pipeline by its name")
    made.add_argument("--list", action="store_true", help="name the tasks and the cases, and stop")
    made.add_argument("--storage", choices=("auto", "sparse", "tiles", "lazy"), help="of --case, instead of its own")
    made.add_argument("--repeats", type=int, help="of --case: warm runs whose median counts")
    return add_run_arguments(made)


def add_run_arguments(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What every script of the suite takes."""
    made.add_argument("--quick", action="store_true", help="small inputs; all suites within three minutes on two cores")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    made.add_argument("--out", type=Path, default=default_out(), metavar="DIR", help="folder of the results")
    made.add_argument("--fresh", action="store_true", help="measure again what the results have already")
    return made


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser()
    options = made.parse_args(argv)
    unknown = [name for name in options.case if name not in CASES]
    if unknown:
        made.error(f"--case {unknown[0]} is unknown; accepted: {', '.join(CASES)}")
    if options.repeats is not None and options.repeats < 0:
        made.error(f"--repeats {options.repeats} must not be negative")
    if options.quick and options.full:
        made.error("--quick and --full exclude each other")
    if not (options.quick or options.full or options.case or options.suite or options.list):
        made.error("nothing to run; give --quick, --full, --suite NAME, --case NAME or --list")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 if every task gave its rows, 1 if one failed, 2 for bad usage."""
    options = parse(argv)
    if options.list:
        return listed(options)
    rows, code = run_suite(lambda device: chosen_tasks(options, device), options)
    conclude(rows, code)
    return code


def run_suite(chosen: Callable[[str], Sequence[Task]], options: argparse.Namespace) -> tuple[list[Row], int]:
    """Run the tasks that are ``chosen`` for the device, with what is ahead said before and where things are after.

    Returns what `run_tasks` does; ends the process with 2 where there is no such device, where another run writes into
    the folder, and where a file in it holds no rows.
    """
    try:
        device, about = about_device(options.device)
        with records.locked(options.out):
            rows, code = _run(chosen(device), about, options)
    except (NoDevice, records.Busy, records.BadRows) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    for suite in dict.fromkeys(row.suite for row in rows):
        print(f"written: {records.result_path(options.out, suite, about['machine'])}", file=sys.stderr)
    return rows, code


def _run(tasks: Sequence[Task], about: dict[str, Any], options: argparse.Namespace) -> tuple[list[Row], int]:
    """`run_tasks`, with what is ahead said before."""
    print(f"{len(tasks)} tasks, about {clock(sum(task.estimate for task in tasks))} on two cores", file=sys.stderr)
    with through_its_end():
        return run_tasks(tasks, options.out, about, fresh=options.fresh)


def conclude(rows: Sequence[Row], code: int) -> int:
    """Print a table for each suite with what was not measured, and the goals missed; 1 if any, else ``code``."""
    for suite in dict.fromkeys(row.suite for row in rows):
        own = [row for row in rows if row.suite == suite]
        head, lines = suite_module(suite).table(own, "")
        print(suite, *([plain_table(head, lines)] if lines else []), *not_measured(own, lines), sep="\n", end="\n\n")
    return missed_or_none(missed_goals(rows), code)


def missed_or_none(missed: Sequence[str], code: int) -> int:
    """Print the goals that are missed, or that none is; 1 if any, else ``code``."""
    print("\n".join(missed or ["No goal is missed."]))
    return code or int(bool(missed))


def listed(options: argparse.Namespace) -> int:
    """The tasks of the suites, and the cases that --case takes."""
    suites = options.suite or list(SUITES)
    tasks = [task for name in suites for task in suite_module(name).tasks("cpu", options.quick)]
    print(plain_table(("suite", "task", "seconds"), [(t.suite, t.key, f"{t.estimate:.0f}") for t in tasks]))
    print()
    print(plain_table(("case", "what it is"), [(case.name, case.what) for case in CASES.values()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
