"""FAISS without an index: all distances, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Neighbors


def neighbors(given: Neighbors) -> Callable[[], Found]:
    import faiss
    import numpy as np

    sets = given.sets32

    def search(points: np.ndarray) -> np.ndarray:  # (S, D) -> (S, k + 1)
        index = faiss.IndexFlatL2(points.shape[1])
        index.add(points)
        return index.search(points, given.k + 1)[1]

    return lambda: Found(np.stack([given.others(search(points)) for points in sets]))


PEER = Peer("faiss", {"neighbors": {"IndexFlatL2": neighbors}}, ("faiss",), ("faiss-cpu",), devices=("cpu",))
