"""The calls of suite "ops": each op with what it is given, the work in that, and what it takes at least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

import mmphate_gpu.estimator  # noqa: F401  the ops of every stage register themselves with torch
from benchmarks.measure.timer import nothing
from benchmarks.suites.op_inputs import COLUMNS, Again, Data
from mmphate_gpu import potential_distances
from mmphate_gpu.affinities.bandwidth import kth_unit_distance
from mmphate_gpu.linalg.block_krylov import orthonormalize
from mmphate_gpu.linalg.eigenvalues import symmetric_eigenvalues
from mmphate_gpu.linalg.symmetric_product import symmetric_product
from mmphate_gpu.mds.smacof import Way
from mmphate_gpu.operators import TiledAffinity
from mmphate_gpu.ops.csr import indptr_of_counts
from mmphate_gpu.ops.csr_matmul import FLOAT32_FROM, matmul
from mmphate_gpu.ops.descent_step import BEST, DEPTH, IS_NEAR, N_KEPT, ROWS
from mmphate_gpu.ops.distances import distances_by_difference
from mmphate_gpu.ops.gaussian_product import points_by_feature, scaled_limit, scaled_points
from mmphate_gpu.ops.launch import twins
from mmphate_gpu.ops.radius_affinity import SMALLEST, cut_radius
from mmphate_gpu.ops.tile_block import scaled_tiles
from mmphate_gpu.ops.tile_layout import TILE, point_tiles, stored_pairs
from mmphate_gpu.trace.points import FLOOR

PAIRS = "ordered pairs"
PORTABLE = "portable torch"  # as `twins.serving_op` begins where there is no other
EXACT_ROWS = 64  # of distances that are computed by differences


@dataclass(frozen=True)
class Measured:
    """One call of one op: what it is given, how much work that is, what that takes at least, what is asked of it."""

    op: str
    what: str
    call: Callable[[], Any]
    by: str  # what serves
    work: float  # in ``unit``
    unit: str
    # The work by the rate it is done at, at least, of any way to the result that visits every pair: the names are those
    # of `floors`; "bytes" are inputs read once and outputs written once.
    needs: Mapping[str, float]
    portable: Callable[[], Any] | None = None  # where something else serves
    # The error of a result; None: against that of ``portable``.
    judge: Callable[[Any], float] | None = field(default=None, kw_only=True)
    goal: float | None = field(default=None, kw_only=True)  # of the rate
    restore: Callable[[int], None] = field(default=nothing, kw_only=True)  # what calls change: `timer.warm`

    @property
    def flop(self) -> float:
        return sum(work for name, work in self.needs.items() if name.startswith("fma-"))

    def once(self, call: Callable[[], Any]) -> Any:
        """What ``call`` returns, from the inputs that the timed ones have."""
        self.restore(1)
        return call()


def _twin(
    data: Data,
    op: str,
    what: str,
    given: tuple,
    work: float,
    unit: str,
    needs: dict,
    *,
    written: Sequence[int] = (),
    **rest: Any,
) -> Measured:
    """An op of torch's dispatcher, beside its portable version; ``written``: the places in ``given`` of its results."""
    call, portable = (partial(_results, version, given, written) for version in (_op(op), twins.PORTABLE[op]))
    by = twins.serving_op(op, data.device.type)
    return Measured(op, what, call, by, work, unit, needs, None if by.startswith(PORTABLE) else portable, **rest)


def _op(name: str) -> Callable[..., Any]:
    return getattr(torch.ops.mmphate_gpu, name)


def _results(op: Callable[..., Any], given: tuple, written: Sequence[int]) -> Any:
    returned = op(*given)
    return [given[place] for place in written] or returned


def _torch(
    op: str, what: str, call: Callable[[], Any], flop: float, n_bytes: float, kind: str, judge: Callable[[Any], float]
) -> Measured:
    """An op that is torch's own work, well put together."""
    needs = {f"fma-{kind}": flop, "bytes": n_bytes}
    return Measured(op, what, call, "torch", flop, "flop", needs, judge=judge)


def relative_error(found: Any, expected: Any) -> float:
    """Largest difference, relative to the largest number expected: of the tensors with fractions, or of counts where
    there are none; 1 where there is another number of them.

    >>> relative_error((torch.tensor([7]), torch.tensor([1.0, 3.0])), (torch.tensor([8]), torch.tensor([1.0, 4.0])))
    0.25
    """
    pairs = list(zip(tensors_of(found), tensors_of(expected), strict=True))
    pairs = [pair for pair in pairs if pair[1].is_floating_point()] or pairs
    return max(_largest_difference(one.double(), other.double()) for one, other in pairs)


def tensors_of(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _largest_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    if found.shape != expected.shape:
        return 1.0
    size = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float((found - expected).abs().max() / size)


# ---------------------------------------------------------------- neighbours and entries


def _neighbors(op: str, goal: float | None, data: Data) -> list[Measured]:
    pairs = data.unit_pairs
    needs = {"fma-float32": data.distance_flop(pairs), "bytes": data.stack_bytes}
    return [_twin(data, op, "units of the suite, k = 25", (data.units, 25), pairs, PAIRS, needs, goal=goal)]


def _neighbors_of_nodes(data: Data) -> list[Measured]:
    pairs = data.slice_pairs
    needs = {"fma-float32": data.distance_flop(pairs), "bytes": data.stack_bytes}
    op = "kth_neighbor_distance"
    few = _twin(data, op, "slices of the suite, k = 2", (data.points, 2), pairs, PAIRS, needs)
    return [*_neighbors(op, None, data), few]


def _radius_counts(data: Data) -> list[Measured]:
    pairs, what = data.unit_pairs, f"units of the suite, p = {data.points.shape[2]}"
    needs = {"fma-float32": data.distance_flop(pairs), "bytes": data.stack_bytes}
    return [_twin(data, "radius_counts", what, (data.units, data.reach), pairs, PAIRS, needs, goal=3e9)]


def _radius_fill(data: Data) -> list[Measured]:
    counts = torch.ops.mmphate_gpu.radius_counts(data.units, data.reach)
    indptr = indptr_of_counts(counts.T.reshape(-1))
    filled = int(indptr[-1])
    csr, n_slices = data.sparse.csr, data.units.shape[1]
    empty = torch.empty_like(csr.indices[:filled]), torch.empty_like(csr.values[:filled])
    begun = indptr, torch.zeros_like(indptr[1:])
    given = (data.units, float(data.bandwidth), 2.0, data.reach, 0, n_slices, *begun, *empty)
    n_bytes = float(empty[0].nbytes + empty[1].nbytes)
    # One exponential serves both ends of a pair.
    needs = {"fma-float32": data.distance_flop(data.unit_pairs), "exp-float64": filled / 2, "bytes": n_bytes}
    what, values = f"{filled:,} entries, float32", len(given) - 1
    return [_twin(data, "radius_fill", what, given, filled, "entries", needs, written=[values])]


def _symmetrized_affinity(data: Data) -> list[Measured]:
    width = kth_unit_distance(data.points, 2).clamp_min(FLOOR)
    given = (data.points, width, 5.0, 1e-4, SMALLEST, cut_radius(5, 1e-4) * (1 + 1e-9), torch.float32)
    kept = torch.ops.mmphate_gpu.symmetrized_affinity(*given)[2].numel()
    # An entry is the mean of two exponentials, and serves both ends of its pair.
    flop = data.distance_flop(data.slice_pairs)
    needs = {"fma-float64": flop, "exp-float64": float(kept), "bytes": data.stack_bytes + 8.0 * kept}
    pairs, op = data.slice_pairs, "symmetrized_affinity"
    return [_twin(data, op, "slices of the suite, k = 2", given, pairs, PAIRS, needs)]


# ---------------------------------------------------------------- products and landmarks


def _csr_matmul(data: Data) -> list[Measured]:
    """What the library does: on the CPU a narrow block in float32 goes to torch."""
    csr, rows, found = data.sparse.csr, data.sparse.shape[0], []
    for block, kind in ((data.block, "float64"), (data.block.float(), "float32")):
        for width in (COLUMNS, 32, 16, 8, 1):
            own, flop = block[:, :width].contiguous(), 2.0 * csr.nnz * width
            moved = csr.indices.nbytes + csr.values.nbytes + 2.0 * rows * width * block.element_size()
            needs = {f"fma-{kind}": flop, "bytes": moved}
            call = partial(matmul, csr, own, interleave=data.units.shape[0])
            narrow = kind == "float32" and width < FLOAT32_FROM and data.device.type == "cpu"
            by = f"{PORTABLE} (narrow)" if narrow else twins.serving_op("csr_matmul", data.device.type)
            portable = partial(twins.PORTABLE["csr_matmul"], *csr[:3], own, data.units.shape[0])
            others = {"portable": None if by.startswith(PORTABLE) else portable, "judge": partial(_off_exact, data)}
            found.append(Measured("csr_matmul", f"{kind} x {width}", call, by, flop, "flop", needs, **others))
    return found


def _off_exact(data: Data, found: torch.Tensor) -> float:
    return relative_error(found, data.product[:, : found.shape[1]])


def _landmark_aggregate(data: Data) -> list[Measured]:
    csr, n, op = data.sparse.csr, data.n_landmark, "landmark_aggregate"
    needs = {"bytes": float(csr.indices.nbytes + csr.values.nbytes), "fma-float64": float(csr.nnz)}
    return [_twin(data, op, f"to {n} landmarks", (*csr[:3], data.labels, n), csr.nnz, "entries", needs)]


def _guttman_transform(data: Data) -> list[Measured]:
    n, found, start = data.n_landmark, [], data.high - data.high.mean(0)
    for distances, kind in ((data.distances.float(), "float32"), (data.distances, "float64")):
        for components in (2, 3, 5, 10):
            given, pairs = (distances, start[:, :components].contiguous(), 1e-6), n * n / 2
            needs = {f"fma-{kind}": pairs * (6 * components + 8), "bytes": distances.nbytes / 2}
            needs |= {f"sqrt-{kind}": pairs, f"division-{kind}": pairs}
            what = f"{n} x {components}, {kind}"
            found.append(_twin(data, "guttman_transform", what, given, float(n * n), PAIRS, needs))
    return found


def _descent_step(data: Data) -> list[Measured]:
    """A long step that is taken, with as many steps kept as there can be."""
    op, distances, start = "descent_step", data.distances.float(), (data.high - data.high.mean(0))[:, :2].contiguous()
    way = Way(distances, start, max_iter=2**40, eps=0.0)
    swept = way.sweep(distances, way.trial)
    while not (way.state[IS_NEAR] and way.state[N_KEPT] == DEPTH and swept[1] < way.state[BEST]):
        way.advance()
        swept = way.sweep(distances, way.trial)
    again = Again(way.places)
    call, portable = (partial(_stepped, version, swept, again, way) for version in (_op(op), twins.PORTABLE[op]))
    size = float(way.points.numel())
    # Three inner products with each of the rows that are kept; these and the places are read, and two rows written.
    needs = {"fma-float64": 6 * ROWS * size, "bytes": 8 * (ROWS + 10) * size}
    what, by = f"{data.n_landmark} x 2", twins.serving_op(op, data.device.type)
    others = {"portable": None if by.startswith(PORTABLE) else portable, "restore": again.restore}
    return [Measured(op, what, call, by, size, "coordinates", needs, **others)]


def _stepped(op: Callable[..., Any], swept: tuple, again: Again, way: Way) -> tuple[torch.Tensor, torch.Tensor]:
    """What a step leaves: the next trial, and what is kept."""
    points, moved, trial, step, kept, state = again.next()
    op(*swept, points, moved, trial, step, kept, state, way.eps, way.max_iter)
    return trial, kept


def _assign_nearest(data: Data) -> list[Measured]:
    n, given = data.n_landmark, (data.features, data.features[: data.n_landmark].clone())
    flop, moved = 2.0 * data.features.numel() * n, float(data.features.nbytes)
    # On tensor cores each product of float32 numbers is three of TF32.
    needs = {"fma-tf32": 3 * flop} if data.device.type == "cuda" else {"fma-float32": flop}
    return [_twin(data, "assign_nearest", f"to {n} centres", given, flop, "flop", {**needs, "bytes": moved})]


# ---------------------------------------------------------------- dense algebra


def _symmetric_product(data: Data) -> list[Measured]:
    n, square = data.n_landmark, data.square

    def judge(found: torch.Tensor) -> float:
        return relative_error(found, square @ square)

    what, call = f"{n} x {n}, float64", partial(symmetric_product, square, square)
    return [_torch("symmetric_product", what, call, float(n) ** 3, 2.0 * square.nbytes, "float64", judge)]


def _potential_distances(data: Data) -> list[Measured]:
    n, square = data.n_landmark, data.square

    def judge(found: torch.Tensor) -> float:
        return relative_error(found[:EXACT_ROWS], distances_by_difference(square[:EXACT_ROWS], square))

    what, call = f"{n} x {n}, float64", partial(potential_distances, square)
    return [_torch("potential_distances", what, call, float(n) ** 3, 2.0 * square.nbytes, "float64", judge)]


def _symmetric_eigenvalues(data: Data) -> list[Measured]:
    """The reduction to three diagonals: half of its operations are products with vectors, which read the matrix."""
    n, square, call = data.n_landmark, data.square, partial(symmetric_eigenvalues, data.square)

    def judge(found: torch.Tensor) -> float:
        """Their sum is the trace, that of their squares the one of all entries."""
        off = (found.sum() - square.trace()).abs() / found.abs().sum()
        return float(torch.maximum(off, (found.square().sum() / square.square().sum() - 1).abs()))

    what = f"{n} x {n}, float64"
    return [_torch("symmetric_eigenvalues", what, call, 4 / 3 * n**3, square.nbytes, "float64", judge)]


def _orthonormalize(data: Data) -> list[Measured]:
    """A block beside four others, as in the last pass of block Krylov."""
    rows, columns = data.block.shape
    basis, block = orthonormalize(data.random(rows, 4 * columns).float(), None), data.block.float()
    call = partial(orthonormalize, block, basis)

    def judge(found: torch.Tensor) -> float:
        """Inner products against those of an orthonormal basis."""
        identity = torch.eye(found.shape[1], dtype=found.dtype, device=found.device)
        return float(torch.maximum((found.T @ found - identity).abs().max(), (basis.T @ found).abs().max()))

    # Out of the basis, twice: two products each; Cholesky-QR, twice: half a Gram matrix and a triangle of solutions.
    flop = 2 * 2 * 2.0 * rows * columns * basis.shape[1] + 2 * 2.0 * rows * columns**2
    moved, what = float(basis.nbytes + 2 * block.nbytes), f"{columns} beside {basis.shape[1]} columns"
    return [_torch("orthonormalize", what, call, flop, moved, "float32", judge)]


# ---------------------------------------------------------------- tiles, for tensor cores


def _tile_products(op: str, data: Data) -> list[Measured]:
    lazy = data.lazy
    interslice, layout = lazy.interslice, lazy.interslice.tile_layout
    pairs = float(layout.n_active * TILE**2)
    if op == "tile_matmul":
        tiled, (_, *active) = TiledAffinity(lazy.intraslice, interslice), layout
        given = (tiled.tiles, tiled.slots, *active, data.halves)
        own = tiled.tiles.nbytes
    else:
        scaled = points_by_feature(point_tiles(layout, scaled_points(data.units, interslice.bandwidth), None))
        limit = scaled_limit(interslice.reach, float(interslice.bandwidth))
        given, own = (*scaled, limit, layout.indptr, layout.columns, data.halves), scaled[0].nbytes
    flop, what = 2 * pairs * COLUMNS, f"half x {COLUMNS}, {layout.n_active:,} tiles"
    # Halves in, float32 out.
    needs = {"fma-float16": flop, "bytes": own + 6.0 * data.halves.numel()}
    needs |= {"exp-float32": pairs} if op == "gaussian_product" else {}
    return [_twin(data, op, what, given, flop, "flop", needs)]


def _tile_decisions(op: str, data: Data) -> list[Measured]:
    interslice, layout = data.lazy.interslice, data.lazy.interslice.tile_layout
    points = point_tiles(layout, data.units, torch.nan)
    made = (points, *stored_pairs(layout)[:2])
    last = (interslice.reach,) if op == "tile_reached" else (float(interslice.bandwidth), interslice.reach)
    pairs, what = float(layout.n_stored * TILE**2), f"p = {points.shape[2]}, {layout.n_stored:,} tiles"
    written = 2 * pairs if op == "tile_entries" else 0.0
    needs = {"fma-float64": 3 * pairs * points.shape[2], "bytes": points.nbytes + written}
    return [_twin(data, op, what, (*made, *last), pairs, PAIRS, needs)]


def _around_products(op: str, data: Data) -> list[Measured]:
    layout, block = data.lazy.interslice.tile_layout, data.block
    halves, inverse = scaled_tiles(layout, block)
    read = block.nbytes + layout.order.nbytes
    if op == "tile_block":
        arguments, needs = (block, 1 / inverse, layout.order), {"bytes": float(read + halves.nbytes)}
        needs["fma-float64"] = float(block.numel())
    else:
        sums, intraslice = halves.float(), data.lazy.intraslice
        arguments = (sums, inverse, layout.order, *intraslice[:3], block)
        entries = intraslice.indices.nbytes + intraslice.values.nbytes
        needs = {"bytes": float(read + block.nbytes + sums.nbytes + entries)}
        needs["fma-float64"] = float(block.numel() + 2 * COLUMNS * intraslice.nnz)
    return [_twin(data, op, f"float64 x {COLUMNS}", arguments, float(block.numel()), "numbers", needs)]


# The ops by the inputs that they share.
GROUPS: dict[str, dict[str, Callable[[Data], list[Measured]]]] = {
    "entries": {
        "radius_counts": _radius_counts,
        "median_kth_neighbor_distance": partial(_neighbors, "median_kth_neighbor_distance", 1.5e9),
        "kth_neighbor_distance": _neighbors_of_nodes,
        "radius_fill": _radius_fill,
        "symmetrized_affinity": _symmetrized_affinity,
    },
    "products": {
        "csr_matmul": _csr_matmul,
        "orthonormalize": _orthonormalize,
        "assign_nearest": _assign_nearest,
        "landmark_aggregate": _landmark_aggregate,
    },
    "landmarks": {
        "symmetric_product": _symmetric_product,
        "symmetric_eigenvalues": _symmetric_eigenvalues,
        "potential_distances": _potential_distances,
        "guttman_transform": _guttman_transform,
        "descent_step": _descent_step,
    },
    # Products in half precision: measured where there are tensor cores, and in the quick run.
    "tiles": {
        "tile_block": partial(_around_products, "tile_block"),
        "tile_rows": partial(_around_products, "tile_rows"),
        "tile_matmul": partial(_tile_products, "tile_matmul"),
        "gaussian_product": partial(_tile_products, "gaussian_product"),
        "tile_reached": partial(_tile_decisions, "tile_reached"),
        "tile_entries": partial(_tile_decisions, "tile_entries"),
    },
}
TILE_OPS = GROUPS["tiles"]
OPS = {op: make for group in GROUPS.values() if group is not TILE_OPS for op, make in group.items()}
