"""KeOps: reductions that store no matrix, through the operator and the search of this library that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Neighbors, Product


def lazy(inputs: Product) -> Callable[[], Result]:
    """The interslice part unit by unit in float64, cut and without the diagonal; the intraslice part is sparse."""
    operator = inputs.by_keops
    return lambda: Result(operator.product(inputs.block))


def neighbors(inputs: Neighbors) -> Callable[[], Result]:
    from mmphate_gpu.neighbors import kneighbors

    return lambda: Result(kneighbors(inputs.units, inputs.k, backend="keops")[1])


def lacks() -> str | None:
    from mmphate_gpu.runtime.keops import why_no_keops

    return why_no_keops()


PEERS = (
    Peer(
        "pykeops",
        {"product": {"matrix-free": lazy}, "neighbors": {"": neighbors}},
        ("torch", "pykeops.torch", "keopscore"),
        ("pykeops",),
        lacks=lacks,
    ),
)
