"""Bytes and operations of every stage, by formula: what the code of each stage holds at its worst moment."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..diffusion.entropy import PROBES, SAMPLE_ABOVE
from ..linalg.singular_value_sample import BLOCK, N_LEADING, N_PASSES, N_STEPS
from ..linalg.sparse_gram import DENSE_SHARE, block_rows
from ..linalg.symmetric_power import most_powers
from ..linalg.symmetric_product import BLOCKS
from ..operators.assemble import assembled_bytes, entries_at_once
from ..ops.chunks import CHUNK_ELEMENTS, CUDA_CHUNK_ELEMENTS
from ..ops.csr import index_dtype
from ..ops.launch.pair_stack import TILE as PAIR_TILE
from ..ops.radius_affinity import cut_radius
from ..ops.tile_block import COLUMNS
from ..ops.tile_entries import TILE
from ..ops.tile_layout import n_tiles
from ..params import Params
from ..trace.pca import EXACT_PCA
from ..trace.stored import BLOCK_ELEMENTS

KRYLOV_BLOCKS = 5  # of `top_eigenpairs`, each n_svd + 10 columns wide
CLASSIC_BLOCKS = 8  # Krylov blocks of `classic`, each n_components + 10 columns wide
SMACOF_SWEEPS = 150  # typical
SMACOF_ARRAYS = 20  # arrays of coordinates: the start, 5 of the descent, 10 of kept steps, temporaries. Measured: 20
POWERS = 4  # held at once on the way to landmark_op^t, at most, for t up to 100
# Bytes a stage takes for each entry it meets, all its temporaries together.
PER_PLACED = 96  # intraslice entries sorted into node order: ten int64 arrays and their temporaries. Measured: 98
PER_MADE = 26  # a chunk of the lazy form: the entries, their product's row offsets and the placing
# What the C allocator holds of the temporaries that are gone: of some float64 blocks as wide as those of the Krylov
# basis, and of a few squares, up to the 64 MiB that glibc leaves on top of its heap. Measured with 1000 to 4000
# landmarks: 14 to 90 MB, 126 to 159 MB after a dense Gram matrix.
HEAP, HEAP_BLOCKS = 2**26, 6
# Smaller blocks the allocator does not give back one by one: nonmetric MDS, whose arrays are half a square each, took
# 9.5 to 11 squares with 1000 to 2400 landmarks and 6.6 with 3600.
HEAP_BLOCK = 2**25
SCIPY = 57e6  # its optimisers, loaded when first asked for
# Share of the landmarks that at most fall apart from the main component, however many loose pieces there are: 2889 of
# them in the bifurcation suite (Hopf and pitchfork) left 1672 of 3994 landmarks in it.
LOOSE = 0.58
# The interslice products of the matrix-free form on CUDA read points with a multiple of so many features above it.
FEATURES = 16


class Entries(NamedTuple):
    """What the data decides. The defaults are upper ends of what was measured."""

    # Share of the interslice pairs at or above thresh: 0.02 to 0.03 (Hopf units), up to 0.27 (pitchfork units).
    interslice: float = 0.27
    # Entries within the slice per node, the diagonal included. None: estimated for units that are independent.
    intraslice: float | None = None
    alone: float = 0.0  # share of the nodes without any interslice entry
    # Share of the tiles of 128 slices by 128 that have an entry; 0.38 to 0.51 in time order.
    tiles: float = 0.51
    # Pieces of a slice, linked among themselves, of nodes that are alone all: linked to nothing else. For each slice.
    loose: float = 0.0


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

    ``room`` is the number of free bytes of the device. ``cuda``: the trace has to be copied to a GPU, and no C
    allocator keeps memory back. ``native``: the twins serve, and the portable ops' chunks of distances are not needed.
    ``triton``: Triton's twins serve too, so that the matrix-free form multiplies by tiles made on the fly.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        p: Params,
        *,
        dtype: torch.dtype,
        entries: Entries,
        room: int,
        cuda: bool = False,
        native: bool = False,
        triton: bool = False,
    ) -> None:
        self.S, self.M, self.D = shape[0] * shape[1], shape[2], shape[3]
        self.N = self.S * self.M
        self.L = p.most_landmarks(self.N)
        self.K = self.D if p.n_pca is None else min(self.D, p.n_pca)
        self.C = min(p.n_svd + 10, self.N)
        self.p, self.dtype, self.item, self.cuda, self.room = p, dtype, dtype.itemsize, cuda, room
        self.pairs = self.M * self.S * (self.S - 1)
        self.interslice = entries.interslice * self.pairs
        intraslice = self.M * self._near_units() if entries.intraslice is None else min(entries.intraslice, self.M)
        self.intraslice = intraslice * self.N
        self.nnz = self.interslice + self.intraslice
        # Pairs of tiles with an entry; of two that are each other's transpose one is stored.
        in_all = n_tiles(self.S)
        self.active_tiles = self.M * in_all**2 * entries.tiles
        self.stored_tiles = (self.active_tiles + min(self.active_tiles, self.M * in_all)) / 2
        self.fused = triton and p.thresh >= torch.finfo(torch.float16).tiny
        # A loose piece has a landmark of its own, which nothing links to others.
        self.main = self.L - min(entries.loose * self.S, LOOSE * self.L)
        self.square, self.main_square = 8 * self.L**2, 8 * self.main**2
        self.reached = self._reached(entries)
        # Float64 distances and which are near; indices, ranks and values of the entries found among them.
        pairs = min(CHUNK_ELEMENTS, max(self.S, self.M) ** 2 * self.M)
        self.portable = 0 if native else pairs * (10 + 56 * entries.interslice)
        self.gathered = self._gathered() if native and not cuda else 0

    def _near_units(self) -> float:
        """Share of the pairs of units (a unit with itself included) that have an entry, for independent units.

        Normalized points lie on a sphere. A cap around a unit holds its knn nearest units, a wider cap those within its
        cutoff radius. If these are few, a quarter as many again have this unit in their own radius only. Measured, with
        30 to 4000 units of 6 to 100 samples: 0.9 to 1.25 of the entries.
        """
        from scipy.special import betainc, betaincinv

        if self.p.decay is None:
            return min(1.0, (1 + 2 * self.p.intraslice_knn) / self.M)
        if self.K < 3:
            return 1.0  # normalized points of one sample are all equal, and of two samples there are two
        nearest, half = min(0.5, self.p.intraslice_knn / self.M), (self.K - 2) / 2
        # The cosines at the edges of the two caps; 1 - cosine grows as the squared distance.
        wider = cut_radius(self.p.decay, self.p.thresh) ** 2
        cosine = 1 - min(2.0, wider * (1 - (1 - betaincinv(half, 0.5, 2 * nearest)) ** 0.5))
        beyond = float(betainc(half, 0.5, 1 - cosine**2)) / 2
        share = beyond if cosine >= 0 else 1 - beyond
        return min(1.0, 1 / self.M + share * (1.25 - 0.25 * share))

    def _reached(self, entries: Entries) -> float:
        """Entries of the transitions: nodes reach landmarks as often as nodes."""
        of_main = self.main / (self.N * max(1 - entries.alone, 1 - LOOSE))
        reached = min(self.L, 1 + self.nnz / self.N * min(1.0, of_main))
        return self.N * (1 if self.L == self.N else reached)

    # ---------------------------------------------------------------- forms of the affinity

    def sparse_bytes(self) -> int:
        return assembled_bytes(int(self.nnz), self.N, self.dtype)

    def tiles_bytes(self) -> float:
        """The stored tiles, which of them every active pair is, and the layout."""
        return self.stored_tiles * TILE**2 * torch.float16.itemsize + 4 * self.active_tiles + self.layout_bytes()

    def layout_bytes(self) -> float:
        """The order of the slices of every unit; of every row of tiles two offsets; the columns of its active pairs."""
        return 8 * self.N + 16 * self.M * n_tiles(self.S) + 4 * self.active_tiles

    def fused_bytes(self) -> float:
        """The layout and the float32 points of all tiles, feature by feature, with their centres."""
        features = self.K if self.K <= FEATURES else -(-self.K // FEATURES) * FEATURES
        return self.layout_bytes() + 4 * features * self.M * n_tiles(self.S) * (TILE + 1)

    def lazy_bytes(self) -> float:
        """Bytes of the points unit by unit, the intraslice part, the counts, and on CUDA the kept float32 points."""
        index = index_dtype(int(self.intraslice), self.M).itemsize
        screened = 4 * self.N * self.K if self.cuda else 0
        return 8 * self.N * self.K + screened + self.intraslice * (self.item + index) + self.N * (index + 8)

    def form_bytes(self, storage: str) -> float:
        """What the affinity keeps in this form."""
        if storage == "sparse":
            return self.sparse_bytes()
        more = self.tiles_bytes() if storage == "tiles" else self.fused_bytes() if self.fused else 0
        return self.lazy_bytes() + more

    def made_at_once(self) -> float:
        """Entries of the rows that the lazy form makes at a time."""
        return min(self.nnz, entries_at_once(self.nnz, self.room if self.cuda else None))

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
        form, kept = f"({self.S}, {self.M}, {self.D})", 8 * size + 8 * self.N  # the points and their resolution
        if self.K < self.D:  # points by blocks: the `Scale` and the resolution of each, and the mean of all
            kept = (3 * self.item + 1) * self.N + 8 * self.N + 8 * self.D
            form, working = f"{form} by blocks", working + 8 * chunk
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
        # Bandwidths, for the other forms counts, and what fills them. Layouts are found on one side of the diagonal.
        lazy, kept = self.lazy_bytes(), self.form_bytes(storage)
        passes, working, at_once = 1.0, 0.0, ""
        placed = PER_PLACED * min(CHUNK_ELEMENTS * self.intraslice / (self.N * self.M), self.intraslice)
        if storage == "sparse":
            passes, working = 3, lazy + placed + 24 * self.N
        elif storage == "tiles":
            at_once = f"{CHUNK_ELEMENTS // TILE**2} tiles"
            passes = 2.5 + self.stored_tiles * TILE**2 / self.pairs
            # On CUDA the points by tiles, feature by feature, and their offsets in float32; elsewhere chunks of tiles.
            working = 32 * CHUNK_ELEMENTS + (24 if self.cuda else 8) * self.N * self.K
        else:
            at_once = f"{_elements(self.made_at_once())} entries"
            passes, working = (1.5, 8 * self.N * self.K) if self.fused else (passes, working)
        forms = {"sparse": "CSR", "tiles": "tiles, the rest CSR", "lazy": "matrix-free"}
        precision = "fp16 tiles" if storage == "tiles" else _name(self.dtype)
        if self.cuda:  # points in the order of a kd-tree; before that, float32 points of every slice, in tiles
            screened = 4 * self.S * -(-self.M // PAIR_TILE) * PAIR_TILE * self.K
            working = max(working + 8 * self.N * self.K, screened - kept)
        working = max(working, 8 * self.N * self.K)  # a copy of the points, made equal where only rounding differs
        operations = 3.0 * self.K * self.pairs * passes
        return Cost("affinity", forms[storage], precision, at_once, kept, kept + working + self.portable, operations)

    def _landmarks(self, storage: str) -> Cost:
        N, L, C = self.N, self.L, self.C
        stored, transitions = storage == "sparse", self.reached * (self.item + 4)
        made = 0 if stored else PER_MADE * self.made_at_once() + self.portable
        together = 0 if stored else 2 * transitions + made  # rows are made chunk by chunk and then joined
        peak, operations = max(together, self._gram() + transitions), 2.0 * N * (self.reached / N) ** 2
        if self.p.landmarks == "spectral":
            peak = max(peak, self._krylov(made if storage == "lazy" and not self.fused else 0, storage))
            # Ten k-means steps and the seeds.
            operations += (KRYLOV_BLOCKS + 2) * self._product(storage) + 24.0 * N * L * C
        elif self.p.landmarks == "stratified":
            operations += 24.0 * N * L / self.M * self.K
        at_once = f"{C} columns" if stored else f"{_elements(self.made_at_once())} entries"
        kept = self.square + transitions + 8 * (N + L)
        return Cost("landmarks", f"({L}, {L})", "float64", at_once, kept, max(8 * N + peak, kept), operations)

    def _product(self, storage: str) -> float:
        """Operations of one product with a block: those of every entry and, where it is made for it, of its pair."""
        by_tiles = storage == "tiles" or (storage == "lazy" and self.fused)
        entries = self.active_tiles * TILE**2 + self.intraslice if by_tiles else self.nnz
        made = 0 if storage != "lazy" else self.active_tiles * TILE**2 if self.fused else self.pairs
        return 2.0 * self.C * entries + 3.0 * self.K * made

    def _krylov(self, made: float, storage: str) -> float:
        """The block Krylov basis in float32 and what stands beside it.

        At the end these are the eigenvectors and their absolute values. Before, they are the scaled block and its
        image, or the image and two stages of the next block. Products with tiles read the block in half precision and
        sum in float32.
        """
        column = 4 * self.N
        blocks = max(1, min(KRYLOV_BLOCKS, -(-self.N // self.C)))
        by_tiles = storage == "tiles" or (storage == "lazy" and self.fused)
        width = -(-self.C // COLUMNS) * COLUMNS
        tiles = 6 * width * TILE * self.M * n_tiles(self.S) if by_tiles else 0
        end = blocks * self.C + 2 * min(self.p.n_svd, self.N)
        # On a CPU pages of the basis take no memory until something is written to them; on CUDA they do.
        products = column * (blocks + 2 + self.cuda) * self.C + tiles + made + self.gathered
        chunk = 2 * 8 * CUDA_CHUNK_ELEMENTS if self.cuda else 0
        return max(column * end, products) + chunk + self._blocks_left()

    def _gathered(self) -> float:
        """Where every thread of a sparse product puts the entries of eight rows side by side, with room for a band."""
        band = min(2**16, max(64, 2**19 // (8 * self.C + 1)) * self.M, self.N)
        return torch.get_num_threads() * 144 * band

    def _gram(self) -> float:
        """M^T D^-1 M: by dense blocks, or as a sparse product; then its mean with its transpose."""
        entries, square = self.reached, self.square
        if self._gram_is_dense():
            # Held at once: the sum, the product of a block and a piece of it, the dense block and its entries.
            rows = block_rows(self.N, self.L, torch.device("cuda" if self.cuda else "cpu"))
            return 2.2 * square + 8 * rows * self.L + rows / self.N * entries * (28 + self.item) + self._heap()
        return 2 * square + self._heap() + 2 * entries * 12

    def _gram_is_dense(self) -> bool:
        return self.cuda or self.reached > DENSE_SHARE * self.N * self.L

    def _no_landmarks(self) -> Cost:
        kept = self.square + self.N * (self.item + 16)
        # Dense in the dtype of the affinity and in float64.
        peak = kept + self.item / 8 * self.square + 16 * self.nnz + self._heap()
        return Cost("landmarks", f"({self.N}, {self.N})", "float64", "", kept, peak, 2.0 * self.N**2)

    def _dense(self) -> list[Cost]:
        """Entropy to MDS: all in squares of the landmarks, and of those that hang together."""
        L, square, main, columns, heap = self.L, self.square, self.main_square, self.p.n_components, self._heap()
        whole = self.main == L
        # Finite? takes its absolute values. Then the component, if it is not all, and its decomposition.
        decomposed, operations = self._singular_values()
        entropy = max(1.25 * square, (0 if whole else main) + decomposed)
        powers = POWERS if self.p.t == "auto" else most_powers(int(self.p.t))
        # The scaled matrix, in whose place the powers of its components are put, or which is the first power itself if
        # it is all of one piece; and the blocks of one product. Before, that matrix and its transpose; after, the power
        # and its root.
        potential = max(2 * square, (0 if whole else square) + (powers + 1 / BLOCKS) * main)
        # Centred rows, products and the blocks of these; and the pairs too close for them. For cosine the rows are
        # first divided by their largest entries and by their norms.
        squares = 2 if self.p.mds_dist == "euclidean" else 4
        chunk = 3 * CUDA_CHUNK_ELEMENTS if self.cuda else CHUNK_ELEMENTS
        distances = (squares + 1 / BLOCKS) * square + 8 * min(chunk, L * L)
        third = float(self.main) ** 3
        return [
            Cost("entropy", f"({self.p.t_max},)", "float64", "", 0, entropy + heap, operations),
            Cost("potential", f"({L}, {L})", "float64", "", square, potential + heap, 8 * third),
            Cost("distances", f"({L}, {L})", "float64", "", square, distances + heap, 1.1 * float(L) ** 3),
            Cost("mds", f"({L}, {columns})", "float32, float64", "", 0, self._mds(), SMACOF_SWEEPS * 20.0 * L * L),
        ]

    def _singular_values(self) -> tuple[float, float]:
        """Bytes and operations of those of the main component: of all, or of a sample with all probes there may be."""
        n, square = float(self.main), self.main_square
        if n <= SAMPLE_ABOVE["cuda" if self.cuda else "cpu"]:
            return 2.2 * square, 4 * n**3  # the Gram matrix and the solver's copy
        # The block Krylov basis, its last image and three copies of what is found; the Lanczos basis of the last probes
        # beside that. Before, the squares of all entries.
        leading, probes = (N_PASSES + 1) * BLOCK + 3 * N_LEADING, N_LEADING + PROBES[-1] * (N_STEPS + 6)
        products = 2 * (N_PASSES * BLOCK + N_LEADING + PROBES[0] * N_STEPS)
        return max(square, 8 * n * max(leading, probes)), 2 * products * n**2

    def _mds(self) -> float:
        """Peak of classical MDS, of SMACOF, which starts from it, and of nonmetric MDS, which starts from SMACOF."""
        L, square, C = self.L, self.square, min(self.p.n_components, self.L)
        # Squared distances; the Krylov basis and two of its blocks; the projected matrix and its eigenvectors.
        width = min(CLASSIC_BLOCKS * (C + 10), L)
        classic = square + 8 * L * (width + 2 * (C + 10)) + 16 * width**2 + self._heap()
        if self.p.mds_solver == "classic":
            return classic
        # First the distances, scaled and as float32; then the float32 distances and the arrays of the descent.
        smacof = max(1.5 * square, 0.5 * square + SMACOF_ARRAYS * 8 * L * C) + self._heap()
        if self.p.mds_solver == "smacof":
            return max(classic, smacof)
        # Pairs, their order, groups, two sets of values, temporaries of the regression; and freed blocks in the heap.
        squares = 7 if self.cuda or square / 2 >= HEAP_BLOCK else 11
        return max(classic, smacof, squares * square + (0 if self.cuda else SCIPY))

    def _interpolate(self) -> Cost:
        """The coordinates and their copies. The other results are copied only when they are read."""
        columns = self.p.n_components
        kept = self.item * self.N * columns
        # The result, the caller's array, and what `transform` needs: the landmark of each node and the points by unit.
        copies = 2 * kept + 16 * self.N * columns + 8 * self.N * self.K
        form = f"({self.N}, {columns})"
        return Cost(
            "interpolate", form, _name(self.dtype), "", kept, kept + copies + self._heap(), 2.0 * self.reached * columns
        )

    def _blocks_left(self) -> float:
        """What the C allocator holds of the blocks of the Krylov basis, and of a basis that is no larger than these."""
        none = self.cuda or self.L == self.N or self.p.landmarks != "spectral"
        basis = 4 * self.N * self.C * KRYLOV_BLOCKS
        blocks = HEAP_BLOCKS * 8 * self.N * self.C + (basis if basis < HEAP_BLOCK else 0)
        return 0 if none else min(HEAP, blocks)

    def _heap(self) -> float:
        """What the C allocator has not given back yet."""
        if self.cuda:
            return 0
        return max(self._blocks_left(), min(HEAP, HEAP_BLOCKS * self.square))


def _elements(n: float) -> str:
    return f"{n / 1e6:.1f}M" if n >= 1e6 else f"{n / 1e3:.0f}k" if n >= 1e3 else f"{n:.0f}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
