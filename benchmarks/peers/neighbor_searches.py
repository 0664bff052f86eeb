"""Searches for neighbors in float32: PyNNDescent (approximate), and FAISS without an index (all distances)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.peers.comparisons import Neighbors


def nndescent(inputs: Neighbors) -> Callable[[], Result]:
    """Its defaults, with a seed."""
    from pynndescent import NNDescent

    def search(points: np.ndarray) -> np.ndarray:  # (S, D) -> (S, k + 1)
        return NNDescent(points, n_neighbors=inputs.k + 1, random_state=0).neighbor_graph[0]

    return _of_every_unit(inputs, search)


def faiss_flat(inputs: Neighbors) -> Callable[[], Result]:
    import faiss

    def search(points: np.ndarray) -> np.ndarray:  # (S, D) -> (S, k + 1)
        index = faiss.IndexFlatL2(points.shape[1])
        index.add(points)
        return index.search(points, inputs.k + 1)[1]

    return _of_every_unit(inputs, search)


def _of_every_unit(inputs: Neighbors, search: Callable[[np.ndarray], np.ndarray]) -> Callable[[], Result]:
    import numpy as np

    sets = inputs.sets32
    return lambda: Result(np.stack([inputs.others(search(points)) for points in sets]))


PEERS = (
    Peer(
        "pynndescent",
        {"neighbors": {"": nndescent}},
        ("pynndescent",),
        ("pynndescent", "numba"),
        devices=("cpu",),
    ),
    Peer("faiss", {"neighbors": {"IndexFlatL2": faiss_flat}}, ("faiss",), ("faiss-cpu",), devices=("cpu",)),
)
