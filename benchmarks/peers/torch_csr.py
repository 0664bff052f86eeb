"""torch's sparse product: MKL's on a CPU, cuSPARSE's on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.given import Product


def float64(given: Product) -> Found:
    return Found(given.in_torch["float64"] @ given.block)


def float32(given: Product) -> Found:
    return Found(given.in_torch["float32"] @ given.block.float())


PEER = Peer("torch", {"product": {"float64": float64, "float32": float32}})
