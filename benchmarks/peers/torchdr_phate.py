"""PHATE of TorchDR: dense, with Adam in place of SMACOF; a method for points."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import POINTS_ONLY, Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Picture


def picture(inputs: Picture) -> Callable[[], Result]:
    """Its defaults, also for the diffusion time, for which it has no rule."""
    from torchdr import PHATE

    points = inputs.points
    return lambda: Result(PHATE(device=inputs.device.type, random_state=0).fit_transform(points))


PEER = Peer(
    "torchdr-phate",
    {"picture": {"": picture}},
    ("torchdr",),
    ("torchdr",),
    settings=POINTS_ONLY,
    pace={"picture": (8.0, 2.0)},
)
