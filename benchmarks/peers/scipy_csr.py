"""SciPy's sparse product, of one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Product


def float64(inputs: Product) -> Callable[[], Result]:
    matrix, columns = inputs.in_scipy("float64"), inputs.block.numpy()
    return lambda: Result(matrix @ columns)


def float32(inputs: Product) -> Callable[[], Result]:
    matrix, columns = inputs.in_scipy("float32"), inputs.block32.numpy()
    return lambda: Result(matrix @ columns)


DOES = {"product": {"float64": float64, "float32": float32}}
PEER = Peer("scipy", DOES, ("scipy.sparse",), ("scipy",), devices=("cpu",))
