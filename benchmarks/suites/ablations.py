"""What each choice of the method and of its implementation costs and changes: one is varied, the others stay.

Run ``python benchmarks/suites/ablations.py``; ``--only landmarks`` is one ablation. Every row names what it is held
against. Where the affinity is varied, landmarks are the same throughout, so that what differs is what the affinity
does; where landmarks are, a run with another seed tells how far two pictures of one setting lie apart anyway. What a
machine cannot do, or not in minutes, has a row that says so.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import scipy.sparse
import torch

from benchmarks.measure.devices import use_device
from benchmarks.measure.rows import NOT_INSTALLED, REFUSED, Row, bytes_text, plain_table, spread_text
from benchmarks.measure.tasks import OUT, QUICK, Task, clock, emit, python_task
from benchmarks.measure.timer import cold_and_warm
from benchmarks.peers.comparisons import named_distances, recall
from benchmarks.run import add_run_arguments, run_suite
from benchmarks.suites.ablation_bench import INPUTS, LARGE, MIDDLE, N_SVD, NAME, SMALL, Bench
from benchmarks.suites.pictures import N_COMPONENTS, Picture, disparity, picture
from benchmarks.suites.worker import CPU
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
MOST_OF_NODES = 2 / 3  # beyond it at least half of the clusters are single nodes
# Of a run on the CPU, a thread, by its plan: what the machine is doing besides does not decide. 8000 landmarks of
# 12,240 nodes are 5.4e12, and took 90 s on one thread.
MOST_CPU_OPERATIONS = 8e12
RATED = 2048  # rows of the squares whose product gives that rate


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


# ---------------------------------------------------------------- the affinity


def storage(bench: Bench) -> Iterator[Row]:
    """The three forms: what making one takes and keeps, a product, landmarks, and the picture they lead to."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(bench.trace.n_nodes, COLUMNS, dtype=torch.float64, generator=generator).to(bench.device)
    wanted = bench.affinity(dtype=torch.float64).product(block)
    for form in ("sparse", "tiles", "lazy"):
        operator, seconds = bench.timed(bench.affinity, storage=form)
        yield bench.row(form, "affinity", **seconds, work=operator.nbytes, unit="bytes")
        product, seconds = bench.timed(operator.product, block)
        error = relative_error(product, wanted)
        yield bench.row(form, "product", "float64 entries as CSR", **seconds, error=error)
        found, seconds = bench.timed(bench.landmarks, operator)
        against = bench.usual if form != "sparse" else None
        quality = bench.quality(picture(found), against)
        yield bench.row(form, "landmarks", "sparse" if against else "", **seconds, **quality)
    chance = picture(bench.landmarks(bench.plain, random_state=1))
    yield bench.row("sparse, seed 1", "landmarks", "sparse", **bench.quality(chance, bench.usual))


def neighbours(bench: Bench) -> Iterator[Row]:
    """The backends of the bandwidths: time, the interslice bandwidth's error, neighbours found, the picture."""
    units = unit_major(bench.points)
    knn = min(INTERSLICE_KNN, bench.trace.n_slices - 1)
    exact = float(interslice_bandwidth(units, knn, backend="torch"))
    farthest = kneighbors(units, knn, backend="torch")[0][..., -1].cpu().numpy()  # (M, S)
    for backend in ("auto", "torch", "keops", "pynndescent"):
        if reason := _why_no_backend(backend):
            yield bench.row(backend, "bandwidth", "torch", skipped=f"{NOT_INSTALLED}: {reason}")
            continue
        found, seconds = bench.timed(interslice_bandwidth, units, knn, backend=backend)
        quality = bench.quality(bench.with_same_clusters(bench.affinity(knn_backend=backend)), bench.usual)
        searched = {} if backend == "auto" else {"recall": found_share(units, knn, backend, farthest)}
        error = abs(float(found) / exact - 1)
        yield bench.row(backend, "bandwidth", "torch", **seconds, error=error, **searched, **quality)


def _why_no_backend(backend: str) -> str | None:
    if backend == "keops":
        return why_no_keops()
    return None if backend != "pynndescent" or available("pynndescent") else "pynndescent"


def found_share(units: torch.Tensor, knn: int, backend: str, farthest: np.ndarray) -> float:  # (M, S, D); (M, S)
    """Share of the neighbours that ``backend`` names which are true ones: no farther than the ``farthest``."""
    named = kneighbors(units, knn, backend=backend)[1].cpu().numpy()
    sets = zip(units.cpu().numpy(), named, strict=True)
    return recall(np.stack([named_distances(points, places) for points, places in sets]), farthest)


def cuts(bench: Bench) -> Iterator[Row]:
    """Where the affinity is cut, against one that is not: by a threshold, or after so many entries of a row."""
    uncut: tuple[str, AffinityOperator, Picture] | None = None
    for thresh in ("0", "1e-6", "1e-4", "1e-3", "1e-2"):
        name = f"thresh {thresh}"
        try:
            operator, seconds = bench.timed(bench.affinity, thresh=float(thresh))
        except (
            InputError
        ) as error:  # what is not cut may not fit: then the next one is what the others are held against
            yield bench.row(name, "affinity", skipped=f"{REFUSED}: {error}")
            continue
        row, own = _cut(bench, operator, name, uncut, seconds)
        uncut = uncut or (name, operator, own)
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
    """The row of one cut, and its picture."""
    against, _, picture_of_all = uncut or ("", None, None)
    own = bench.with_same_clusters(operator)
    fields = {**seconds, "work": operator.to_csr().nnz, "unit": "entries", **bench.quality(own, picture_of_all)}
    return bench.row(name, "affinity", against, **fields), own


def capped(operator: SparseAffinity, most: int) -> SparseAffinity:
    """The affinity of which every row names its ``most`` largest interslice entries; an entry stays that one end names.

    What a k-nearest-neighbour graph would keep; the library has no such cut, since the method's is by the threshold.
    """
    matrix = to_scipy(operator).tocsr()
    n_units = operator.interleave
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    inside = row // n_units == matrix.indices // n_units
    order = np.lexsort((-np.where(inside, np.inf, matrix.data), row))  # the entries of its own slice come first
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - matrix.indptr[row[order]]
    keep = rank < most + np.bincount(row[inside], minlength=matrix.shape[0])[row]
    named = scipy.sparse.csr_matrix((matrix.data[keep], (row[keep], matrix.indices[keep])), matrix.shape)
    both = named.maximum(named.T).tocsr()
    both.sort_indices()
    csr = operator.to_csr()
    kind, device = csr.indices.dtype, csr.values.device
    indptr, indices = (torch.from_numpy(part).to(device, kind) for part in (both.indptr, both.indices))
    return SparseAffinity(
        Csr(indptr, indices, torch.from_numpy(both.data).to(csr.values), csr.shape), interleave=n_units
    )


def precision(bench: Bench) -> Iterator[Row]:
    """The type in which entries are kept; distances and degrees are float64 in both."""
    wanted = bench.affinity(dtype=torch.float64)
    exact = bench.with_same_clusters(wanted)
    values = wanted.to_csr().values
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        against = "" if dtype == torch.float64 else "float64"
        operator, seconds = bench.timed(bench.affinity, dtype=dtype)
        found = bench.with_same_clusters(operator)
        error = relative_error(operator.to_csr().values.double(), values)
        quality = bench.quality(found, exact if against else None)
        yield bench.row(
            name, "affinity", against, **seconds, error=error, work=operator.nbytes, unit="bytes", **quality
        )


# ---------------------------------------------------------------- landmarks


def landmark_counts(name: str, device: torch.device) -> tuple[int, ...]:
    """Those that are asked for on the input ``name``; on the CPU the whole suite has those that the smaller one cannot
    have."""
    if name in SMALL:
        return (50, 100, 200)
    return COUNTS[-2:] if name == LARGE and device.type == "cpu" else COUNTS


def why_not(bench: Bench, n: int) -> str:
    """Why there is no run with ``n`` landmarks here: too few nodes, too little memory, or on the CPU too long; ""
    where there is one. No more landmarks than those of the other ablations are not looked at."""
    n_nodes = bench.trace.n_nodes
    if n <= bench.n_landmark:
        return ""
    if n > MOST_OF_NODES * n_nodes:
        return f"more landmarks than two for three of the {n_nodes:,} nodes"
    sizes = {"n_landmark": n, "n_svd": N_SVD, "n_components": N_COMPONENTS, "storage": "sparse"}
    planned = plan(bench.trace, device=bench.device, **sizes)
    if not planned.fits:
        needs, there = bytes_text(planned.peak_bytes), bytes_text(planned.available_bytes)
        return f"{REFUSED}: needs {needs} by the plan, {bench.device} has {there} available"
    return "" if bench.device.type == "cuda" else too_long(sum(stage.operations for stage in planned.stages))


def too_long(operations: float) -> str:
    """Why so many operations are not done on this CPU; "" if its threads have no more than they may."""
    most = MOST_CPU_OPERATIONS * torch.get_num_threads()
    if operations <= most:
        return ""
    rate = product_rate()
    told = f"{operations:.1e} operations by the plan, about {clock(operations / rate)} at this machine's {rate:.1e}"
    return f"{told} a second (float64 products); no more than {most:.1e} are run, {MOST_CPU_OPERATIONS:.0e} a thread"


@functools.cache
def product_rate() -> float:
    """Operations a second of dense float64 products on the CPU, the first of which does not count."""
    square = torch.full((RATED, RATED), 0.5, dtype=torch.float64)
    return 2.0 * RATED**3 / cold_and_warm(lambda: square @ square, CPU, 1)[1][0]


def landmarks(bench: Bench) -> Iterator[Row]:
    """How many landmarks, and how they are chosen, against the most spectral ones that there can be."""
    counts = []
    for n in landmark_counts(bench.name, bench.device):
        if reason := why_not(bench, n):
            yield bench.row(f"spectral, {n}", "landmarks", n_landmark=n, skipped=reason)
        else:
            counts.append(n)
    runs = [("spectral", n, 0) for n in reversed(counts)] + [("spectral", n, 1) for n in counts[-2:-1]]
    # One component each: the cost of the rest grows with the cube of their number.
    runs += [("stratified", n, 0) for n in counts if n <= bench.n_landmark]
    largest: Picture | None = None
    for kind, n, seed in runs:
        name = f"{kind}, {n}" + (f", seed {seed}" if seed else "")
        against = f"spectral, {counts[-1]}" if largest else ""
        found, seconds = bench.timed(bench.landmarks, bench.plain, n, landmarks=kind, random_state=seed)
        yield bench.row(name, "landmarks", **seconds, n_landmark=n)
        own, seconds = bench.timed(picture, found)
        yield bench.row(name, "entropy to MDS", against, **seconds, **bench.quality(own, largest))
        largest = largest or own


def passes(bench: Bench) -> Iterator[Row]:
    """Products that block Krylov takes to find the leading singular vectors, against twice the most of them."""
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
        (found, vectors), seconds = bench.timed(eigenpairs, n_passes)
        error = float(1 - found.abs().sum() / values.abs().sum())
        quality = bench.quality(run(vectors), most)
        yield bench.row(f"{n_passes} passes", "eigenpairs", f"{many} passes", **seconds, error=error, **quality)


# ---------------------------------------------------------------- MDS


def steps(bench: Bench) -> Iterator[Row]:
    """SMACOF from the same start: with quasi-Newton steps, with plain ones alone, and to a hundredth of the gain."""
    distances = bench.usual.distances
    start = classic(distances, N_COMPONENTS, generator=seeded_generator(0))
    usual = "quasi-Newton"
    runs = {usual: (smacof, 1e-6), "plain": (plain_smacof, 1e-6), f"{usual}, eps 1e-8": (smacof, 1e-8)}
    first: torch.Tensor | None = None
    for name, (solver, eps) in runs.items():
        found, seconds = bench.timed(solver, distances, start, eps=eps)
        fields = {"work": found.n_iter, "unit": "sweeps", "stress": stress(distances, found.coordinates)}
        if first is not None:
            fields["procrustes"] = disparity(first, found.coordinates)
        yield bench.row(name, "mds", "" if first is None else usual, **seconds, **fields, n_landmark=len(distances))
        first = found.coordinates if first is None else first


def plain_smacof(distances: torch.Tensor, start: torch.Tensor, *, eps: float, max_iter: int = 3000) -> Descent:
    """Guttman transforms alone: in float32 to the end, then in float64, as the library does."""
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


# ---------------------------------------------------------------- the suite

# name -> its rows, and the seconds of its inputs on two cores; only landmarks take the whole suite
ABLATIONS: dict[str, tuple[Callable[[Bench], Iterator[Row]], tuple[float, ...]]] = {
    "storage": (storage, (40, 30)),
    "neighbours": (neighbours, (40, 40)),
    "cuts": (cuts, (40, 25)),
    "precision": (precision, (15, 10)),
    "landmarks": (landmarks, (160, 60, 15)),
    "passes": (passes, (50, 35)),
    "steps": (steps, (15, 10)),
}
QUICK_ABLATIONS = ("storage",)


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """One process for each ablation and input; of landmarks the whole bifurcation suite is an input too."""
    found = []
    for name in only or (QUICK_ABLATIONS if quick else ABLATIONS):
        estimates = (8.0,) if quick else ABLATIONS[name][1]
        inputs = SMALL if quick else (*MIDDLE, LARGE)[: len(estimates)]
        for on, seconds in zip(inputs, estimates, strict=True):
            options = ["--rows", name, "--input", on, "--device", device, "--folder", OUT]
            about = {"case": on, "settings": {"ablation": name, "choice": "all"}}
            given = {"timeout": 1800.0, "estimate": seconds, "about": about}
            found.append(python_task(NAME, f"{QUICK * quick}{name}-{on}", "suites/ablations.py", *options, **given))
    return found


HEAD = (
    "input",
    "choice",
    "what was timed",
    "seconds",
    "adds",
    "work",
    "error",
    "recall",
    "islands",
    "t",
    "stress",
    "kept 10 / 40",
    "Procrustes",
    "within islands",
    "against",
)


def table(rows: Sequence[Row], which: str = "") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of the ablation ``which``, or of all; columns in which nothing stands are left out."""
    own = [row for row in rows if row.settings.get("ablation") in ((which,) if which else ABLATIONS)]
    lines = [cells(row) for row in own]
    shown = [i for i, _ in enumerate(HEAD) if any(line[i] for line in lines)]
    return tuple(HEAD[i] for i in shown), [tuple(line[i] for i in shown) for line in lines]


def cells(row: Row) -> tuple[str, ...]:
    """One line under `HEAD`; of what was skipped the reason stands under the time."""
    return (
        row.case,
        row.settings["choice"],
        row.stage,
        row.skipped or spread_text(row),
        "" if row.added_bytes is None else bytes_text(row.added_bytes),
        _work_text(row),
        "" if row.error is None else f"{row.error:.1e}",
        "" if row.recall is None else f"{row.recall:.4f}",
        str(row.statistics.get("islands", "")),
        "" if row.t is None else str(row.t),
        "" if row.stress is None else f"{row.stress:.4f}",
        "" if not row.preservation else " / ".join(f"{share:.3f}" for share in row.preservation.values()),
        "" if row.procrustes is None else f"{row.procrustes:.1e}",
        f"{row.statistics['procrustes_within']:.1e}" if "procrustes_within" in row.statistics else "",
        row.settings.get("against", ""),
    )


def _work_text(row: Row) -> str:
    if row.work is None:
        return ""
    return bytes_text(row.work) if row.unit == "bytes" else f"{row.work:,.0f} {row.unit}"


def measured(name: str, on: str, device: torch.device, folder: Path | None = None) -> list[Row]:
    """The rows of one ablation on one input."""
    return list(ABLATIONS[name][0](Bench(name, on, device, folder)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, print a table for each ablation; 1 if a task failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], choices=ABLATIONS, help="one ablation; repeatable")
    parser.add_argument("--rows", choices=ABLATIONS, help="measure in this process and print the rows: a task")
    parser.add_argument("--input", choices=INPUTS, default=MIDDLE[0], help="of --rows")
    parser.add_argument("--folder", type=Path, help="of --rows: where what takes long to make is kept")
    options = add_run_arguments(parser).parse_args(argv)
    if options.rows:
        emit(measured(options.rows, options.input, use_device(options.device), options.folder))
        return 0
    rows, code = run_suite(lambda device: tasks(device, options.quick, options.only), options)
    for name in dict.fromkeys(row.settings["ablation"] for row in rows if row.settings):
        print(plain_table(*table(rows, name)), end="\n\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
