"""scikit-learn: SMACOF, and exact neighbors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Neighbors, Scaling


# Sweeps of one call, after which the stress is checked. More sweeps for many landmarks: the rest of a call then takes a
# few per cent of its time, and not many sweeps are wasted.
SWEEPS, MANY_SWEEPS, MANY = 5, 25, 1000
MOST_SWEEPS = 3000
SAME_STRESS = 1.001


def mds(inputs: Scaling) -> Callable[[], Result]:
    """Metric SMACOF from the same start, until it reaches our final stress or `MOST_SWEEPS`."""
    import numpy as np
    from sklearn.manifold import smacof

    distances, start = inputs.distances.cpu().numpy(), inputs.start.cpu().numpy()
    # Its stress is a sum of squares over unordered pairs, not normalized.
    raw = (SAME_STRESS * inputs.target) ** 2 * np.square(distances).sum() / 2
    at_once = SWEEPS if len(distances) < MANY else MANY_SWEEPS

    def run() -> Result:
        places, sweeps, stress = start, 0, np.inf
        while stress > raw and sweeps < MOST_SWEEPS:
            places, stress = smacof(distances, n_components=2, init=places, n_init=1, max_iter=at_once, eps=0)
            sweeps += at_once
        return Result(places, {"settings": {"sweeps": sweeps, "until": "stress within 0.1 % of ours"}})

    return run


def brute(inputs: Neighbors) -> Callable[[], Result]:
    return _indices(inputs, "brute")


def kd_tree(inputs: Neighbors) -> Callable[[], Result]:
    return _indices(inputs, "kd_tree")


def _indices(inputs: Neighbors, algorithm: str) -> Callable[[], Result]:
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    sets, search = inputs.sets, NearestNeighbors(n_neighbors=inputs.k, algorithm=algorithm, n_jobs=-1)
    # Called without points, it leaves each point out of its neighbors.
    return lambda: Result(np.stack([search.fit(points).kneighbors(return_distance=False) for points in sets]))


PEERS = (
    Peer(
        "scikit-learn",
        {"mds": {"": mds}, "neighbors": {"brute": brute, "kd_tree": kd_tree}},
        ("sklearn.manifold", "sklearn.neighbors"),
        ("scikit-learn",),
        devices=("cpu",),
    ),
)
