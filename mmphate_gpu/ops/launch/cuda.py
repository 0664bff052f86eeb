"""The CUDA twins of csrc/cuda: launch geometry, outputs and arguments of each op.

One function per op, with the signature of its portable version. Outputs come from torch and kernels run on torch's
current stream, so nothing needs to synchronise and there is one memory pool. `Twins` takes the function that starts a
kernel: CuPy's at the end of this file, that of an emulation on the CPU in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from .. import descent_step as descent
from ..csr import index_dtype, indptr_of_counts
from ..kth_neighbor_distance import median
from ..tile_layout import kd_order
from .kernel import Argument, Launch, Start, probe, start_with_cupy  # noqa: F401 - `twins` calls the probe of a module
from .native import SAMPLED, NativeError
from .pair_stack import ORDERED_ABOVE, TILE, KeptStack, Stack, blocks_of, new_stack

# Threads of a block in the kernels over pairs (csrc/cuda/pair_block.h).
PAIR_THREADS = 256
CSR_THREADS = 256
# Lanes that serve a row of a sparse product, and columns a lane, by the width of the block.
CSR_SHAPES = {16: (16, 1), 32: (32, 1), 64: (32, 2)}
CSR_WIDEST = (32, 4)
# Labels whose sums a block holds at once, beside 32 values: they fill the 48 KiB of shared memory of every launch.
AGGREGATE_WINDOW = 6112
GUTTMAN_THREADS = 128
GUTTMAN_POINT_THREADS = 1024
# Rows of a block share the points it reads; with many components their sums would no longer fit the registers.
GUTTMAN_ROWS = 4
GUTTMAN_NARROW = 10
DESCENT_THREADS = 256
# Blocks whose sums the last of them adds up.
DESCENT_BLOCKS = 64

# The ends of a bracket, (B,) float64, and how many others of a point, (B, n) int64, lie below it and up to its end.
Bracket = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _types(indices: torch.dtype, values: torch.dtype) -> dict[str, Any]:
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
        self._kept = KeptStack()

    def _run(self, launch: Launch, device: torch.device) -> None:
        for tensor in launch.arguments:
            if isinstance(tensor, torch.Tensor) and tensor.device != device:
                raise NativeError(f"{launch.kernel}: a tensor is on {tensor.device}; accepted: {device}, as the others")
        if launch.blocks > 0:
            self._start(launch, device)

    def _over_pairs(
        self, source: str, kernel: str, blocks: int, stack: Stack, arguments: Sequence[Argument], **types: str
    ) -> None:
        """Launch a kernel over the pairs of points with all points of their sets."""
        defines = {"MMP_P": str(stack.part)} | types
        launch = Launch(source, kernel, tuple(arguments), blocks, PAIR_THREADS, stack.shared_bytes, defines)
        self._run(launch, stack.rough.device)

    def _screened(self, points: torch.Tensor, ordered: bool = False) -> Stack:  # (B, n, p) contiguous
        """The stack of ``points``, in the order of a kd-tree if ``ordered``: O(B n p), little beside the pairs."""
        stack = self._kept.get(points, ordered)
        if stack is None:
            stack = new_stack(points, kd_order(points).to(torch.int32) if ordered else None)
            for kernel, arguments in stack.made_by(points):
                self._run(Launch("pair_screen", kernel, arguments, stack.blocks, PAIR_THREADS), points.device)
            self._kept.put(points, ordered, stack)
        return stack

    # ------------------------------------------------------------ affinities

    def radius_counts(self, points: torch.Tensor, reach: float) -> torch.Tensor:
        points = points.contiguous()
        stack = self._screened(points, ordered=points.shape[1] > ORDERED_ABOVE)
        counts = torch.zeros(points.shape[:2], dtype=torch.int64, device=points.device)
        arguments = (points, *stack.arguments, stack.order, *points.shape[1:], stack.passes, float(reach), counts)
        self._over_pairs("radius_affinity", "radius_count", stack.blocks, stack, arguments, **NO_STORAGE)
        return counts if stack.order is None else torch.empty_like(counts).scatter_(1, stack.order.long(), counts)

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
        points, indptr, gap = points.contiguous(), indptr.contiguous(), gap.contiguous()
        stack = self._screened(points)
        gap_at = torch.empty_like(gap)
        status = torch.zeros((), dtype=torch.int64, device=points.device)
        kernel = (float(reach), float(bandwidth), float(decay))
        given = (points, *stack.arguments, *points.shape, stack.passes, first, last, *kernel)
        arguments = (*given, indptr, gap, gap_at, indices, values, status)
        blocks = points.shape[0] * blocks_of(last - first, TILE)
        types = _types(indices.dtype, values.dtype)
        self._over_pairs("radius_affinity", "radius_fill", blocks, stack, arguments, **types)
        if int(status):
            raise NativeError("radius_fill: a row does not have the entries it was counted to have")
        return gap_at

    def symmetrized_affinity(
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
        points = points.contiguous()
        stack = self._screened(points)
        given = (points, *stack.arguments, bandwidth, *points.shape[1:], stack.passes, *kernel)
        counts = torch.empty(bandwidth.numel(), dtype=torch.int64, device=points.device)
        run = partial(self._over_pairs, "radius_affinity", "symmetrized_affinity", stack.blocks, stack)
        # Counting stores nothing, so any types serve. Those that filling will most likely use save a compilation.
        run((*given, None, counts, None, None), **_types(torch.int32, dtype))
        indptr = indptr_of_counts(counts)
        nnz = int(indptr[-1])
        kind = index_dtype(nnz, points.shape[1])
        indices = torch.empty(nnz, dtype=kind, device=points.device)
        values = torch.empty(nnz, dtype=dtype, device=points.device)
        run((*given, indptr, None, indices, values), **_types(kind, dtype))
        return indptr.to(kind), indices, values

    # ------------------------------------------------------------ neighbours

    def kth_neighbor_distance(self, points: torch.Tensor, k: int) -> torch.Tensor:
        points = points.contiguous()
        stack = self._screened(points)
        distances = torch.empty(points.shape[:2], dtype=torch.float64, device=points.device)
        self._kth_distances(points, stack, k, stack.blocks, None, None, distances)
        return distances

    def median_kth_neighbor_distance(self, points: torch.Tensor, k: int) -> torch.Tensor:
        points = points.contiguous()
        n_sets, n, _ = points.shape
        if n <= 4 * SAMPLED:
            return median(self.kth_neighbor_distance(points, k))
        stack = self._screened(points, ordered=True)
        n_below, between, bracket = self._around_median(points, stack, k)
        rows = torch.nonzero(between.view(-1)).squeeze(1)
        distances, order = self._kth_distances_of(points, stack, k, rows, bracket).sort()
        distances = distances[torch.argsort(rows[order] // n, stable=True)]  # by set, ascending within each
        n_between = between.sum(1)
        rank_0 = torch.cumsum(n_between, 0) - n_between - n_below
        return (distances[rank_0 + (n - 1) // 2] + distances[rank_0 + n // 2]) / 2

    def _kth_distances(
        self,
        points: torch.Tensor,
        stack: Stack,
        k: int,
        blocks: int,
        rows: torch.Tensor | None,
        bracket: Bracket | None,
        distances: torch.Tensor,
    ) -> None:
        where = (points, *stack.arguments, stack.order, *points.shape[1:], stack.passes)
        arguments = (*where, k, rows, *(bracket or (None,) * 4), distances)
        self._over_pairs("kth_neighbor_distance", "kth_neighbor_distance", blocks, stack, arguments)

    def _kth_distances_of(
        self, points: torch.Tensor, stack: Stack, k: int, rows: torch.Tensor, bracket: Bracket | None
    ) -> torch.Tensor:
        """The k-th distances of the places ``rows`` (counted over the stack, ascending), in their order.

        A block has rows of one set only, so every set begins a new block. Blocks at the end may have no rows.
        """
        n_sets, n, _ = points.shape
        sets = rows // n
        sizes = torch.bincount(sets, minlength=n_sets)
        tiles = (sizes + TILE - 1) // TILE
        skipped = (tiles.cumsum(0) - tiles) * TILE - (sizes.cumsum(0) - sizes)
        at = torch.arange(rows.numel(), device=rows.device) + skipped[sets]
        blocks = rows.numel() // TILE + n_sets
        by_block = rows.new_full((blocks * TILE,), -1).index_copy_(0, at, rows)
        distances = torch.empty(by_block.shape, dtype=torch.float64, device=rows.device)
        self._kth_distances(points, stack, k, blocks, by_block, bracket, distances)
        return distances[at]

    def _around_median(self, points: torch.Tensor, stack: Stack, k: int) -> tuple[torch.Tensor, torch.Tensor, Bracket]:
        """How many points of each set lie below a bracket around the median, which lie in it, and the bracket.

        The bracket comes from a sample. A set where it does not hold the median is taken whole: (B,), (B, n).
        """
        n_sets, n, _ = points.shape
        sample = (2 * torch.arange(SAMPLED, device=points.device) + 1) * n // (2 * SAMPLED)
        rows = (torch.arange(n_sets, device=points.device)[:, None] * n + sample).view(-1)
        sampled = self._kth_distances_of(points, stack, k, rows, None).view(n_sets, SAMPLED).sort(1).values
        # Three standard deviations of the rank of the median in the sample: 1.5 sqrt(SAMPLED).
        spread = min(SAMPLED // 2 - 1, int(1.5 * SAMPLED**0.5) + 1)
        low, high = (sampled[:, SAMPLED // 2 + side].contiguous() for side in (-spread, spread))
        below, within = torch.zeros(2, n_sets, n, dtype=torch.int64, device=points.device)
        where = (points, *stack.arguments, stack.order, n, points.shape[2], stack.passes)
        arguments = (*where, low, high, below, within)
        self._over_pairs("kth_neighbor_distance", "bracket_count", stack.blocks, stack, arguments)
        is_below = below >= k
        between = (within >= k) & ~is_below
        n_below = is_below.sum(1)
        holds = (n_below <= (n - 1) // 2) & (n_below + between.sum(1) > n // 2)
        return n_below * holds, between | ~holds[:, None], (low, high, below, within)

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
        given = (indptr, indices, values, labels.to(torch.int32).contiguous(), n, window)
        counts = torch.empty(n_rows, dtype=torch.int64, device=device)

        def run(*outputs: torch.Tensor | None) -> None:
            op, types = "landmark_aggregate", _types(indices.dtype, values.dtype)
            self._run(Launch(op, op, (*given, *outputs), n_rows, 32, 8 * (window + 32), types), device)

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
        self, distances: torch.Tensor, points: torch.Tensor, share: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        distances, points, device = distances.contiguous(), points.contiguous(), points.device
        n, n_components = points.shape
        rows = GUTTMAN_ROWS if n_components <= GUTTMAN_NARROW and n >= GUTTMAN_ROWS else 1
        types = {"MMP_DISTANCE": _c_type(distances.dtype), "MMP_C": str(n_components), "MMP_ROWS": str(rows)}
        blocks, op = blocks_of(n, rows), "guttman_transform"
        by_axis, least = distances.new_empty(n_components, n), distances.new_empty(())
        n_done = torch.empty((), dtype=torch.int32, device=device)
        arguments: tuple[Any, ...] = (points, n, float(share), by_axis, least, n_done)
        self._run(Launch(op, "guttman_points", arguments, 1, GUTTMAN_POINT_THREADS, defines=types), device)
        moved, by_block, raw = torch.empty_like(points), points.new_empty(blocks), points.new_empty(())
        arguments = (distances, by_axis, n, least, moved, by_block, n_done, raw)
        self._run(Launch(op, op, arguments, blocks, GUTTMAN_THREADS, defines=types), device)
        return moved, raw

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

        def run(kernel: str, blocks: int, *arguments: Argument) -> None:
            self._run(Launch("descent_step", kernel, arguments, blocks, DESCENT_THREADS, defines=defines), device)

        vectors = (trial_moved, points, moved, trial, step, kept, n)
        limits = (float(eps), max_iter, descent.NEAR, descent.LEAST_CURVATURE, descent.SHORTENED)
        run("descent_decision", few, *vectors, raw, points.shape[0], state, *limits, sums, weights, action)
        run("descent_places", blocks, *vectors, weights, action)


_twins = Twins(start_with_cupy)
radius_counts = _twins.radius_counts
radius_fill = _twins.radius_fill
symmetrized_affinity = _twins.symmetrized_affinity
kth_neighbor_distance = _twins.kth_neighbor_distance
median_kth_neighbor_distance = _twins.median_kth_neighbor_distance
csr_matmul = _twins.csr_matmul
landmark_aggregate = _twins.landmark_aggregate
guttman_transform = _twins.guttman_transform
descent_step = _twins.descent_step
