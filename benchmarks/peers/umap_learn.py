"""umap-learn, on the nodes as points and on our graph in place of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import POINTS_ONLY, Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Graph, Picture

# Its defaults. It takes fewer epochs for more than 10,000 points.
SPREAD, MIN_DIST = 1.0, 0.1
MANY, FEW_EPOCHS, MANY_EPOCHS = 10_000, 200, 500


def picture(inputs: Picture) -> Callable[[], Result]:
    """Its defaults, without a seed, because a seed restricts it to one thread."""
    from umap import UMAP

    points = inputs.points

    def run() -> Result:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Result(UMAP().fit_transform(points))

    return run


def picture_of_graph(inputs: Graph) -> Callable[[], Result]:
    """Its layout with our affinities as membership strengths, started from the principal components."""
    import numpy as np
    from umap.umap_ import find_ab_params, simplicial_set_embedding

    a, b = find_ab_params(SPREAD, MIN_DIST)
    epochs = FEW_EPOCHS if inputs.graph.shape[0] > MANY else MANY_EPOCHS
    layout = {"initial_alpha": 1.0, "a": a, "b": b, "gamma": 1.0, "negative_sample_rate": 5, "n_epochs": epochs}
    density = {"densmap": False, "densmap_kwds": {}, "output_dens": False}
    points, graph, start = inputs.points, inputs.graph, inputs.start.astype(np.float32)

    def run() -> Result:
        places, _ = simplicial_set_embedding(
            points,
            graph.tocoo(),  # a copy, because it drops entries
            2,
            **layout,
            init=start,
            random_state=np.random.RandomState(0),
            metric="euclidean",
            metric_kwds={},
            **density,
            parallel=True,
        )
        return Result(places)

    return run


PEERS = (
    Peer(
        "umap-learn",
        {"picture": {"": picture}, "graph": {"": picture_of_graph}},
        ("umap",),
        ("umap-learn", "pynndescent", "numba"),
        devices=("cpu",),
        settings=POINTS_ONLY,
    ),
)
