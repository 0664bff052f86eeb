"""TorchDR: its PHATE and its UMAP, methods for points, on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import POINTS_ONLY, Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Picture


def phate(inputs: Picture) -> Callable[[], Result]:
    """Dense, with Adam in place of SMACOF; its defaults, also for the diffusion time, for which it has no rule."""
    from torchdr import PHATE

    points = inputs.points
    return lambda: Result(PHATE(device=inputs.device.type, random_state=0).fit_transform(points))


def umap(inputs: Picture) -> Callable[[], Result]:
    """Its defaults, with neighbors by FAISS."""
    from torchdr import UMAP

    points = inputs.points
    return lambda: Result(UMAP(device=inputs.device.type, random_state=0).fit_transform(points))


PEERS = (
    Peer(
        "torchdr-phate",
        {"picture": {"": phate}},
        ("torchdr",),
        ("torchdr",),
        settings=POINTS_ONLY,
    ),
    Peer(
        "torchdr-umap",
        {"picture": {"": umap}},
        ("torchdr", "faiss"),
        ("torchdr", "faiss-cpu", "faiss-gpu"),
        settings=POINTS_ONLY,
    ),
)
