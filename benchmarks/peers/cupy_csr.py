"""CuPy's sparse product: cuSPARSE's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.given import Product


def float32(given: Product) -> Found:
    import cupy
    import torch

    columns = cupy.from_dlpack(given.block.float())
    return Found(torch.from_dlpack(given.in_cupy @ columns))


PEER = Peer("cupy", {"product": {"float32": float32}}, ("cupy",), ("cupy-cuda12x", "cupy-cuda13x"), devices=("cuda",))
