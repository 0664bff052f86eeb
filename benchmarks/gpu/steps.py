"""The steps of `first_light` in their order: what each does, how long it may take, and how it runs."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import run_parts, verdict
from benchmarks.gpu.pytest_runs import pytest_section
from benchmarks.gpu.sections import TookTooLong, Verification, call
from benchmarks.measure.tasks import tail

Report = Callable[[dict[str, Any]], None]  # takes a line for the output
Work = Callable[[Verification, str, float, Report], dict[str, Any]]  # (state, name of the step, its seconds, report)

SANITIZERS = ("memcheck", "racecheck", "initcheck")
SANITIZER_FAULT = 77
SANITIZED = "--sizes=129"  # points: one more than a tile of 128
# The kernels that ncu profiles: an op, and how the names of its kernels begin.
PROFILED = {
    "radius_counts": "radius_count",
    "kth_neighbor_distance": "kth_neighbor_distance",
    "gaussian_product": "gaussian_product",
    "guttman_transform": "guttman_transform",
}
PROFILED_SIZE = "--sizes=3000"
NCU_SECTIONS = ("LaunchStats", "SpeedOfLight", "Occupancy", "SchedulerStats", "WarpStateStats")

# A library may give a new warning on a new machine. Pytest then lists it at the end, and no test fails.
AS_IT_COMES = ("-W", "default")
CONFORMANCE_ON_CPU = ("tests/conformance", "-k", "product and sparse and float32")


@dataclass(frozen=True)
class Step:
    """A step. ``tool`` is a program on PATH that it needs; such a step needs a real GPU.

    With ``rates`` a step measures only how fast the machine is, so a pretended GPU skips it.
    """

    title: str
    limit: float  # seconds
    work: Work
    tool: str | None = None
    rates: bool = False

    def missing(self, v: Verification) -> str:
        """Why the step cannot be done on this machine; empty if it can."""
        if self.rates and v.pretended:
            return "a pretended GPU has no rates"
        if self.tool is None:
            return ""
        if v.small:
            return f"{self.tool} needs a real GPU"
        return "" if shutil.which(self.tool) else f"{self.tool} is not on PATH"


def in_parts(module: str, *options: str, silence: float = 60) -> Work:
    """A step that is a module of this folder."""

    def work(v: Verification, name: str, limit: float, report: Report) -> dict[str, Any]:
        return run_parts(v, name, _command(v, module, options), limit, silence=silence, report=report)

    return work


def _command(v: Verification, module: str, options: Sequence[str]) -> list[str]:
    return ["-m", f"benchmarks.gpu.{module}", f"--device={v.device}", *["--small"] * v.small, *options]


def pytest(*arguments: str, on_cpu: Sequence[str], sample: str) -> Work:
    def work(v: Verification, name: str, limit: float, report: Report) -> dict[str, Any]:
        return pytest_section(v, name, on_cpu if v.device == "cpu" else arguments, limit, sample)

    return work


def sanitizers(v: Verification, name: str, limit: float, report: Report) -> dict[str, Any]:
    """Run compute-sanitizer's tools on the smoke test, without torch's caching allocator, which would hide overruns."""
    smoke = [sys.executable, *_command(v, "smoke", [SANITIZED, "--plain"])]

    def check(tool: str, written: Path, seconds: float) -> dict[str, Any]:
        asked = [f"--tool={tool}", f"--error-exitcode={SANITIZER_FAULT}", "--target-processes=all"]
        done = call(
            v,
            f"sanitizer_{tool}",
            [shutil.which("compute-sanitizer"), *asked, f"--log-file={written}", *smoke],
            seconds,
            {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )
        output = written.read_text(errors="replace") if written.exists() else ""
        line = {"summary": tail(output, 1), "ops": done.stdout.count('"part"')}
        if done.returncode != 0:
            why = output[:3000] if done.returncode == SANITIZER_FAULT else tail(done.stderr, 5)
            line["error"] = f"exit code {done.returncode}: {why}"
        return line

    return _one_by_one(v, SANITIZERS, limit, report, check)


def ncu(v: Verification, name: str, limit: float, report: Report) -> dict[str, Any]:
    """Profile one launch of some kernels under ncu: registers, occupancy, issue slots, stalls."""

    def profile(op: str, written: Path, seconds: float) -> dict[str, Any]:
        sections = [f"--section={section}" for section in NCU_SECTIONS]
        chosen = ["-k", f"regex:^{PROFILED[op]}", "-c", "1", "--clock-control", "none", f"--log-file={written}"]
        smoke = [sys.executable, *_command(v, "smoke", [PROFILED_SIZE, "--plain", f"--part={op},"])]
        done = call(v, f"ncu_{op}", [shutil.which("ncu"), *sections, *chosen, *smoke], seconds)
        metrics = ncu_metrics(written.read_text(errors="replace") if written.exists() else "")
        return {"metrics": metrics} if metrics else {"error": f"exit code {done.returncode}: {tail(done.stderr, 5)}"}

    return _one_by_one(v, list(PROFILED), limit, report, profile)


def ncu_metrics(report: str) -> dict[str, str]:
    """The numbers of an ncu report, each followed by its unit.

    >>> ncu_metrics("    Registers Per Thread   register/thread     80")
    {'Registers Per Thread': '80 register/thread'}
    """
    cells = (re.split(r"\s{2,}", line.strip()) for line in report.splitlines())
    rows = (row for row in cells if len(row) in (2, 3) and re.fullmatch(r"[\d.,]+", row[-1]))
    return {row[0]: " ".join([row[-1], *row[1:-1]]) for row in rows}


def _one_by_one(
    v: Verification,
    names: Sequence[str],
    limit: float,
    report: Report,
    work: Callable[[str, Path, float], dict[str, Any]],
) -> dict[str, Any]:
    """Run a part for each name. No part may take more than an equal share of the time that is left."""
    until, lines = time.monotonic() + limit, {}
    for place, part in enumerate(names):
        written = v.log / f"{part}.report.txt"
        written.unlink(missing_ok=True)
        share = (min(until - time.monotonic(), v.left)) / (len(names) - place)
        try:
            lines[part] = work(part, written, share)
        except TookTooLong as error:
            lines[part] = {"missing": str(error)}  # a tool that is slow proves nothing either way
        report({"part": part, **lines[part]})
    return verdict(lines, 0, "")


_FACTS = [f"--part={name}" for name in ("versions", "tools", "processor", "device", "library", "deprecations")]
STEPS: dict[str, Step] = {
    "machine": Step("versions, tools, the device, and what is missing", 60, in_parts("machine", *_FACTS)),
    "ceilings": Step(
        "copies, products, exponentials, host to device",
        45,
        in_parts("machine", "--part=rate", "--part=host"),
        rates=True,
    ),
    "smoke": Step("every op at two shapes against its other version", 120, in_parts("smoke", silence=40)),
    "runs": Step("whole runs in three forms against carried numbers", 110, in_parts("runs", "--part=run")),
    "har": Step("HAR's size three times, and under the profiler", 100, in_parts("runs", "--part=har", silence=80)),
    "ops": Step("seconds and rates of the ops", 100, in_parts("op_times")),
    "shootouts": Step("two ways side by side, where a threshold decides", 90, in_parts("shootouts")),
    "twins": Step(
        "the tests of the twins that are marked cuda",
        130,
        pytest("-m", "cuda", *AS_IT_COMES, "tests/twins", on_cpu=["tests/twins/test_cuda_launch.py"], sample="descent"),
    ),
    "conformance": Step(
        "the operator suite on the device",
        100,
        pytest(
            "-m", "cuda", *AS_IT_COMES, "tests/conformance", on_cpu=CONFORMANCE_ON_CPU, sample="product and float32"
        ),
    ),
    "sanitizers": Step("memcheck, racecheck and initcheck of the smoke", 120, sanitizers, "compute-sanitizer"),
    "ncu": Step("one launch of each of some kernels", 60, ncu, "ncu"),
}
