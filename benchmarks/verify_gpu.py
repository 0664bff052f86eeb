"""The one command for a CUDA machine: its tests, the twins, runs under caps, and all suites of the benchmarks.

    python benchmarks/verify_gpu.py --log /tmp/verify

A call takes ten minutes at most (``--budget``) and ends with 0 if nothing failed, 1 if a section failed, 2 without a
CUDA device, 3 if there was no time for all: the same command again goes on where it stopped. What its sections found is
in one JSON file, written anew after each; the rows of the suites are put into their own files, task by task, as
`mmphate-gpu bench` does. A section that came to its end is not run again while sources, versions and machine are the
same, but by ``--only`` or ``--fresh``; of a suite that did not, only the tasks that are left.

Every section runs in processes of its own, since a fault on the GPU spoils the process it happens in. What a section
could not do for lack of a package stands under ``missing``. ``--cpu`` runs the same sections on the CPU in small form:
a test of this script.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.cases import AXES  # noqa: E402
from benchmarks.harness import about_device, missed_goals, suite_module  # noqa: E402
from benchmarks.records import RESULTS, hash_of, read, result_path, same_memory, write_text  # noqa: E402
from benchmarks.rows import NOT_INSTALLED, Row, plain_table  # noqa: E402
from benchmarks.tasks import environment, tail, through_its_end  # noqa: E402
from benchmarks.verification import (  # noqa: E402
    UNFINISHED,
    TookTooLong,
    Verification,
    call,
    failed,
    skipped,
    unfinished,
)
from benchmarks.verify_caps import caps  # noqa: E402

PACKAGES = ("pykeops", "keopscore", "pynndescent", "cupy", "triton", "pytest", "matplotlib", "xarray")
BUDGET = 560  # seconds: ten minutes, with some to spare
# Of a call, what one suite may have: all but what comes before the first section.
SUITE_SHARE = 0.9
SANITIZER_FAULT = 77
CANNOT_BEGIN = 2  # exit code of a suite
# What a second run of the same sources may have otherwise; of the memory, as rows may.
PASSING = ("date", "commit", "memory_bytes")
# What decides the sections, beside what decides a number.
CHECKS = ("tests/**/*.py", "benchmarks/verif*.py", "benchmarks/caps.py")


# ---------------------------------------------------------------- sections


def pytest_section(
    v: Verification, name: str, arguments: Sequence[str], most: float, before: Sequence[str] = (), **extra: str
) -> dict[str, Any]:
    """Counts of a pytest run and the names of what failed; no test at all is a failure too."""
    if "pytest" in v.about["missing"]:
        return failed("the package pytest is not installed, so no test was run")
    report = v.log / f"{name}.xml"
    command = [
        *before,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *arguments,
    ]
    done = call(v, name, command, most, extra)
    counts = junit_counts(report) if report.exists() else {}
    if done.returncode == 0 and counts.get("passed", 0) > 0:
        return {"status": "passed", **counts}
    return {**failed(tail(done.stdout + done.stderr)), **counts, "exit_code": done.returncode}


def junit_counts(report: Path) -> dict[str, Any]:
    """Passed, failed and skipped tests of a JUnit file, and the reasons of the skips."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    kinds = {"failure": [], "error": [], "skipped": []}
    for case in cases:
        for kind, found in kinds.items():
            child = case.find(kind)
            if child is not None:
                found.append((f"{case.get('classname')}::{case.get('name')}", child.get("message") or ""))
    wrong = [name for kind in ("failure", "error") for name, _ in kinds[kind]]
    reasons = sorted({message for _, message in kinds["skipped"]})
    n_skipped = len(kinds["skipped"])
    counts = {"passed": len(cases) - len(wrong) - n_skipped, "failed": len(wrong), "skipped": n_skipped}
    return {**counts, "failures": wrong[:50], "skip_reasons": reasons[:20]}


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
        if package in v.about["missing"]:
            return failed(f"the package {package} is not installed, so its CUDA twins did not run")
    return pytest_section(v, "native_twins", ["-m", "cuda", "tests/twins"], 150)


def conformance(v: Verification) -> dict[str, Any]:
    """The operator suite, on every device there is."""
    small = ["-k", "product and sparse and not int64"] if v.device == "cpu" else []
    return pytest_section(v, "conformance", ["tests/conformance", *small], 150)


def twins(name: str) -> Callable[[Verification], dict[str, Any]]:
    def section(v: Verification) -> dict[str, Any]:
        options = [f"--device={v.device}", *["--quick"] * v.small]
        done = call(v, f"twins_{name}", [sys.executable, str(ROOT / "benchmarks" / "twins.py"), name, *options], 120)
        if done.returncode != 0:
            return failed(tail(done.stderr))
        return json.loads(done.stdout.splitlines()[-1])

    section.__doc__ = f"Two ways to the same numbers: {name}."
    return section


def suite(name: str, axis: str = "") -> Callable[[Verification], dict[str, Any]]:
    """The section that runs a suite, or of suite "scale" the cases of one ``axis``."""
    key = f"{name}_{axis}" if axis else name
    script, chosen = ("bench_scale.py", f"--axis={axis}") if axis else ("harness.py", f"--suite={name}")

    def section(v: Verification) -> dict[str, Any]:
        options = [chosen, f"--device={v.device}", f"--out={v.out}", *["--quick"] * v.small]
        most = SUITE_SHARE * v.budget
        try:
            done = call(v, key, [sys.executable, str(ROOT / "benchmarks" / script), *options], most)
        except TookTooLong as error:
            before = None if error.early else v.sections.get(key, {}).get("task")
            return stopped((v.log / f"{key}.err").read_text(), before)
        if done.returncode == CANNOT_BEGIN:  # another run writes into the folder
            return unfinished(tail(done.stderr))
        rows = _rows(v, name, axis)
        missing = [_why(row) for row in rows if row.skipped.startswith(NOT_INSTALLED)]
        failures = {row.task: _why(row) for row in rows if row.failed}
        # A goal that is missed is no fault, and is told.
        goals = missed_goals([row for row in rows if not row.skipped])
        found = {"failures": failures, "missing": missing, "goals_missed": goals}
        if failures or done.returncode not in (0, 1):
            return {**failed(tail(done.stdout + done.stderr)), **found}
        return {"status": "passed", **found}

    section.__doc__ = f"Suite {name}, as far as there is time: its rows are in the folder of the results."
    return section


def _rows(v: Verification, name: str, axis: str) -> list[Row]:
    """Those of the tasks of a suite, or of those of its ``axis``."""
    module = suite_module(name)
    tasks = module.tasks(v.device, v.small, axes=[axis]) if axis else module.tasks(v.device, v.small)
    keys = {task.key for task in tasks}
    return [row for row in read(result_path(v.out, name, v.about["machine"])) if row.task in keys]


def _why(row: Row) -> str:
    return f"{row.case}, {row.by}: {row.skipped}"


def stopped(progress: str, before: str | None = None) -> dict[str, Any]:
    """What a suite says that was ended with its ``progress`` on stderr.

    ``before``, if this call gave it all the time that a suite may have: the task with which the call before this one
    was to go on. If that is the one that was ended, another call would not bring it to its end either.
    """
    told = re.findall(r"^\[(\d+)/(\d+),[^]]*\] (.*?)(?: \.\.\.|: resumed.*)$", progress, re.MULTILINE)
    if not told:
        return unfinished("it had not begun")
    number, n_tasks, task = told[-1]
    if task == before:
        return failed(f"{task} takes longer than a call gives it: a larger --budget may do, or run it by itself")
    detail = f"{int(number) - 1} of {n_tasks} tasks are done; the next call goes on with {task}"
    return {**unfinished(detail), "task": task}


def sanitizer(tool: str) -> Callable[[Verification], dict[str, Any]]:
    def section(v: Verification) -> dict[str, Any]:
        program = shutil.which("compute-sanitizer")
        if v.device == "cpu":
            return skipped("the CPU has no compute-sanitizer")
        if program is None:
            return skipped("compute-sanitizer is not on PATH")
        before = [program, f"--tool={tool}", f"--error-exitcode={SANITIZER_FAULT}", "--target-processes=all"]
        chosen = "(sparse and float32) or (lattice and 129) or guttman or descent or csr_matmul or aggregate or panels"
        files = ["tests/conformance", "tests/twins/test_cuda_twins.py", "tests/twins/test_triton_cuda.py"]
        arguments = ["-m", "cuda", "-k", chosen, *files]
        name = f"sanitizer_{tool}"
        try:
            return pytest_section(v, name, arguments, 120, before, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        except TookTooLong as error:
            if error.early:
                raise
            return skipped(str(error))  # slow, which proves nothing either way

    section.__doc__ = f"compute-sanitizer's {tool}; torch's caching allocator off, which would hide overruns."
    return section


# In the order of what must not be missed if time runs out.
SECTIONS: dict[str, Callable[[Verification], dict[str, Any]]] = {
    "native_twins": native_twins,
    "twins_neighbors": twins("neighbors"),
    "twins_operators": twins("operators"),
    "twins_pipeline": twins("pipeline"),
    "conformance": conformance,
    "tests": tests,
    **{name: suite(name) for name in ("floors", "ops", "pipeline")},
    "caps": caps,
    **{name: suite(name) for name in ("against", "ablations")},
    # An axis at a time: its last case may take longer than a call, and those of the others would come after it.
    **{f"scale_{axis}": suite("scale", axis) for axis in AXES},
    "sanitizer_memcheck": sanitizer("memcheck"),
    "sanitizer_racecheck": sanitizer("racecheck"),
}

# ---------------------------------------------------------------- the run


def about(v: Verification) -> dict[str, Any]:
    """The machine, versions and sources, and packages that are not there.

    Raises
    ------
    ValueError
        The device is not there, or the package does not import.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return {**about_device(v.device)[1], "checks": hash_of(CHECKS), "quick": v.small, "missing": missing}


def found_before(path: Path, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections that were run on the same machine, with the same sources and versions."""
    before = json.loads(path.read_text()) if path.exists() else {}
    sections = before.pop("sections", {})
    lasting = [{key: value for key, value in one.items() if key not in PASSING} for one in (before, about)]
    same = lasting[0] == lasting[1] and same_memory(before["memory_bytes"], about["memory_bytes"])
    return sections if same else {}


def content(v: Verification) -> dict[str, Any]:
    """What is written: the machine, and the sections in their order."""
    return {**v.about, "sections": {name: v.sections[name] for name in SECTIONS if name in v.sections}}


def run_section(v: Verification, name: str) -> None:
    """Run one section and keep what it found, with the seconds it took."""
    started = time.monotonic()
    print(f"{name} ...", file=sys.stderr, flush=True)
    v.sections[name] = {**_found(v, name), "seconds": round(time.monotonic() - started, 1)}
    print(f"{name}: {one_line(v.sections[name])}", file=sys.stderr, flush=True)


def _found(v: Verification, name: str) -> dict[str, Any]:
    if v.left <= 5:
        return unfinished("no time was left")
    try:
        return SECTIONS[name](v)
    except TookTooLong as error:
        return unfinished(str(error)) if error.early else failed(str(error))


def one_line(section: dict[str, Any]) -> str:
    """A section in a line: its status, its counts or its worst finding, its reasons."""
    parts = [f"{section['status']} in {section['seconds']} s"]
    if "passed" in section:
        parts.append(f"{section['passed']} passed, {section['failed']} failed, {section['skipped']} skipped")
    parts += [f"{f['what']}: {f['value']:.2g} > {f['most']:.2g}" for f in section.get("findings", []) if not f["holds"]]
    failures = section.get("failures", [])
    parts += [f"{name}: {why}" for name, why in failures.items()] if isinstance(failures, dict) else failures[:5]
    parts += section.get("missing", []) + section.get("goals_missed", [])
    if "detail" in section:
        parts.append(re.sub(r"\s+", " ", section["detail"])[-300:])
    return "; ".join(parts)


def cuda_is_there() -> bool:
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
    return subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True).returncode == 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="the same sections on the CPU, small: a test of this script")
    parser.add_argument("--quick", action="store_true", help="small inputs")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one section, even anew; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="all sections anew; rows of suites that still hold stay")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of all that is found")
    parser.add_argument("--log", type=Path, metavar="DIR", help="folder of what the sections print")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    if not options.cpu and not cuda_is_there():
        print(
            "verify_gpu needs a CUDA device and torch finds none; --cpu runs a small form on the CPU", file=sys.stderr
        )
        return 2
    device = "cpu" if options.cpu else "cuda"
    log = options.log or Path(tempfile.mkdtemp(prefix="verify_gpu_"))
    log.mkdir(parents=True, exist_ok=True)
    v = Verification(device, options.quick, log, options.budget, options.out)
    v.about = about(v)
    kind = "verify_cpu" if options.cpu else "verify_gpu-quick" if options.quick else "verify_gpu"
    path = options.out / f"{kind}-{v.about['machine']}.json"
    v.sections = {} if options.fresh else found_before(path, v.about)
    names = options.only or list(SECTIONS)
    with through_its_end():
        for name in names:
            if options.only or v.sections.get(name, unfinished(""))["status"] == UNFINISHED:
                run_section(v, name)
                write_text(path, json.dumps(content(v), indent=1) + "\n")
    return conclude(v, names, path)


def conclude(v: Verification, names: Sequence[str], path: Path) -> int:
    """Print what the sections ``names`` found and where things are; the exit code."""
    asked = {name: v.sections[name] for name in names}
    print(plain_table(("section", "found"), [(name, one_line(section)) for name, section in asked.items()]))
    if v.about["missing"]:
        print(f"packages that are not installed: {', '.join(v.about['missing'])}")
    print(f"written: {path}; logs in {v.log}")
    statuses = {section["status"] for section in asked.values()}
    if UNFINISHED in statuses:
        print("There was no time for all; the same command goes on where it stopped.")
        return 3
    return int("failed" in statuses)


if __name__ == "__main__":
    sys.exit(main())
