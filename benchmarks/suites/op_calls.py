"""The calls of suite "ops": each op with its arguments, the amount of its work, and the least that this work takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

import mmphate_gpu.estimator  # noqa: F401  registers the ops of every stage with torch
from benchmarks.measure.timer import nothing
from benchmarks.suites.op_inputs import COLUMNS, Copies, Data
from mmphate_gpu import potential_distances
from mmphate_gpu.affinities.bandwidth import kth_unit_distance
from mmphate_gpu.linalg.block_krylov import orthonormalize
from mmphate_gpu.linalg.eigenvalues import symmetric_eigenvalues
from mmphate_gpu.linalg.symmetric_product import symmetric_product
from mmphate_gpu.mds.smacof import SmacofRun
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
PORTABLE = "portable torch"  # `twins.serving_op` begins so if no twin runs
EXACT_ROWS = 64  # rows of the distances that are also computed by differences


@dataclass(frozen=True)
class Call:
    """A call of an op on one input."""

    op: str
    case: str  # the input, in words
    run: Callable[[], Any]
    by: str  # the twin that runs, or the portable version
    work: float  # in ``unit``
    unit: str
    # Amounts of work by the name of their rate (`floors`), the least for any algorithm that visits every pair. "bytes"
    # are the inputs, read once, and the outputs, written once.
    needs: Mapping[str, float]
    portable: Callable[[], Any] | None = None  # None if the portable version is what runs
    # The error of a result. None: compared with the result of ``portable``.
    judge: Callable[[Any], float] | None = field(default=None, kw_only=True)
    goal: float | None = field(default=None, kw_only=True)  # for the rate
    restore: Callable[[int], None] = field(default=nothing, kw_only=True)  # undoes what calls change: `timer.warm`

    @property
    def flop(self) -> float:
        return sum(work for name, work in self.needs.items() if name.startswith("fma-"))

    def result_of(self, version: Callable[[], Any]) -> Any:
        """The result of ``run`` or ``portable`` for the inputs of the timed calls."""
        self.restore(1)
        return version()


def _twin(
    data: Data,
    op: str,
    case: str,
    arguments: tuple,
    work: float,
    unit: str,
    needs: dict,
    *,
    written: Sequence[int] = (),
    **rest: Any,
) -> Call:
    """An op of torch's dispatcher beside its portable version. It writes its results to the arguments ``written``."""
    run, portable = (partial(_results, version, arguments, written) for version in (_op(op), twins.PORTABLE[op]))
    by = twins.serving_op(op, data.device.type)
    return Call(op, case, run, by, work, unit, needs, None if by.startswith(PORTABLE) else portable, **rest)


def _op(name: str) -> Callable[..., Any]:
    return getattr(torch.ops.mmphate_gpu, name)


def _results(op: Callable[..., Any], arguments: tuple, written: Sequence[int]) -> Any:
    returned = op(*arguments)
    return [arguments[place] for place in written] or returned


def _torch(
    op: str, case: str, run: Callable[[], Any], flop: float, n_bytes: float, dtype: str, judge: Callable[[Any], float]
) -> Call:
    """A function of the library that calls torch and has no twin."""
    needs = {f"fma-{dtype}": flop, "bytes": n_bytes}
    return Call(op, case, run, "torch", flop, "flop", needs, judge=judge)


def relative_error(results: Any, expected: Any) -> float:
    """The largest difference of the floating-point tensors, relative to the largest expected number.

    Without such tensors the integers are compared. The error is 1 if the shapes differ.

    >>> relative_error((torch.tensor([7]), torch.tensor([1.0, 3.0])), (torch.tensor([8]), torch.tensor([1.0, 4.0])))
    0.25
    """
    pairs = list(zip(tensors_of(results), tensors_of(expected), strict=True))
    pairs = [pair for pair in pairs if pair[1].is_floating_point()] or pairs
    return max(_largest_difference(result.double(), wanted.double()) for result, wanted in pairs)


def tensors_of(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _largest_difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    if result.shape != expected.shape:
        return 1.0
    size = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float((result - expected).abs().max() / size)


# ---------------------------------------------------------------- neighbors and entries


def _neighbors(op: str, goal: float | None, data: Data) -> list[Call]:
    pairs = data.unit_pairs
    needs = {"fma-float32": data.distance_flop(pairs), "bytes": data.stack_bytes}
    return [_twin(data, op, "units of the suite, k = 25", (data.units, 25), pairs, PAIRS, needs, goal=goal)]


def _median_neighbors(data: Data) -> list[Call]:
    op, pairs = "median_kth_neighbor_distance", data.unit_pairs / len(data.units)
    arguments, case = (data.masked_unit, 25, True), "masked unit of the suite, k = 25"
    masked = _twin(data, op, case, arguments, pairs, PAIRS, data.masked_needs)
    return [*_neighbors(op, 1.5e9, data), masked]


def _neighbors_of_nodes(data: Data) -> list[Call]:
    pairs = data.slice_pairs
    needs = {"fma-float32": data.distance_flop(pairs), "bytes": data.stack_bytes}
    op = "kth_neighbor_distance"
    in_slices = _twin(data, op, "slices of the suite, k = 2", (data.points, 2), pairs, PAIRS, needs)
    return [*_neighbors(op, None, data), in_slices]


def _radius_counts(data: Data) -> list[Call]:
    pairs, case = data.unit_pairs, f"units of the suite, p = {data.points.shape[2]}"
    needs = {"fma-float32": data.distance_flop(pairs), "bytes": data.stack_bytes}
    whole = _twin(data, "radius_counts", case, (data.units, data.reach), pairs, PAIRS, needs, goal=3e9)
    arguments, pairs = (data.masked_unit, data.reach, True), pairs / len(data.units)
    masked = _twin(data, "radius_counts", "masked unit of the suite", arguments, pairs, PAIRS, data.masked_needs)
    return [whole, masked]


def _radius_fill(data: Data) -> list[Call]:
    counts = torch.ops.mmphate_gpu.radius_counts(data.units, data.reach)
    indptr = indptr_of_counts(counts.T.reshape(-1))
    filled = int(indptr[-1])
    csr, n_slices = data.sparse.csr, data.units.shape[1]
    empty = torch.empty_like(csr.indices[:filled]), torch.empty_like(csr.values[:filled])
    rows = indptr, torch.zeros_like(indptr[1:])  # where each begins, and how far it is filled
    arguments = (data.units, float(data.bandwidth), 2.0, data.reach, 0, n_slices, *rows, *empty)
    n_bytes = float(empty[0].nbytes + empty[1].nbytes)
    # Both ends of a pair have the same exponential.
    needs = {"fma-float32": data.distance_flop(data.unit_pairs), "exp-float64": filled / 2, "bytes": n_bytes}
    case, values = f"{filled:,} entries, float32", len(arguments) - 1
    return [_twin(data, "radius_fill", case, arguments, filled, "entries", needs, written=[values])]


def _symmetrized_affinity(data: Data) -> list[Call]:
    width = kth_unit_distance(data.points, 2).clamp_min(FLOOR)
    arguments = (data.points, width, 5.0, 1e-4, SMALLEST, cut_radius(5, 1e-4) * (1 + 1e-9), torch.float32)
    kept = torch.ops.mmphate_gpu.symmetrized_affinity(*arguments)[2].numel()
    # An entry is the mean of two exponentials, and is the same for both ends of its pair.
    flop = data.distance_flop(data.slice_pairs)
    needs = {"fma-float64": flop, "exp-float64": float(kept), "bytes": data.stack_bytes + 8.0 * kept}
    pairs, op = data.slice_pairs, "symmetrized_affinity"
    return [_twin(data, op, "slices of the suite, k = 2", arguments, pairs, PAIRS, needs)]


# ---------------------------------------------------------------- products and landmarks


def _csr_matmul(data: Data) -> list[Call]:
    """The product as the library computes it: on the CPU torch multiplies a narrow block in float32."""
    csr, rows, calls = data.sparse.csr, data.sparse.shape[0], []
    for block, dtype in ((data.block, "float64"), (data.block.float(), "float32")):
        for width in (COLUMNS, 32, 16, 8, 1):
            columns, flop = block[:, :width].contiguous(), 2.0 * csr.nnz * width
            moved = csr.indices.nbytes + csr.values.nbytes + 2.0 * rows * width * block.element_size()
            needs = {f"fma-{dtype}": flop, "bytes": moved}
            run = partial(matmul, csr, columns, interleave=data.units.shape[0])
            narrow = dtype == "float32" and width < FLOAT32_FROM and data.device.type == "cpu"
            by = f"{PORTABLE} (narrow)" if narrow else twins.serving_op("csr_matmul", data.device.type)
            portable = partial(twins.PORTABLE["csr_matmul"], *csr[:3], columns, data.units.shape[0])
            others = {"portable": None if by.startswith(PORTABLE) else portable, "judge": partial(_off_exact, data)}
            calls.append(Call("csr_matmul", f"{dtype} x {width}", run, by, flop, "flop", needs, **others))
    return calls


def _off_exact(data: Data, product: torch.Tensor) -> float:
    return relative_error(product, data.product[:, : product.shape[1]])


def _landmark_aggregate(data: Data) -> list[Call]:
    csr, n, op = data.sparse.csr, data.n_landmark, "landmark_aggregate"
    needs = {"bytes": float(csr.indices.nbytes + csr.values.nbytes), "fma-float64": float(csr.nnz)}
    return [_twin(data, op, f"to {n} landmarks", (*csr[:3], data.labels, n), csr.nnz, "entries", needs)]


def _guttman_transform(data: Data) -> list[Call]:
    n, calls, start = data.n_landmark, [], data.high - data.high.mean(0)
    for distances, dtype in ((data.distances.float(), "float32"), (data.distances, "float64")):
        for components in (2, 3, 5, 10):
            arguments, pairs = (distances, start[:, :components].contiguous(), 1e-6), n * n / 2
            needs = {f"fma-{dtype}": pairs * (6 * components + 8), "bytes": distances.nbytes / 2}
            needs |= {f"sqrt-{dtype}": pairs, f"division-{dtype}": pairs}
            case = f"{n} x {components}, {dtype}"
            calls.append(_twin(data, "guttman_transform", case, arguments, float(n * n), PAIRS, needs))
    return calls


def _descent_step(data: Data) -> list[Call]:
    """A long step that is accepted, with the full history of steps."""
    op, distances, start = "descent_step", data.distances.float(), (data.high - data.high.mean(0))[:, :2].contiguous()
    way = SmacofRun(distances, start, max_iter=2**40, eps=0.0)
    swept = way.sweep(distances, way.trial)
    while not (way.state[IS_NEAR] and way.state[N_KEPT] == DEPTH and swept[1] < way.state[BEST]):
        way.advance()
        swept = way.sweep(distances, way.trial)
    copies = Copies(way.places)
    run, portable = (partial(_stepped, version, swept, copies, way) for version in (_op(op), twins.PORTABLE[op]))
    size = float(way.points.numel())
    # Three inner products with each row of the history. The history and the points are read, and two rows written.
    needs = {"fma-float64": 6 * ROWS * size, "bytes": 8 * (ROWS + 10) * size}
    case, by = f"{data.n_landmark} x 2", twins.serving_op(op, data.device.type)
    others = {"portable": None if by.startswith(PORTABLE) else portable, "restore": copies.restore}
    return [Call(op, case, run, by, size, "coordinates", needs, **others)]


def _stepped(op: Callable[..., Any], swept: tuple, copies: Copies, way: SmacofRun) -> tuple[torch.Tensor, torch.Tensor]:
    """The next trial and the history after a step."""
    points, moved, trial, step, kept, state = copies.next()
    op(*swept, points, moved, trial, step, kept, state, way.eps, way.max_iter)
    return trial, kept


def _assign_nearest(data: Data) -> list[Call]:
    n, arguments = data.n_landmark, (data.features, data.features[: data.n_landmark].clone())
    flop, moved = 2.0 * data.features.numel() * n, float(data.features.nbytes)
    # Tensor cores multiply float32 numbers by three TF32 products.
    needs = {"fma-tf32": 3 * flop} if data.device.type == "cuda" else {"fma-float32": flop}
    return [_twin(data, "assign_nearest", f"to {n} centres", arguments, flop, "flop", {**needs, "bytes": moved})]


# ---------------------------------------------------------------- dense algebra


def _symmetric_product(data: Data) -> list[Call]:
    n, square = data.n_landmark, data.square

    def judge(product: torch.Tensor) -> float:
        return relative_error(product, square @ square)

    case, run = f"{n} x {n}, float64", partial(symmetric_product, square, square)
    return [_torch("symmetric_product", case, run, float(n) ** 3, 2.0 * square.nbytes, "float64", judge)]


def _potential_distances(data: Data) -> list[Call]:
    n, square = data.n_landmark, data.square

    def judge(distances: torch.Tensor) -> float:
        return relative_error(distances[:EXACT_ROWS], distances_by_difference(square[:EXACT_ROWS], square))

    case, run = f"{n} x {n}, float64", partial(potential_distances, square)
    return [_torch("potential_distances", case, run, float(n) ** 3, 2.0 * square.nbytes, "float64", judge)]


def _symmetric_eigenvalues(data: Data) -> list[Call]:
    """The reduction to tridiagonal form. Half of its operations are products with vectors, which read the matrix."""
    n, square, run = data.n_landmark, data.square, partial(symmetric_eigenvalues, data.square)

    def judge(values: torch.Tensor) -> float:
        """The eigenvalues sum to the trace, and their squares to the sum of all squared entries."""
        off = (values.sum() - square.trace()).abs() / values.abs().sum()
        return float(torch.maximum(off, (values.square().sum() / square.square().sum() - 1).abs()))

    case = f"{n} x {n}, float64"
    return [_torch("symmetric_eigenvalues", case, run, 4 / 3 * n**3, square.nbytes, "float64", judge)]


def _orthonormalize(data: Data) -> list[Call]:
    """A block against four others, as in the last pass of block Krylov."""
    rows, columns = data.block.shape
    basis, block = orthonormalize(data.random(rows, 4 * columns).float(), None), data.block.float()
    run = partial(orthonormalize, block, basis)

    def judge(result: torch.Tensor) -> float:
        """The largest error of the inner products: 1 or 0 within the block, 0 with the basis."""
        identity = torch.eye(result.shape[1], dtype=result.dtype, device=result.device)
        return float(torch.maximum((result.T @ result - identity).abs().max(), (basis.T @ result).abs().max()))

    # Projection out of the basis, twice: two products each. Cholesky-QR, twice: half a Gram matrix and a triangular
    # solve.
    flop = 2 * 2 * 2.0 * rows * columns * basis.shape[1] + 2 * 2.0 * rows * columns**2
    moved, case = float(basis.nbytes + 2 * block.nbytes), f"{columns} beside {basis.shape[1]} columns"
    return [_torch("orthonormalize", case, run, flop, moved, "float32", judge)]


# ---------------------------------------------------------------- tiles, for tensor cores


def _tile_products(op: str, data: Data) -> list[Call]:
    layout, lazy = data.lazy.interslice.tile_layout, data.lazy
    pairs = float(layout.n_active * TILE**2)
    if op == "tile_matmul":
        tiled, (_, *active) = TiledAffinity(lazy.intraslice, lazy.interslice), layout
        arguments = (tiled.tiles, tiled.slots, *active, data.halves)
        read = tiled.tiles.nbytes
    else:
        scaled = points_by_feature(point_tiles(layout, scaled_points(data.units, lazy.interslice.bandwidth), None))
        limit = scaled_limit(lazy.interslice.reach, float(lazy.interslice.bandwidth))
        arguments, read = (*scaled, limit, layout.indptr, layout.columns, data.halves), scaled[0].nbytes
    flop, case = 2 * pairs * COLUMNS, f"half x {COLUMNS}, {layout.n_active:,} tiles"
    # The block is read in half precision, and the result written in float32.
    needs = {"fma-float16": flop, "bytes": read + 6.0 * data.halves.numel()}
    needs |= {"exp-float32": pairs} if op == "gaussian_product" else {}
    return [_twin(data, op, case, arguments, flop, "flop", needs)]


def _tile_decisions(op: str, data: Data) -> list[Call]:
    layout = data.lazy.interslice.tile_layout
    points = point_tiles(layout, data.units, torch.nan)
    tiles = (points, *stored_pairs(layout)[:2])
    interslice = data.lazy.interslice
    last = (interslice.reach,) if op == "tile_reached" else (float(interslice.bandwidth), interslice.reach)
    pairs, case = float(layout.n_stored * TILE**2), f"p = {points.shape[2]}, {layout.n_stored:,} tiles"
    written = 2 * pairs if op == "tile_entries" else 0.0
    needs = {"fma-float64": 3 * pairs * points.shape[2], "bytes": points.nbytes + written}
    return [_twin(data, op, case, (*tiles, *last), pairs, PAIRS, needs)]


def _around_products(op: str, data: Data) -> list[Call]:
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


# The ops, grouped by the inputs that they share.
GROUPS: dict[str, dict[str, Callable[[Data], list[Call]]]] = {
    "entries": {
        "radius_counts": _radius_counts,
        "median_kth_neighbor_distance": _median_neighbors,
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
    # Products in half precision: measured on devices with tensor cores, and in the quick run.
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
