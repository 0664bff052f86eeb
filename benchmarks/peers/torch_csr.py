"""torch's sparse product: MKL's on a CPU, cuSPARSE's on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Product


def float64(inputs: Product) -> Callable[[], Result]:
    matrix, columns = inputs.in_torch("float64"), inputs.block
    return lambda: Result(matrix @ columns)


def float32(inputs: Product) -> Callable[[], Result]:
    matrix, columns = inputs.in_torch("float32"), inputs.block32
    return lambda: Result(matrix @ columns)


PEER = Peer("torch", {"product": {"float64": float64, "float32": float32}}, ("torch",))
