"""SciPy's sparse product, of one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Product


def float64(given: Product) -> Callable[[], Found]:
    matrix, columns = given.in_scipy("float64"), given.block.numpy()
    return lambda: Found(matrix @ columns)


def float32(given: Product) -> Callable[[], Found]:
    matrix, columns = given.in_scipy("float32"), given.block32.numpy()
    return lambda: Found(matrix @ columns)


DOES = {"product": {"float64": float64, "float32": float32}}
PEER = Peer("scipy", DOES, ("scipy.sparse",), ("scipy",), devices=("cpu",))
