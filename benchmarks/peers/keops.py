"""KeOps: reductions that store nothing, through this library's operator and search that use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.given import Neighbors, Product


def lazy(given: Product) -> Found:
    """The Gaussian unit by unit, cut and without the diagonal, in float64; the intraslice part is a sparse product."""
    return Found(given.by_keops.product(given.block))


def neighbors(given: Neighbors) -> Found:
    from mmphate_gpu.neighbors import kneighbors

    return Found(kneighbors(given.units, given.k, backend="keops")[1])


def lacks() -> str | None:
    from mmphate_gpu._optional import why_no_keops

    return why_no_keops()


PEER = Peer(
    "pykeops",
    {"product": {"matrix-free": lazy}, "neighbors": {"": neighbors}},
    ("pykeops", "keopscore"),
    ("pykeops",),
    lacks=lacks,
)
