"""PyNNDescent: approximate neighbors on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Neighbors


def neighbors(inputs: Neighbors) -> Callable[[], Result]:
    """Its defaults, from one seed."""
    import numpy as np
    from pynndescent import NNDescent

    sets = inputs.sets32

    def search(points: np.ndarray) -> np.ndarray:  # (S, D) -> (S, k + 1)
        return NNDescent(points, n_neighbors=inputs.k + 1, random_state=0).neighbor_graph[0]

    return lambda: Result(np.stack([inputs.others(search(points)) for points in sets]))


PEER = Peer(
    "pynndescent",
    {"neighbors": {"": neighbors}},
    ("pynndescent",),
    ("pynndescent", "numba"),
    devices=("cpu",),
    pace={"neighbors": (30.0, 0.2)},  # numba compiles
)
