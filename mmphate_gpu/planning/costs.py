"""Bytes and operations of every stage: what the code of the stage holds at its worst moment.

The letters are those of docs/architecture.md: S = E T slices, M units, N = S M nodes, P samples, D features after PCA,
L landmarks, C columns of the landmarks' basis. A formula names the module that it describes. Terms that are never 2 %
of the peak of a run are left out (docs/decisions.md, "The memory planner leaves small terms out").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from ..diffusion.entropy import PROBES, SAMPLE_ABOVE
from ..linalg.singular_value_sample import BLOCK, N_LEADING, N_PASSES, N_STEPS
from ..linalg.sparse_gram import DENSE_SHARE, block_rows
from ..linalg.symmetric_power import most_powers
from ..linalg.symmetric_product import BLOCKS
from ..mds.refine import N_REPELLING, NODES_AT_ONCE, SWEEPS, n_neighbors
from ..mds.starts import SURPLUS
from ..operators.assemble import ENTRY_BYTES, assembled_bytes, entries_at_once
from ..operators.choose import suits_half
from ..ops.chunks import CHUNK_ELEMENTS, CUDA_CHUNK_ELEMENTS
from ..ops.csr import index_dtype
from ..ops.gaussian_product import FEATURES, FEW_FEATURES
from ..ops.pair_stack import TILE as PAIR_TILE
from ..ops.point_tiles import COLUMNS, TILE, n_tiles
from ..params import Params
from ..trace.pca import EXACT_PCA
from ..trace.stored import BLOCK_ELEMENTS
from .sample import Entries, intraslice_entries

KRYLOV_BLOCKS = 5  # of `top_eigenpairs` in landmarks/spectral.py, each C = n_svd + 10 columns wide
CLASSIC_BLOCKS = 8  # of `top_eigenpairs` in mds/classic.py, each n_components + 10 columns wide
SMACOF_SWEEPS = 150  # a typical number
SMACOF_ARRAYS = 20  # (L, n_components): the start, 5 of the descent, 10 of kept steps, temporaries. Measured: 20
AUTO_POWERS = 4  # `most_powers` of the worst t up to 100
PLACED_ENTRY = 96  # bytes: ten int64 arrays in operators/assemble.py and their temporaries. Measured: 98
SCIPY = 57e6  # bytes of SciPy's optimizers, which nonmetric MDS imports
# Bytes of the portable ops/radius_affinity.py: of a pair its float64 distance and two flags; of an entry its index,
# row, column, set, point, place and value.
PORTABLE_PAIR, PORTABLE_ENTRY = 8 + 2, 7 * 8
# csrc/cpu/csr_matmul.cpp: the rows that AVX-512 multiplies together (narrower registers multiply four), and the bytes,
# the least rows and the most columns of a band.
GATHERED_ROWS, BAND_BYTES, LEAST_BAND, WIDEST_BAND = 8, 2**19, 64, 2**16
# Bytes of an entry in linalg/sparse_gram.py: row, column and value for a dense block; for sparse rows the float64
# value, and value and column of the transpose.
GRAM_ENTRY = 3 * 8
FLAG = 1 / 8  # bytes of a flag, in float64 numbers
# The loose pieces take at most this share of the landmarks: 2889 pieces of the bifurcation suite (Hopf and pitchfork)
# left 1672 of 3994 landmarks to the main component.
LOOSE_SHARE = 0.58
# The C allocator keeps freed blocks: some of the size of a Krylov block or of a square, up to the 64 MiB that glibc
# leaves on top of its heap. Measured with 1000 to 4000 landmarks: 14 to 90 MB; 126 to 159 MB after a dense Gram matrix.
RETAINED, RETAINED_SQUARES, RETAINED_BLOCKS = 2**26, 6, 17
# Arrays of nonmetric MDS below this size stay in the heap, too: it took 9.5 to 11 squares with 1000 to 2400 landmarks
# and 6.6 with 3600.
MAPPED = 2**25


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take."""

    stage: str
    form: str  # of the result
    precision: str
    at_once: str  # the size of a block of the work, where blocks bound the memory
    bytes: int  # kept until the run ends
    peak_bytes: int  # at the worst moment of the stage, with the results of the stages before it
    operations: float  # floating-point operations


class Machine(NamedTuple):
    """What a run computes on."""

    free_bytes: int  # of the device
    cuda: bool = False  # the trace is copied to a GPU, and no C allocator keeps freed blocks
    native: bool = False  # the C++ or CUDA versions of the ops run, which need no chunks of distances
    triton: bool = False  # the matrix-free form multiplies tiles that it makes on the fly


class Costs:
    """The formulas for one run."""

    def __init__(
        self, shape: tuple[int, int, int, int], p: Params, dtype: torch.dtype, entries: Entries, machine: Machine
    ) -> None:
        self.free_bytes, self.cuda, native, triton = machine
        self.S, self.M, self.P = shape[0] * shape[1], shape[2], shape[3]
        self.N = self.S * self.M
        self.D = self.P if p.n_pca is None else min(self.P, p.n_pca)
        self.L = p.most_landmarks(self.N)
        self.C = min(p.n_svd + 10, self.N)
        self.p, self.dtype, self.item = p, dtype, dtype.itemsize
        # Entries of the affinity.
        self.pairs = self.N * (self.S - 1)
        self.interslice = entries.interslice * self.pairs
        per_node = intraslice_entries(self.M, self.D, p) if entries.intraslice is None else entries.intraslice
        self.intraslice = min(per_node, self.M) * self.N
        self.nnz = self.interslice + self.intraslice
        # Pairs of tiles with an entry. One of two that are each other's transpose is stored.
        self.tiles = self.M * n_tiles(self.S)
        self.active_tiles = self.tiles * n_tiles(self.S) * entries.tiles
        self.stored_tiles = (self.active_tiles + min(self.active_tiles, self.tiles)) / 2
        self.fused = triton and suits_half(p.thresh)
        # Every loose piece has a landmark of its own. The others are in one component.
        self.main = self.L - min(entries.loose * self.S, LOOSE_SHARE * self.L)
        self.square, self.main_square = 8 * self.L**2, 8 * self.main**2
        # Entries of the transitions: a linked node has entries in as large a share of the main component's landmarks.
        reached = 1 + self.nnz / self.N * min(1, self.main / (self.N * max(1 - entries.alone, 1 - LOOSE_SHARE)))
        self.reached = self.N * (1 if self.L == self.N else min(self.L, reached))
        chunk = min(CHUNK_ELEMENTS, max(self.S, self.M) ** 2 * self.M)
        self.portable = 0 if native else chunk * (PORTABLE_PAIR + PORTABLE_ENTRY * entries.interslice)
        # csrc/cpu/csr_matmul.cpp, for the float32 block of the landmarks' basis: each thread has, for every column of a
        # band, the float32 entries of the gathered rows twice, the column, and the address of its row of the block.
        band = min(WIDEST_BAND, max(LEAST_BAND, BAND_BYTES // (4 * self.C + 1)) * self.M, self.N)
        column = 2 * GATHERED_ROWS * 4 + 8 + 8
        self.gathered = torch.get_num_threads() * column * band if native and not self.cuda else 0

    def stages(self, storage: str, held: float = 0) -> tuple[StagePlan, ...]:
        """All stages with the affinity in this form; ``held`` bytes are in use before the first."""
        landmarks = self._landmarks(storage) if self.L < self.N else self._no_landmarks()
        points, affinity = (self._normalize(), self._reduce()), self._affinity(storage)
        squares = self._entropy(), self._potential(), self._distances(), self._mds()
        plans = []
        for stage in (*points, affinity, landmarks, *squares, self._interpolate()):
            plans.append(replace(stage, peak_bytes=int(held + stage.peak_bytes)))
            held += stage.bytes
        return tuple(plans)

    def trace_bytes(self) -> float:
        """The copy of the trace on a GPU. On the CPU the trace is not copied."""
        return self.N * self.P * self.item if self.cuda else 0

    # ---------------------------------------------------------------- forms of the affinity

    def form_bytes(self, storage: str) -> float:
        """What the affinity keeps in this form: beside the lazy form tiles in half precision (operators/tiles.py), or
        float32 points by tile and feature (operators/lazy_fused.py); with either the order of the slices of each unit.
        """
        if storage == "sparse":
            return assembled_bytes(int(self.nnz), self.N, self.dtype)
        if storage == "tiles":
            return self.lazy_bytes() + 2 * self.stored_tiles * TILE**2 + 8 * self.N
        features = self.D if self.D <= FEW_FEATURES else -(-self.D // FEATURES) * FEATURES
        return self.lazy_bytes() + (4 * features * self.tiles * TILE + 8 * self.N if self.fused else 0)

    def lazy_bytes(self) -> float:
        """operators/exact_rows.py: points by unit, intraslice entries, counts and row offsets.

        On CUDA also the last `Stack` of ops/pair_stack.py, which ops/launch/cuda.py keeps: the points in float32.
        """
        index = index_dtype(int(self.intraslice), self.M).itemsize
        points = (8 + 4 * self.cuda) * self.N * self.D
        return points + self.intraslice * (self.item + index) + self.N * (index + 8)

    def _multiplies_tiles(self, storage: str) -> bool:
        return storage == "tiles" or (storage == "lazy" and self.fused)

    def _rows_at_once(self) -> float:
        """operators/assemble.py: entries of the rows that are made at a time."""
        return min(self.nnz, entries_at_once(self.nnz, self.free_bytes if self.cuda else None))

    # ---------------------------------------------------------------- points and affinity

    def _normalize(self) -> StagePlan:
        """trace/points.py and trace/scale.py: float64 points (S, M, P), or where PCA follows the `Scale` of each node.

        The peak is in `scale_of`, at the variance. Held then: the result, and of one block the values, the scaled ones,
        those centered, those centered again and squared in place, and the runs that `pairwise_sum` gathers of these.
        """
        values, form = self.N * self.P, str((self.S, self.M, self.P))
        block = min(values, BLOCK_ELEMENTS)
        work = (5 if self.p.normalize else 1) * self.item * block
        kept = 8 * values
        if self.D < self.P:
            form, kept, work = f"{form} by blocks", (3 * self.item + 1) * self.N, work + 8 * block
        kept += 8 * self.N  # the resolution of each node
        return _stage("normalize", form, kept, kept + work, 5 * values, at_once=_count(block))

    def _reduce(self) -> StagePlan:
        """trace/pca.py. Held while the loadings are computed: what the branch says. Held afterwards: scores, twice."""
        N, P, D = self.N, self.P, self.D
        if D == P:
            return _stage("reduce", (self.S, self.M, D), 0, 0, 0)
        smaller, block = min(N, P), min(N * P, BLOCK_ELEMENTS)
        if smaller > EXACT_PCA:  # three bases of the randomized iteration
            loadings = 3 * (N + P) * (D + 10) + 2 * block
            operations = 16 * 2.0 * N * P * (D + 10)
        else:  # covariance or Gram matrix, eigenvectors and the solver's copies; of a Gram matrix the loadings, twice
            loadings = 6 * smaller**2 + 2 * P * D * (P > N) + 4 * block
            operations = 2.0 * N * P * smaller + 10.0 * smaller**3
        kept, peak = 8 * (N * D + P * D), 8 * max(loadings, 2 * N * D + 2 * block)
        return _stage("reduce", (self.S, self.M, D), kept, peak, operations, at_once=_count(block))

    def _affinity(self, storage: str) -> StagePlan:
        """operators/multislice.py, beside the result: what fills it, or earlier a copy of the points.

        ``passes`` over all pairs find the bandwidths, count the entries (not for "lazy"), and fill.
        """
        points, kept = 8 * self.N * self.D, self.form_bytes(storage)
        passes, work, at_once = 1.0, 0.0, ""
        if storage == "sparse":  # the lazy form, and temporaries while a chunk of rows is placed
            passes = 3
            work = self.lazy_bytes() + PLACED_ENTRY * self.intraslice * min(1, CHUNK_ELEMENTS / (self.N * self.M))
        elif storage == "tiles":  # chunks of tiles in float64; points by tiles, on CUDA by feature and with offsets
            passes = 2.5 + self.stored_tiles * TILE**2 / self.pairs
            work = 32 * CHUNK_ELEMENTS + (3 if self.cuda else 1) * points
            at_once = f"{CHUNK_ELEMENTS // TILE**2} tiles"
        else:
            at_once = f"{_count(self._rows_at_once())} entries"
            if self.fused:  # scaled points
                passes, work = 1.5, points
        if self.cuda:  # points in the order of a kd-tree; earlier the float32 points of every slice in tiles
            by_slice = 4 * self.S * -(-self.M // PAIR_TILE) * PAIR_TILE * self.D
            work = max(work + points, by_slice - kept)
        peak = kept + max(work, points) + self.portable
        form = {"sparse": "CSR", "tiles": "tiles, the rest CSR", "lazy": "matrix-free"}[storage]
        precision = "fp16 tiles" if storage == "tiles" else _name(self.dtype)
        return _stage("affinity", form, kept, peak, 3.0 * self.D * self.pairs * passes, precision, at_once)

    # ---------------------------------------------------------------- landmarks

    def _landmarks(self, storage: str) -> StagePlan:
        """landmarks/operator.py. Three moments: the basis, the aggregated rows, the Gram matrix of the transitions."""
        N, L, stored = self.N, self.L, storage == "sparse"
        transitions = self.reached * (self.item + 4)
        rows = 0 if stored else ENTRY_BYTES * self._rows_at_once() + self.portable
        aggregated = 0 if stored else 2 * transitions + rows  # chunks of rows, then joined
        spectral = self.p.landmarks == "spectral"
        peak = max(self._krylov(storage, rows) if spectral else 0, aggregated, self._gram() + transitions)
        operations = 2.0 * self.reached**2 / N
        if spectral:  # the basis, the features, and ten steps of k-means with their seeds
            operations += (KRYLOV_BLOCKS + 2) * self._product(storage) + 24.0 * N * L * self.C
        elif self.p.landmarks == "stratified":
            operations += 24.0 * N * L / self.M * self.D
        kept = self.square + transitions + 8 * N
        at_once = f"{self.C} columns" if stored else f"{_count(self._rows_at_once())} entries"
        return _stage("landmarks", (L, L), kept, max(peak, kept), operations, at_once=at_once)

    def _krylov(self, storage: str, rows: float) -> float:
        """linalg/block_krylov.py, float32: the basis, the scaled block and its image, and what makes the product.

        On a CPU pages of the basis take no memory until they are written to. On CUDA they do.
        """
        block = 4 * self.N * self.C
        blocks = max(1, min(KRYLOV_BLOCKS, -(-self.N // self.C))) + 2 + self.cuda
        chunk = 16 * CUDA_CHUNK_ELEMENTS if self.cuda else 0  # float64 copies
        product: float = self.gathered
        if self._multiplies_tiles(storage):  # ops/tile_block.py: the block in half precision, sums in float32
            product += 6 * -(-self.C // COLUMNS) * COLUMNS * TILE * self.tiles
        elif storage == "lazy":
            product += rows
        return blocks * block + product + chunk + self._retained_krylov()

    def _gram(self) -> float:
        """linalg/sparse_gram.py: squares of the sum and of a product; a dense block and its entries, or sparse rows."""
        work = GRAM_ENTRY * self.reached
        if self.cuda or self.reached > DENSE_SHARE * self.N * self.L:
            rows = block_rows(self.N, self.L, torch.device("cuda" if self.cuda else "cpu"))
            work = self.square / BLOCKS + 8 * rows * self.L + work * rows / self.N
        return 2 * self.square + work + self._retained()

    def _product(self, storage: str) -> float:
        """Operations of one product with C columns: those of the entries, and of the pairs that are made for it."""
        in_tiles = self.active_tiles * TILE**2
        entries = in_tiles + self.intraslice if self._multiplies_tiles(storage) else self.nnz
        made = 0 if storage != "lazy" else in_tiles if self.fused else self.pairs
        return 2.0 * self.C * entries + 3.0 * self.D * made

    def _no_landmarks(self) -> StagePlan:
        """landmarks/operator.py: the dense operator in the dtype of the affinity and in float64, made of a CSR copy."""
        peak = (1 + self.item / 8) * self.square + 16 * self.nnz + self._retained()
        return _stage("landmarks", (self.N, self.N), self.square, peak, 2.0 * self.N**2)

    # ---------------------------------------------------------------- squares of the landmarks

    def _entropy(self) -> StagePlan:
        """diffusion/entropy.py: singular values of the main component, all of them or a sample."""
        n = self.main
        if n <= SAMPLE_ABOVE["cuda" if self.cuda else "cpu"]:  # its Gram matrix, a block of that, and the solver's copy
            work, operations = (2 + 1 / BLOCKS) * self.main_square, 4.0 * n**3
        else:  # its squared entries, or the leading vectors and the Lanczos bases of the last probes
            work = max(self.main_square, 8 * n * (N_LEADING + PROBES[-1] * (N_STEPS + 6)))
            operations = 4.0 * (N_PASSES * BLOCK + N_LEADING + PROBES[0] * N_STEPS) * n**2
        # First `isfinite` of the whole matrix: absolute values and two flags. Then the component, copied if smaller.
        peak = max((1 + 2 * FLAG) * self.square, (n < self.L) * self.main_square + work) + self._retained()
        peak += (self.p.t == "eigenvalues") * self.square  # the symmetric form
        return _stage("entropy", (self.p.t_max,), 0, peak, operations)

    def _potential(self) -> StagePlan:
        """diffusion/power.py: the scaled matrix, powers of the main component and blocks of one product.

        Where the main component is the whole matrix, that is the first power. Afterwards: the power and its root.
        """
        powers = AUTO_POWERS if self.p.chooses_t else most_powers(int(self.p.t))
        work = (self.main < self.L) * self.square + (powers + 1 / BLOCKS) * self.main_square
        peak = max(work, 2 * self.square) + self._retained()
        return _stage("potential", (self.L, self.L), self.square, peak, 8 * float(self.main) ** 3)

    def _distances(self) -> StagePlan:
        """diffusion/potential.py: centered rows and products, for cosine also scaled rows twice; close pairs.

        mds/islands.py needs chunks only, when the centered rows are gone.
        """
        squares = (2 if self.p.mds_dist == "euclidean" else 4) + 1 / BLOCKS
        peak = squares * self.square + 8 * min(CHUNK_ELEMENTS, self.L**2)
        # On CUDA a product is in one piece. Later the distances, up to a square of indices, and both rows of every pair
        # of a block may take more.
        if self.cuda:
            scaled = 2 * self.square if self.p.mds_dist == "cosine" else 0
            peak = max(squares * self.square, scaled + 2 * self.square + 16 * min(CUDA_CHUNK_ELEMENTS, self.L**2))
        peak += self._retained()
        of_states = 6.0 * self.D * self.L**2 if self.p.islands == "states" else 0.0
        return _stage("distances", (self.L, self.L), self.square, peak, 1.1 * float(self.L) ** 3 + of_states)

    def _mds(self) -> StagePlan:
        """mds/metric.py: classical MDS, SMACOF from there, further starts one by one, nonmetric MDS from there."""
        L, square, further = self.L, self.square, self.p.further_starts
        C = min(self.p.n_components + SURPLUS * further, self.L)  # dimensions of the last start
        # Squared distances, Krylov basis and two of its blocks, projected matrix and eigenvectors.
        width = min(CLASSIC_BLOCKS * (C + 10), L)
        peak = square + 8 * L * (width + 2 * (C + 10)) + 16 * width**2 + self._retained()
        if self.p.mds_solver != "classic":
            # First the distances, scaled and in float32. Then the float32 distances and the arrays of the descent.
            peak = max(peak, max(1.5 * square, 0.5 * square + SMACOF_ARRAYS * 8 * L * C) + self._retained())
        if self.p.mds_solver == "nonmetric":
            # Half a square each: pairs, order, groups, values twice, temporaries of the regression.
            squares = 7 if self.cuda or square / 2 >= MAPPED else 11
            peak = max(peak, squares * square + (0 if self.cuda else SCIPY))
        operations = (1 + further) * SMACOF_SWEEPS * 20.0 * L * L
        return _stage("mds", (L, self.p.n_components), 0, peak, operations, "float32, float64")

    def _interpolate(self) -> StagePlan:
        """pipeline.py, estimator.py: coordinates and two copies; for `transform` float64 ones and points; neighbors."""
        coordinates = self.N * self.p.n_components
        kept = self.item * coordinates
        peak = 3 * kept + 16 * coordinates + 8 * self.N * self.D + self._retained()
        operations = 2.0 * self.reached * self.p.n_components
        if k := n_neighbors(self.p.refine_knn, self.S):  # mds/refine.py: distances, indices, points
            peak += (16 * k + 8 * self.D) * self.N + 5 * self.item * coordinates + 8 * k * min(self.N, NODES_AT_ONCE)
            pair = 6 * self.p.n_components + 20  # operations
            operations += 3.0 * self.D * self.pairs + SWEEPS * (k + N_REPELLING) * pair * self.N
        return _stage("interpolate", (self.N, self.p.n_components), kept, peak, operations, _name(self.dtype))

    # ---------------------------------------------------------------- freed blocks that the C allocator keeps

    def _retained_krylov(self) -> float:
        """Blocks as wide as those of the Krylov basis."""
        no_basis = self.cuda or self.L == self.N or self.p.landmarks != "spectral"
        return 0 if no_basis else min(RETAINED, RETAINED_BLOCKS * 4 * self.N * self.C)

    def _retained(self) -> float:
        """Those blocks, or squares."""
        return 0 if self.cuda else max(self._retained_krylov(), min(RETAINED, RETAINED_SQUARES * self.square))


def _stage(
    name: str, form: Any, kept: float, peak: float, operations: float, precision: str = "float64", at_once: str = ""
) -> StagePlan:
    """The stage by itself, in whole bytes; ``form`` is the shape of the result, or words."""
    return StagePlan(name, str(form), precision, at_once, int(kept), int(peak), operations)


def _count(n: float) -> str:
    return f"{n / 1e6:.1f}M" if n >= 1e6 else f"{n / 1e3:.0f}k" if n >= 1e3 else f"{n:.0f}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
