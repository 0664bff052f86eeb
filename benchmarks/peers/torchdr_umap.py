"""UMAP of TorchDR, with neighbors by FAISS, on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import POINTS_ONLY, Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Picture


def picture(inputs: Picture) -> Callable[[], Result]:
    """Its defaults, with neighbors by FAISS."""
    from torchdr import UMAP

    points = inputs.points
    return lambda: Result(UMAP(device=inputs.device.type, random_state=0).fit_transform(points))


PEER = Peer(
    "torchdr-umap",
    {"picture": {"": picture}},
    ("torchdr", "faiss"),
    ("torchdr", "faiss-cpu", "faiss-gpu"),
    settings=POINTS_ONLY,
    pace={"picture": (5.0, 1.0)},
)
