"""The ops with native twins: seconds of the twin and of the portable version in one run, rates, goals.

Run ``python benchmarks/bench_ops.py``; ``--only guttman_transform`` is one op. On CUDA times are those of events.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.rows import RESULTS, OpRow, op_cells, plain_table, result_path, write_json  # noqa: E402
from benchmarks.worker import machine_name, versions  # noqa: E402
from mmphate_gpu import datasets  # noqa: E402
from mmphate_gpu.affinities import affinity_of_points  # noqa: E402
from mmphate_gpu.affinities.bandwidth import interslice_bandwidth, intraslice_bandwidth  # noqa: E402
from mmphate_gpu.operators import TiledAffinity  # noqa: E402
from mmphate_gpu.ops import twins  # noqa: E402
from mmphate_gpu.ops.csr import indptr_of_counts, to_torch  # noqa: E402
from mmphate_gpu.ops.gaussian_product import points_by_feature, scaled_limit, scaled_points  # noqa: E402
from mmphate_gpu.ops.radius_affinity import SMALLEST, cut_distance, cut_radius  # noqa: E402
from mmphate_gpu.ops.tile_layout import TILE, point_tiles, product_by_tiles, stored_pairs  # noqa: E402
from mmphate_gpu.slices import unit_major  # noqa: E402
from mmphate_gpu.trace import normalize  # noqa: E402

NAME = "ops"
COLUMNS = 110
LANDMARKS = 4000


# Full rates of one H200 (shared by the floors of all ops): bytes and float64 operations a second.
FULL_BYTES, FULL_FLOP = 4.3e12, 60e12
FULL_HALF_FLOP = 788e12  # half precision, on its tensor cores


@dataclass(frozen=True)
class Measured:
    """One call of one op: what it is given, how much work that is, and what is asked of it."""

    op: str
    what: str
    arguments: tuple[Any, ...]
    work: float  # in ``unit``
    unit: str
    flop: float  # at least, of any way to the result that visits every pair
    bytes: float  # at least: inputs read once, outputs written once
    goal: float | None = None  # of the rate
    full_flop: float = FULL_FLOP

    @property
    def floor_seconds(self) -> float:
        """On the GPU the rates above belong to."""
        return max(self.flop / self.full_flop, self.bytes / FULL_BYTES)


class Data:
    """The inputs, made once: units of the bifurcation suite, its affinity, a landmark configuration."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        epochs = 20 if quick else 101
        self.trace = datasets.bifurcation("hopf_pitchfork", n_epochs=epochs)
        self.points = normalize(self.trace).to(device)
        self.units = unit_major(self.points)
        self.bandwidth = interslice_bandwidth(self.units, 25)
        self.reach = float(cut_distance(self.bandwidth, decay=2, thresh=1e-4))
        self.operator = affinity_of_points(self.points, storage="sparse", dtype=torch.float32).operator
        self.n_landmark = 500 if quick else LANDMARKS
        generator = torch.Generator().manual_seed(0)
        high = torch.randn(self.n_landmark, 12, dtype=torch.float64, generator=generator).to(device)
        self.distances = torch.cdist(high, high)
        self.distances = ((self.distances + self.distances.T) / 2).fill_diagonal_(0)
        self.start = high - high.mean(0)
        self.features = torch.randn(self.points.shape[0] * self.points.shape[1], 100, generator=generator).to(device)
        self.block = torch.randn(self.operator.shape[0], COLUMNS, dtype=torch.float64, generator=generator).to(device)
        # Landmarks as k-means makes them: neighbouring slices of one unit.
        nodes, n_units = torch.arange(self.operator.shape[0], device=device), self.units.shape[0]
        per_unit = self.n_landmark // n_units
        self.labels = nodes % n_units * per_unit + nodes // n_units * per_unit // self.units.shape[1]


def cases(data: Data) -> list[Measured]:
    """Every op with what it gets in the pipeline."""
    n_units, n_slices, _ = data.units.shape
    csr, n = data.operator.csr, data.n_landmark
    counts = twins.PORTABLE["radius_counts"](data.units, data.reach)
    indptr = indptr_of_counts(counts.T.reshape(-1))
    empty = torch.empty_like(csr.indices[: int(indptr[-1])]), torch.empty_like(csr.values[: int(indptr[-1])])
    fill = (data.units, float(data.bandwidth), 2.0, data.reach, 0, n_slices, indptr, torch.zeros_like(indptr[1:]))
    own = (data.points, intraslice_bandwidth(data.points, 2), 5.0, 1e-4, SMALLEST, cut_radius(5, 1e-4) * (1 + 1e-9))
    matrix, single = csr[:3], data.distances.float()
    n_slices, n_units, p = data.points.shape
    stack = 8.0 * data.units.numel()
    # Ordered pairs, a point with itself included; a twin that visits a pair once for both ends serves two of them.
    pairs, few, of_pair = float(n_units * n_slices**2), float(n_slices * n_units**2), 3.0 * p
    filled, product = empty[0].numel(), 2.0 * csr.nnz * COLUMNS
    rows, nnz_bytes = data.operator.shape[0], 8.0 * csr.nnz
    units, slices, unit = (data.units, 25), (data.points, 2), "ordered pairs"
    listed = [
        ("radius_counts", f"units of the suite, p = {p}", (data.units, data.reach), pairs, unit, 3e9),
        ("median_kth_neighbor_distance", "units of the suite, k = 25", units, pairs, unit, 1.5e9),
        ("kth_neighbor_distance", "units of the suite, k = 25", units, pairs, unit, None),
        ("kth_neighbor_distance", "slices of the suite, k = 2", slices, few, unit, None),
    ]
    found = [Measured(op, what, given, n, u, of_pair * n / 2, stack, goal) for op, what, given, n, u, goal in listed]
    found += [
        Measured(
            "radius_fill",
            f"{filled:,} entries, float32",
            (*fill, *empty),
            filled,
            "entries",
            of_pair * pairs / 2,
            8.0 * filled,
        ),
        Measured(
            "symmetrised_affinity", "slices of the suite", (*own, torch.float32), few, unit, of_pair * few / 2, stack
        ),
        Measured(
            "landmark_aggregate", f"to {n} landmarks", (*matrix, data.labels, n), csr.nnz, "entries", csr.nnz, nnz_bytes
        ),
    ]
    for block, kind in ((data.block, "float64"), (data.block.float(), "float32")):
        for width in (COLUMNS, 32, 16, 8, 1):
            given = (*matrix, block[:, :width].contiguous(), n_units)
            moved = nnz_bytes + 2.0 * rows * width * block.element_size()
            flop = product * width / COLUMNS
            found.append(Measured("csr_matmul", f"{kind} x {width}", given, flop, "flop", flop, moved))
    for distances, kind in ((single, "float32"), (data.distances, "float64")):
        for components in (2, 3, 5, 10):
            given = (distances, data.start[:, :components].contiguous(), 1e-6)
            flop = n * n / 2 * (6 * components + 8)
            what = f"{n} x {components}, {kind}"
            moved = float(distances.nbytes) / 2
            found.append(Measured("guttman_transform", what, given, float(n * n), unit, flop, moved))
    return found


def half_cases(data: Data) -> list[Measured]:
    """Ops for tensor cores, measured where there are some."""
    lazy = affinity_of_points(data.points, storage="lazy", dtype=torch.float32).operator
    tiled, layout = TiledAffinity(lazy), lazy.tile_layout()
    kept: list[torch.Tensor] = []
    by_unit = data.block.view(lazy.n_slices, lazy.n_units, COLUMNS).transpose(0, 1)
    product_by_tiles(layout, by_unit, lambda halves: kept.append(halves) or halves.float())
    _, *active = layout
    scaled = points_by_feature(point_tiles(layout, scaled_points(data.units, lazy.bandwidth), None))
    points = point_tiles(layout, data.units, torch.nan)
    made = (points, *stored_pairs(layout)[:2])
    limit, pairs = scaled_limit(lazy.reach, float(lazy.bandwidth)), float(layout.n_active * TILE**2)
    flop, block_bytes = 2 * pairs * COLUMNS, 6.0 * kept[0].numel()
    what, rest = f"half x {COLUMNS}, {layout.n_active:,} tiles", {"full_flop": FULL_HALF_FLOP}
    listed = [
        # Each stored tile is read for its row and again for its column.
        ("tile_matmul", (tiled.tiles, tiled.slots, *active, kept[0]), 2 * pairs),
        ("gaussian_product", (*scaled, limit, layout.indptr, layout.columns, kept[0]), scaled[0].nbytes),
    ]
    found = [Measured(op, what, args, flop, "flop", flop, own + block_bytes, **rest) for op, args, own in listed]
    pairs = float(layout.n_stored * TILE**2)
    what, of_pairs = f"p = {points.shape[2]}, {layout.n_stored:,} tiles", 3 * pairs * points.shape[2]
    nearest = data.features, data.features[: data.n_landmark].clone()
    gemm, moved = 2.0 * nearest[0].numel() * data.n_landmark, 4.0 * nearest[0].numel()
    # Each product of float32 numbers is three of TF32, which go at half the rate of halves.
    rate = {"full_flop": FULL_HALF_FLOP / 6}
    reached, entries = (*made, lazy.reach), (*made, float(lazy.bandwidth), lazy.reach)
    return [
        *found,
        Measured("tile_reached", what, reached, pairs, "ordered pairs", of_pairs, points.nbytes),
        Measured("tile_entries", what, entries, pairs, "ordered pairs", of_pairs, points.nbytes + 2 * pairs),
        Measured("assign_nearest", f"to {data.n_landmark} centres", nearest, gemm, "flop", gemm, moved, **rate),
    ]


def rivals(data: Data) -> list[tuple[str, str, Callable[[], Any], float, str]]:
    """What the libraries do with the same work: (op, what, call, work, unit)."""
    csr, tensor = data.operator.csr, data.operator.tensor
    single, flop = data.block.float(), 2.0 * data.operator.csr.nnz * COLUMNS
    double = to_torch(csr._replace(values=csr.values.double()))
    centers, by_torch = data.features[: data.n_landmark].clone(), twins.PORTABLE["assign_nearest"]
    gemm = 2.0 * data.features.shape[0] * data.features.shape[1] * data.n_landmark
    found = [
        ("csr_matmul", f"torch, float32 x {COLUMNS}", lambda: tensor @ single, flop, "flop"),
        ("csr_matmul", f"torch, float64 x {COLUMNS}", lambda: double @ data.block, flop, "flop"),
        ("assign_nearest", "torch: product and argmin", lambda: by_torch(data.features, centers), gemm, "flop"),
        ("assign_nearest", "the product alone", lambda: _products(data.features, centers), gemm, "flop"),
    ]
    if data.block.device.type == "cpu":
        from mmphate_gpu.operators import to_scipy

        matrix, block = to_scipy(data.operator), data.block.numpy()
        found.insert(2, ("csr_matmul", f"scipy, float64 x {COLUMNS}", lambda: matrix @ block, flop, "flop"))
    return found


def _products(points: torch.Tensor, centers: torch.Tensor) -> None:
    for part in points.split(524):  # the chunk of assign_nearest at 4000 centres
        part @ centers.T


def seconds_of(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """The least of ``repeats`` calls after one that does not count: the others are what disturbed them."""
    call()
    return min(_once(call, device) for _ in range(repeats))


def _once(call: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(one: Measured, device: torch.device, repeats: int) -> OpRow:
    """The op as the dispatcher serves it, and its portable version."""
    served, portable = getattr(torch.ops.mmphate_gpu, one.op), twins.PORTABLE[one.op]
    seconds = seconds_of(lambda: served(*one.arguments), device, repeats)
    slow = seconds_of(lambda: portable(*one.arguments), device, max(1, repeats // 3))
    by = twins.serving(device.type, twins.COMPILER[one.op])
    floor = one.floor_seconds if device.type == "cuda" else None
    rest = {"portable_seconds": slow, "goal": one.goal, "floor_seconds": floor}
    return OpRow(one.op, one.what, by, seconds, one.work / seconds, one.unit, **rest, **about(device))


def about(device: torch.device) -> dict[str, Any]:
    """What all rows of a run share."""
    date = datetime.date.today().isoformat()
    where = {"device": device.type, "machine": machine_name(device), "threads": torch.get_num_threads()}
    return {**where, "versions": versions(), "date": date}


def sweep_ratio(rows: Sequence[OpRow]) -> float:
    """The sweep that MDS takes (float32, 3 components) against the portable one of the same run and type."""
    sweep = next(row for row in rows if row.op == "guttman_transform" and row.what.endswith("x 3, float32"))
    return (sweep.portable_seconds or 0.0) / sweep.seconds


SWEEP_GOAL = 25


def missed_goals(rows: Sequence[OpRow]) -> list[str]:
    """One sentence for each goal that is missed; goals are those of two CPU cores."""
    if not rows or rows[0].device != "cpu":
        return []
    found = [
        f"{row.op}, {row.what}: {row.rate:.2g} {row.unit}/s, goal {row.goal:.2g}"
        for row in rows
        if row.goal is not None and row.rate < row.goal
    ]
    if any(row.op == "guttman_transform" for row in rows) and sweep_ratio(rows) < SWEEP_GOAL:
        found.append(f"guttman_transform: {sweep_ratio(rows):.1f} times the portable sweep, goal {SWEEP_GOAL}")
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="one op; may be repeated")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="small inputs, no goals: a test of this script")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; 1 if a goal is missed."""
    options = parse(argv)
    device = torch.device(options.device)
    data = Data(device, options.quick)
    rows = []
    for one in [*cases(data), *(half_cases(data) if options.quick or device.type == "cuda" else [])]:
        if options.only is None or one.op in options.only:
            print(f"{one.op}, {one.what} ...", file=sys.stderr, flush=True)
            rows.append(measure(one, device, options.repeats))
    for op, what, call, work, unit in rivals(data):
        if options.only is None or op in options.only:
            seconds = seconds_of(call, device, options.repeats)
            rows.append(OpRow(op, what, "library", seconds, work / seconds, unit, **about(device)))
    path = result_path(options.out, NAME, machine_name(device))
    write_json(path, [{k: v for k, v in asdict(row).items() if v is not None} for row in rows])
    print(plain_table(*op_cells(rows)))
    print(f"written: {path}", file=sys.stderr)
    missed = [] if options.quick else missed_goals(rows)
    print("\n".join(["", *(missed or ["All goals met."])]))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
