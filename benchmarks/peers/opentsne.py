"""openTSNE: of the nodes as points, and of our graph in place of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import POINTS_ONLY, Found, Peer

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.peers.comparisons import Graph, Picture


def picture(given: Picture) -> Callable[[], Found]:
    """Its defaults, on all cores."""
    from openTSNE import TSNE

    points = given.points
    return lambda: Found(_plain(TSNE(n_jobs=_n_jobs(), random_state=0).fit(points)))


def picture_of_graph(given: Graph) -> Callable[[], Found]:
    """Our affinities, scaled to sum to one, from the principal components."""
    from openTSNE import TSNE
    from openTSNE.affinity import PrecomputedAffinities
    from openTSNE.initialization import rescale

    graph, start = given.graph.astype(float), given.start

    def run() -> Found:
        layout = {"affinities": PrecomputedAffinities(graph), "initialization": rescale(start)}
        return Found(_plain(TSNE(n_jobs=_n_jobs(), random_state=0).fit(**layout)))

    return run


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
    pace={"picture": (1.6, 1.0), "graph": (1.6, 1.0)},
)
