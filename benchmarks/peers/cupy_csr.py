"""CuPy's sparse product: cuSPARSE's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Product


def float32(inputs: Product) -> Callable[[], Result]:
    import cupy
    import torch

    matrix, columns = inputs.in_cupy(), cupy.from_dlpack(inputs.block32)
    return lambda: Result(torch.from_dlpack(matrix @ columns))


PEER = Peer("cupy", {"product": {"float32": float32}}, ("cupy",), ("cupy-cuda12x", "cupy-cuda13x"), devices=("cuda",))
