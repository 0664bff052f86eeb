"""SciPy's sparse product, of one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.given import Product


def float64(given: Product) -> Found:
    return Found(given.in_scipy["float64"] @ given.columns["float64"])


def float32(given: Product) -> Found:
    return Found(given.in_scipy["float32"] @ given.columns["float32"])


PEER = Peer("scipy", {"product": {"float64": float64, "float32": float32}}, ("scipy",), ("scipy",), devices=("cpu",))
