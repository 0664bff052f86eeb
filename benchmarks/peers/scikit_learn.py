"""scikit-learn: SMACOF, and exact neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.given import Neighbors, Scaling

# It is asked for its stress every so many sweeps; what a call costs beside them is a few per cent of them.
SWEEPS, MOST_SWEEPS = 25, 3000
SAME_STRESS = 1.001


def mds(given: Scaling) -> Found:
    """Metric SMACOF from the same start until it has the stress that we end with, or for `MOST_SWEEPS`."""
    import numpy as np
    from sklearn.manifold import smacof

    distances, places = given.distances.cpu().numpy(), given.start.cpu().numpy()
    # It counts each pair once, squared and not normalised.
    raw = (SAME_STRESS * given.target) ** 2 * np.square(distances).sum() / 2
    sweeps, stress = 0, np.inf
    while stress > raw and sweeps < MOST_SWEEPS:
        places, stress = smacof(distances, n_components=2, init=places, n_init=1, max_iter=SWEEPS, eps=0)
        sweeps += SWEEPS
    return Found(places, {"settings": {"sweeps": sweeps, "until": "stress within 0.1 % of ours"}})


def brute(given: Neighbors) -> Found:
    return _indices(given, "brute")


def kd_tree(given: Neighbors) -> Found:
    return _indices(given, "kd_tree")


def _indices(given: Neighbors, algorithm: str) -> Found:
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=given.k, algorithm=algorithm, n_jobs=-1)
    # Without points of its own to look for it leaves each point out of its own neighbours.
    return Found(np.stack([search.fit(points).kneighbors(return_distance=False) for points in given.sets]))


PEER = Peer(
    "scikit-learn",
    {"mds": {"": mds}, "neighbors": {"brute": brute, "kd_tree": kd_tree}},
    ("sklearn",),
    ("scikit-learn",),
    devices=("cpu",),
)
