"""Shared by `first_light` and `verify_gpu`: the state of a call, processes within its time, the pack, the reports."""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure.records import RESULTS, ROOT
from benchmarks.measure.tables import plain_table
from benchmarks.measure.tasks import end, environment, tail

UNFINISHED = "unfinished"
# Only the last bytes of a log go into the pack: a sanitizer that reports a fault everywhere writes gigabytes.
MOST_OF_A_LOG = 2**21
LEAST_SECONDS = 5  # no section begins with less time left
POLL_SECONDS = 0.2
PACK_SECONDS = 10.0  # between two packs while a process runs
CACHE = "cache"  # folder of the output that is not packed
PATIENCE = 10.0  # factor of the time limits: the pretended GPU runs every kernel thread by thread


class TookTooLong(RuntimeError):
    """A process was ended after its time; ``early`` if the call had less time left than the section may take."""

    def __init__(self, message: str, early: bool) -> None:
        super().__init__(message)
        self.early = early


@dataclass
class Verification:
    """The state of a call: its options, its results, and how much time is left."""

    device: str
    log: Path
    budget: float
    out: Path = RESULTS
    pack: Path | None = None
    started: float = field(default_factory=time.monotonic)
    conditions: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)  # added to the environment of all processes
    pretended: bool = False  # the GPU is that of `tests.pretend_gpu`

    @property
    def place(self) -> str:
        """Where the call runs: "cpu", "cuda" or "pretended"."""
        return "pretended" if self.pretended else self.device

    @property
    def patience(self) -> float:
        """The factor by which all time limits grow."""
        return PATIENCE if self.pretended else 1.0

    @property
    def left(self) -> float:
        return self.budget - (time.monotonic() - self.started)

    @property
    def small(self) -> bool:
        return self.device == "cpu" or self.pretended


Section = Callable[[Verification], dict[str, Any]]


# ---------------------------------------------------------------- processes


def call(
    v: Verification,
    name: str,
    command: Sequence[str],
    most: float,
    extra: Mapping[str, str] | None = None,
    watch: Callable[[], None] = lambda: None,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with its output in the log; ``watch`` is called a few times a second, and may raise to end it.

    Raises
    ------
    TookTooLong
        It took more than ``most`` seconds, or more than are left, and was ended. The message shows its last output.
    """
    seconds = max(1.0, min(most * v.patience, v.left))
    out, err = v.log / f"{name}.out", v.log / f"{name}.err"
    with out.open("w") as stdout, err.open("w") as stderr:
        # A session of its own, so that its children end with it and do not keep the GPU.
        env, streams = {**environment(), **v.environment, **(extra or {})}, {"stdout": stdout, "stderr": stderr}
        settings = {"cwd": ROOT, "start_new_session": True, "preexec_fn": _end_with_the_parent}
        process = subprocess.Popen(command, env=env, **streams, **settings)
        until, pack_at = time.monotonic() + seconds, time.monotonic() + PACK_SECONDS
        try:
            while process.poll() is None:
                if time.monotonic() > until:
                    last = tail(_text(out) + _text(err), 3)
                    raise TookTooLong(f"took more than {seconds:.0f} s; its last output: {last}", seconds < most)
                _wait(process)
                watch()
                if time.monotonic() > pack_at:
                    write_pack(v)
                    pack_at = time.monotonic() + PACK_SECONDS
        finally:
            if process.poll() is None:  # also if this script itself is being ended
                end(process)
    return subprocess.CompletedProcess(command, process.returncode, _text(out), _text(err))


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def begin(script: str, options: argparse.Namespace, log: Path) -> Verification | None:
    """The state of a call of ``script``; None, after a message, if the device cannot be used."""
    v = Verification("cpu" if options.cpu else "cuda", log, options.budget, options.out, options.pack)
    if options.pretend:
        pretend(v)
    reason = why_no_cuda(v)
    if reason is not None:
        print(f"{script} needs a CUDA device: {reason}", file=sys.stderr)
        return None
    return v


def pretend(v: Verification) -> None:
    """Give all processes that start from now on the pretended GPU, small inputs and more time."""
    from tests.pretend_gpu.environment import environment as pretended

    os.environ.update(pretended(v.out.resolve() / CACHE / "pretended"))
    v.pretended = True
    v.budget *= v.patience


def why_no_cuda(v: Verification) -> str | None:
    """Why the device of ``v`` cannot be used, or None if it can."""
    if v.device == "cpu":
        return None
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
    done = subprocess.run([sys.executable, "-B", "-c", code], env=environment(), capture_output=True, text=True)
    if done.returncode == 0:
        return None
    if v.pretended:
        needs = "it needs Linux, g++ and torch 2.13 without CUDA"
        return f"the pretended GPU did not start; {needs}: {tail(done.stderr, 1)}"
    return "torch finds none; --cpu and --pretend run without one"


def _end_with_the_parent() -> None:
    """Ask Linux to end this process when its parent dies. A parent that is killed cannot end it itself."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


# ---------------------------------------------------------------- the pack


def write_pack(v: Verification) -> None:
    """Write all results and logs into the file ``v.pack``, which is replaced whole or not at all."""
    if v.pack is None:
        return
    v.pack.parent.mkdir(parents=True, exist_ok=True)
    temporary = v.pack.with_name(f".{v.pack.name}.part")
    with temporary.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=5) as archive:
            for name, path in _files(v):
                _add(archive, name, path)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, v.pack)


def _files(v: Verification) -> list[tuple[str, Path]]:
    """The files of the output and of the logs with their names in the pack."""
    names = {}
    for prefix, folder in (("", v.out), ("log/", v.log)):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            hidden = any(part.startswith(".") or part == CACHE for part in name.parts)
            if path.is_file() and not hidden and path.resolve() != v.pack.resolve():
                names[path.resolve()] = prefix + name.as_posix()
    return [(name, path) for path, name in names.items()]


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    content = path.read_bytes()
    if path.suffix not in (".json", ".jsonl"):
        content = content[-MOST_OF_A_LOG:]
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(content), int(time.time())
    archive.addfile(entry, io.BytesIO(content))


def unpack(pack: Path, out: Path) -> None:
    """Put the content of a pack into the folder ``out``, from which the next call goes on.

    `tarfile.TarFile.extractall` is not safe before Python 3.10.12. Raises ValueError for a member that is no file or
    folder, or that lies outside of ``out``.
    """
    folder = out.resolve()
    with tarfile.open(pack) as archive:
        for member in archive:
            path = (folder / member.name).resolve()
            if not (member.isfile() or member.isdir()) or not path.is_relative_to(folder):
                raise ValueError(f"{pack} holds {member.name!r}; accepted: files that lie in the folder {out}")
            (path if member.isdir() else path.parent).mkdir(parents=True, exist_ok=True)
            if member.isfile():
                path.write_bytes(archive.extractfile(member).read())


# ---------------------------------------------------------------- reports


def failed(detail: str) -> dict[str, Any]:
    return {"status": "failed", "detail": detail}


def skipped(detail: str) -> dict[str, Any]:
    return {"status": "skipped", "detail": detail}


def unfinished(detail: str) -> dict[str, Any]:
    return {"status": UNFINISHED, "detail": detail}


@dataclass(frozen=True)
class Finding:
    """A comparison: its value, and the largest value that is allowed."""

    what: str
    value: float
    most: float

    @property
    def holds(self) -> bool:
        return self.value <= self.most  # False for nan


def of_findings(findings: Sequence[Finding]) -> dict[str, Any]:
    """The status of a section, and its findings."""
    lines = [{**asdict(finding), "holds": finding.holds} for finding in findings]
    return {"status": "passed" if all(finding.holds for finding in findings) else "failed", "findings": lines}


def run_section(v: Verification, sections: Mapping[str, Section], name: str) -> dict[str, Any]:
    """Run a section and keep its result, with its seconds."""
    started = time.monotonic()
    print(f"{name} ...", file=sys.stderr, flush=True)
    v.sections[name] = {**_result(v, sections[name]), "seconds": round(time.monotonic() - started, 1)}
    print(f"{name}: {one_line(v.sections[name])}", file=sys.stderr, flush=True)
    return v.sections[name]


def _result(v: Verification, section: Section) -> dict[str, Any]:
    if v.left <= LEAST_SECONDS:
        return unfinished("no time was left")
    try:
        return section(v)
    except TookTooLong as error:
        return unfinished(str(error)) if error.early else failed(str(error))


def one_line(section: Mapping[str, Any]) -> str:
    """A section in a line: status, counts, findings that do not hold, and reasons."""
    parts = [f"{section['status']} in {section['seconds']} s"]
    if "passed" in section:
        parts.append(f"{section['passed']} passed, {section['failed']} failed, {section['skipped']} skipped")
    parts += [f"{f['what']}: {f['value']:.2g} > {f['most']:.2g}" for f in section.get("findings", []) if not f["holds"]]
    failures = section.get("failures", [])
    wrong = [f"{name}: {why}" for name, why in failures.items()] if isinstance(failures, dict) else failures[:5]
    parts += [part[:200] for part in (*wrong, *section.get("missing", []), *section.get("goals_missed", []))]
    parts.append(section.get("detail", "")[-300:])
    return re.sub(r"\s+", " ", "; ".join(part for part in parts if part))


def print_table(v: Verification, names: Sequence[str]) -> None:
    """Print a line for each of the sections ``names``."""
    print(plain_table(("section", "result"), [(name, one_line(v.sections[name])) for name in names]))


def add_arguments(parser: argparse.ArgumentParser, sections: Mapping[str, Any], budget: float) -> None:
    """The options that both scripts have."""
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        "--cpu", action="store_true", help="the same on the CPU with small inputs: a test of this script"
    )
    rehearsal = "the same with small inputs on a pretended GPU: a test of the code around the kernels"
    places.add_argument("--pretend", action="store_true", help=rehearsal)
    add = parser.add_argument
    again = "run these alone, even if they have run before"
    add("--only", nargs="+", action="extend", choices=sections, metavar="NAME", help=again)
    add("--list", action="store_true", help="print the names and what they do")
    add("--budget", type=float, default=budget, metavar="SECONDS", help="default: %(default)s")
    add("--pack", type=Path, metavar="FILE", help="everything in one .tgz, written anew after each part")
    add("--resume", type=Path, metavar="PACK", help="go on from what this pack holds")


def print_list(sections: Mapping[str, str]) -> int:
    print(plain_table(("name", "what it does"), list(sections.items())))
    return 0


def last_json(text: str) -> Any:
    """The last line of the output of a process, parsed."""
    return json.loads(text.splitlines()[-1])
