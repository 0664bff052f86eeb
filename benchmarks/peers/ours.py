"""This library: with the native twins if they are available, and without them (the portable versions of the ops)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.measure.rows import OURS, PORTABLE
from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Graph, Neighbors, Picture, Product, Scaling


def picture(inputs: Picture) -> Callable[[], Result]:
    from mmphate_gpu import MMPHATE

    def run() -> Result:
        op = MMPHATE(n_components=2, random_state=0, device=inputs.device).fit(inputs.trace)
        return Result(op.result_.coordinates, {"t": op.t_, "stress": op.stress_})

    return run


def picture_of_graph(inputs: Graph) -> Callable[[], Result]:
    from mmphate_gpu import diffusion_potential, landmark_diffusion, metric_mds, optimal_t, potential_distances
    from mmphate_gpu.pipeline import interpolate

    operator = inputs.operator

    def run() -> Result:
        landmarks = landmark_diffusion(operator, random_state=0)
        t = optimal_t(landmarks.landmark_op)
        distances = potential_distances(diffusion_potential(landmarks.landmark_op, t))
        mds = metric_mds(distances, 2, random_state=0)
        return Result(interpolate(landmarks.transitions, mds.coordinates), {"t": t, "stress": mds.stress})

    return run


def mds(inputs: Scaling) -> Callable[[], Result]:
    from mmphate_gpu import metric_mds

    return lambda: Result(metric_mds(inputs.distances, 2, init=inputs.start).coordinates)


def sparse_float64(inputs: Product) -> Callable[[], Result]:
    operator = inputs.sparse
    return lambda: Result(operator.product(inputs.block))


def sparse_float32(inputs: Product) -> Callable[[], Result]:
    operator, columns = inputs.sparse, inputs.block32
    return lambda: Result(operator.product(columns))


def lazy(inputs: Product) -> Callable[[], Result]:
    operator = inputs.lazy
    return lambda: Result(operator.product(inputs.block))


def kth_distances(inputs: Neighbors) -> Callable[[], Result]:
    from mmphate_gpu.neighbors import kth_neighbor_distance

    return lambda: Result(kth_neighbor_distance(inputs.units, inputs.k))


def medians(inputs: Neighbors) -> Callable[[], Result]:
    from mmphate_gpu.neighbors import median_kth_neighbor_distance

    return lambda: Result(median_kth_neighbor_distance(inputs.units, inputs.k))


DOES = {
    "picture": {"": picture},
    "graph": {"": picture_of_graph},
    "mds": {"": mds},
    "product": {"sparse, float64": sparse_float64, "sparse, float32": sparse_float32, "matrix-free": lazy},
    "neighbors": {"k-th distances": kth_distances, "medians by counting": medians},
}
PORTABLE_DOES = {
    "picture": {"": picture},
    "mds": {"": mds},
    "product": {"sparse, float64": sparse_float64, "sparse, float32": sparse_float32},
    "neighbors": {"k-th distances": kth_distances, "medians": medians},
}
PACKAGES = ("torch", "mmphate_gpu.estimator")
PEERS = (
    Peer(OURS, DOES, PACKAGES, of_project=True),
    Peer(
        PORTABLE,
        PORTABLE_DOES,
        PACKAGES,
        environment={"MMPHATE_GPU_NATIVE": "0"},
        of_project=True,
    ),
)
