"""Bytes and operations of every stage, by formula: what the code of each stage holds at its worst moment."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ._trace_parts import BLOCK_ELEMENTS
from ._trace_pca import EXACT_PCA
from .operators.assemble import assembled_bytes
from .operators.lazy import FEWEST, MOST, SHARE
from .ops.chunks import CHUNK_ELEMENTS
from .ops.csr import index_dtype
from .ops.sparse_gram import DENSE_SHARE
from .ops.symmetric_power import power_chain
from .ops.tile_entries import TILE
from .params import Params

KRYLOV_BLOCKS = 5  # of `top_eigenpairs`, each n_svd + 10 columns wide
SMACOF_SWEEPS = 150  # typical
POWERS = 5  # held at once on the way to landmark_op^t, at most, for t up to 100
# Bytes a stage takes for each entry it meets, all its temporaries together.
PER_SUMMED = 24  # row sums: float64 values, offsets
PER_PLACED = 48  # intraslice entries put in their places: five int64 arrays and the values
PER_MADE = 26  # a chunk of the lazy form: the entries, their product's row offsets and the placing
PER_GRAM = 90  # an entry of the sparse Gram matrix: measured 88 to 93 (MKL's product, torch's copy, to_dense)
# The C allocator gives blocks below 32 MiB back late: what it holds of the temporaries that are gone. Measured on Linux
# with 4000 landmarks: 43 to 120 MB where the landmarks fall apart into many components, 215 to 300 MB where not.
HEAP_BLOCK = 2**25
HEAP = 2**26
HEAP_SQUARES = 1.3  # of the blocks of one product: an eighth of a square each
# Share of the landmarks that at most fall apart from the main component (measured: 0.58 and 0.71).
LOOSE = 0.7


class Entries(NamedTuple):
    """What the data decides. The defaults are upper ends of what was measured."""

    # Share of the interslice pairs at or above thresh: 0.02 to 0.03 (Hopf units), up to 0.27 (pitchfork units).
    interslice: float = 0.27
    intraslice: float = 8.0  # entries within the slice per node, the diagonal included
    alone: float = 0.0  # share of the nodes without any interslice entry
    # Share of the tiles of 128 slices by 128 that have an entry; 0.38 to 0.51 in time order.
    tiles: float = 0.51


class Cost(NamedTuple):
    """What one stage takes."""

    stage: str
    form: str  # of the result
    precision: str
    at_once: str  # what it works on at a time, where that bounds its memory
    kept: float  # bytes held until the run ends
    peak: float  # bytes at the worst moment, the result included, beside what was held before
    operations: float  # floating-point operations


class Costs:
    """The formulas; the letters are those of docs/architecture.md.

    ``cuda``: the trace has to be copied there, and no C allocator keeps anything back. ``native``: the twins serve, and
    the portable ops' chunks of distances are not needed.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        p: Params,
        *,
        dtype: torch.dtype,
        entries: Entries,
        cuda: bool = False,
        native: bool = False,
    ) -> None:
        self.S, self.M, self.D = shape[0] * shape[1], shape[2], shape[3]
        self.N = self.S * self.M
        self.L = p.most_landmarks(self.N)
        self.K = self.D if p.n_pca is None else min(self.D, p.n_pca)
        self.C = min(p.n_svd + 10, self.N)
        self.p, self.dtype, self.item, self.cuda = p, dtype, dtype.itemsize, cuda
        self.pairs = self.M * self.S * (self.S - 1)
        self.interslice = entries.interslice * self.pairs
        self.intraslice = min(entries.intraslice, self.M) * self.N
        self.nnz = self.interslice + self.intraslice
        self.active_tiles = entries.tiles
        # A slice whose units are alone has a landmark of its own, which nothing links to others.
        self.main = self.L - min(entries.alone * self.S, LOOSE * self.L)
        self.square, self.main_square = 8 * self.L**2, 8 * self.main**2
        self.reached = self._reached(entries)
        # Float64 distances and which are near; indices, ranks and values of the entries found among them.
        pairs = min(CHUNK_ELEMENTS, max(self.S, self.M) ** 2 * self.M)
        portable = pairs * (10 + 56 * entries.interslice)
        # The CUDA twins have the points in float32 too; those on the CPU one unit of them.
        self.over_pairs = (4 * self.N * self.K if cuda else 0) if native else portable

    def _reached(self, entries: Entries) -> float:
        """Entries of the transitions: nodes reach landmarks as often as nodes."""
        of_main = self.main / (self.N * max(1 - entries.alone, 1 - LOOSE))
        reached = min(self.L, 1 + self.nnz / self.N * min(1.0, of_main))
        return self.N * (1 if self.L == self.N else reached)

    # ---------------------------------------------------------------- forms of the affinity

    def sparse_bytes(self) -> int:
        return assembled_bytes(int(self.nnz), self.N, self.dtype)

    def tiles_bytes(self) -> float:
        """The active tiles on the diagonal and above it, and the order of the slices; the rest is a thousandth."""
        across = math.ceil(self.S / TILE)
        stored = self.M * across * (across * self.active_tiles + min(1, across * self.active_tiles)) / 2
        return stored * TILE**2 * torch.float16.itemsize + 8 * self.N

    def lazy_bytes(self) -> float:
        """Points unit by unit, the intraslice part, the counts."""
        index = index_dtype(int(self.intraslice), self.M).itemsize
        return 8 * self.N * self.K + self.intraslice * (self.item + index) + self.N * (index + 8)

    def form_bytes(self, storage: str) -> float:
        """What the affinity keeps in this form."""
        if storage == "sparse":
            return self.sparse_bytes()
        return self.lazy_bytes() + (self.tiles_bytes() if storage == "tiles" else 0)

    def made_at_once(self) -> float:
        """Entries of the rows that the lazy form makes at a time."""
        return min(self.nnz, MOST, max(FEWEST, self.nnz / SHARE))

    # ---------------------------------------------------------------- stages

    def trace_bytes(self) -> float:
        """The trace's copy on a GPU; on the CPU it is where it was."""
        return self.N * self.D * self.item if self.cuda else 0

    def stages(self, storage: str) -> list[Cost]:
        return [
            self._normalize(),
            self._reduce(),
            self._affinity(storage),
            self._landmarks(storage) if self.L < self.N else self._no_landmarks(),
            *self._dense(),
            self._interpolate(),
        ]

    def _normalize(self) -> Cost:
        size = self.N * self.D
        chunk = min(size, BLOCK_ELEMENTS)
        # The values, centred once and twice, squared, and sums of halves.
        working = (5 if self.p.normalize else 1) * self.item * chunk
        form, kept = f"({self.S}, {self.M}, {self.D})", 8 * size
        if self.K < self.D:  # points by blocks: mean, deviation and whether there is one, and the mean of all
            form, kept, working = f"{form} by blocks", (2 * self.item + 1) * self.N + 8 * self.D, working + 8 * chunk
        return Cost("normalize", form, "float64", _elements(chunk), kept, kept + working, 5 * size)

    def _reduce(self) -> Cost:
        N, D, K = self.N, self.D, self.K
        form = f"({self.S}, {self.M}, {K})"
        if K == D:
            return Cost("reduce", form, "float64", "", 0, 0, 0)
        smaller, chunk = min(N, D), min(N * D, BLOCK_ELEMENTS)
        if smaller > EXACT_PCA:
            width = K + 10
            working = 8 * (3 * (N + D) * width + 2 * chunk)
            operations = 16 * 2.0 * N * D * width
        else:
            # Eigenvectors of the smaller product, with the decomposition's own copies; where that is the Gram matrix
            # the loadings are put together from their blocks.
            working = 8 * (6 * smaller**2 + 2 * D * K * (D > N) + 4 * chunk)
            operations = 2.0 * N * D * smaller + 10.0 * smaller**3
        scores = 8 * (2 * N * K + 2 * chunk)  # put together from their chunks
        kept = 8 * (N * K + D * K)
        return Cost("reduce", form, "float64", _elements(chunk), kept, max(working, scores), operations)

    def _affinity(self, storage: str) -> Cost:
        lazy = self.lazy_bytes()
        passes, kept, working, at_once = 1, lazy, 0.0, ""
        placed = PER_PLACED * min(CHUNK_ELEMENTS, self.intraslice)
        if storage == "sparse":
            passes, kept, working = 3, self.sparse_bytes(), lazy + placed + 24 * self.N
        elif storage == "tiles":
            at_once = f"{CHUNK_ELEMENTS // TILE**2} tiles"
            # On CUDA the points by tiles, feature by feature, and their offsets in float32; elsewhere chunks of tiles.
            points = (24 if self.cuda else 8) * self.N * self.K
            passes, kept, working = 3, lazy + self.tiles_bytes(), 32 * CHUNK_ELEMENTS + points
        else:
            at_once = f"{_elements(self.made_at_once())} entries"
        forms = {"sparse": "CSR", "tiles": "tiles, the rest CSR", "lazy": "matrix-free"}
        precision = "fp16 tiles" if storage == "tiles" else _name(self.dtype)
        operations = 3.0 * self.K * self.pairs * passes
        return Cost("affinity", forms[storage], precision, at_once, kept, kept + working + self.over_pairs, operations)

    def _landmarks(self, storage: str) -> Cost:
        N, L, C = self.N, self.L, self.C
        stored, transitions = storage == "sparse", self.reached * (self.item + 4)
        made = 0 if stored else PER_MADE * self.made_at_once() + self.over_pairs
        together = 0 if stored else 2 * transitions + made  # rows are made chunk by chunk and then joined
        peak, operations = max(together, self._gram() + transitions), 2.0 * N * (self.reached / N) ** 2
        if self.p.landmarks == "spectral":
            product = 2.0 * C * (self.active_tiles * self.pairs if storage == "tiles" else self.nnz)
            product += 3.0 * self.K * self.pairs if storage == "lazy" else 0
            peak = max(peak, self._krylov(made if storage == "lazy" else 0, storage))
            operations += (KRYLOV_BLOCKS + 2) * product + 24.0 * N * L * C  # ten k-means steps and the seeds
        elif self.p.landmarks == "stratified":
            operations += 24.0 * N * L / self.M * self.K
        at_once = f"{C} columns" if stored else f"{_elements(self.made_at_once())} entries"
        kept = self.square + transitions + 8 * (N + L)
        return Cost("landmarks", f"({L}, {L})", "float64", at_once, kept, max(8 * N + peak, kept), operations)

    def _krylov(self, made: float, storage: str) -> float:
        """The block Krylov basis and what stands beside it.

        At its end the last image and three copies of the eigenvectors (found, negated, chosen by sign); in its products
        the scaled block and its image, on CUDA as float32 or by units too.
        """
        column = 8 * self.N
        blocks = max(1, min(KRYLOV_BLOCKS, -(-self.N // self.C)))
        copies = 2 + (2 if self.cuda and storage != "sparse" else 0)
        end = (blocks + 1) * self.C + 3 * min(self.p.n_svd, self.N)
        heap = 0 if self.cuda else min(HEAP, 6 * column * self.C)
        return max(column * end, column * (blocks + copies) * self.C + made) + heap

    def _gram(self) -> float:
        """M^T D^-1 M: by dense blocks, or as a sparse product and its dense form; then its mean with its transpose."""
        entries, square = self.reached, self.square
        if entries > DENSE_SHARE * self.N * self.L:
            # The sum, a block of as many rows as there are landmarks, their product and a piece of it.
            rows = min(1.0, self.L / self.N)
            return 3.2 * square + rows * entries * (28 + self.item) + self._heap()
        # Two steps lead to the neighbourhoods of all units of a slice; no more than every pair that a row has.
        per_node = entries / self.N
        share = min(1.0, self.M * per_node / self.main, self.N * per_node**2 / self.L**2)
        found = share * self.main**2
        return max(3 * square, square + PER_GRAM * found) + 2 * entries * 12 + self._heap()

    def _no_landmarks(self) -> Cost:
        kept = self.square + self.N * (self.item + 16)
        # Dense in the dtype of the affinity, in float64, and divided by the degrees.
        peak = kept + (1 + self.item / 8) * self.square + 16 * self.nnz + self._heap()
        return Cost("landmarks", f"({self.N}, {self.N})", "float64", "", kept, peak, 2.0 * self.N**2)

    def _dense(self) -> list[Cost]:
        """Entropy to MDS: all in squares of the landmarks, and of those that hang together."""
        L, square, main = self.L, self.square, self.main_square
        whole = self.main == L
        # Finite? takes its absolute values. Then the component, if it is not all; its Gram matrix; the solver's copy.
        entropy = max(1.25 * square, (2.2 if whole else 3.2) * main)
        powers = POWERS if self.p.t == "auto" else most_powers(int(self.p.t))
        # The scaled matrix and the result beside the powers (the first is the matrix itself if it is all of one piece);
        # or the power, its root and the root scaled.
        potential = max(3 * square, (1 if whole else 2) * square + powers * main)
        euclidean = self.p.mds_dist == "euclidean"
        # Centred rows, products, sums of norms; and the pairs too close for them.
        distances = (3.1 if euclidean else 4.1) * square + 8 * min(CHUNK_ELEMENTS, L * L)
        # Scaled distances and their float32 copy; nonmetric: pairs, their order, groups and two sets of values.
        mds = (7 if self.p.mds_solver == "nonmetric" else 1.5) * square
        columns, heap = self.p.n_components, self._heap()
        third = float(self.main) ** 3 if not whole else float(L) ** 3
        return [
            Cost("entropy", f"({self.p.t_max},)", "float64", "", 0, entropy + heap, 4 * third),
            Cost("potential", f"({L}, {L})", "float64", "", square, potential + heap, 8 * third),
            Cost("distances", f"({L}, {L})", "float64", "", square, distances + heap, 1.1 * float(L) ** 3),
            Cost("mds", f"({L}, {columns})", "float32, float64", "", 0, mds + heap, SMACOF_SWEEPS * 20.0 * L * L),
        ]

    def _interpolate(self) -> Cost:
        """And the copies that are handed out: operator, potential and transitions, nobody's but the caller's."""
        columns = self.p.n_components
        kept = self.item * self.N * columns
        copies = 2 * kept + 2 * self.square + self.reached * (self.item + 4) + self._heap()
        form = f"({self.N}, {columns})"
        return Cost("interpolate", form, _name(self.dtype), "", kept, copies, 2.0 * self.reached * columns)

    def _heap(self) -> float:
        """What the C allocator has not given back yet."""
        if self.cuda:
            return 0
        blocks = HEAP_SQUARES * self.main_square if self.main_square / 8 < HEAP_BLOCK else 0
        return min(HEAP, self.square) + blocks


def most_powers(t: int) -> int:
    """Powers of a matrix that `symmetric_power` holds at once on the way to the ``t``-th, the first always.

    >>> most_powers(1), most_powers(2), most_powers(31)
    (1, 2, 5)
    """
    chain, held, most = power_chain(t), {1}, 1
    for place, (n, a) in enumerate(chain):
        held |= {n + a}
        most = max(most, len(held))
        later = {part for step in chain[place + 1 :] for part in step}
        held = {1} | {power for power in held if power in later or power == n + a}
    return most


def _elements(n: float) -> str:
    return f"{n / 1e6:.1f}M" if n >= 1e6 else f"{n / 1e3:.0f}k" if n >= 1e3 else f"{n:.0f}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
