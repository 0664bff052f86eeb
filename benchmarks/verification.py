"""What the sections of `verify_gpu.py` share: the state of a run, processes within its time, what is said of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.records import RESULTS, ROOT
from benchmarks.tasks import end, environment, tail

UNFINISHED = "unfinished"


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
