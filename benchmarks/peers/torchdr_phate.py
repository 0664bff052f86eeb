"""TorchDR's PHATE: dense, its stress lowered by Adam; another implementation of the method for points."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import POINTS_ONLY, Found, Peer

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Picture


def picture(given: Picture) -> Callable[[], Found]:
    """Its defaults, the time among them: it has no rule for it."""
    from torchdr import PHATE

    points = given.points
    return lambda: Found(PHATE(device=given.device.type, random_state=0).fit_transform(points))


PEER = Peer(
    "torchdr-phate",
    {"picture": {"": picture}},
    ("torchdr",),
    ("torchdr",),
    settings=POINTS_ONLY,
    pace={"picture": (8.0, 2.0)},
)
