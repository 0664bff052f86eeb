"""The second call on a CUDA machine: tests, twins, runs under caps, and the suites.

    python benchmarks/gpu/verify_gpu.py --log /tmp/verify

`first_light` is the first call. A call takes at most ten minutes (``--budget``). It ends with 0 if nothing failed, 1 if
a section failed, 2 without a CUDA device, and 3 if there was no time for everything: the next call goes on where it
stopped. A section that ended is not run again while sources, versions and machine are the same, except by ``--only`` or
``--fresh``. A suite that did not end goes on with the tasks that are left.

A JSON file has the results of the sections and is written after each. The rows of the suites go into their own files,
as with `run.py`. ``--pack FILE`` puts everything, with the logs, into one file after each section. ``--resume FILE``
goes on from that file, also on another machine with the same device.

Every section runs in processes of its own, because a fault on the GPU makes its process unusable. ``missing`` has what
a section could not do because a package is not installed. ``--cpu`` runs small forms of the sections on the CPU,
``--pretend`` on a pretended GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import run, suites
from benchmarks.cases import AXES, QUICK
from benchmarks.gpu.pytest_runs import pytest_section
from benchmarks.gpu.sections import (
    UNFINISHED,
    Section,
    TookTooLong,
    Verification,
    add_arguments,
    begin,
    call,
    failed,
    last_json,
    print_list,
    print_table,
    run_section,
    unfinished,
    unpack,
    write_pack,
)
from benchmarks.gpu.verify_caps import caps
from benchmarks.measure.conditions import hash_of, same_memory
from benchmarks.measure.records import RESULTS, read, result_path, write_text
from benchmarks.measure.rows import NOT_INSTALLED, Row
from benchmarks.measure.tasks import conditions_of, tail, through_its_end

PACKAGES = ("pykeops", "keopscore", "pynndescent", "cupy", "triton", "pytest", "matplotlib", "xarray")
BUDGET = 560  # seconds: ten minutes, with a reserve
# Share of a call that a suite may take: all but the time before the first section.
SUITE_SHARE = 0.9
CANNOT_BEGIN = 2  # exit code of a suite
# Conditions that may differ if sections are to be kept; the memory may differ as in rows.
PASSING = ("date", "commit", "memory_bytes")
# The files that decide a section, beside those that decide a number.
CHECKS = ("tests/**/*.py", "benchmarks/gpu/*")
# The cases of the pipeline for which a call has time. The input of the run of 10,000,000 nodes alone takes minutes.
PIPELINE = ("walk-1600x6x10", "suite-hopf_pitchfork-sparse", "suite-hopf_pitchfork-lazy", "har-127x128x30x6")
TILES = ("suite-hopf_pitchfork-sparse",)  # for the form "tiles"


# ---------------------------------------------------------------- sections


def tests(v: Verification) -> dict[str, Any]:
    """All tests marked cuda, except the conformance suite and the twins."""
    if v.device == "cpu":
        return pytest_section(v, "tests", ["tests/test_datasets.py", "-k", "walk"], 60)
    others = ["--ignore=tests/conformance", "--ignore=tests/twins"]
    return pytest_section(v, "tests", ["-m", "cuda", "tests", *others], 150, sample="test_power or test_components")


def native_twins(v: Verification) -> dict[str, Any]:
    """The CUDA kernels against the C++ twins."""
    if v.device == "cpu":
        return pytest_section(v, "native_twins", ["tests/twins/test_cuda_launch.py"], 60)
    for package in ("cupy", "triton"):
        if package in v.conditions["missing"]:
            return failed(f"the package {package} is not installed, so its CUDA twins did not run")
    return pytest_section(v, "native_twins", ["-m", "cuda", "tests/twins"], 150, sample="descent")


def conformance(v: Verification) -> dict[str, Any]:
    """The conformance suite of the operators on the device."""
    chosen = ["-k", "product and sparse and not int64"] if v.device == "cpu" else ["-m", "cuda"]
    return pytest_section(v, "conformance", ["tests/conformance", *chosen], 150, sample="product and float32")


def twins(name: str) -> Section:
    def section(v: Verification) -> dict[str, Any]:
        options = [f"--device={v.device}", *["--quick"] * v.small]
        done = call(v, f"twins_{name}", [sys.executable, "-m", "benchmarks.gpu.twins", name, *options], 120)
        return failed(tail(done.stderr)) if done.returncode != 0 else last_json(done.stdout)

    section.__doc__ = f"Two ways to the same numbers: {name}."
    return section


Arguments = Callable[[bool], list[str]]  # of `run.py`, from whether inputs are small


def suite(key: str, name: str, arguments: Arguments) -> Section:
    """The section ``key``, which runs tasks of suite ``name``."""

    def section(v: Verification) -> dict[str, Any]:
        options = [*arguments(v.small), f"--device={v.device}", f"--out={v.out.resolve()}"]
        try:
            done = call(v, key, [sys.executable, run.__file__, *options], SUITE_SHARE * v.budget)
        except TookTooLong as error:
            before = None if error.early else v.sections.get(key, {}).get("task")
            return stopped((v.log / f"{key}.err").read_text(), before)
        if done.returncode == CANNOT_BEGIN:  # another run writes into the folder
            return unfinished(tail(done.stderr))
        keys = {task.key for task in run.chosen_tasks(run.parse(options), v.device)}
        rows = [row for row in read(result_path(v.out, name, v.conditions["machine"])) if row.task in keys]
        missing = [_why(row) for row in rows if row.skipped.startswith(NOT_INSTALLED)]
        failures = {row.task: _why(row) for row in rows if row.failed}
        # A goal that is missed is reported, and is no failure.
        goals = suites.missed_goals([row for row in rows if not row.skipped])
        result = {"failures": failures, "missing": missing, "goals_missed": goals}
        if failures or done.returncode not in (0, 1):
            return {**failed(tail(done.stdout + done.stderr)), **result}
        return {"status": "passed", **result}

    section.__doc__ = f"Suite {name}, as far as time allows: its rows are in the folder of the results."
    return section


def _why(row: Row) -> str:
    return f"{row.case}, {row.by}: {row.skipped}"


def whole_suite(name: str) -> Section:
    return suite(name, name, lambda small: [name, *["--quick"] * small])


def axis(name: str) -> Section:
    """The cases of suite "scale" for one axis."""
    return suite(f"scale_{name}", "scale", lambda small: ["scale", f"--only={name}", *["--quick"] * small])


def pipeline(key: str, cases: Sequence[str], *form: str) -> Section:
    """Some cases of the pipeline, or the small cases, in a given form."""
    return suite(key, "pipeline", lambda small: [*(f"--case={name}" for name in (QUICK if small else cases)), *form])


def stopped(progress: str, before: str | None = None) -> dict[str, Any]:
    """The result of a suite that was ended after its time, from its ``progress`` on stderr.

    If the suite had all the time of a call, ``before`` is the task that the call before this one ended. If this call
    ended the same task, another call would not be enough for it either.
    """
    begun = re.findall(r"^\[(\d+)/(\d+),[^]]*\] (.*?)(?: \.\.\.|: resumed.*)$", progress, re.MULTILINE)
    if not begun:
        return unfinished("it had not begun")
    number, n_tasks, task = begun[-1]
    if task == before:
        return failed(f"{task} takes longer than a call gives it: a larger --budget may do, or run it by itself")
    detail = f"{int(number) - 1} of {n_tasks} tasks are done; the next call goes on with {task}"
    return {**unfinished(detail), "task": task}


# The most important first, in case time runs out.
SECTIONS: dict[str, Section] = {
    "native_twins": native_twins,
    "twins_neighbors": twins("neighbors"),
    "twins_operators": twins("operators"),
    "twins_pipeline": twins("pipeline"),
    "conformance": conformance,
    "tests": tests,
    **{name: whole_suite(name) for name in ("floors", "ops")},
    "pipeline": pipeline("pipeline", PIPELINE),
    "pipeline_tiles": pipeline("pipeline_tiles", TILES, "--storage=tiles"),
    "caps": caps,
    **{name: whole_suite(name) for name in ("against", "ablations")},
    # One axis in each, because the last case of an axis may take longer than a call and would block the other axes.
    **{f"scale_{name}": axis(name) for name in AXES},
}

# ---------------------------------------------------------------- the run


def conditions(v: Verification) -> dict[str, Any]:
    """The conditions of the device, and the packages that are not installed.

    Raises
    ------
    ValueError
        There is no such device, or the library does not import.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return {**conditions_of(v.device)[1], "checks": hash_of(CHECKS), "missing": missing}


def sections_before(path: Path, now: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections that were run on the same machine, with the same sources and versions."""
    before = json.loads(path.read_text()) if path.exists() else {}
    sections = before.pop("sections", {})
    lasting = [{key: value for key, value in state.items() if key not in PASSING} for state in (before, now)]
    same = lasting[0] == lasting[1] and same_memory(before["memory_bytes"], now["memory_bytes"])
    return sections if same else {}


def content(v: Verification) -> dict[str, Any]:
    """The conditions and the sections, for the JSON file."""
    return {**v.conditions, "sections": {name: v.sections[name] for name in SECTIONS if name in v.sections}}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, SECTIONS, BUDGET)
    parser.add_argument("--fresh", action="store_true", help="run all sections again; valid rows of suites stay")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of the results")
    parser.add_argument("--log", type=Path, metavar="DIR", help="folder of the output of the sections")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    if options.list:
        return print_list({name: section.__doc__.splitlines()[0] for name, section in SECTIONS.items()})
    v = begin("verify_gpu", options, options.log or Path())
    if v is None:
        return 2
    v.log = options.log or Path(tempfile.mkdtemp(prefix="verify_gpu_"))
    v.log.mkdir(parents=True, exist_ok=True)
    if options.resume is not None:
        unpack(options.resume, options.out)
    v.conditions = conditions(v)
    path = options.out / f"verify_{'gpu' if v.place == 'cuda' else v.place}-{v.conditions['machine']}.json"
    v.sections = {} if options.fresh else sections_before(path, v.conditions)
    names = options.only or list(SECTIONS)
    with through_its_end():
        for name in names:
            if options.only or v.sections.get(name, unfinished(""))["status"] == UNFINISHED:
                run_section(v, SECTIONS, name)
                write_text(path, json.dumps(content(v), indent=1) + "\n")
                write_pack(v)
    return conclude(v, names, path)


def conclude(v: Verification, names: Sequence[str], path: Path) -> int:
    """Print the results of the sections ``names`` and where the files are. Returns the exit code."""
    print_table(v, names)
    if v.conditions["missing"]:
        print(f"packages that are not installed: {', '.join(v.conditions['missing'])}")
    print(f"written: {path}; logs in {v.log}")
    statuses = {v.sections[name]["status"] for name in names}
    if UNFINISHED in statuses:
        print("There was no time for everything; the same command goes on where it stopped.")
        return 3
    return int("failed" in statuses)


if __name__ == "__main__":
    sys.exit(main())
