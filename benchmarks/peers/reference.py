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


# Every size is tried, because time ends it at one size and memory at a larger one.
PEERS = (
    Peer(
        "reference",
        {"picture": {"": picture}},
        ("mmphate_gpu.reference",),
        devices=("cpu",),
        most_seconds=300.0,
        every_size=True,
        of_project=True,
    ),
)
