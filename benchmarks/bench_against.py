"""This library against others at the same work: seconds, memory, and how right the result is, in every row.

Run ``python benchmarks/bench_against.py``; ``--only picture`` is one of the comparisons of `benchmarks.given`, ``--peer
umap-learn`` one of the `peers`. Sizes double until a peer runs out of memory or takes longer than `MOST_SECONDS`: its
row says which. Every peer of every size has a process of its own; what is not installed is skipped, and said to be.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import records
from benchmarks.harness import add_run_arguments, run_suite
from benchmarks.peers import Peer, peers
from benchmarks.rows import OURS, REFUSED, Row, bytes_text, plain_table, seconds_text, slug, spread_text, timing
from benchmarks.tasks import QUICK, Task, emit, environment, python_task, tail

NAME = "against"
# Of a process: import, input, runs and judgement.
MOST_SECONDS = 120.0
# A way that took longer in its first run is not run again, except where the first one brings the input into its form;
# the others are run again until all warm runs took as long as `ENOUGH`, or so many times.
LONG, ENOUGH, REPEATS = 30.0, 10.0, 3
QUICK_LONG = 3.0
# Of the memory that is there when a process begins; the rest is for who else is on the machine.
MEMORY_SHARE = 0.8
OUT_OF_MEMORY = 3  # exit code of a process that ran out of it


@dataclass(frozen=True)
class Plan:
    """The sizes of a comparison, and the peers of the quick run."""

    sizes: tuple[int, ...]
    quick_size: int
    quick_peers: tuple[str, ...]
    # Runs after the first, at least: the first one of these makes matrices, or compiles.
    least_repeats: int = 0


DOUBLED = tuple(1008 * 2**k for k in range(7))
PLANS = {
    "picture": Plan(DOUBLED, 1008, (OURS, "reference", "openTSNE")),
    "graph": Plan(DOUBLED, 1008, (OURS, "openTSNE")),
    "mds": Plan((1000, 2000, 4000), 400, (OURS, "scikit-learn")),
    "product": Plan((8064, 64512), 4032, (OURS, "scipy", "cupy"), least_repeats=1),
    "neighbors": Plan((8064, 64512), 4032, (OURS, "scikit-learn", "faiss"), least_repeats=1),
}


# ---------------------------------------------------------------- the tasks


def tasks(device: str, quick: bool, only: Sequence[str] = (), by: Sequence[str] = ()) -> list[Task]:
    """One for each size, comparison and peer that does it there; a larger size waits for the smaller one."""
    there = [peer for peer in peers().values() if device.partition(":")[0] in peer.devices]
    found = []
    for comparison in only or PLANS:
        plan = PLANS[comparison]
        names = by or (plan.quick_peers if quick else peers())
        for peer in [peer for peer in there if peer.name in names and comparison in peer.does]:
            before = None
            for size in (plan.quick_size,) if quick else plan.sizes:
                key = f"{QUICK * quick}{comparison}-{size}-{slug(peer.name)}"
                found.append(_task(key, comparison, size, peer, device, quick, before))
                before = key
    return found


def _task(key: str, comparison: str, size: int, peer: Peer, device: str, quick: bool, before: str | None) -> Task:
    options = ["--rows", f"--only={comparison}", f"--size={size}", f"--peer={peer.name}", f"--device={device}"]
    estimate = 5.0 if quick else 20.0
    time = {"timeout": MOST_SECONDS + 60, "estimate": estimate, "after": before}
    return python_task(NAME, key, "bench_against.py", *options, *["--quick"] * quick, **time)


# ---------------------------------------------------------------- one of them


def rows_of(comparison: str, size: int, peer: Peer, device: str, quick: bool) -> list[Row]:
    """What `work` finds in a process of its own; a row with the reason where it cannot, dies or takes too long.

    Raises
    ------
    RuntimeError
        The process failed otherwise; with the last of what it wrote.
    """
    if reason := peer.why_not(device.partition(":")[0]):
        return [_skipped(comparison, size, peer, device, reason)]
    options = ["--work", f"--only={comparison}", f"--size={size}", f"--peer={peer.name}", f"--device={device}"]
    command = [sys.executable, str(Path(__file__).resolve()), *options, *["--quick"] * quick]
    done = _ended(command, {**environment(), **peer.environment})
    if done is None:
        return [_skipped(comparison, size, peer, device, f"took more than {MOST_SECONDS:.0f} s")]
    if done.returncode in (OUT_OF_MEMORY, -signal.SIGKILL):  # the system ends what takes the last of the memory
        told = tail(done.stderr, 1) if done.returncode == OUT_OF_MEMORY else "ended by the system"
        return [_skipped(comparison, size, peer, device, f"ran out of memory: {told}")]
    if done.returncode != 0:
        raise RuntimeError(tail(done.stderr) or f"ended with exit code {done.returncode}")
    return records.rows_of(json.loads(done.stdout.splitlines()[-1]), peer.name)


def _ended(command: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str] | None:
    """The process after its end; None, with all its children ended, if it took longer than `MOST_SECONDS`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    process = subprocess.Popen(command, env=env, start_new_session=True, **streams)
    try:
        written, told = process.communicate(timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    return subprocess.CompletedProcess(command, process.returncode, written, told)


def _skipped(comparison: str, size: int, peer: Peer, device: str, reason: str) -> Row:
    size_field = {"n_landmark": size} if comparison == "mds" else {"n_nodes": size}
    row = Row(suite=NAME, case=comparison, by=peer.name, skipped=reason, **size_field)
    return replace(row, **records.about(device, peer.versions))


def work(comparison: str, size: int, peer: Peer, device_name: str, quick: bool) -> list[Row]:
    """Rows of every way in which ``peer`` does it; judged after the clock has stopped.

    The first run of a way is the cold one: what is compiled or brought into the library's form then, is in it.
    """
    import torch

    from benchmarks.given import COMPARISONS
    from benchmarks.worker import PeakMeter
    from mmphate_gpu.ops.devices import resolve_device
    from mmphate_gpu.stages import held_bytes

    device = resolve_device(device_name)
    given = COMPARISONS[comparison](size, device)
    given.prepare()
    about, rows = records.about(device, peer.versions), []
    for way, do in peer.does[comparison].items():
        held, meter = held_bytes(torch.device("cpu")), PeakMeter(device)
        found, times = _runs(lambda do=do: do(given), device, PLANS[comparison].least_repeats, quick)
        meter(way)
        fields = {**given.fields(), **dict(found.fields), **given.judge(found)}
        sees = peer.settings if comparison == "picture" else {}
        settings = {**sees, **({"way": way} if way else {}), **fields.pop("settings", {})}
        rate = {"rate": fields["work"] / times["seconds"]} if "work" in fields else {}
        row = Row(suite=NAME, case=comparison, by=peer.name, settings=settings, held_bytes=held, **about)
        rows.append(replace(row, **fields, **times, **rate, **meter.fields(way)))
    return rows


def _runs(do: Any, device: Any, least: int, quick: bool) -> tuple[Any, dict[str, Any]]:
    """The last result and the times; results of a run are gone before the next."""
    from benchmarks.timer import once

    kept: list[Any] = []

    def call() -> None:
        kept.clear()
        kept.append(do())

    cold, warm = once(call, device), []
    most = max(least, (1 if quick else REPEATS) if cold < (QUICK_LONG if quick else LONG) else 0)
    while len(warm) < least or (len(warm) < most and sum(warm) < ENOUGH):
        warm.append(once(call, device))
    times = timing(warm) if warm else {"seconds": cold, "repeats": 0}
    return kept[0], {**times, "cold_seconds": cold, "warmup": 1}


def limit_memory() -> int:
    """Let this process take `MEMORY_SHARE` of what is there, so that what does not fit ends it and nothing else.

    Returns the bytes. Linux counts what is allocated, not what is mapped; elsewhere nothing is limited.
    """
    import psutil

    most = int(MEMORY_SHARE * psutil.virtual_memory().available)
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    return most


def main_of_work(options: argparse.Namespace) -> int:
    """Run `work` and print its rows; `OUT_OF_MEMORY` if memory ran out."""
    limit = limit_memory() if options.device == "cpu" else None
    from mmphate_gpu.within_memory import ran_out

    try:
        rows = work(options.only[0], options.size, peers()[options.peer[0]], options.device, options.quick)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        there = "" if limit is None else f" of {bytes_text(limit)} that it may take"
        print(f"{str(error).splitlines()[0] if str(error) else 'no more'}{there}", file=sys.stderr)
        return OUT_OF_MEMORY
    emit(rows)
    return 0


# ---------------------------------------------------------------- tables


def table(rows: Sequence[Row], which: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of the comparison ``which``, or of all; a peer that stopped has the reason for its numbers."""
    shown = [row for row in rows if which in ("", row.case) and not row.skipped.startswith(REFUSED)]
    head = ("comparison", "size", "by", "seconds", "cold", "peak", "quality")
    return head, [_cells(row) for row in shown]


def _cells(row: Row) -> tuple[str, ...]:
    # A task that failed knows neither: its key stands in the row.
    size = f"{row.n_nodes:,} nodes" if row.n_nodes else f"{row.n_landmark:,} landmarks" if row.n_landmark else ""
    by = row.by + (f" ({row.settings['way']})" if "way" in row.settings else "")
    if row.skipped:
        return row.case, size, by, "", "", "", row.skipped
    times = spread_text(row), seconds_text(row.cold_seconds)
    return row.case, size, by, *times, bytes_text(row.main_peak_bytes), _quality(row)


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
    from benchmarks import plots

    own = [row for row in rows if row.case == "picture" and row.seconds is not None]
    lines = {name: [row for row in own if row.by == name] for name in dict.fromkeys(row.by for row in own)}
    return plots.by_nodes(lines, images / f"{NAME}-{rows[0].machine}.png")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], choices=PLANS, help="one comparison; repeatable")
    parser.add_argument("--peer", action="append", default=[], choices=peers(), help="one peer; repeatable")
    parser.add_argument("--size", type=int, help="with --rows")
    parser.add_argument("--rows", action="store_true", help="one size of one comparison and peer; print rows: a task")
    parser.add_argument("--work", action="store_true", help="the same in this process")
    options = add_run_arguments(parser).parse_args(argv)
    if options.work:
        return main_of_work(options)
    if options.rows:
        peer = peers()[options.peer[0]]
        emit(rows_of(options.only[0], options.size, peer, options.device, options.quick))
        return 0
    rows, code = run_suite(lambda device: tasks(device, options.quick, options.only, options.peer), options)
    print(plain_table(*table(rows, "")))
    return code


if __name__ == "__main__":
    sys.exit(main())
