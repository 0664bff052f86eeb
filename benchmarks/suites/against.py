"""This library against others at the same work: seconds, memory, and how right the result is, in every row.

Run ``python benchmarks/suites/against.py``; ``--only picture`` is one of the comparisons of `benchmarks.peers.comparisons`, ``--peer
umap-learn`` one of the `peers`. Sizes grow until a peer runs out of memory or of its time: its row says which. Every
way of every peer has a process of its own at every size; what is not installed is skipped, and said to be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure import records
from benchmarks.measure.rows import OURS, REFUSED, Row, bytes_text, plain_table, seconds_text, slug, spread_text, timing
from benchmarks.measure.tasks import QUICK, Task, emit, end, environment, python_task, tail, through_its_end
from benchmarks.peers import Found, Peer, peers
from benchmarks.run import add_run_arguments, run_suite

NAME = "against"
# Beside the runs of a way: import, input and judgement, of the largest size on a busy machine.
OTHER_SECONDS = 240.0
# For estimates, the same on two quiet cores: of the smallest, and the nodes that take a second more.
START_SECONDS, NODES_A_SECOND = 3.0, 10_000
NODES_A_SECOND_DENSE = 1_000  # before the first array that does not fit
# A way that took longer in its first run is not run again, except where the first one brings the input into its form;
# the others are run again until all warm runs took as long as `ENOUGH`, or so many times.
LONG, ENOUGH, REPEATS = 15.0, 5.0, 3
QUICK_LONG = 3.0
# Of the memory that is there when a process begins; the rest is for who else is on the machine.
MEMORY_SHARE = 0.8
OUT_OF_MEMORY = 3  # exit code of a process that ran out of it
# What ends a process that does not notice that an allocation gave it nothing, or that is otherwise at fault.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
CPU_ONLY = "runs on the CPU only: mmphate-gpu bench --suite against --device cpu"
COLD = "cold"


@dataclass(frozen=True)
class Plan:
    """The sizes of a comparison, and the peers of the quick run."""

    sizes: tuple[int, ...]
    quick_size: int
    quick_peers: tuple[str, ...]
    # Runs after the first, at least: the first one of these makes matrices, or compiles.
    least_repeats: int = 0
    # For estimates: seconds of a run of the smallest size on two cores, and the power of the size with which they grow.
    pace: tuple[float, float] = (0.05, 2.0)


DOUBLED = tuple(1008 * 2**k for k in range(7))
PLANS = {
    "picture": Plan(DOUBLED, 1008, (OURS, "reference", "openTSNE"), pace=(0.4, 1.0)),
    "graph": Plan(DOUBLED[:5:2], 1008, (OURS, "openTSNE"), pace=(0.4, 1.0)),
    "mds": Plan((1000, 2000, 4000), 400, (OURS, "scikit-learn"), pace=(0.1, 2.0)),
    "product": Plan((8064, 64512), 4032, (OURS, "scipy", "cupy"), least_repeats=1),
    "neighbors": Plan((8064, 64512), 4032, (OURS, "scikit-learn", "faiss"), least_repeats=1),
}


# ---------------------------------------------------------------- the tasks


def tasks(device: str, quick: bool, only: Sequence[str] = (), by: Sequence[str] = ()) -> list[Task]:
    """One for each size, comparison and peer that does it there; a larger size waits for the smaller one.

    On a GPU one more, for a row a comparison that names who does it on the CPU alone.
    """
    kind = device.partition(":")[0]
    found, elsewhere = [], []
    for comparison in only or PLANS:
        plan = PLANS[comparison]
        names = by or (plan.quick_peers if quick else peers())
        chosen = [peer for peer in peers().values() if peer.name in names and comparison in peer.does]
        for peer in [peer for peer in chosen if kind in peer.devices]:
            before = None
            for size in (plan.quick_size,) if quick else plan.sizes:
                task = _task(comparison, size, peer, device, quick, None if peer.every_size else before)
                before = task.key
                found.append(task)
        if kind != "cpu":
            elsewhere += [(comparison, peer.name) for peer in chosen if peer.devices == ("cpu",)]
    return found + ([_cpu_only_task(elsewhere, device, quick)] if elsewhere else [])


def _task(comparison: str, size: int, peer: Peer, device: str, quick: bool, before: str | None) -> Task:
    key = f"{QUICK * quick}{comparison}-{size}-{slug(peer.name)}"
    options = ["--rows", f"--only={comparison}", f"--size={size}", f"--peer={peer.name}", f"--device={device}"]
    most = len(peer.does[comparison]) * (peer.most_seconds + OTHER_SECONDS)
    time = {"timeout": most, "estimate": _estimate(comparison, size, peer, quick), "after": before}
    about = {"case": comparison, "by": peer.name, **_size_field(comparison, size)}
    return python_task(NAME, key, "suites/against.py", *options, *["--quick"] * quick, **time, about=about)


def _cpu_only_task(who: Sequence[tuple[str, str]], device: str, quick: bool) -> Task:
    chosen = [f"--only={name}" for name in dict.fromkeys(comparison for comparison, _ in who)]
    chosen += [f"--peer={name}" for name in dict.fromkeys(peer for _, peer in who)]
    return python_task(NAME, f"{QUICK * quick}cpu-only", "suites/against.py", "--rows", *chosen, f"--device={device}")


def _size_field(comparison: str, size: int) -> dict[str, int]:
    return {"n_landmark" if comparison == "mds" else "n_nodes": size}


def _estimate(comparison: str, size: int, peer: Peer, quick: bool) -> float:
    plan, long, repeats = PLANS[comparison], *((QUICK_LONG, 1) if quick else (LONG, REPEATS))
    first, power = peer.pace.get(comparison, plan.pace)
    run, before = (first * (n / plan.sizes[0]) ** power for n in (size, size / 2))
    if size > plan.sizes[0] and before > peer.most_seconds and not peer.every_size:
        return 0.0  # the one before it takes too long
    run = min(run, peer.most_seconds)
    if peer.needs_bytes(size) > memory_limit():
        run = size / NODES_A_SECOND_DENSE
    warm = min(repeats * run, max(ENOUGH, run)) if run < long else 0.0
    return len(peer.does[comparison]) * (START_SECONDS + size / NODES_A_SECOND + run + warm)


# ---------------------------------------------------------------- one of them


def rows_of(comparison: str, size: int, peer: Peer, device: str, quick: bool) -> list[Row]:
    """What `work` finds, every way of ``peer`` in a process of its own; where it cannot, dies, takes too long or fails,
    the row has the reason."""
    if reason := peer.why_not(device.partition(":")[0]):
        return [_skipped(comparison, size, peer, "", device, reason)]
    return [_row_of(comparison, size, peer, way, device, quick) for way in peer.does[comparison]]


def _row_of(comparison: str, size: int, peer: Peer, way: str, device: str, quick: bool) -> Row:
    options = ["--work", f"--only={comparison}", f"--size={size}", f"--peer={peer.name}", f"--way={way}"]
    limit = memory_limit() if device == "cpu" else None
    options += [f"--device={device}", *([] if limit is None else [f"--bytes={limit}"]), *["--quick"] * quick]
    done = _ended([sys.executable, str(Path(__file__).resolve()), *options], {**environment(), **peer.environment})
    if done.returncode == 0:
        (row,) = records.rows_of(json.loads(done.stdout.splitlines()[-1]), peer.name)
        return row
    found = _finding(done, peer, "" if limit is None else f" ({bytes_text(limit)} allowed)")
    if found is not None:
        return _skipped(comparison, size, peer, way, device, found)
    fault = tail(done.stderr) or f"ended with exit code {done.returncode}"
    return replace(_skipped(comparison, size, peer, way, device, fault), failed=True)


def _finding(done: subprocess.CompletedProcess[str], peer: Peer, allowed: str) -> str | None:
    """What ended a process of ``peer``, if that is no fault of this suite; with the memory it was allowed."""
    if done.returncode == -signal.SIGALRM:
        return f"took more than {peer.most_seconds:.0f} s"
    if done.returncode == OUT_OF_MEMORY:
        return f"ran out of memory: {tail(done.stderr, 1)}{allowed}"
    if done.returncode == -signal.SIGKILL:  # the system ends what takes the last of the memory
        return f"ran out of memory: ended by the system{allowed}"
    if -done.returncode in CRASHES and not peer.own:
        return f"ended by {signal.Signals(-done.returncode).name}{allowed}"
    return None


def _ended(command: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The process after its end. Its children end with it, and all of them with this one."""
    with contextlib.ExitStack() as stack:
        # Files, since a child that outlives the process would keep a pipe open.
        written, told = (stack.enter_context(tempfile.TemporaryFile("w+", errors="replace")) for _ in range(2))
        process = subprocess.Popen(command, env=env, start_new_session=True, stdout=written, stderr=told)
        try:
            process.wait()
        finally:
            end(process)
        for file in (written, told):
            file.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, written.read(), told.read())


def _skipped(comparison: str, size: int, peer: Peer, way: str, device: str, reason: str) -> Row:
    row = Row(suite=NAME, case=comparison, by=peer.name, settings=_way(way), skipped=reason)
    return replace(row, **_size_field(comparison, size), **records.about(device, peer.versions))


def _way(way: str) -> dict[str, str]:
    return {"way": way} if way else {}


def cpu_only(comparisons: Sequence[str], by: Sequence[str], device: str) -> list[Row]:
    """A row a comparison that says who does it on the CPU alone."""
    rows = []
    for comparison in comparisons:
        named = [name for name, peer in peers().items() if name in by and comparison in peer.does]
        row = Row(suite=NAME, case=comparison, by=", ".join(named), skipped=CPU_ONLY)
        rows.append(replace(row, **records.about(device)))
    return rows


def work(comparison: str, size: int, peer: Peer, way: str, device_name: str, quick: bool) -> Row:
    """What ``peer`` takes for it in one of its ways, within its time; judged after the clock has stopped.

    The first run is the cold one: what is compiled then, is in it. Memory is that of the cold run: what the allocators
    keep of it is no part of what the next one takes.
    """
    from benchmarks.measure.devices import let_go, use_device
    from benchmarks.peers.comparisons import COMPARISONS
    from benchmarks.suites.worker import CLEAR, CPU, PeakMeter, cupy_bytes
    from mmphate_gpu.runtime.memory_use import held_bytes

    device = use_device(device_name)
    given = COMPARISONS[comparison](size, device)
    run = peer.does[comparison][way](given)
    let_go(device)
    held, before, meter = held_bytes(CPU), held_bytes(device) + cupy_bytes(), PeakMeter(device)
    with at_most(peer.most_seconds):
        found, times = _runs(run, device, PLANS[comparison].least_repeats, quick, meter)
    memory = {"held_bytes": held, **meter.fields(COLD)}
    if meter.pools or os.access(CLEAR, os.W_OK):  # elsewhere the peak is that of the preparation too
        memory["added_bytes"] = max(0, meter.spans[COLD] - before)
    fields = {**given.fields(), **dict(found.fields), **given.judge(found)}
    sees = peer.settings if comparison == "picture" else {}
    settings = {**sees, **_way(way), **fields.pop("settings", {})}
    rate = {"rate": fields["work"] / times["seconds"]} if "work" in fields else {}
    row = Row(suite=NAME, case=comparison, by=peer.name, settings=settings, **records.about(device, peer.versions))
    return replace(row, **fields, **times, **rate, **memory)


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM, whatever it is in, if what is inside takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _runs(
    run: Callable[[], Found], device: Any, least: int, quick: bool, meter: Callable[[str], None]
) -> tuple[Found, dict[str, Any]]:
    """The last result and the times; results of a run are gone before the next. ``meter`` is told of the cold one."""
    from benchmarks.measure.timer import once

    kept: list[Found] = []

    def call() -> None:
        kept.clear()
        kept.append(run())

    cold, warm = once(call, device), []
    meter(COLD)
    most = max(least, (1 if quick else REPEATS) if cold < (QUICK_LONG if quick else LONG) else 0)
    while len(warm) < least or (len(warm) < most and sum(warm) < ENOUGH):
        warm.append(once(call, device))
    times = timing(warm) if warm else {"seconds": cold, "repeats": 0}
    return kept[0], {**times, "cold_seconds": cold, "warmup": 1}


def memory_limit() -> int:
    """Bytes that a process may take: `MEMORY_SHARE` of what is there now."""
    import psutil

    return int(MEMORY_SHARE * psutil.virtual_memory().available)


def limit_memory(most: int) -> None:
    """Let this process take so many bytes, so that what does not fit ends it and nothing else.

    Linux counts what is allocated, not what is mapped; elsewhere nothing is limited.
    """
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def main_of_work(options: argparse.Namespace) -> int:
    """Run `work` and print its row; `OUT_OF_MEMORY` if memory ran out."""
    if options.bytes is not None:
        limit_memory(options.bytes)
    peer = peers()[options.peer[0]]
    import_seconds = peer.load()  # before anything that it may import is there
    from mmphate_gpu.planning.fit import ran_out

    try:
        row = work(options.only[0], options.size, peer, options.way, options.device, options.quick)
    except (MemoryError, RuntimeError) as error:
        told = ran_out(error)
        if told is None:
            raise
        print(told, file=sys.stderr)
        return OUT_OF_MEMORY
    emit([replace(row, import_seconds=import_seconds)])
    return 0


# ---------------------------------------------------------------- tables


def table(rows: Sequence[Row], which: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of the comparison ``which``, or of all; a peer that stopped has the reason for its numbers."""
    shown = [row for row in rows if which in ("", row.case) and not row.skipped.startswith(REFUSED)]
    head = ("comparison", "size", "by", "seconds", "cold", "peak", "adds", "quality")
    return head, [_cells(row) for row in shown]


def _cells(row: Row) -> tuple[str, ...]:
    size = f"{row.n_nodes:,} nodes" if row.n_nodes else f"{row.n_landmark:,} landmarks" if row.n_landmark else ""
    by = row.by + (f" ({row.settings['way']})" if "way" in row.settings else "")
    if row.skipped:
        return row.case, size, by, "", "", "", "", row.skipped
    times = spread_text(row), seconds_text(row.cold_seconds)
    memory = bytes_text(row.main_peak_bytes), "" if row.added_bytes is None else bytes_text(row.added_bytes)
    return row.case, size, by, *times, *memory, _quality(row)


def _quality(row: Row) -> str:
    """What was judged, in words."""
    parts = []
    if row.preservation:
        parts.append("between " + " / ".join(f"{share:.3f}" for share in row.preservation.values()))
        parts.append("within " + " / ".join(f"{share:.3f}" for share in (row.preservation_within or {}).values()))
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


def draw(rows: Sequence[Row], images: Path) -> Path:
    """Seconds and peak memory of the pictures against the nodes, a line a peer."""
    from benchmarks.report import plots

    own = [row for row in rows if row.case == "picture" and row.seconds is not None]
    lines = {name: [row for row in own if row.by == name] for name in dict.fromkeys(row.by for row in own)}
    return plots.by_nodes(lines, images / f"{NAME}-{rows[0].machine}.png")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], choices=PLANS, help="one comparison; repeatable")
    parser.add_argument("--peer", action="append", default=[], choices=peers(), help="one peer; repeatable")
    parser.add_argument("--size", type=int, help="with --rows")
    parser.add_argument("--rows", action="store_true", help="one size of one comparison and peer; print rows: a task")
    parser.add_argument("--work", action="store_true", help="one --way of it in this process, with --bytes of memory")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    options = add_run_arguments(parser).parse_args(argv)
    if options.work:
        return main_of_work(options)
    if options.rows:
        with through_its_end():
            emit(_rows(options))
        return 0
    rows, code = run_suite(lambda device: tasks(device, options.quick, options.only, options.peer), options)
    print(plain_table(*table(rows, "")))
    return code


def _rows(options: argparse.Namespace) -> list[Row]:
    if options.size is None:
        return cpu_only(options.only, options.peer, options.device)
    return rows_of(options.only[0], options.size, peers()[options.peer[0]], options.device, options.quick)


if __name__ == "__main__":
    sys.exit(main())
