"""openTSNE: of the nodes as points, and of our graph in place of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.peers import POINTS_ONLY, Found, Peer

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.given import Graph, Picture


def picture(given: Picture) -> Found:
    """Its defaults, on all cores."""
    from openTSNE import TSNE

    return Found(_plain(TSNE(n_jobs=_n_jobs(), random_state=0).fit(given.points)))


def picture_of_graph(given: Graph) -> Found:
    """Our affinities, scaled to sum to one, from the principal components."""
    from openTSNE import TSNE
    from openTSNE.affinity import PrecomputedAffinities
    from openTSNE.initialization import rescale

    start, affinities = rescale(given.start), PrecomputedAffinities(given.graph.astype(float))
    made = TSNE(n_jobs=_n_jobs(), random_state=0).fit(affinities=affinities, initialization=start)
    return Found(_plain(made))


def _plain(embedding: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.array(embedding)


def _n_jobs() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


PEER = Peer(
    "openTSNE",
    {"picture": {"": picture}, "graph": {"": picture_of_graph}},
    ("openTSNE",),
    ("openTSNE",),
    devices=("cpu",),
    settings=POINTS_ONLY,
)
