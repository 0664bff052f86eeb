"""Cases of the Triton twins. ``python -m tests.twins.triton_cases OUT.pt`` runs them in Triton's interpreter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch

from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.ops import assign_nearest as assign_module  # noqa: F401 - importing defines the op
from mmphate_gpu.ops import gaussian_product as gaussian_module
from mmphate_gpu.ops import tile_entries, tile_matmul  # noqa: F401 - importing defines the ops
from mmphate_gpu.ops.launch.twins import PORTABLE
from mmphate_gpu.ops.point_tiles import in_tiles, kd_order, n_tiles
from mmphate_gpu.ops.tile_block import scaled_tiles
from mmphate_gpu.ops.tile_layout import TILE, TileLayout, point_tiles, stored_pairs, tile_layout

from . import cases
from .masked_points import PRESENT, lacking

Arguments = tuple[object, ...]


def _points(n_sets: int, n: int, p: int, spread: float) -> torch.Tensor:
    """Walks with a repeated point. With a bandwidth of 1, some of several tiles have no entries."""
    steps = torch.randn(n_sets, n, p, dtype=torch.float64, generator=seeded_generator(n + p))
    points = spread * steps.cumsum(1) / p**0.5
    points[:, n // 2] = points[:, 0]
    return points


def _block(layout: TileLayout, n: int, width: int) -> torch.Tensor:
    """A block (B T, TILE, C) in half precision with T tiles a set, 0 where a tile has no point."""
    block = torch.randn(layout.order.shape[0], n, width, generator=seeded_generator(width))
    return scaled_tiles(layout, block.transpose(0, 1).reshape(-1, width))[0][..., :width]


def gaussian(
    n_sets: int, n: int, p: int, width: int, *, spread: float = 0.5, thresh: float = 1e-4, away: float | None = None
) -> Arguments:
    """A product with Gaussian tiles. One point may be ``away``, where half precision coordinates would overflow."""
    points, bandwidth = _points(n_sets, n, p, spread), torch.tensor(1.0, dtype=torch.float64)
    reach = (-torch.tensor(thresh).log()).sqrt().item()
    layout = tile_layout(points, reach)
    scaled = point_tiles(layout, gaussian_module.scaled_points(points, bandwidth), None)
    limit = gaussian_module.scaled_limit(reach, 1.0)
    if away is not None:
        scaled[0, 5] = away
    return *gaussian_module.points_by_feature(scaled), limit, layout.indptr, layout.columns, _block(layout, n, width)


def pairs(n_sets: int, n: int, p: int, *numbers: float, scale: float = 1.0, away: float = 0.0) -> Arguments:
    """All pairs of tiles of a stack at the distance ``away`` from the origin, and then ``numbers``."""
    points = scale * _points(n_sets, n, p, 0.5) + away
    layout = tile_layout(points, scale)
    tiled = point_tiles(layout, points, torch.nan)
    rows, columns = (part.flatten() for part in torch.meshgrid(*[torch.arange(len(tiled))] * 2, indexing="ij"))
    return tiled, rows, columns, *numbers


def masked_pairs(
    present: str, n_sets: int, n: int, p: int, *numbers: float, scale: float = 1.0, away: float = 0.0
) -> Arguments:
    """The same for points that lack features. ``present`` is a name in `PRESENT`."""
    return masked_tiles(lacking(scale * _points(n_sets, n, p, 0.5) + away, present), *numbers)


def one_of_four(n: int) -> torch.Tensor:
    """A line of points that lack three of four features. Distances are twice the differences."""
    points = torch.full((1, n, 4), torch.nan, dtype=torch.float64)
    points[0, :, 0] = torch.arange(n)
    return points


def masked_tiles(points: torch.Tensor, *numbers: float) -> Arguments:
    tiled = in_tiles(points, kd_order(points, True), torch.nan).flatten(0, 1)
    rows, columns = (part.flatten() for part in torch.meshgrid(*[torch.arange(len(tiled))] * 2, indexing="ij"))
    return tiled, rows, columns, *numbers, True


def lattice(n: int, *numbers: float, width: int = 17, outlier: float | None = None) -> Arguments:
    """Whole coordinates, so that some distances equal a whole reach. One coordinate may be an ``outlier``."""
    points = torch.stack([torch.arange(n) % width, torch.arange(n) // width], -1).double()[None]
    if outlier is not None:
        points[0, 1, 0] = outlier
    tiled = points.new_full((-(-n // TILE), TILE, 2), torch.nan)
    tiled.view(-1, 2)[:n] = points[0]
    rows, columns = (part.flatten() for part in torch.meshgrid(*[torch.arange(len(tiled))] * 2, indexing="ij"))
    return tiled, rows, columns, *numbers


def little_of_much(*numbers: float) -> Arguments:
    """A line 1e5 long, and copies moved by 0.3 - 1e-5 and 0.3 + 1e-5. Float32 cannot tell which are within 0.3."""
    line = 1234.567 * torch.arange(TILE, dtype=torch.float64)[:, None]
    tiled = torch.stack([line, line + 0.29999, line + 0.30001])
    return tiled, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 2]), *numbers


def tiled(n_sets: int, n: int, width: int) -> Arguments:
    points = _points(n_sets, n, 3, 0.5)
    layout = tile_layout(points, 3.0)
    tiles = torch.rand(layout.n_stored, TILE, TILE, generator=seeded_generator(n)).half()
    _, *pairs = layout
    return tiles, stored_pairs(layout)[2], *pairs, _block(layout, n, width)


def _mixed(n_sets: int, n: int, width: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A block in node order, powers of two that scale its columns for each set, and an order of each set."""
    generator = seeded_generator(n + width)
    block = torch.randn(n * n_sets, width, dtype=torch.float64, generator=generator).to(dtype)
    powers = torch.randint(-30, 14, (n_sets, width), generator=generator)
    order = torch.rand(n_sets, n, generator=generator).argsort(1)
    return block, torch.ldexp(torch.ones(n_sets, width, dtype=dtype), powers), order


def into(n_sets: int, n: int, width: int, dtype: torch.dtype = torch.float64) -> Arguments:
    """The pass into a product. The powers make some half precision numbers 0 and some subnormal."""
    return _mixed(n_sets, n, width, dtype)


def out(n_sets: int, n: int, width: int, dtype: torch.dtype = torch.float64, *, empty: bool = False) -> Arguments:
    """The pass out of a product. A row has no, one or many entries with the other sets at its point."""
    generator = seeded_generator(n)
    block, inverse, order = _mixed(n_sets, n, width, dtype)
    sums = torch.randn(n_sets * n_tiles(n), TILE, -(-width // 16) * 16, generator=generator)
    dense = torch.rand(n * n_sets, n_sets, generator=generator) * (torch.rand(n * n_sets, 1, generator=generator) > 0.3)
    rows, columns = torch.nonzero(torch.zeros_like(dense) if empty else dense, as_tuple=True)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(rows, minlength=len(dense)).cumsum(0)])
    index = torch.int64 if width % 2 else torch.int32
    values = dense[rows, columns].to(dtype)
    return sums, inverse, order, indptr.to(index), columns.to(index), values, block


def clusters(*shape: int, k: int, scale: float = 1.0) -> Arguments:
    """Points and centers. One center equals another, and one point equals a center."""
    generator = seeded_generator(k)
    centers = scale * torch.randn(*shape[:-2], k, shape[-1], generator=generator)
    points = scale * torch.randn(*shape, generator=generator)
    centers[..., -1, :] = centers[..., 0, :]
    points[..., 0, :] = centers[..., 0, :]
    return points, centers


def no_tiles(arguments: Arguments) -> Arguments:
    """The case of stored tiles without an active tile."""
    tiles, slots, indptr, diagonal, columns, block = arguments
    return tiles[:0], slots[:0], torch.zeros_like(indptr), torch.zeros_like(diagonal), columns[:0], block


def nothing(arguments: Arguments) -> Arguments:
    """The case of Gaussian tiles without an active tile."""
    *rest, indptr, columns, block = arguments
    return *rest, torch.zeros_like(indptr), columns[:0], block


def strided(arguments: Arguments) -> Arguments:
    """The same case, where no tensor is contiguous."""
    return tuple(torch.stack([x, x], -1)[..., 0] if isinstance(x, torch.Tensor) else x for x in arguments)


# Some sizes are no multiples: of a tile (129, 300), of 16 columns (1, 17, 110), of a panel (130), of 16 features (20).
CASES: dict[str, tuple[str, Callable[[], Arguments]]] = {
    "gaussian, one tile": ("gaussian_product", lambda: gaussian(1, 50, 3, 1)),
    "gaussian, by differences": ("gaussian_product", lambda: gaussian(2, 300, 10, 110)),
    "gaussian, 16 features": ("gaussian_product", lambda: gaussian(1, 129, 16, 17)),
    "gaussian, by products": ("gaussian_product", lambda: gaussian(2, 300, 20, 17, spread=0.1)),
    "gaussian, wide tiles by products": ("gaussian_product", lambda: gaussian(1, 129, 20, 17, spread=0.5)),
    "gaussian, 32 features, panels": ("gaussian_product", lambda: gaussian(1, 129, 32, 130, spread=0.1)),
    "gaussian, many features, too far": ("gaussian_product", lambda: gaussian(1, 300, 20, 17, spread=3.0)),
    "gaussian, a point out of range": ("gaussian_product", lambda: gaussian(1, 129, 20, 4, spread=0.1, away=1e6)),
    "gaussian, no cut": ("gaussian_product", lambda: gaussian(1, 129, 3, 4, thresh=1e-30)),
    "gaussian, nothing": ("gaussian_product", lambda: nothing(gaussian(1, 129, 3, 4))),
    "entries, one tile": ("tile_entries", lambda: pairs(1, 50, 3, 1.0, 3.0)),
    "entries": ("tile_entries", lambda: pairs(2, 300, 10, 0.7, 2.1)),
    "entries, of duplicates only": ("tile_entries", lambda: pairs(1, 129, 3, 1.0, 1e-9)),
    "reached": ("tile_reached", lambda: pairs(2, 300, 3, 0.2)),
    "reached, one": ("tile_reached", lambda: pairs(1, 50, 10, 0.6)),
    "reached, nothing": ("tile_reached", lambda: pairs(1, 129, 3, -1.0)),
    "tiles, one": ("tile_matmul", lambda: tiled(1, 50, 1)),
    "tiles": ("tile_matmul", lambda: tiled(2, 300, 110)),
    "tiles, panels": ("tile_matmul", lambda: tiled(1, 129, 130)),
    "into, one tile": ("tile_block", lambda: into(1, 50, 1)),
    "into": ("tile_block", lambda: into(2, 300, 110)),
    "into, panels": ("tile_block", lambda: into(3, 129, 130, torch.float32)),
    "into, a tile to the brim": ("tile_block", lambda: into(3, 128, 16)),
    "into, strided": ("tile_block", lambda: strided(into(2, 129, 5))),
    "out, one tile": ("tile_rows", lambda: out(1, 50, 1)),
    "out": ("tile_rows", lambda: out(5, 300, 110)),
    "out, panels": ("tile_rows", lambda: out(3, 129, 130, torch.float32)),
    "out, of tiles only": ("tile_rows", lambda: out(3, 128, 16, empty=True)),
    "out, strided": ("tile_rows", lambda: strided(out(2, 129, 5))),
    "gaussian, strided": ("gaussian_product", lambda: strided(gaussian(1, 300, 3, 5))),
    "tiles, strided": ("tile_matmul", lambda: strided(tiled(1, 300, 5))),
    "tiles, nothing": ("tile_matmul", lambda: no_tiles(tiled(1, 129, 4))),
} | {
    # The float32 screen leaves pairs of these cases to float64 (see `test_float64_where_it_is_needed`).
    "entries, far away": ("tile_entries", lambda: pairs(1, 129, 10, 0.7e-3, 2.1e-3, scale=1e-3, away=1e4)),
    "entries, 100 features": ("tile_entries", lambda: pairs(1, 129, 100, 0.7, 2.1)),
    "entries, wide tiles": ("tile_entries", lambda: pairs(1, 129, 3, 0.7, 2.1, scale=300.0)),
    "entries, at the reach": ("tile_entries", lambda: lattice(129, 3.0, 5.0)),
    "entries, out of range": ("tile_entries", lambda: lattice(129, 3.0, 5.0, outlier=1e60)),
    "entries, tiny": ("tile_entries", lambda: pairs(1, 129, 3, 0.7e-60, 2.1e-60, scale=1e-60)),
    "reached, far away": ("tile_reached", lambda: pairs(2, 300, 3, 0.2e-3, scale=1e-3, away=1e4)),
    "entries, little of much": ("tile_entries", lambda: little_of_much(0.2, 0.3)),
    "reached, little of much": ("tile_reached", lambda: little_of_much(0.3)),
    # On this line the ends of every other tile are 129 apart.
    "reached, at the reach": ("tile_reached", lambda: lattice(300, 129.0, width=300)),
    "reached, just not": ("tile_reached", lambda: lattice(300, 129 - 1e-13, width=300)),
    "reached, out of range": ("tile_reached", lambda: lattice(300, 15.0, outlier=-1e60)),
}


# Points that lack features. In all names but one, tiles have features that some of their points lack.
CASES |= {
    f"{op}, masked: {name}": (f"tile_{op}", partial(masked_pairs, name, 1, 200, p, *numbers))
    for name, p in zip(PRESENT, (10, 25, 10, 3, 10, 10), strict=True)
    for op, numbers in (("entries", (0.7, 2.1)), ("reached", (0.3,)))
}
CASES |= {
    # Squares are 1, 2 or 4 over one, two or four of four features.
    "entries, masked, at the reach": (
        "tile_entries",
        lambda: masked_tiles(lacking(cases.lattice(1, 129, 4), "by node"), 1.0, 2.0),
    ),
    "reached, masked, at the reach": ("tile_reached", lambda: masked_tiles(one_of_four(300), 258.0)),
    "reached, masked, just not": ("tile_reached", lambda: masked_tiles(one_of_four(300), 258 - 1e-13)),
    "entries, masked, one feature": ("tile_entries", lambda: masked_pairs("by node", 1, 129, 1, 0.7, 2.1)),
    "entries, masked, far away": (
        "tile_entries",
        lambda: masked_pairs("by slice", 1, 129, 10, 0.7e-3, 2.1e-3, scale=1e-3, away=1e4),
    ),
    "entries, masked, wide tiles": ("tile_entries", lambda: masked_pairs("by node", 1, 129, 3, 0.7, 2.1, scale=300.0)),
    "reached, masked, wide tiles": ("tile_reached", lambda: masked_pairs("by node", 1, 129, 3, 0.7, scale=300.0)),
}


# Two centers may be equally near up to rounding. So the tests of these cases compare distances, not labels.
NEAREST: dict[str, Callable[[], Arguments]] = {
    "a single center": lambda: clusters(5, 3, k=1),
    "few features": lambda: clusters(300, 2, k=129),
    "100 features": lambda: clusters(129, 100, k=300),
    "a stack": lambda: clusters(3, 130, 33, k=31),
    "tiny": lambda: clusters(40, 7, k=9, scale=1e-15),
    "float64": lambda: tuple(part.double() for part in clusters(50, 4, k=7)),
}


def portable(name: str) -> torch.Tensor:
    op, make = CASES[name]
    return PORTABLE[op](*make())


def main(out: str) -> None:
    """Save the result of every case, how many blocks of pairs float64 decides in it, and the ops that the probe starts.

    Each op of the probe comes with the types of its first and last tensor and the width of the last.
    """
    from mmphate_gpu.ops.launch.twins import TRITON
    from mmphate_gpu.ops.triton import pairs

    near, results, in_double = pairs._near, {}, {}
    for name, (op, make) in CASES.items():
        calls = []
        pairs._near = lambda *arguments, calls=calls: calls.append(1) or near(*arguments)
        results[name] = TRITON.launchers[op](*make())
        in_double[name] = len(calls)
    results |= {name: TRITON.launchers["assign_nearest"](*make()) for name, make in NEAREST.items()}
    probed = []
    for op in sorted(TRITON.launchers):
        launch = TRITON.launchers[op]

        def noted(*arguments, op=op, launch=launch):
            tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
            probed.append((op, str(tensors[0].dtype), str(tensors[-1].dtype), tensors[-1].shape[-1]))
            return launch(*arguments)

        TRITON.launchers[op] = noted
    TRITON.rehearse(torch.device("cpu"))
    torch.save({"results": results, "in_double": in_double, "probed": probed}, out)


if __name__ == "__main__":
    main(sys.argv[1])
