"""openTSNE, on the nodes as points and on our graph in place of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.measure.conditions import n_cores
from benchmarks.peers import POINTS_ONLY, Peer, Result

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.peers.comparisons import Graph, Picture


def picture(inputs: Picture) -> Callable[[], Result]:
    """Its defaults, on all cores."""
    from openTSNE import TSNE

    points = inputs.points
    return lambda: Result(_plain(TSNE(n_jobs=n_cores(), random_state=0).fit(points)))


def picture_of_graph(inputs: Graph) -> Callable[[], Result]:
    """Its layout of our affinities, scaled to sum to 1, started from the principal components."""
    from openTSNE import TSNE
    from openTSNE.affinity import PrecomputedAffinities
    from openTSNE.initialization import rescale

    graph, start = inputs.graph.astype(float), inputs.start

    def run() -> Result:
        layout = {"affinities": PrecomputedAffinities(graph), "initialization": rescale(start)}
        return Result(_plain(TSNE(n_jobs=n_cores(), random_state=0).fit(**layout)))

    return run


def _plain(embedding: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.array(embedding)


PEERS = (
    Peer(
        "openTSNE",
        {"picture": {"": picture}, "graph": {"": picture_of_graph}},
        ("openTSNE",),
        ("openTSNE",),
        devices=("cpu",),
        settings=POINTS_ONLY,
    ),
)
