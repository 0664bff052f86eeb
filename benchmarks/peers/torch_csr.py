"""torch's sparse product: MKL's on a CPU, cuSPARSE's on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Product


def float64(given: Product) -> Callable[[], Found]:
    matrix, columns = given.in_torch("float64"), given.block
    return lambda: Found(matrix @ columns)


def float32(given: Product) -> Callable[[], Found]:
    matrix, columns = given.in_torch("float32"), given.block32
    return lambda: Found(matrix @ columns)


PEER = Peer("torch", {"product": {"float64": float64, "float32": float32}}, ("torch",))
