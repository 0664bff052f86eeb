"""This library without its native twins: the portable versions of the ops."""

from __future__ import annotations

from benchmarks.measure.rows import PORTABLE
from benchmarks.peers import Peer
from benchmarks.peers.ours import PACKAGES, kth_distances, mds, medians, picture, sparse_float32, sparse_float64

PEER = Peer(
    PORTABLE,
    {
        "picture": {"": picture},
        "mds": {"": mds},
        "product": {"sparse, float64": sparse_float64, "sparse, float32": sparse_float32},
        "neighbors": {"k-th distances": kth_distances, "medians": medians},
    },
    PACKAGES,
    environment={"MMPHATE_GPU_NATIVE": "0"},
    pace={"picture": (1.0, 1.2)},
    of_project=True,
)
