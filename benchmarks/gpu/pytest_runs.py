"""Runs of pytest as sections. If a run was cut off, its counts come from its log."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.sections import TookTooLong, Verification, call, failed, unfinished
from benchmarks.measure.tasks import tail

WORKERS = 8
# Seconds of one test: a kernel that hangs must not take the time of all other tests.
TEST_SECONDS = 60
OUTCOMES = "PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS"
# A line of `pytest -v`, without and with workers.
ALONE = re.compile(rf"^(?P<name>\S+?::.*?) (?P<outcome>{OUTCOMES})\b")
BY_WORKER = re.compile(rf"^\[gw\d+\] \[ *\d+%\] (?P<outcome>{OUTCOMES}) (?P<name>.*?)\s*$")


def pytest_section(
    v: Verification, name: str, arguments: Sequence[str], most: float, sample: str = ""
) -> dict[str, Any]:
    """Counts of a pytest run and the names of the tests that failed. A run without tests fails too.

    A run that is cut off gives the counts in its log. On a pretended GPU the tests whose names fit ``sample`` run.
    """
    if importlib.util.find_spec("pytest") is None:
        return failed("the package pytest is not installed, so no test was run")
    report = v.log / f"{name}.xml"
    report.unlink(missing_ok=True)
    options = [*pytest_options(workers=0 if v.small else WORKERS), *(["-k", sample] if v.pretended and sample else [])]
    command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *arguments]
    try:
        done = call(v, name, command, most)
    except TookTooLong as error:
        counts = log_counts((v.log / f"{name}.out").read_text(errors="replace"))
        return {**(unfinished if error.early else failed)(str(error)), **counts}
    counts = junit_counts(report) if report.exists() else log_counts(done.stdout)
    if done.returncode == 0 and counts["passed"] > 0:
        return {"status": "passed", **counts}
    return {**failed(tail(done.stdout + done.stderr)), **counts, "exit_code": done.returncode}


def pytest_options(workers: int) -> list[str]:
    """Options that print every test as it ends, with workers and a time limit if their plugins are installed."""
    options = ["-v", "-rfE", "--tb=short", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    if importlib.util.find_spec("pytest_timeout") is not None:
        options.append(f"--timeout={TEST_SECONDS}")
    if workers > 1 and importlib.util.find_spec("xdist") is not None:
        options.append(f"-n{min(workers, os.cpu_count() or 1)}")
    return options


def junit_counts(report: Path) -> dict[str, Any]:
    """Passed, failed and skipped tests of a JUnit file, and the reasons of the skips."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    by_tag = {"failure": [], "error": [], "skipped": []}
    for case in cases:
        for tag, names in by_tag.items():
            child = case.find(tag)
            if child is not None:
                names.append((f"{case.get('classname')}::{case.get('name')}", child.get("message") or ""))
    wrong = [(name, message) for tag in ("failure", "error") for name, message in by_tag[tag]]
    skips = [message for _, message in by_tag["skipped"]]
    return _counts(len(cases) - len(wrong) - len(skips), wrong, skips)


def log_counts(log: str) -> dict[str, Any]:
    """The same counts from what ``pytest -v`` has printed so far."""
    by_name = {}
    for line in log.splitlines():
        match = BY_WORKER.match(line) or ALONE.match(line)
        if match is not None:
            by_name[match["name"]] = match["outcome"]
    outcomes = list(by_name.values())
    wrong = [(name, "") for name, outcome in by_name.items() if outcome in ("FAILED", "ERROR")]
    skips = [""] * (outcomes.count("SKIPPED") + outcomes.count("XFAIL"))
    return _counts(len(outcomes) - len(wrong) - len(skips), wrong, skips)


def _counts(n_passed: int, wrong: Sequence[tuple[str, str]], skips: Sequence[str]) -> dict[str, Any]:
    failures = [f"{name} ({message.splitlines()[0][:200]})" if message else name for name, message in wrong[:50]]
    counts = {"passed": n_passed, "failed": len(wrong), "skipped": len(skips)}
    return {**counts, "failures": failures, "skip_reasons": sorted({reason for reason in skips if reason})[:20]}
