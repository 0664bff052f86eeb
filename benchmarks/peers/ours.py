"""This library as it is installed, the native twins where they serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.measure.rows import OURS
from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Graph, Neighbors, Picture, Product, Scaling


def picture(given: Picture) -> Callable[[], Found]:
    from mmphate_gpu import MMPHATE

    def run() -> Found:
        op = MMPHATE(n_components=2, random_state=0, device=given.device).fit(given.trace)
        return Found(op.result_.coordinates, {"t": op.t_, "stress": op.stress_})

    return run


def picture_of_graph(given: Graph) -> Callable[[], Found]:
    from mmphate_gpu import diffusion_potential, landmark_diffusion, metric_mds, optimal_t, potential_distances
    from mmphate_gpu.pipeline import interpolate

    operator = given.operator

    def run() -> Found:
        landmarks = landmark_diffusion(operator, random_state=0)
        t = optimal_t(landmarks.landmark_op)
        distances = potential_distances(diffusion_potential(landmarks.landmark_op, t))
        mds = metric_mds(distances, 2, random_state=0)
        return Found(interpolate(landmarks.transitions, mds.coordinates), {"t": t, "stress": mds.stress})

    return run


def mds(given: Scaling) -> Callable[[], Found]:
    from mmphate_gpu import metric_mds

    return lambda: Found(metric_mds(given.distances, 2, init=given.start).coordinates)


def sparse_float64(given: Product) -> Callable[[], Found]:
    operator = given.sparse
    return lambda: Found(operator.product(given.block))


def sparse_float32(given: Product) -> Callable[[], Found]:
    operator, columns = given.sparse, given.block32
    return lambda: Found(operator.product(columns))


def lazy(given: Product) -> Callable[[], Found]:
    operator = given.lazy
    return lambda: Found(operator.product(given.block))


def kth_distances(given: Neighbors) -> Callable[[], Found]:
    from mmphate_gpu.neighbors import kth_neighbor_distance

    return lambda: Found(kth_neighbor_distance(given.units, given.k))


def medians(given: Neighbors) -> Callable[[], Found]:
    from mmphate_gpu.neighbors import median_kth_neighbor_distance

    return lambda: Found(median_kth_neighbor_distance(given.units, given.k))


DOES = {
    "picture": {"": picture},
    "graph": {"": picture_of_graph},
    "mds": {"": mds},
    "product": {"sparse, float64": sparse_float64, "sparse, float32": sparse_float32, "matrix-free": lazy},
    "neighbors": {"k-th distances": kth_distances, "medians by counting": medians},
}
PACKAGES = ("torch", "mmphate_gpu.estimator")
PEER = Peer(OURS, DOES, PACKAGES, own=True)
