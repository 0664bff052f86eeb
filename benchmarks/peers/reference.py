"""The reference of this project: the whole method with dense float64 NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Picture


def picture(inputs: Picture) -> Callable[[], Result]:
    from mmphate_gpu import reference

    data = inputs.trace.data.cpu().numpy()

    def run() -> Result:
        result = reference.mmphate(data, n_components=2, random_state=0)
        return Result(result.embedding, {"t": result.t, "stress": result.stress})

    return run


ARRAYS = 3  # arrays (N, N) that it holds at the same time
# Every size is tried, because time ends it at one size and memory at a larger one.
PEER = Peer(
    "reference",
    {"picture": {"": picture}},
    ("mmphate_gpu.reference",),
    devices=("cpu",),
    most_seconds=300.0,
    pace={"picture": (2.7, 2.0)},
    needs_bytes=lambda n: ARRAYS * 8 * n**2,
    every_size=True,
    of_project=True,
)
