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
import contextlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.cases import AXES  # noqa: E402
from benchmarks.harness import about_device, missed_goals, suite_module  # noqa: E402
from benchmarks.records import RESULTS, hash_of, read, result_path, same_memory, write_text  # noqa: E402
from benchmarks.rows import NOT_INSTALLED, Row, plain_table  # noqa: E402
from benchmarks.tasks import end, environment, tail, through_its_end  # noqa: E402

PACKAGES = ("pykeops", "keopscore", "pynndescent", "cupy", "triton", "pytest", "matplotlib", "xarray")
BUDGET = 560  # seconds: ten minutes, with some to spare
# Of a call, what one suite may have: all but what comes before the first section.
SUITE_SHARE = 0.9
SANITIZER_FAULT = 77
CANNOT_BEGIN = 2  # exit code of a suite
UNFINISHED = "unfinished"
# What a second run of the same sources may have otherwise; of the memory, as rows may.
PASSING = ("date", "commit", "memory_bytes")
# What decides the sections, beside what decides a number.
CHECKS = ("tests/**/*.py", "benchmarks/verify_gpu.py", "benchmarks/caps.py")


class TookTooLong(RuntimeError):
    """A process that was ended; ``early`` if the call had less time left than the section may take."""

    def __init__(self, told: str, early: bool) -> None:
        super().__init__(told)
        self.early = early


@dataclass
class Verification:
    """The state of a run: what was asked for, what was found, and how much time is left."""

    device: str
    quick: bool
    log: Path
    budget: float
    out: Path = RESULTS
    started: float = field(default_factory=time.monotonic)
    about: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.budget - (time.monotonic() - self.started)

    @property
    def small(self) -> bool:
        return self.quick or self.device == "cpu"

    def content(self) -> dict[str, Any]:
        return {**self.about, "sections": {name: self.sections[name] for name in SECTIONS if name in self.sections}}


def call(
    v: Verification, name: str, command: Sequence[str], most: float, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with its output in the log.

    Raises
    ------
    TookTooLong
        It took more than ``most`` seconds, or than are left, and was ended; the message shows the last it wrote.
    """
    seconds = max(1.0, min(most, v.left))
    out, err = v.log / f"{name}.out", v.log / f"{name}.err"
    with out.open("w") as stdout, err.open("w") as stderr:
        # A session of its own, so that its children end with it and do not keep the GPU.
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment() | (extra or {}), stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            last = tail(out.read_text() + err.read_text(), 3)
            raise TookTooLong(f"took more than {seconds:.0f} s; its last output: {last}", seconds < most) from error
        finally:
            if process.poll() is None:  # also where this process is asked to end
                end(process)
    return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())


def failed(detail: str) -> dict[str, Any]:
    return {"status": "failed", "detail": detail}


def skipped(detail: str) -> dict[str, Any]:
    return {"status": "skipped", "detail": detail}


def unfinished(detail: str) -> dict[str, Any]:
    return {"status": UNFINISHED, "detail": detail}


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


# (run of caps.py, storage, bytes), the most telling first: runs of the sizes that matter on workstation cards.
CARDS = (24e9, 12e9, 8e9)
CAPPED = (
    ("har", "auto", 8e9),
    ("har", "auto", 24e9),
    ("har", "auto", 12e9),
    ("suite", "auto", 8e9),
    ("har", "sparse", 8e9),  # more than there is: refused, and what the refusal says works
    ("har", "sparse", 24e9),
    ("walk", "auto", 8e9),
    *(("suite", storage, 8e9) for storage in ("lazy", "tiles", "sparse")),
    ("har", "lazy", 8e9),
    ("har", "tiles", 24e9),
    *(("walk", storage, 8e9) for storage in ("lazy", "tiles", "sparse")),
    *((run, "auto", cap) for run in ("suite", "walk") for cap in CARDS[:2]),
)
CAPPED_ON_CPU = (("small", "auto", 45e6), ("small", "sparse", 45e6), ("small", "sparse", 80e6))
PREDICTED_WITHIN = 0.15
CAPPED_SECONDS = 150  # of a call
CAPPED_LEAST = 20  # for one more run


def caps(v: Verification) -> dict[str, Any]:
    """Whole runs under the memory of smaller cards, in the form the library chooses and in those asked for.

    None falls back, reserves more than its cap or ends with another t than the same form has without a cap; peaks are
    as predicted; a run that is refused was planned not to fit, and what the refusal says works.
    """
    before = v.sections.get("caps", {})
    runs = dict(before.get("runs", {})) if before.get("status") == UNFINISHED else {}
    until = max(v.left - CAPPED_SECONDS, CAPPED_LEAST)
    asked = {
        f"{run} {storage} {cap / 1e9:g} GB": (run, storage, cap)
        for run, storage, cap in (CAPPED_ON_CPU if v.device == "cpu" else CAPPED)
    }
    uncapped: dict[tuple[str, str], dict[str, Any]] = {}
    for name, run in asked.items():
        if name not in runs and v.left >= until:
            with contextlib.suppress(TookTooLong):  # the call ended before the run
                runs[name] = _under_cap(v, name, *run, uncapped)
    findings = [finding for name, found in runs.items() for finding in capped_findings(name, found, asked[name][2])]
    found = {"runs": runs, "findings": findings}
    if left_out := [name for name in asked if name not in runs]:
        return {**unfinished(f"not run for lack of time: {', '.join(left_out)}"), **found}
    return {"status": "failed" if any(not finding["holds"] for finding in findings) else "passed", **found}


def _under_cap(
    v: Verification, name: str, run: str, storage: str, cap: float, uncapped: dict[tuple[str, str], dict[str, Any]]
) -> dict[str, Any]:
    """A run under a cap, with the one that a refusal advises or the same form's without a cap beside it."""
    found = capped(v, name, run, storage, cap)
    if "refused" in found:
        setting = remedy(found["refused"])
        found["as_told"] = capped(v, f"{name} as told", run, setting.pop("storage", storage), cap, setting)
    elif "form" in found:
        if (run, found["form"]) not in uncapped:
            uncapped[run, found["form"]] = capped(v, f"{run} {found['form']} without a cap", run, found["form"])
        found["without_cap"] = uncapped[run, found["form"]]
    return found


def capped(
    v: Verification, name: str, run: str, storage: str, cap: float | None = None, settings: dict[str, str] | None = None
) -> dict[str, Any]:
    """What `caps.py` says about one run; ``error`` if it came to no end."""
    options = [f"--device={v.device}", f"--storage={storage}", *([] if cap is None else [f"--cap={cap:.0f}"])]
    options += [f"--set={key}={value}" for key, value in (settings or {}).items()]
    command = [sys.executable, str(ROOT / "benchmarks" / "caps.py"), run, *options]
    try:
        done = call(v, f"caps_{name}".replace(" ", "_"), command, 90)
    except TookTooLong as error:
        if error.early:
            raise
        return {"error": str(error)}
    if done.returncode != 0:
        return {"error": tail(done.stderr)}
    return json.loads(done.stdout.splitlines()[-1])


def remedy(refusal: str) -> dict[str, str]:
    """The settings of the first way that a refusal names; none if it names none."""
    advice = refusal.partition("by plan it fits with")[2]
    first = advice if advice.endswith("together") else advice.partition(", or with ")[0]
    return dict(re.findall(r"(storage|n_landmark|n_svd)=\"?(\w+)", first))


def capped_findings(name: str, found: dict[str, Any], cap: float) -> list[dict[str, Any]]:
    """What was asked of a run under ``cap`` bytes, as numbers and the most they may be."""

    def finding(what: str, value: float, most: float = 0.0) -> dict[str, Any]:
        return {"what": f"{name}: {what}", "value": value, "most": most, "holds": value <= most}

    if "error" in found:
        return [finding(f"came to no end ({found['error'][-200:]})", 1)]
    if "refused" in found:
        return [
            finding("refused though planned to fit", int(found["planned_to_fit"])),
            finding("what the refusal says does not work", int(not found["as_told"].get("finite", False))),
        ]
    findings = [
        finding("coordinates that are not finite", int(not found["finite"])),
        finding("fallbacks", len(found["fallbacks"])),
        _same_t(finding, found),
        finding(
            "predicted over measured peak, off by",
            abs(found["predicted_peak_bytes"] / found["peak_bytes"] - 1),
            PREDICTED_WITHIN,
        ),
    ]
    if found["reserved_bytes"] is not None:
        findings.append(finding("reserved over the cap", found["reserved_bytes"] / cap, 1.0))
    return findings


def _same_t(finding: Callable[..., dict[str, Any]], found: dict[str, Any]) -> dict[str, Any]:
    free = found["without_cap"]
    if "t" not in free:
        return finding(f"the run without the cap came to no end ({str(free)[-200:]})", 1)
    return finding("another t than without the cap", int(found["t"] != free["t"]))


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
                write_text(path, json.dumps(v.content(), indent=1) + "\n")
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
