"""FAISS without an index: all distances, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.given import Neighbors


def neighbors(given: Neighbors) -> Found:
    import numpy as np

    return Found(np.stack([_others(points.astype(np.float32), given.k) for points in given.sets]))


def _others(points: np.ndarray, k: int) -> np.ndarray:  # (S, D) -> (S, k)
    """The k nearest but the point itself; of duplicates that crowd it out the last goes."""
    import faiss
    import numpy as np

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    _, found = index.search(points, k + 1)
    own = found == np.arange(len(points))[:, None]
    own[~own.any(1), -1] = True
    return found[~own].reshape(len(points), k)


PEER = Peer("faiss", {"neighbors": {"IndexFlatL2": neighbors}}, ("faiss",), ("faiss-cpu",), devices=("cpu",))
