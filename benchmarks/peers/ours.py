"""This library as it is installed, the native twins where they serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer
from benchmarks.rows import OURS

if TYPE_CHECKING:
    from benchmarks.given import Graph, Neighbors, Picture, Product, Scaling


def picture(given: Picture) -> Found:
    from mmphate_gpu import MMPHATE

    op = MMPHATE(n_components=2, random_state=0, device=given.device).fit(given.trace)
    return Found(op.result_.coordinates, {"t": op.t_, "stress": op.stress_})


def picture_of_graph(given: Graph) -> Found:
    from mmphate_gpu import diffusion_potential, landmark_diffusion, metric_mds, optimal_t, potential_distances
    from mmphate_gpu.pipeline import interpolate

    landmarks = landmark_diffusion(given.operator, random_state=0)
    t = optimal_t(landmarks.landmark_op)
    distances = potential_distances(diffusion_potential(landmarks.landmark_op, t))
    mds = metric_mds(distances, 2, random_state=0)
    return Found(interpolate(landmarks.transitions, mds.coordinates), {"t": t, "stress": mds.stress})


def mds(given: Scaling) -> Found:
    from mmphate_gpu import metric_mds

    return Found(metric_mds(given.distances, 2, init=given.start).coordinates)


def sparse_float64(given: Product) -> Found:
    return Found(given.sparse.product(given.block))


def sparse_float32(given: Product) -> Found:
    return Found(given.sparse.product(given.block.float()))


def lazy(given: Product) -> Found:
    return Found(given.lazy.product(given.block))


def kth_distances(given: Neighbors) -> Found:
    from mmphate_gpu.neighbors import kth_neighbor_distance

    return Found(kth_neighbor_distance(given.units, given.k))


def medians(given: Neighbors) -> Found:
    from mmphate_gpu.neighbors import median_kth_neighbor_distance

    return Found(median_kth_neighbor_distance(given.units, given.k))


DOES = {
    "picture": {"": picture},
    "graph": {"": picture_of_graph},
    "mds": {"": mds},
    "product": {"sparse, float64": sparse_float64, "sparse, float32": sparse_float32, "matrix-free": lazy},
    "neighbors": {"k-th distances": kth_distances, "medians by counting": medians},
}
PEER = Peer(OURS, DOES)
