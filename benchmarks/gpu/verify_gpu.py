"""The second call on a CUDA machine: its tests, the twins, runs under caps, and the suites behind the tables.

    python benchmarks/gpu/verify_gpu.py --log /tmp/verify

`first_light` is the first call. A call takes ten minutes at most (``--budget``) and ends with 0 if nothing failed, 1 if
a section failed, 2 without a CUDA device, 3 if there was no time for all: the same command again goes on where it
stopped. One JSON file has the results of the sections and is written anew after each. The rows of the suites go into
their own files, task by task, as with `mmphate-gpu bench`. ``--pack FILE`` puts all of it, with the logs, into one file
after each section. ``--resume FILE`` goes on from that file, also on another machine with the same device. A section
that came to its end is not run again while sources, versions and machine are the same, except by ``--only`` or
``--fresh``. A suite that did not come to its end goes on with the tasks that are left.

Every section runs in processes of its own, since a fault on the GPU spoils the process it happens in. What a section
could not do for lack of a package stands under ``missing``. ``--cpu`` runs the same sections on the CPU in small form:
a test of this script.
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

from benchmarks import suites
from benchmarks.cases import AXES, QUICK
from benchmarks.gpu.pytest_runs import pytest_section
from benchmarks.gpu.sections import (
    UNFINISHED,
    Section,
    TookTooLong,
    Verification,
    add_arguments,
    call,
    cuda_is_there,
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
from benchmarks.measure.records import RESULTS, ROOT, read, result_path, write_text
from benchmarks.measure.rows import NOT_INSTALLED, Row
from benchmarks.measure.tasks import Task, conditions_of, tail, through_its_end
from benchmarks.suites.pipeline import case_task

PACKAGES = ("pykeops", "keopscore", "pynndescent", "cupy", "triton", "pytest", "matplotlib", "xarray")
BUDGET = 560  # seconds: ten minutes, with some to spare
# Of a call, what one suite may have: all but what comes before the first section.
SUITE_SHARE = 0.9
CANNOT_BEGIN = 2  # exit code of a suite
# What a second run of the same sources may have otherwise; of the memory, as rows may.
PASSING = ("date", "commit", "memory_bytes")
# What decides the sections, beside what decides a number.
CHECKS = ("tests/**/*.py", "benchmarks/gpu/*")
# Of the pipeline's cases those that a call has time for. The run of 10,000,000 nodes needs minutes for its input alone.
PIPELINE = (
    "walk-1600x6x10",
    "suite-hopf_pitchfork-sparse",
    "suite-hopf_pitchfork-lazy",
    "har-127x128x30x6",
)
TILES = ("suite-hopf_pitchfork-sparse",)  # in the form "tiles", which is no case of the suite


# ---------------------------------------------------------------- sections


def tests(v: Verification) -> dict[str, Any]:
    """All tests marked cuda but the conformance suite."""
    if v.device == "cpu":
        return pytest_section(v, "tests", ["tests/test_datasets.py", "-k", "walk"], 60)
    return pytest_section(
        v, "tests", ["-m", "cuda", "tests", "--ignore=tests/conformance", "--ignore=tests/twins"], 150
    )


def native_twins(v: Verification) -> dict[str, Any]:
    """The CUDA kernels against the C++ twins."""
    if v.device == "cpu":
        return pytest_section(v, "native_twins", ["tests/twins/test_cuda_launch.py"], 60)
    for package in ("cupy", "triton"):
        if package in v.conditions["missing"]:
            return failed(f"the package {package} is not installed, so its CUDA twins did not run")
    return pytest_section(v, "native_twins", ["-m", "cuda", "tests/twins"], 150)


def conformance(v: Verification) -> dict[str, Any]:
    """The operator suite on the device."""
    chosen = ["-k", "product and sparse and not int64"] if v.device == "cpu" else ["-m", "cuda"]
    return pytest_section(v, "conformance", ["tests/conformance", *chosen], 150)


def twins(name: str) -> Section:
    def section(v: Verification) -> dict[str, Any]:
        options = [f"--device={v.device}", *["--quick"] * v.small]
        done = call(v, f"twins_{name}", [sys.executable, "-m", "benchmarks.gpu.twins", name, *options], 120)
        return failed(tail(done.stderr)) if done.returncode != 0 else last_json(done.stdout)

    section.__doc__ = f"Two ways to the same numbers: {name}."
    return section


Chosen = Callable[[str, bool], list[Task]]  # (device, small)


def suite(key: str, name: str, options: Callable[[bool], list[str]], chosen: Chosen) -> Section:
    """The section ``key`` that runs the tasks ``chosen`` of suite ``name``; ``options(small)`` asks for them."""

    def section(v: Verification) -> dict[str, Any]:
        where = [f"--device={v.device}", f"--out={v.out.resolve()}"]
        command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *options(v.small), *where]
        try:
            done = call(v, key, command, SUITE_SHARE * v.budget)
        except TookTooLong as error:
            before = None if error.early else v.sections.get(key, {}).get("task")
            return stopped((v.log / f"{key}.err").read_text(), before)
        if done.returncode == CANNOT_BEGIN:  # another run writes into the folder
            return unfinished(tail(done.stderr))
        keys = {task.key for task in chosen(v.device, v.small)}
        rows = [row for row in read(result_path(v.out, name, v.conditions["machine"])) if row.task in keys]
        missing = [_why(row) for row in rows if row.skipped.startswith(NOT_INSTALLED)]
        failures = {row.task: _why(row) for row in rows if row.failed}
        # A goal that is missed is no fault, and is told.
        goals = suites.missed_goals([row for row in rows if not row.skipped])
        result = {"failures": failures, "missing": missing, "goals_missed": goals}
        if failures or done.returncode not in (0, 1):
            return {**failed(tail(done.stdout + done.stderr)), **result}
        return {"status": "passed", **result}

    section.__doc__ = f"Suite {name}, as far as there is time: its rows are in the folder of the results."
    return section


def _why(row: Row) -> str:
    return f"{row.case}, {row.by}: {row.skipped}"


def whole_suite(name: str) -> Section:
    def options(small: bool) -> list[str]:
        return [name, *["--quick"] * small]

    return suite(name, name, options, lambda device, small: suites.suite(name).tasks(device, small))


def axis(name: str) -> Section:
    """The cases of suite "scale" of one axis."""

    def options(small: bool) -> list[str]:
        return ["scale", f"--only={name}", *["--quick"] * small]

    def chosen(device: str, small: bool) -> list[Task]:
        return suites.suite("scale").tasks(device, small, [name])

    return suite(f"scale_{name}", "scale", options, chosen)


def pipeline(key: str, cases: Sequence[str], storage: str | None = None) -> Section:
    """Some cases of the pipeline in the form ``storage``; in small form the small cases."""

    def options(small: bool) -> list[str]:
        form = [] if storage is None else [f"--storage={storage}"]
        return [*(f"--case={name}" for name in (QUICK if small else cases)), *form]

    def chosen(device: str, small: bool) -> list[Task]:
        return [case_task(name, device, storage=storage) for name in (QUICK if small else cases)]

    return suite(key, "pipeline", options, chosen)


def stopped(progress: str, before: str | None = None) -> dict[str, Any]:
    """What a suite says that was ended with its ``progress`` on stderr.

    ``before``, if this call gave it all the time that a suite may have: the task with which the call before this one
    was to go on. If that is the one that was ended, another call would not bring it to its end either.
    """
    begun = re.findall(r"^\[(\d+)/(\d+),[^]]*\] (.*?)(?: \.\.\.|: resumed.*)$", progress, re.MULTILINE)
    if not begun:
        return unfinished("it had not begun")
    number, n_tasks, task = begun[-1]
    if task == before:
        return failed(f"{task} takes longer than a call gives it: a larger --budget may do, or run it by itself")
    detail = f"{int(number) - 1} of {n_tasks} tasks are done; the next call goes on with {task}"
    return {**unfinished(detail), "task": task}


# In the order of what must not be missed if time runs out.
SECTIONS: dict[str, Section] = {
    "native_twins": native_twins,
    "twins_neighbors": twins("neighbors"),
    "twins_operators": twins("operators"),
    "twins_pipeline": twins("pipeline"),
    "conformance": conformance,
    "tests": tests,
    **{name: whole_suite(name) for name in ("floors", "ops")},
    "pipeline": pipeline("pipeline", PIPELINE),
    "pipeline_tiles": pipeline("pipeline_tiles", TILES, "tiles"),
    "caps": caps,
    **{name: whole_suite(name) for name in ("against", "ablations")},
    # An axis at a time: its last case may take longer than a call, and those of the others would come after it.
    **{f"scale_{name}": axis(name) for name in AXES},
}

# ---------------------------------------------------------------- the run


def conditions(v: Verification) -> dict[str, Any]:
    """The machine, versions and sources, and packages that are not there.

    Raises
    ------
    ValueError
        The device is not there, or the package does not import.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return {**conditions_of(v.device)[1], "checks": hash_of(CHECKS), "quick": v.small, "missing": missing}


def found_before(path: Path, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections that were run on the same machine, with the same sources and versions."""
    before = json.loads(path.read_text()) if path.exists() else {}
    sections = before.pop("sections", {})
    lasting = [{key: value for key, value in one.items() if key not in PASSING} for one in (before, about)]
    same = lasting[0] == lasting[1] and same_memory(before["memory_bytes"], about["memory_bytes"])
    return sections if same else {}


def content(v: Verification) -> dict[str, Any]:
    """What is written: the machine, and the sections in their order."""
    return {**v.conditions, "sections": {name: v.sections[name] for name in SECTIONS if name in v.sections}}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, SECTIONS, BUDGET)
    parser.add_argument("--quick", action="store_true", help="small inputs")
    parser.add_argument("--fresh", action="store_true", help="all sections anew; rows of suites that still hold stay")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of all that is found")
    parser.add_argument("--log", type=Path, metavar="DIR", help="folder of what the sections print")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    if options.list:
        return print_list({name: section.__doc__.splitlines()[0] for name, section in SECTIONS.items()})
    if not options.cpu and not cuda_is_there():
        print(
            "verify_gpu needs a CUDA device and torch finds none; --cpu runs a small form on the CPU", file=sys.stderr
        )
        return 2
    device = "cpu" if options.cpu else "cuda"
    log = options.log or Path(tempfile.mkdtemp(prefix="verify_gpu_"))
    log.mkdir(parents=True, exist_ok=True)
    if options.resume is not None:
        unpack(options.resume, options.out)
    v = Verification(device, options.quick, log, options.budget, options.out, options.pack)
    v.conditions = conditions(v)
    kind = "verify_cpu" if options.cpu else "verify_gpu-quick" if options.quick else "verify_gpu"
    path = options.out / f"{kind}-{v.conditions['machine']}.json"
    v.sections = {} if options.fresh else found_before(path, v.conditions)
    names = options.only or list(SECTIONS)
    with through_its_end():
        for name in names:
            if options.only or v.sections.get(name, unfinished(""))["status"] == UNFINISHED:
                run_section(v, SECTIONS, name)
                write_text(path, json.dumps(content(v), indent=1) + "\n")
                write_pack(v)
    return conclude(v, names, path)


def conclude(v: Verification, names: Sequence[str], path: Path) -> int:
    """Print what the sections ``names`` found and where things are; the exit code."""
    print_table(v, names)
    if v.conditions["missing"]:
        print(f"packages that are not installed: {', '.join(v.conditions['missing'])}")
    print(f"written: {path}; logs in {v.log}")
    statuses = {v.sections[name]["status"] for name in names}
    if UNFINISHED in statuses:
        print("There was no time for all; the same command goes on where it stopped.")
        return 3
    return int("failed" in statuses)


if __name__ == "__main__":
    sys.exit(main())
