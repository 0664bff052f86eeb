"""FAISS without an index: all distances, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Neighbors


def neighbors(inputs: Neighbors) -> Callable[[], Result]:
    import faiss
    import numpy as np

    sets = inputs.sets32

    def search(points: np.ndarray) -> np.ndarray:  # (S, D) -> (S, k + 1)
        index = faiss.IndexFlatL2(points.shape[1])
        index.add(points)
        return index.search(points, inputs.k + 1)[1]

    return lambda: Result(np.stack([inputs.others(search(points)) for points in sets]))


PEER = Peer("faiss", {"neighbors": {"IndexFlatL2": neighbors}}, ("faiss",), ("faiss-cpu",), devices=("cpu",))
