"""The CUDA twins of csrc/cuda: launch geometry, outputs and arguments of each op.

One function per op, with the signature of its portable version. Outputs come from torch and kernels run on torch's
current stream, so nothing is to synchronise and there is one memory pool. What starts a kernel is told to `Twins`: CuPy
at the end of this file, an emulation on the CPU in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import descent_step as descent
from ._launch import Argument, Launch, Start, probe, start_with_cupy  # noqa: F401 - `twins` calls the probe of a module
from ._native import SAMPLED, NativeError
from .csr import index_dtype, indptr_of_counts

# Points of a block, and its threads, in the kernels over pairs (csrc/common/pair_tiles.h).
TILE = 64
PAIR_THREADS = 256
CSR_THREADS = 256
# Lanes that serve a row of a sparse product, and columns a lane, by the width of the block.
CSR_SHAPES = {16: (16, 1), 32: (32, 1), 64: (32, 2)}
CSR_WIDEST = (32, 4)
AGGREGATE_WARPS = 4
# Labels whose sums a warp holds at once: 32 KiB of shared memory for the four of a block.
AGGREGATE_WINDOW = 1024
GUTTMAN_THREADS = 256
# Rows of a block share the points it reads; with many components their sums would no longer fit the registers.
GUTTMAN_ROWS = 4
GUTTMAN_NARROW = 10
DESCENT_THREADS = 256
# Blocks whose sums one warp adds up, one after the other.
DESCENT_BLOCKS = 64

# Points, in float32, and how far each set reaches: MmpStack of csrc/common/pair_tiles.h.
Stack = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def blocks_of(items: int, each: int) -> int:
    return -(-items // each)


def _types(indices: torch.dtype, values: torch.dtype) -> dict[str, str]:
    return {"MMP_INDEX": _c_type(indices), "MMP_VALUE": _c_type(values)}


def _c_type(dtype: torch.dtype) -> str:
    names = {torch.int32: "mmp_i32", torch.int64: "mmp_i64", torch.float32: "float", torch.float64: "double"}
    return names[dtype]


# Of no matter to a kernel that only counts.
NO_STORAGE = _types(torch.int32, torch.float64)


class Twins:
    """The ops over a way to start kernels."""

    def __init__(self, start: Start) -> None:
        self._start = start

    def _run(self, launch: Launch, device: torch.device) -> None:
        if launch.blocks > 0:
            self._start(launch, device)

    def _over_pairs(self, source: str, kernel: str, rows: int, arguments: Sequence[Argument], **types: str) -> None:
        """A kernel that meets ``rows`` points with all points of their sets; a screened stack comes first."""
        blocks, device = blocks_of(rows, TILE), arguments[0].device
        self._run(Launch(source, kernel, tuple(arguments), blocks, PAIR_THREADS, defines=types), device)

    def _screened(self, points: torch.Tensor) -> Stack:
        """A stack (B, n, p) as the kernels over pairs take it: with what the float32 screen has of it.

        Half the bytes of the points beside them, and one pass over them: nothing beside one over their pairs.
        """
        points = points.contiguous()
        n_sets, n, p = points.shape
        rough = torch.empty(points.shape, dtype=torch.float32, device=points.device)
        spans = torch.empty(n_sets, dtype=torch.float64, device=points.device)
        arguments = (points, n, p, rough, spans)
        self._run(Launch("pair_screen", "pair_screen", arguments, n_sets, PAIR_THREADS), points.device)
        return points, rough, spans

    # ------------------------------------------------------------ affinities

    def radius_counts(self, points: torch.Tensor, reach: float) -> torch.Tensor:
        counts = torch.empty(points.shape[:2], dtype=torch.int64, device=points.device)
        arguments = (*self._screened(points), *points.shape, float(reach), counts)
        self._over_pairs("radius_affinity", "radius_count", counts.numel(), arguments, **NO_STORAGE)
        return counts

    def radius_fill(
        self,
        points: torch.Tensor,
        bandwidth: float,
        decay: float,
        reach: float,
        first: int,
        last: int,
        indptr: torch.Tensor,
        gap: torch.Tensor,
        indices: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:
        indptr, gap = indptr.contiguous(), gap.contiguous()
        gap_at = torch.empty_like(gap)
        status = torch.zeros((), dtype=torch.int64, device=points.device)
        kernel = (float(reach), float(bandwidth), float(decay))
        given = (*self._screened(points), *points.shape, first, last, *kernel)
        arguments = (*given, indptr, gap, gap_at, indices, values, status)
        types = _types(indices.dtype, values.dtype)
        self._over_pairs("radius_affinity", "radius_fill", gap.numel(), arguments, **types)
        if int(status):
            raise NativeError("radius_fill: a row does not have the entries it was counted to have")
        return gap_at

    def symmetrised_affinity(
        self,
        points: torch.Tensor,
        bandwidth: torch.Tensor,
        decay: float,
        thresh: float,
        smallest: float,
        cut: float,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        bandwidth, kernel = bandwidth.contiguous(), (float(decay), float(thresh), float(smallest), float(cut))
        given = (*self._screened(points), bandwidth, *points.shape, *kernel)
        counts = torch.empty(bandwidth.numel(), dtype=torch.int64, device=points.device)
        op = ("radius_affinity", "symmetrised_affinity", counts.numel())
        # Counting stores nothing: the types most likely to be those of what follows save a compilation.
        self._over_pairs(*op, (*given, None, counts, None, None), **_types(torch.int32, dtype))
        indptr = indptr_of_counts(counts)
        nnz = int(indptr[-1])
        kind = index_dtype(nnz, points.shape[1])
        indices = torch.empty(nnz, dtype=kind, device=points.device)
        values = torch.empty(nnz, dtype=dtype, device=points.device)
        self._over_pairs(*op, (*given, indptr, None, indices, values), **_types(kind, dtype))
        return indptr.to(kind), indices, values

    # ------------------------------------------------------------ neighbours

    def kth_neighbor_distance(self, points: torch.Tensor, k: int) -> torch.Tensor:
        return self._kth_distances(self._screened(points), k, None).view(points.shape[:2])

    def median_kth_neighbor_distance(self, points: torch.Tensor, k: int) -> torch.Tensor:
        stack = self._screened(points)
        n_sets, n, _ = points.shape
        n_below = torch.zeros(n_sets, dtype=torch.int64, device=points.device)
        between = torch.ones(n_sets, n, dtype=torch.bool, device=points.device)
        if n > 4 * SAMPLED:
            n_below, between = self._around_median(stack, k)
        rows = torch.nonzero(between.view(-1)).squeeze(1)
        distances, order = self._kth_distances(stack, k, rows).sort()
        distances = distances[torch.argsort(rows[order] // n, stable=True)]  # by set, ascending within each
        n_between = between.sum(1)
        rank_0 = torch.cumsum(n_between, 0) - n_between - n_below
        return (distances[rank_0 + (n - 1) // 2] + distances[rank_0 + n // 2]) / 2

    def _kth_distances(self, stack: Stack, k: int, rows: torch.Tensor | None) -> torch.Tensor:
        """The k-th distances of the points ``rows`` (counted over the stack), or of all."""
        points = stack[0]
        n_rows = points.shape[0] * points.shape[1] if rows is None else rows.numel()
        distances = torch.empty(n_rows, dtype=torch.float64, device=points.device)
        arguments = (*stack, *points.shape[1:], k, rows, n_rows, distances)
        self._over_pairs("kth_neighbor_distance", "kth_neighbor_distance", n_rows, arguments)
        return distances

    def _around_median(self, stack: Stack, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """How many points of each set lie below a bracket around the median, and which lie in it.

        The bracket comes from a sample. A set where it does not hold the median is taken whole: (B,), (B, n).
        """
        points = stack[0]
        n_sets, n, _ = points.shape
        sample = (2 * torch.arange(SAMPLED, device=points.device) + 1) * n // (2 * SAMPLED)
        rows = (torch.arange(n_sets, device=points.device)[:, None] * n + sample).view(-1)
        sampled = self._kth_distances(stack, k, rows).view(n_sets, SAMPLED).sort(1).values
        # Three standard deviations of the rank of the median in the sample: 1.5 sqrt(SAMPLED).
        spread = min(SAMPLED // 2 - 1, int(1.5 * SAMPLED**0.5) + 1)
        bracket = (sampled[:, SAMPLED // 2 + side].contiguous() for side in (-spread, spread))
        below = torch.empty(n_sets, n, dtype=torch.int64, device=points.device)
        within = torch.empty_like(below)
        arguments = (*stack, *points.shape, *bracket, below, within)
        self._over_pairs("kth_neighbor_distance", "bracket_count", n_sets * n, arguments)
        is_below = below >= k
        between = (within >= k) & ~is_below
        n_below = is_below.sum(1)
        holds = (n_below <= (n - 1) // 2) & (n_below + between.sum(1) > n // 2)
        return n_below * holds, between | ~holds[:, None]

    # ------------------------------------------------------------ sparse matrices

    def csr_matmul(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        values: torch.Tensor,
        block: torch.Tensor,
        interleave: int,
    ) -> torch.Tensor:
        indptr, indices, values, block = (part.contiguous() for part in (indptr, indices, values, block))
        n_rows, width = indptr.numel() - 1, block.shape[1]
        out = torch.empty(n_rows, width, dtype=block.dtype, device=block.device)
        lanes, per_lane = next((shape for most, shape in CSR_SHAPES.items() if width <= most), CSR_WIDEST)
        tasks = blocks_of(blocks_of(n_rows, interleave) * interleave, CSR_THREADS // lanes)
        blocks = tasks * blocks_of(width, lanes * per_lane)
        types = _types(indices.dtype, values.dtype) | {"MMP_BLOCK": _c_type(block.dtype)}
        types |= {"MMP_LANES": str(lanes), "MMP_PER_LANE": str(per_lane)}
        arguments = (indptr, indices, values, block, out, n_rows, width, interleave)
        self._run(Launch("csr_matmul", "csr_matmul", arguments, blocks, CSR_THREADS, defines=types), block.device)
        return out

    def landmark_aggregate(
        self, indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, labels: torch.Tensor, n: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indptr, indices, values = indptr.contiguous(), indices.contiguous(), values.contiguous()
        n_rows, device = indptr.numel() - 1, values.device
        window = min(AGGREGATE_WINDOW, blocks_of(n, 32) * 32)
        given = (indptr, indices, values, labels.to(torch.int32).contiguous(), n_rows, n, window)
        counts = torch.empty(n_rows, dtype=torch.int64, device=device)

        def run(*outputs: torch.Tensor | None) -> None:
            threads, shared = 32 * AGGREGATE_WARPS, 8 * AGGREGATE_WARPS * window
            op, blocks = "landmark_aggregate", blocks_of(n_rows, AGGREGATE_WARPS)
            types = _types(indices.dtype, values.dtype)
            self._run(Launch(op, op, (*given, *outputs), blocks, threads, shared, types), device)

        run(None, counts, None, None)
        out_indptr = indptr_of_counts(counts)
        nnz = int(out_indptr[-1])
        out_indices = torch.empty(nnz, dtype=torch.int32, device=device)
        out_values = torch.empty(nnz, dtype=values.dtype, device=device)
        run(out_indptr, None, out_indices, out_values)
        kind = index_dtype(nnz, n)
        return out_indptr.to(kind), out_indices.to(kind), out_values

    # ------------------------------------------------------------ MDS

    def guttman_transform(
        self, distances: torch.Tensor, points: torch.Tensor, together: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        distances, points = distances.contiguous(), points.contiguous()
        n, n_components = points.shape
        moved = torch.empty_like(points)
        raw = torch.empty(n, dtype=torch.float64, device=points.device)
        rows = GUTTMAN_ROWS if n_components <= GUTTMAN_NARROW else 1
        types = {"MMP_DISTANCE": _c_type(distances.dtype), "MMP_C": str(n_components), "MMP_ROWS": str(rows)}
        arguments, op = (distances, points, n, together, moved, raw), "guttman_transform"
        self._run(Launch(op, op, arguments, blocks_of(n, rows), GUTTMAN_THREADS, defines=types), points.device)
        return moved, raw.sum()

    def descent_step(
        self,
        trial_moved: torch.Tensor,
        raw: torch.Tensor,
        points: torch.Tensor,
        moved: torch.Tensor,
        trial: torch.Tensor,
        step: torch.Tensor,
        kept: torch.Tensor,
        state: torch.Tensor,
        eps: float,
        max_iter: int,
    ) -> None:
        trial_moved = trial_moved.contiguous()
        device, n, rows = points.device, points.numel(), kept.shape[0]
        defines = {"MMP_DEPTH": str(rows // 2)}
        blocks = blocks_of(n, DESCENT_THREADS)
        few = min(blocks, DESCENT_BLOCKS)
        sums = torch.empty(few, 3 * rows + 1, dtype=torch.float64, device=device)
        weights = torch.empty(rows + 1, dtype=torch.float64, device=device)
        action = torch.empty((), dtype=torch.int64, device=device)

        def run(kernel: str, blocks: int, threads: int, *arguments: Argument) -> None:
            self._run(Launch("descent_step", kernel, arguments, blocks, threads, defines=defines), device)

        places = (points, moved, trial, step)
        run("descent_products", few, DESCENT_THREADS, trial_moved, *places, kept, n, state, sums)
        limits = (float(eps), max_iter, descent.NEAR, descent.LEAST_CURVATURE, descent.SHORTENED)
        run("descent_decision", 1, 32, sums, few, raw, points.shape[0], state, *limits, weights, action)
        run("descent_places", blocks, DESCENT_THREADS, trial_moved, *places, kept, n, weights, action)


_twins = Twins(start_with_cupy)
radius_counts = _twins.radius_counts
radius_fill = _twins.radius_fill
symmetrised_affinity = _twins.symmetrised_affinity
kth_neighbor_distance = _twins.kth_neighbor_distance
median_kth_neighbor_distance = _twins.median_kth_neighbor_distance
csr_matmul = _twins.csr_matmul
landmark_aggregate = _twins.landmark_aggregate
guttman_transform = _twins.guttman_transform
descent_step = _twins.descent_step
