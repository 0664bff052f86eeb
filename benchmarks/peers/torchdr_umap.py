"""TorchDR's UMAP: sparse neighbours by FAISS, negative samples, on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import POINTS_ONLY, Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Picture


def picture(given: Picture) -> Callable[[], Found]:
    """Its defaults; the neighbours by FAISS, as there."""
    from torchdr import UMAP

    points = given.points
    return lambda: Found(UMAP(device=given.device.type, random_state=0).fit_transform(points))


PEER = Peer(
    "torchdr-umap",
    {"picture": {"": picture}},
    ("torchdr", "faiss"),
    ("torchdr", "faiss-cpu", "faiss-gpu"),
    settings=POINTS_ONLY,
    pace={"picture": (5.0, 1.0)},
)
