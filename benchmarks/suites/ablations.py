"""Suite "ablations": what each choice of the method or of its implementation costs and changes.

One choice varies and the others stay. Every row names the run that it is compared with. If the affinity varies, the
clusters stay, so that only the affinity makes a difference. If the landmarks vary, a run with another seed shows how
far two pictures of one setting lie apart. A run that the machine cannot do, or not in minutes, has a row with the
reason.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse
import torch

from benchmarks.measure.device import CPU, use_device
from benchmarks.measure.rows import NOT_INSTALLED, REFUSED, Row
from benchmarks.measure.tables import Table, bytes_text, number_text, shares_text, spread_text
from benchmarks.measure.tasks import QUICK, Task, clock, emit, python_task, task_options
from benchmarks.measure.timer import cold_and_warm
from benchmarks.peers.comparisons import named_distances, recall
from benchmarks.suites.ablation_bench import LARGE, MIDDLE, N_SVD, NAME, SMALL, Bench
from benchmarks.suites.pictures import N_COMPONENTS, Picture, disparity, picture
from mmphate_gpu import plan, to_scipy
from mmphate_gpu.affinities.bandwidth import interslice_bandwidth
from mmphate_gpu.errors import InputError
from mmphate_gpu.linalg.kmeans import kmeans
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.linalg.top_eigenpairs import top_eigenpairs
from mmphate_gpu.mds.classic import classic
from mmphate_gpu.mds.smacof import Descent, one_sweep, smacof
from mmphate_gpu.mds.stress import stress
from mmphate_gpu.neighbors import kneighbors
from mmphate_gpu.operators import AffinityOperator, SparseAffinity
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.runtime.keops import why_no_keops
from mmphate_gpu.runtime.optional import available
from mmphate_gpu.slices import unit_major

COLUMNS = 110  # of a product, as block Krylov takes it
INTERSLICE_KNN = 25
COUNTS = (500, 1000, 2000, 4000, 8000, 16_000, 20_000)  # of landmarks
MOST_OF_NODES = 2 / 3  # with more landmarks at least half of the clusters are single nodes
# Planned operations of a run on the CPU for each thread, so that other work of the machine does not decide. 8000
# landmarks of 12,240 nodes take 5.4e12 operations, and took 90 s on one thread.
MOST_CPU_OPERATIONS = 8e12
RATED = 2048  # rows of the square matrices whose product gives the rate of the machine


def relative_error(result: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((result - wanted).norm() / wanted.norm())


# ---------------------------------------------------------------- the affinity


def storage(bench: Bench) -> Iterator[Row]:
    """The three forms of the affinity: making it, its bytes, a product, the landmarks, and the picture."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(bench.trace.n_nodes, COLUMNS, dtype=torch.float64, generator=generator).to(bench.device)
    wanted = bench.affinity(dtype=torch.float64).product(block)
    for form in ("sparse", "tiles", "lazy"):
        operator, seconds = bench.timed(bench.affinity, storage=form)
        yield bench.row(form, "affinity", **seconds, work=operator.nbytes, unit="bytes")
        product, seconds = bench.timed(operator.product, block)
        error = relative_error(product, wanted)
        yield bench.row(form, "product", "float64 entries as CSR", **seconds, error=error)
        of_form, seconds = bench.timed(bench.landmarks, operator)
        against = bench.usual if form != "sparse" else None
        quality = bench.quality(picture(of_form), against)
        yield bench.row(form, "landmarks", "sparse" if against else "", **seconds, **quality)
    chance = picture(bench.landmarks(bench.plain, random_state=1))
    yield bench.row("sparse, seed 1", "landmarks", "sparse", **bench.quality(chance, bench.usual))


def neighbors(bench: Bench) -> Iterator[Row]:
    """The backends of the search for neighbors: time, error of the interslice bandwidth, recall, and the picture."""
    units = unit_major(bench.points)
    knn = min(INTERSLICE_KNN, bench.trace.n_slices - 1)
    exact = float(interslice_bandwidth(units, knn, backend="torch"))
    farthest = kneighbors(units, knn, backend="torch")[0][..., -1].cpu().numpy()  # (M, S)
    for backend in ("auto", "torch", "keops", "pynndescent"):
        if reason := _why_no_backend(backend):
            yield bench.row(backend, "bandwidth", "torch", skipped=f"{NOT_INSTALLED}: {reason}")
            continue
        bandwidth, seconds = bench.timed(interslice_bandwidth, units, knn, backend=backend)
        quality = bench.quality(bench.with_same_clusters(bench.affinity(knn_backend=backend)), bench.usual)
        searched = {} if backend == "auto" else {"recall": recall_of(backend, units, knn, farthest)}
        error = abs(float(bandwidth) / exact - 1)
        yield bench.row(backend, "bandwidth", "torch", **seconds, error=error, **searched, **quality)


def _why_no_backend(backend: str) -> str | None:
    if backend == "keops":
        return why_no_keops()
    return None if backend != "pynndescent" or available("pynndescent") else "pynndescent"


def recall_of(backend: str, units: torch.Tensor, knn: int, farthest: np.ndarray) -> float:  # (M, S, D); (M, S)
    """The share of the neighbors by ``backend`` that are true: no farther than the ``farthest``."""
    named = kneighbors(units, knn, backend=backend)[1].cpu().numpy()
    sets = zip(units.cpu().numpy(), named, strict=True)
    return recall(np.stack([named_distances(points, places) for points, places in sets]), farthest)


def cuts(bench: Bench) -> Iterator[Row]:
    """The affinity cut by a threshold, or after so many entries of a row, compared with the affinity without a cut."""
    uncut: tuple[str, AffinityOperator, Picture] | None = None
    for thresh in ("0", "1e-6", "1e-4", "1e-3", "1e-2"):
        name = f"thresh {thresh}"
        try:
            operator, seconds = bench.timed(bench.affinity, thresh=float(thresh))
        except InputError as error:  # it may not fit without a cut; the others are then compared with the next
            yield bench.row(name, "affinity", skipped=f"{REFUSED}: {error}")
            continue
        row, picture_of_cut = _cut(bench, operator, name, uncut, seconds)
        uncut = uncut or (name, operator, picture_of_cut)
        yield row
    if uncut is not None:
        for most in (most for most in (25, 50, 100, 200) if most < bench.trace.n_slices):
            yield _cut(bench, capped(uncut[1], most), f"{most} neighbours", uncut)[0]


def _cut(
    bench: Bench,
    operator: AffinityOperator,
    name: str,
    uncut: tuple[str, AffinityOperator, Picture] | None,
    seconds: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Row, Picture]:
    """The row of a cut, and its picture."""
    against, _, picture_of_all = uncut or ("", None, None)
    result = bench.with_same_clusters(operator)
    fields = {**seconds, "work": operator.to_csr().nnz, "unit": "entries", **bench.quality(result, picture_of_all)}
    return bench.row(name, "affinity", against, **fields), result


def capped(operator: SparseAffinity, most: int) -> SparseAffinity:
    """The affinity with the ``most`` largest interslice entries of every row, made symmetric, as in a neighbor graph.

    An entry stays if it is among the largest of either end. The library has no such cut: the method has a threshold.
    """
    matrix = to_scipy(operator).tocsr()
    n_units = operator.interleave
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    inside = row // n_units == matrix.indices // n_units
    order = np.lexsort((-np.where(inside, np.inf, matrix.data), row))  # intraslice entries come first
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - matrix.indptr[row[order]]
    keep = rank < most + np.bincount(row[inside], minlength=matrix.shape[0])[row]
    named = scipy.sparse.csr_matrix((matrix.data[keep], (row[keep], matrix.indices[keep])), matrix.shape)
    both = named.maximum(named.T).tocsr()
    both.sort_indices()
    csr = operator.to_csr()
    indptr, indices = (torch.from_numpy(part).to(csr.indices) for part in (both.indptr, both.indices))
    values = torch.from_numpy(both.data).to(csr.values)
    return SparseAffinity(Csr(indptr, indices, values, csr.shape), interleave=n_units)


def precision(bench: Bench) -> Iterator[Row]:
    """The dtype of the entries. Distances and degrees are float64 in both cases."""
    wanted = bench.affinity(dtype=torch.float64)
    exact = bench.with_same_clusters(wanted)
    values = wanted.to_csr().values
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        against = "" if dtype == torch.float64 else "float64"
        operator, seconds = bench.timed(bench.affinity, dtype=dtype)
        quality = bench.quality(bench.with_same_clusters(operator), exact if against else None)
        size = {"work": operator.nbytes, "unit": "bytes"}
        error = relative_error(operator.to_csr().values.double(), values)
        yield bench.row(name, "affinity", against, **seconds, error=error, **size, **quality)


# ---------------------------------------------------------------- landmarks


def landmark_counts(name: str, device: torch.device) -> tuple[int, ...]:
    """The numbers of landmarks on an input. On the CPU the largest input has only what is too many for others."""
    if name in SMALL:
        return (50, 100, 200)
    return COUNTS[-2:] if name == LARGE and device.type == "cpu" else COUNTS


def why_not(bench: Bench, n: int) -> str:
    """Why there is no run with ``n`` landmarks: too few nodes, too little memory, or on the CPU too long; else "".

    As many landmarks as the other ablations have are always possible.
    """
    n_nodes = bench.trace.n_nodes
    if n <= bench.n_landmark:
        return ""
    if n > MOST_OF_NODES * n_nodes:
        return f"more landmarks than two for three of the {n_nodes:,} nodes"
    sizes = {"n_landmark": n, "n_svd": N_SVD, "n_components": N_COMPONENTS, "storage": "sparse"}
    planned = plan(bench.trace, device=bench.device, **sizes)
    if not planned.fits:
        needs, available = bytes_text(planned.peak_bytes), bytes_text(planned.available_bytes)
        return f"{REFUSED}: needs {needs} by the plan, {bench.device} has {available} available"
    return "" if bench.device.type == "cuda" else too_long(sum(stage.operations for stage in planned.stages))


def too_long(operations: float) -> str:
    """Why so many operations are not done on this CPU; "" if they are."""
    most = MOST_CPU_OPERATIONS * torch.get_num_threads()
    if operations <= most:
        return ""
    rate = product_rate()
    time = f"{operations:.1e} operations by the plan, about {clock(operations / rate)} at this machine's {rate:.1e}"
    return f"{time} a second (float64 products); no more than {most:.1e} are run, {MOST_CPU_OPERATIONS:.0e} a thread"


@functools.cache
def product_rate() -> float:
    """Operations a second of dense float64 products on the CPU, after a first product."""
    square = torch.full((RATED, RATED), 0.5, dtype=torch.float64)
    return 2.0 * RATED**3 / cold_and_warm(lambda: square @ square, CPU, 1)[1][0]


def landmarks(bench: Bench) -> Iterator[Row]:
    """The number of landmarks and how they are chosen, compared with the largest number of spectral landmarks."""
    counts = []
    for n in landmark_counts(bench.name, bench.device):
        if reason := why_not(bench, n):
            yield bench.row(f"spectral, {n}", "landmarks", n_landmark=n, skipped=reason)
        else:
            counts.append(n)
    runs = [("spectral", n, 0) for n in reversed(counts)] + [("spectral", n, 1) for n in counts[-2:-1]]
    # No more of them: their operator is one component, and the cost of the next stages grows with its cube.
    runs += [("stratified", n, 0) for n in counts if n <= bench.n_landmark]
    largest: Picture | None = None
    for method, n, seed in runs:
        name = f"{method}, {n}" + (f", seed {seed}" if seed else "")
        against = f"spectral, {counts[-1]}" if largest else ""
        chosen, seconds = bench.timed(bench.landmarks, bench.plain, n, landmarks=method, random_state=seed)
        yield bench.row(name, "landmarks", **seconds, n_landmark=n)
        result, seconds = bench.timed(picture, chosen)
        yield bench.row(name, "entropy to MDS", against, **seconds, **bench.quality(result, largest))
        largest = largest or result


def passes(bench: Bench) -> Iterator[Row]:
    """The number of passes of block Krylov for the leading singular vectors, compared with twice as many."""
    degrees = bench.plain.row_sums()
    root = degrees.rsqrt()[:, None]

    def diff_aff(block: torch.Tensor) -> torch.Tensor:
        return bench.plain.product(root * block).mul_(root)

    def eigenpairs(n_passes: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = seeded_generator(0)
        size = {"n_passes": n_passes, "device": bench.device, "generator": generator}
        return top_eigenpairs(diff_aff, bench.trace.n_nodes, N_SVD, **size)

    def run(vectors: torch.Tensor) -> Picture:
        features = bench.plain.product(vectors).div_(degrees[:, None])
        clusters = kmeans(features.float(), bench.n_landmark, generator=seeded_generator(1))
        return picture(bench.landmarks(bench.plain, clusters=clusters))

    many = 16
    values, vectors = eigenpairs(many)
    most = run(vectors)
    for n_passes in (1, 2, 3, 5, 8):
        (leading, vectors), seconds = bench.timed(eigenpairs, n_passes)
        error = float(1 - leading.abs().sum() / values.abs().sum())
        quality = bench.quality(run(vectors), most)
        yield bench.row(f"{n_passes} passes", "eigenpairs", f"{many} passes", **seconds, error=error, **quality)


# ---------------------------------------------------------------- MDS


def steps(bench: Bench) -> Iterator[Row]:
    """SMACOF from the same start: with quasi-Newton steps, with plain steps only, and with a hundredth of ``eps``."""
    distances = bench.usual.distances
    start = classic(distances, N_COMPONENTS, generator=seeded_generator(0))
    usual = "quasi-Newton"
    runs = {usual: (smacof, 1e-6), "plain": (plain_smacof, 1e-6), f"{usual}, eps 1e-8": (smacof, 1e-8)}
    first: torch.Tensor | None = None
    for name, (solver, eps) in runs.items():
        descent, seconds = bench.timed(solver, distances, start, eps=eps)
        fields = {"work": descent.n_iter, "unit": "sweeps", "stress": stress(distances, descent.coordinates)}
        if first is not None:
            fields["procrustes"] = disparity(first, descent.coordinates)
        yield bench.row(name, "mds", "" if first is None else usual, **seconds, **fields, n_landmark=len(distances))
        first = descent.coordinates if first is None else first


def plain_smacof(distances: torch.Tensor, start: torch.Tensor, *, eps: float, max_iter: int = 3000) -> Descent:
    """Guttman transforms only: in float32 until they stop, then in float64, as in the library."""
    largest = float(distances.max())
    rough = _plain_descent((distances / largest).float(), start / largest, eps, max_iter - 1)
    end = _plain_descent(distances, rough.coordinates * largest, eps, max_iter - rough.n_iter)
    return Descent(end.coordinates, rough.n_iter + end.n_iter)


def _plain_descent(distances: torch.Tensor, points: torch.Tensor, eps: float, max_iter: int) -> Descent:
    n_sweeps, before, gain = 0, math.inf, math.inf
    while n_sweeps < max_iter and gain >= eps * before:
        points, raw = one_sweep(distances, points)
        n_sweeps, gain, before = n_sweeps + 1, before - float(raw), float(raw)
    return Descent(points, n_sweeps)


# ---------------------------------------------------------------- tasks

# name -> its rows, and the seconds for each of its inputs on two cores; only "landmarks" has the largest input
ABLATIONS: dict[str, tuple[Callable[[Bench], Iterator[Row]], tuple[float, ...]]] = {
    "storage": (storage, (40, 30)),
    "neighbours": (neighbors, (40, 40)),
    "cuts": (cuts, (40, 25)),
    "precision": (precision, (15, 10)),
    "landmarks": (landmarks, (160, 60, 15)),
    "passes": (passes, (50, 35)),
    "steps": (steps, (15, 10)),
}
PARTS = tuple(ABLATIONS)
QUICK_ABLATIONS = ("storage",)


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """A process for each ablation and input."""
    chosen = []
    for name in only or (QUICK_ABLATIONS if quick else ABLATIONS):
        estimates = (8.0,) if quick else ABLATIONS[name][1]
        inputs = SMALL if quick else (*MIDDLE, LARGE)[: len(estimates)]
        for on, seconds in zip(inputs, estimates, strict=True):
            fields = {"case": on, "settings": {"ablation": name, "choice": "all"}}
            limits = {"timeout": 1800.0, "estimate": seconds}
            key = f"{QUICK * quick}{name}-{on}"
            chosen.append(python_task(NAME, key, NAME, name, on, device=device, fields=fields, **limits))
    return chosen


def measured(name: str, on: str, device: torch.device, folder: Path | None = None) -> list[Row]:
    """The rows of an ablation on an input."""
    return list(ABLATIONS[name][0](Bench(name, on, device, folder)))


def main() -> int:
    options = task_options().parse_args()
    emit(measured(*options.names, use_device(options.device), options.folder))
    return 0


# ---------------------------------------------------------------- tables

HEAD = (
    *("input", "choice", "what was timed", "seconds", "adds", "work", "error", "recall", "islands", "t", "stress"),
    *("kept 10 / 40", "Procrustes", "within islands", "against"),
)


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """The table of the ablation ``which``, or a table for each. Empty columns are left out."""
    by_name: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        by_name.setdefault(row.settings.get("ablation", ""), []).append(cells(row))
    return [_table(by_name[name]) for name in ABLATIONS if name in by_name and which in ("", name)]


def _table(lines: Sequence[tuple[str, ...]]) -> Table:
    shown = [i for i, _ in enumerate(HEAD) if any(line[i] for line in lines)]
    return Table(tuple(HEAD[i] for i in shown), [tuple(line[i] for i in shown) for line in lines])


def cells(row: Row) -> tuple[str, ...]:
    """A line of the table. A row that was skipped has the reason in place of its seconds."""
    return (
        row.case,
        row.settings["choice"],
        row.stage,
        row.skipped or spread_text(row),
        bytes_text(row.added_bytes),
        bytes_text(row.work) if row.unit == "bytes" else "" if row.work is None else f"{row.work:,.0f} {row.unit}",
        number_text(row.error, ".1e"),
        number_text(row.recall, ".4f"),
        number_text(row.statistics.get("islands"), "d"),
        number_text(row.t, "d"),
        number_text(row.stress, ".4f"),
        shares_text(row.preservation),
        number_text(row.procrustes, ".1e"),
        number_text(row.statistics.get("procrustes_within"), ".1e"),
        row.settings.get("against", ""),
    )


if __name__ == "__main__":
    sys.exit(main())
