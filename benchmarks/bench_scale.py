"""How time and memory grow with the number of slices, from 15,000 nodes to as far as the device goes.

Run ``python benchmarks/bench_scale.py``. On the CPU the affinity is matrix-free and the last case is of HAR's size,
487,680 nodes; on CUDA the form is the plan's choice and the last case is the last that fits. Units and samples stay
the same, so that the cost of what goes over all pairs of slices grows fourfold where they double; that is the goal.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cases import SCALE, SMALL_SCALE
from benchmarks.harness import ROOT, STORAGES, CaseFailed, CaseRefused, run_case
from benchmarks.rows import RESULTS, Row, plain_table, result_path, scale_cells, slopes, totals, write_rows

NAME = "scale"
IMAGES = ROOT / "docs" / "images"
# The largest case of the CPU: HAR's slices, units and samples.
MOST_NODES_ON_CPU = 487_680
# Slices double, so pairs of them are four times as many; 5 % for the entries that a chunk of rows ends with.
MOST_GROWTH = 4.2
# Below it a stage is too short to say how it grows.
LEAST_SECONDS = 1.0
PER_PAIR = ("affinity", "landmarks")


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """One sentence for each stage over pairs of slices that grows faster than they do, from one case to the next."""
    found = []
    for stage in PER_PAIR:
        own = [row for row in rows if row.stage == stage]
        for before, after in zip(own, own[1:], strict=False):
            doubled = after.n_slices == 2 * before.n_slices and after.n_units == before.n_units
            same_form = after.storage == before.storage
            growth = after.seconds / before.seconds
            if doubled and same_form and before.seconds >= LEAST_SECONDS and growth > MOST_GROWTH:
                found.append(f"{after.case}, {stage}: {growth:.2f} times {before.case}, goal at most {MOST_GROWTH}")
    return found


def draw(rows: Sequence[Row], path: Path) -> None:
    """Seconds of the stages and peak memory against the number of nodes, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    stages = list(dict.fromkeys(row.stage for row in rows))
    longest = {stage: max(row.seconds for row in rows if row.stage == stage) for stage in stages}
    for stage in sorted(stages, key=longest.__getitem__, reverse=True):
        if longest[stage] < 0.01 * max(longest.values()):
            continue
        own = [row for row in rows if row.stage == stage]
        style = {"color": "black", "linewidth": 2} if stage == "total" else {}
        time.plot([row.n_nodes for row in own], [row.seconds for row in own], marker="o", label=stage, **style)
    whole = totals(rows)
    nodes = [row.n_nodes for row in whole]
    memory.plot(nodes, [row.peak_bytes / 1e9 for row in whole], marker="o", color="black")
    # Guides through the last point: pairs of slices, and slices.
    shares, guide = [n / nodes[-1] for n in nodes], {"linestyle": "--", "color": "grey"}
    time.plot(nodes, [whole[-1].seconds * share**2 for share in shares], label="slices squared", **guide)
    memory.plot(nodes, [whole[-1].peak_bytes / 1e9 * share for share in shares], label="nodes", **guide)
    for axes, what in ((time, "seconds"), (memory, "peak memory, GB")):
        axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel=what)
        axes.set_xticks(nodes, [f"{n:,}" for n in nodes], rotation=20)
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(f"{whole[-1].machine}, {whole[-1].storage} affinity")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--storage", choices=STORAGES, help="on the CPU lazy, on CUDA auto, if not given")
    parser.add_argument("--most-nodes", type=int, help="end with the last case of at most so many")
    parser.add_argument("--quick", action="store_true", help="two small cases: a test of this script")
    parser.add_argument("--repeats", type=int, help="runs whose median counts")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--images", type=Path, default=IMAGES, metavar="DIR")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one case after the other, write after each; 1 if one failed or a goal is missed.

    The first case that is refused ends the series: how far the device goes is part of the answer.
    """
    options = parse(argv)
    on_cuda = _on_cuda(options.device)
    storage = options.storage or ("auto" if on_cuda else "lazy")
    most = options.most_nodes or (math.inf if on_cuda else MOST_NODES_ON_CPU)
    rows: list[Row] = []
    failed = False
    for name in SMALL_SCALE if options.quick else SCALE:
        if _n_nodes(name) > most:
            break
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += run_case(name, device=options.device, storage=storage, repeats=options.repeats)
        except CaseFailed as error:
            print(f"{name} ends the series: {error}", file=sys.stderr)
            failed = not isinstance(error, CaseRefused)
            break
        path = result_path(options.out, NAME, rows[0].machine)
        write_rows(path, rows)
        print(f"written: {path}", file=sys.stderr)
    if not rows:
        return 1
    draw(rows, options.images / f"{NAME}-{rows[0].machine}.png")
    missed = missed_goals(rows)
    print(plain_table(*scale_cells(rows)), slopes(rows), "\n".join(missed or ["All goals met."]), sep="\n\n")
    return int(failed or bool(missed))


def _n_nodes(name: str) -> int:
    n_slices, n_units, _ = map(int, name.removeprefix(f"{NAME}-").split("x"))
    return n_slices * n_units


def _on_cuda(device: str) -> bool:
    from mmphate_gpu.ops.devices import resolve_device

    return resolve_device(device).type == "cuda"


if __name__ == "__main__":
    sys.exit(main())
