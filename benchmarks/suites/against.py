"""Suite "against": this library and others at the same work (`peers.comparisons`): seconds, memory, accuracy.

Every way of every peer has a process of its own at each size. Sizes grow until a peer runs out of memory or of time,
and its row says which. A package that is not installed is skipped, and the row says so.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.measure import records
from benchmarks.measure.conditions import conditions
from benchmarks.measure.rows import OURS, REFUSED, Row, slug, timing
from benchmarks.measure.tables import Table, bytes_text, seconds_text, shares_text, spread_text
from benchmarks.measure.tasks import (
    QUICK,
    ROOT,
    Task,
    emit,
    end,
    environment,
    python_task,
    tail,
    task_options,
    through_its_end,
)
from benchmarks.peers import Peer, Result, peers

NAME = "against"
# Beside the runs of a way: import, input and judge, for the largest size on a busy machine.
OTHER_SECONDS = 240.0
START_SECONDS = 4.0  # the same at the smallest size on two quiet cores, for estimates
# A way is not run again if its first run took longer than `LONG`, unless that run converts the input. Other ways are
# run again until their warm runs took `ENOUGH` seconds together, or `REPEATS` times.
LONG, ENOUGH, REPEATS = 15.0, 5.0, 3
QUICK_LONG = 3.0
# Share of the memory that is available when a process begins. The rest is left to other users of the machine.
MEMORY_SHARE = 0.8
OUT_OF_MEMORY = 3  # exit code of a process that ran out of memory
# Signals that end a process which does not notice a failed allocation, or which has another fault.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
CPU_ONLY = "runs on the CPU only: mmphate-gpu bench against --device cpu"


@dataclass(frozen=True)
class Plan:
    """The sizes of a comparison, and the peers of the quick run."""

    sizes: tuple[int, ...]
    quick_size: int
    quick_peers: tuple[str, ...]
    a_second: float  # for estimates: by how much the size may grow for a second more of all runs, on two cores
    least_repeats: int = 0  # runs after the first, which converts the input or compiles


DOUBLED = tuple(1008 * 2**k for k in range(7))
PLANS = {
    "picture": Plan(DOUBLED, 1008, (OURS, "reference", "openTSNE"), 700),
    "graph": Plan(DOUBLED[:5:2], 1008, (OURS, "openTSNE"), 700),
    "mds": Plan((1000, 2000, 4000), 400, (OURS, "scikit-learn"), 1000),
    "product": Plan((8064, 64512), 4032, (OURS, "scipy", "cupy"), 5000, least_repeats=1),
    "neighbors": Plan((8064, 64512), 4032, (OURS, "scikit-learn", "faiss"), 5000, least_repeats=1),
}
PARTS = (*PLANS, *peers())


# ---------------------------------------------------------------- tasks


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """A task for each size, comparison and peer; a larger size waits for the smaller one.

    On a GPU one more task writes, for each comparison, a row that names the peers which run on the CPU only.
    """
    device_type = device.partition(":")[0]
    chosen, elsewhere = [], []
    for comparison in [name for name in only if name in PLANS] or PLANS:
        plan = PLANS[comparison]
        names = [name for name in only if name not in PLANS] or (plan.quick_peers if quick else peers())
        able = [peer for peer in peers().values() if peer.name in names and comparison in peer.does]
        for peer in [peer for peer in able if device_type in peer.devices]:
            before = None
            for size in (plan.quick_size,) if quick else plan.sizes:
                chosen.append(_task(comparison, size, peer, device, quick, None if peer.every_size else before))
                before = chosen[-1].key
        if device_type != "cpu":
            elsewhere += [(comparison, peer.name) for peer in able if peer.devices == ("cpu",)]
    return chosen + ([_cpu_only_task(elsewhere, device, quick)] if elsewhere else [])


def _task(comparison: str, size: int, peer: Peer, device: str, quick: bool, before: str | None) -> Task:
    key = f"{QUICK * quick}{comparison}-{size}-{slug(peer.name)}"
    n_ways, runs = len(peer.does[comparison]), min(peer.most_seconds, size / PLANS[comparison].a_second)
    limits = {"timeout": n_ways * (peer.most_seconds + OTHER_SECONDS), "estimate": n_ways * (START_SECONDS + runs)}
    fields = {"case": comparison, "by": peer.name, **_size_field(comparison, size)}
    names = (comparison, peer.name, f"--size={size}")
    return python_task(NAME, key, NAME, *names, device=device, quick=quick, fields=fields, after=before, **limits)


def _cpu_only_task(pairs: Sequence[tuple[str, str]], device: str, quick: bool) -> Task:
    names = dict.fromkeys(name for comparison, peer in pairs for name in (comparison, peer))
    return python_task(NAME, f"{QUICK * quick}cpu-only", NAME, *names, device=device)


def _size_field(comparison: str, size: int) -> dict[str, int]:
    return {"n_landmark" if comparison == "mds" else "n_nodes": size}


# ---------------------------------------------------------------- the process of a task


def rows_of(comparison: str, size: int, peer: Peer, device: str, quick: bool) -> list[Row]:
    """A row for each way of ``peer``, from a process of its own; if there are no numbers the row has the reason."""
    if reason := peer.why_not(device.partition(":")[0]):
        return [_skipped(comparison, size, peer, "", device, reason)]
    return [_row_of(comparison, size, peer, way, device, quick) for way in peer.does[comparison]]


def _row_of(comparison: str, size: int, peer: Peer, way: str, device: str, quick: bool) -> Row:
    limit = memory_limit() if device == "cpu" else None
    options = [comparison, peer.name, f"--size={size}", f"--way={way}", f"--device={device}"]
    options += [*([] if limit is None else [f"--bytes={limit}"]), *["--quick"] * quick]
    done = _ended([sys.executable, "-m", "benchmarks.suites.against", *options], {**environment(), **peer.environment})
    if done.returncode == 0:
        (row,) = records.rows_of(json.loads(done.stdout.splitlines()[-1]), peer.name)
        return row
    reason = _limit_reached(done, peer, "" if limit is None else f" ({bytes_text(limit)} allowed)")
    if reason is not None:
        return _skipped(comparison, size, peer, way, device, reason)
    fault = tail(done.stderr) or f"ended with exit code {done.returncode}"
    return replace(_skipped(comparison, size, peer, way, device, fault), failed=True)


def _limit_reached(done: subprocess.CompletedProcess[str], peer: Peer, allowed: str) -> str | None:
    """Why the process ended, if that is no fault of this suite: time, memory, or a crash of another library."""
    if done.returncode == -signal.SIGALRM:
        return f"took more than {peer.most_seconds:.0f} s"
    if done.returncode == OUT_OF_MEMORY:
        return f"ran out of memory: {tail(done.stderr, 1)}{allowed}"
    if done.returncode == -signal.SIGKILL:  # by the system, if no memory is left
        return f"ran out of memory: ended by the system{allowed}"
    if -done.returncode in CRASHES and not peer.of_project:
        return f"ended by {signal.Signals(-done.returncode).name}{allowed}"
    return None


def _ended(command: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a process to its end. Its children end with it, and all of them end if this process does."""
    with contextlib.ExitStack() as stack:
        # Files, because a child that outlives the process would keep a pipe open.
        stdout, stderr = (stack.enter_context(tempfile.TemporaryFile("w+", errors="replace")) for _ in range(2))
        process = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, stdout=stdout, stderr=stderr)
        try:
            process.wait()
        finally:
            end(process)
        for file in (stdout, stderr):
            file.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, stdout.read(), stderr.read())


def _skipped(comparison: str, size: int, peer: Peer, way: str, device: str, reason: str) -> Row:
    row = Row(suite=NAME, case=comparison, by=peer.name, settings=_way(way), skipped=reason)
    return replace(row, **_size_field(comparison, size), **conditions(device, peer.versions))


def _way(way: str) -> dict[str, str]:
    return {"way": way} if way else {}


def cpu_only(names: Sequence[str], device: str) -> list[Row]:
    """A row for each comparison in ``names``, with the peers in ``names`` that run on the CPU only."""
    rows = []
    for comparison in [name for name in names if name in PLANS]:
        able = [name for name, peer in peers().items() if name in names and comparison in peer.does]
        rows.append(Row(suite=NAME, case=comparison, by=", ".join(able), skipped=CPU_ONLY, **conditions(device)))
    return rows


# ---------------------------------------------------------------- the process of a way


def work(comparison: str, size: int, peer: Peer, way: str, device_name: str, quick: bool) -> Row:
    """Run ``peer`` in one of its ways within its time, and judge the result after the clock has stopped.

    The first run is the cold run, and includes compilation. The memory is that of the cold run, because what the
    allocators keep of it is not needed by the next.
    """
    from benchmarks.measure.device import PeakMeter, use_device
    from benchmarks.peers.comparisons import COMPARISONS

    device = use_device(device_name)
    inputs = COMPARISONS[comparison](size, device)
    run = peer.does[comparison][way](inputs)
    meter = PeakMeter(device)
    with at_most(peer.most_seconds):
        result, times = _runs(run, device, PLANS[comparison].least_repeats, quick, meter)
    fields = {**inputs.fields(), **dict(result.fields), **inputs.judge(result)}
    sees = peer.settings if comparison == "picture" else {}
    settings = {**sees, **_way(way), **fields.pop("settings", {})}
    rate = {"rate": fields["work"] / times["seconds"]} if "work" in fields else {}
    row = Row(suite=NAME, case=comparison, by=peer.name, settings=settings, **conditions(device, peer.versions))
    return replace(row, **fields, **times, **rate, **meter.run_fields())


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM, in whatever code it is, if the body takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _runs(
    run: Callable[[], Result], device: Any, least: int, quick: bool, meter: Callable[[str], None]
) -> tuple[Result, dict[str, Any]]:
    """The last result and the times. A result is freed before the next run; ``meter`` measures the cold run."""
    from benchmarks.measure.timer import once

    kept: list[Result] = []

    def call() -> None:
        kept.clear()
        kept.append(run())

    cold, warm = once(call, device), []
    meter("cold")
    most = max(least, (1 if quick else REPEATS) if cold < (QUICK_LONG if quick else LONG) else 0)
    while len(warm) < least or (len(warm) < most and sum(warm) < ENOUGH):
        warm.append(once(call, device))
    times = timing(warm) if warm else {"seconds": cold, "repeats": 0}
    return kept[0], {**times, "cold_seconds": cold, "warmup": 1}


def memory_limit() -> int:
    """Bytes that a process may take: `MEMORY_SHARE` of what is available now."""
    import psutil

    return int(MEMORY_SHARE * psutil.virtual_memory().available)


def limit_memory(most: int) -> None:
    """Limit the memory of this process, so that an allocation which does not fit ends it and no other process.

    Linux counts allocated memory, not mapped files. On other systems there is no limit.
    """
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def work_alone(comparison: str, peer: Peer, size: int, way: str, most: int | None, device: str, quick: bool) -> int:
    """Run `work` within ``most`` bytes and print its row. Returns `OUT_OF_MEMORY` if the memory ran out."""
    if most is not None:
        limit_memory(most)
    import_seconds = peer.load()  # first, before something else imports the same packages
    from mmphate_gpu.planning.fit import ran_out

    try:
        row = work(comparison, size, peer, way, device, quick)
    except (MemoryError, RuntimeError) as error:
        message = ran_out(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return OUT_OF_MEMORY
    emit([replace(row, import_seconds=import_seconds)])
    return 0


def main() -> int:
    """Without ``--size`` the rows of `cpu_only`; with it the rows of a peer; with ``--way`` too, one of its ways."""
    parser = task_options()
    parser.add_argument("--size", type=int)
    parser.add_argument("--way")
    parser.add_argument("--bytes", type=int)
    options = parser.parse_args()
    device, quick = options.device, options.quick
    if options.size is None:
        emit(cpu_only(options.names, device))
        return 0
    comparison, peer = options.names[0], peers()[options.names[1]]
    if options.way is not None:
        return work_alone(comparison, peer, options.size, options.way, options.bytes, device, quick)
    with through_its_end():
        emit(rows_of(comparison, options.size, peer, device, quick))
    return 0


# ---------------------------------------------------------------- tables

HEAD = ("comparison", "size", "by", "seconds", "cold", "peak", "adds", "quality")


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """The comparison ``which``, or all in one table. A peer that stopped has the reason in place of its quality."""
    shown = [row for row in rows if which in ("", row.case) and not row.skipped.startswith(REFUSED)]
    return [Table(HEAD, [_cells(row) for row in shown])]


def _cells(row: Row) -> tuple[str, ...]:
    size = f"{row.n_nodes:,} nodes" if row.n_nodes else f"{row.n_landmark:,} landmarks" if row.n_landmark else ""
    by = row.by + (f" ({row.settings['way']})" if "way" in row.settings else "")
    if row.skipped:
        return row.case, size, by, "", "", "", "", row.skipped
    times = spread_text(row), seconds_text(row.cold_seconds)
    return row.case, size, by, *times, bytes_text(row.main_peak_bytes), bytes_text(row.added_bytes), _quality(row)


def _quality(row: Row) -> str:
    """The judgment in words."""
    parts = []
    if row.preservation:
        parts += [f"between {shares_text(row.preservation)}", f"within {shares_text(row.preservation_within)}"]
    if row.trustworthiness is not None:
        parts.append(f"trust {row.trustworthiness:.3f}")
    if row.stress is not None:
        expected = "" if row.stress_expected is None else f" ({row.stress_expected:.4f})"
        parts.append(f"stress {row.stress:.4f}{expected}")
    if row.recall is not None:
        parts.append(f"recall {row.recall:.4f}")
    if row.error is not None:
        parts.append(f"error {row.error:.1e}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
