"""KeOps: reductions that store nothing, through this library's operator and search that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Neighbors, Product


def lazy(given: Product) -> Callable[[], Found]:
    """The Gaussian unit by unit, cut and without the diagonal, in float64; the intraslice part is a sparse product."""
    operator = given.by_keops
    return lambda: Found(operator.product(given.block))


def neighbors(given: Neighbors) -> Callable[[], Found]:
    from mmphate_gpu.neighbors import kneighbors

    return lambda: Found(kneighbors(given.units, given.k, backend="keops")[1])


def lacks() -> str | None:
    from mmphate_gpu.runtime.keops import why_no_keops

    return why_no_keops()


PEER = Peer(
    "pykeops",
    {"product": {"matrix-free": lazy}, "neighbors": {"": neighbors}},
    ("torch", "pykeops.torch", "keopscore"),
    ("pykeops",),
    lacks=lacks,
    pace={"product": (1.5, 2.0)},
)
