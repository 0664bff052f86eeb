"""Watch worker processes that load mutated files: hangs, crashes and memory growth are faults like exceptions."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import mmphate_gpu

PROGRAM = Path(__file__).with_name("worker.py")
# A load hangs if it takes so many seconds of CPU time, or so many seconds without using any. Other processes may have
# the CPU, so the clock alone does not decide.
HANG = 5.0
LONGEST = 30.0  # seconds by the clock
RUNAWAY = 2e9  # bytes of growth at which a load is stopped
READERS = {"embedding": ["embedding"]}  # traces are read in memory and block by block
BOTH = ["memory", "parts"]


def environment() -> dict[str, str]:
    """The environment of a worker, which imports the package from the same place as this process."""
    paths = [str(Path(mmphate_gpu.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Outcome(NamedTuple):
    """How a load ended: "ok", "refused" (by `InputError`), or a fault."""

    format_name: str
    number: int
    reader: str
    outcome: str
    detail: str
    digest: str = ""
    growth: int = 0

    @property
    def is_fault(self) -> bool:
        return self.outcome not in ("ok", "refused")


class Worker:
    """One process of ``worker.py``, started anew after every death.

    Parameters
    ----------
    hang : seconds of CPU time, or without any, that a load may take.
    longest : seconds by the clock that it may take.
    """

    def __init__(self, hang: float = HANG, longest: float = LONGEST) -> None:
        self._hang, self._longest = hang, longest
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115 (closed in `_stop`)
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            env=environment(),
        )
        self._watched = psutil.Process(self._process.pid)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=_pass_on, args=(self._process.stdout, self._lines), daemon=True)
        self._reader.start()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._reader.join()
        with contextlib.suppress(OSError):  # the process died before everything was sent
            self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()
        self._process = None

    def ask(self, format_name: str, number: int, readers: list[str]) -> list[Outcome]:
        """The outcome of every reader. If a reader kills the process, the next readers run in a new one."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(readers):
            if self._process is None:
                self._start()
            left = readers[len(outcomes) :]
            with contextlib.suppress(OSError):  # it died; `_report` says so
                self._process.stdin.write(json.dumps([format_name, number, left]) + "\n")
            for reader in left:
                report = self._report()
                outcomes.append(Outcome(format_name, number, reader, **report))
                if self._process is None:
                    break
        return held_together(outcomes)

    def _report(self) -> dict[str, Any]:
        """The report of the current load, or the fault that ended its process."""
        fault = self._wait(longest=300.0)  # until the load begins: the start of the process and its imports
        fault = fault or self._wait(self._longest, self._hang)
        if not fault:
            return self._line
        detail = f"{fault[1]}; {self._stack()}"
        self._stop()
        return {"outcome": fault[0], "detail": detail}

    def _wait(self, longest: float, hang: float = float("inf")) -> tuple[str, str] | None:
        """Wait for the next line and keep it in ``_line``; if none comes, return (outcome, detail) of the fault."""
        self._line: dict[str, Any] = {}
        watch, wait = None, 0.1
        started = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=wait)
                if not line:
                    return "death", f"exit code {self._process.wait()}"
                self._line = json.loads(line)
                return None
            wait = 0.05
            with contextlib.suppress(psutil.Error):  # the process has just died
                watch = watch or _Watch(self._watched, hang)
                if fault := watch.fault():
                    return fault
            if time.monotonic() - started > longest:
                return "hang", f"{longest} s"

    def _stack(self) -> str:
        """The lines of the package that the process runs, or ran when it died."""
        if self._process.poll() is None and hasattr(signal, "SIGUSR1"):
            self._process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
        self._errors.seek(0)
        text = self._errors.read()[-20000:]
        frames = re.findall(r'mmphate_gpu[/\\](\w+\.py)", line (\d+) in (\w+)', text)
        return "in " + " < ".join(f"{file}:{line} {name}" for file, line, name in frames[:3])


def _pass_on(pipe: Any, lines: queue.SimpleQueue[str]) -> None:
    for line in pipe:
        lines.put(line)
    lines.put("")


class _Watch:
    """The CPU time and the memory of a process since a start."""

    def __init__(self, process: psutil.Process, hang: float) -> None:
        self._process, self._hang = process, hang
        self._cpu = self._last_cpu = self._used()
        self._memory = process.memory_info().rss
        self._last_progress = time.monotonic()

    def _used(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def fault(self) -> tuple[str, str] | None:
        cpu, now = self._used(), time.monotonic()
        if cpu > self._last_cpu or self._process.status() == psutil.STATUS_RUNNING:
            self._last_cpu, self._last_progress = cpu, now
        if cpu - self._cpu > self._hang:
            return "hang", f"{cpu - self._cpu:.1f} s of CPU time"
        if now - self._last_progress > self._hang:
            return "hang", f"{self._hang} s without any CPU time"
        grown = self._process.memory_info().rss - self._memory
        return ("memory", f"{grown / 1e6:.0f} MB and growing") if grown > RUNAWAY else None


def held_together(outcomes: list[Outcome]) -> list[Outcome]:
    """Add a fault if two ways of reading disagree. A file that cannot be read block by block is no fault."""
    if len(outcomes) != 2 or any(outcome.is_fault or "block by block" in outcome.detail for outcome in outcomes):
        return outcomes
    memory, parts = outcomes
    if memory.outcome != parts.outcome:
        detail = f"{parts.outcome} block by block, {memory.outcome} from memory; {memory.detail}{parts.detail}"
    elif memory.digest != parts.digest:
        detail = "other values than from memory"
    else:
        return outcomes
    return [memory, parts._replace(outcome="wrong result", detail=detail)]


def run(format_name: str, numbers: Iterable[int], n_workers: int = 1) -> list[Outcome]:
    """Load the files of ``numbers``, each in every way, with ``n_workers`` processes at once."""
    readers = READERS.get(format_name, BOTH)
    todo = iter(numbers)
    lock = threading.Lock()

    def taken() -> Iterator[int]:
        while True:
            with lock:
                number = next(todo, None)
            if number is None:
                return
            yield number

    def work(_: int) -> list[Outcome]:
        with Worker() as worker:
            return [outcome for number in taken() for outcome in worker.ask(format_name, number, readers)]

    with ThreadPoolExecutor(n_workers) as threads:
        return sorted(itertools.chain.from_iterable(threads.map(work, range(n_workers))))


SEVERITY = ("code run", "death", "hang", "memory", "wrong result", "wrong exception", "message")


def summary(outcomes: list[Outcome]) -> str:
    """A count of every outcome, and the faults by class, the worst first, each with the number of an example."""
    counts = collections.Counter((outcome.reader, outcome.outcome) for outcome in outcomes)
    lines = [", ".join(f"{reader} {name}: {count}" for (reader, name), count in sorted(counts.items()))]
    classes: dict[tuple[int, str], list[Outcome]] = collections.defaultdict(list)
    for outcome in outcomes:
        if outcome.is_fault:
            classes[SEVERITY.index(outcome.outcome), class_of(outcome)].append(outcome)
    for (severity, _), members in sorted(classes.items(), key=lambda item: (item[0][0], -len(item[1]))):
        first = members[0]
        numbers = ", ".join(str(number) for number in sorted({member.number for member in members})[:5])
        readers = "/".join(sorted({member.reader for member in members}))
        detail = first.detail[:300]
        lines.append(f"{SEVERITY[severity]} x {len(members)}, {first.format_name} {numbers} ({readers}): {detail}")
    return "\n".join(lines)


def class_of(outcome: Outcome) -> str:
    """A key that faults of one cause share: the exception and the line, or the first words."""
    head, _, place = outcome.detail.rpartition(" @ ")
    if place and head:
        return f"{head.split(':')[0]} @ {place}"
    text = outcome.detail.partition("mutated-trace")[2] or outcome.detail
    return " ".join(re.findall(r"[A-Za-z][A-Za-z ]{7,}", text)[:2])
