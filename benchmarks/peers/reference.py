"""This project's reference: the whole method dense, in float64, by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Picture


def picture(given: Picture) -> Callable[[], Found]:
    from mmphate_gpu import reference

    data = given.trace.data.cpu().numpy()

    def run() -> Found:
        result = reference.mmphate(data, n_components=2, random_state=0)
        return Found(result.embedding, {"t": result.t, "stress": result.stress})

    return run


ARRAYS = 3  # of nodes by nodes, at the same time
# Where it ends is asked of every size: by time at one, by memory at a larger one.
PEER = Peer(
    "reference",
    {"picture": {"": picture}},
    ("mmphate_gpu.reference",),
    devices=("cpu",),
    most_seconds=300.0,
    pace={"picture": (2.7, 2.0)},
    needs_bytes=lambda n: ARRAYS * 8 * n**2,
    every_size=True,
    own=True,
)
