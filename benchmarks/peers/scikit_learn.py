"""scikit-learn: SMACOF, and exact neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Neighbors, Scaling


# It is asked for its stress every so many sweeps, of many landmarks more: what a call costs beside them is a few per
# cent of them, and it does not do many more than it needs.
SWEEPS, MANY_SWEEPS, MANY = 5, 25, 1000
MOST_SWEEPS = 3000
SAME_STRESS = 1.001


def mds(given: Scaling) -> Callable[[], Found]:
    """Metric SMACOF from the same start until it has the stress that we end with, or for `MOST_SWEEPS`."""
    import numpy as np
    from sklearn.manifold import smacof

    distances, start = given.distances.cpu().numpy(), given.start.cpu().numpy()
    # It counts each pair once, squared and not normalised.
    raw = (SAME_STRESS * given.target) ** 2 * np.square(distances).sum() / 2
    at_once = SWEEPS if len(distances) < MANY else MANY_SWEEPS

    def run() -> Found:
        places, sweeps, stress = start, 0, np.inf
        while stress > raw and sweeps < MOST_SWEEPS:
            places, stress = smacof(distances, n_components=2, init=places, n_init=1, max_iter=at_once, eps=0)
            sweeps += at_once
        return Found(places, {"settings": {"sweeps": sweeps, "until": "stress within 0.1 % of ours"}})

    return run


def brute(given: Neighbors) -> Callable[[], Found]:
    return _indices(given, "brute")


def kd_tree(given: Neighbors) -> Callable[[], Found]:
    return _indices(given, "kd_tree")


def _indices(given: Neighbors, algorithm: str) -> Callable[[], Found]:
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    sets, search = given.sets, NearestNeighbors(n_neighbors=given.k, algorithm=algorithm, n_jobs=-1)
    # Without points of its own to look for it leaves each point out of its own neighbours.
    return lambda: Found(np.stack([search.fit(points).kneighbors(return_distance=False) for points in sets]))


PEER = Peer(
    "scikit-learn",
    {"mds": {"": mds}, "neighbors": {"brute": brute, "kd_tree": kd_tree}},
    ("sklearn.manifold", "sklearn.neighbors"),
    ("scikit-learn",),
    devices=("cpu",),
    pace={"mds": (0.3, 2.0)},
)
