"""A step of `first_light`: a process that reports its results part by part, and the function that starts it.

The process writes a line of JSON when a part begins and another when the part ends. An exception is written into the
line of the part, and the next part runs. A fault that makes the CUDA context unusable ends the process after its line.
A crash ends it without a line, and so does a part that writes nothing for too long. `run_parts` then starts the process
again, without the parts that have begun.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.sections import POLL_SECONDS, TookTooLong, Verification, call, failed, skipped, unfinished
from benchmarks.measure.tasks import tail

SPOILED = 3  # exit code of a process whose CUDA context is no longer usable
LINES_OF_A_FAULT = 12
Work = Callable[[], Mapping[str, Any]]


# ---------------------------------------------------------------- in the process


def run(title: str, parts: Callable[[argparse.Namespace], Iterable[tuple[str, Work]]]) -> int:
    """The main function of a step: run its ``parts``, pairs of name and work, and report their results.

    The options that ``parts`` takes have ``device``, a torch device, and ``small``.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--skip", action="append", default=[], metavar="PART")
    parser.add_argument("--part", action="append", default=[], metavar="PART", help="only parts whose names begin so")
    parser.add_argument("--sizes", type=int, nargs="+", help="smoke only: the points of its two shapes")
    parser.add_argument("--plain", action="store_true", help="smoke only: one call, without filling memory first")
    options = parser.parse_args()
    from benchmarks.measure.device import use_device

    options.device = use_device(options.device)
    for name, work in parts(options):
        wanted = not options.part or any(name.startswith(part) for part in options.part)
        if wanted and name not in options.skip and not _run_part(name, work, options.device):
            return SPOILED
    return 0


def _run_part(name: str, work: Work, device: Any) -> bool:
    """Run a part and report its result. Returns False if the device is no longer usable."""
    _write(begin=name)
    started = time.perf_counter()
    try:
        result = dict(work())
        fault = _finish(device)
    # Any exception is caught, because the later parts have to run.
    except Exception as error:
        result = {"trace": tail(traceback.format_exc(), LINES_OF_A_FAULT)}
        fault = f"{type(error).__name__}: {error}"[:2000]
    spoiled = _finish(device)
    if fault or spoiled:
        result["error"] = fault or spoiled
    _write(part=name, seconds=round(time.perf_counter() - started, 3), **result)
    return spoiled is None


def _finish(device: Any) -> str | None:
    """Wait for the device. Returns its error message, if there is one."""
    if device.type != "cuda":
        return None
    import torch

    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return f"the device: {error}"[:2000]
    return None


def _write(**line: Any) -> None:
    print(json.dumps(line, default=str), flush=True)


# ---------------------------------------------------------------- the caller


class Silent(RuntimeError):
    """A process wrote nothing for too long."""


class _Reader:
    """Reads what a process has written so far, line by line. Each part goes to ``report`` as soon as it ends."""

    def __init__(self, path: Path, report: Callable[[dict[str, Any]], None], silence: float) -> None:
        self.path, self.report, self.silence = path, report, silence
        self.read, self.heard = 0, time.monotonic()
        self.begun: str | None = None
        self.ended: dict[str, dict[str, Any]] = {}
        self.n_noise = 0

    def __call__(self) -> None:
        content = self.path.read_bytes() if self.path.exists() else b""
        complete = content.rfind(b"\n") + 1
        for line in content[self.read : complete].splitlines():
            self._take(line)
        if complete > self.read:
            self.read, self.heard = complete, time.monotonic()
        elif time.monotonic() - self.heard > self.silence:
            raise Silent(f"wrote nothing for {self.silence:.0f} s and was ended")

    def _take(self, text: bytes) -> None:
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict) and isinstance(line.get("begin"), str):
            self.begun = line["begin"]
        elif isinstance(line, dict) and isinstance(line.get("part"), str):
            self.begun, self.ended[line["part"]] = None, line
            self.report(line)
        else:
            self.n_noise += 1


def run_parts(
    v: Verification,
    step: str,
    command: Sequence[str],
    most: float,
    *,
    silence: float = 60,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Run a step's process, again after each fault that ended it, and report which of its parts went wrong.

    A step gets ``most`` seconds. A part may write nothing for ``silence`` seconds.
    """
    until, parts, notes = time.monotonic() + most * v.patience, {}, []
    attempt = 0
    while True:
        attempt += 1
        name = f"{step}-{attempt}"
        reader = _Reader(v.log / f"{name}.out", report, silence * v.patience)
        skips = [f"--skip={part}" for part in parts]
        left = until - time.monotonic()
        code, end = _attempt(v, name, [sys.executable, *command, *skips], left, reader)
        parts |= reader.ended
        if reader.n_noise:
            notes.append(f"{name}: {reader.n_noise} lines that are no JSON, see its log")
        if reader.begun is not None:
            fault = f"{end}; {tail((v.log / f'{name}.err').read_text(errors='replace'), 5)}"
            parts[reader.begun] = {"part": reader.begun, "error": fault}
            report(parts[reader.begun])
        if code == 0 or (reader.begun is None and not reader.ended) or until - time.monotonic() < 2 * POLL_SECONDS:
            return {**verdict(parts, code, end), **({"notes": notes} if notes else {})}


def _attempt(
    v: Verification, name: str, command: Sequence[str], most: float, reader: _Reader
) -> tuple[int | None, str]:
    """The exit code (None for a process that this script ended), and in words how the process ended."""
    try:
        done = call(v, name, command, most, watch=reader)
        code, end = done.returncode, f"ended with exit code {done.returncode}: {tail(done.stderr, 3)}"
    except (TookTooLong, Silent) as error:
        code, end = None, str(error)
    reader.silence = float("inf")
    reader()  # reads the last lines
    return code, end


def verdict(parts: Mapping[str, Mapping[str, Any]], code: int | None, end: str) -> dict[str, Any]:
    failures = {name: str(part["error"]) for name, part in parts.items() if part.get("error")}
    counts = {"n_parts": len(parts), "failures": failures}
    missing = [f"{name}: {part['missing']}" for name, part in parts.items() if part.get("missing")]
    counts |= {"missing": missing} if missing else {}
    if code != 0 and code != SPOILED:
        return {**(unfinished if code is None else failed)(end), **counts}
    if not parts:
        return {**failed("it gave no parts"), **counts}
    if len(missing) == len(parts):
        return {**skipped("nothing of it can be done here"), **counts}
    return {"status": "failed" if failures else "passed", **counts}
