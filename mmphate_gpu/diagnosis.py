"""Signs in a run that its picture may mislead: equal states, islands, nodes without neighbors, and the time t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .landmarks.operator import Landmarks
from .operators.multislice import MultisliceAffinity
from .params import Params

# The largest shares of the nodes without a warning: outside the largest island, and without an interslice neighbor.
# At most 0.4 % of the nodes of the digits demo are not linked; in the Hopf scenario 29 % are not.
OUTSIDE, UNLINKED = 0.01, 0.2


@dataclass(frozen=True)
class Diagnosis:
    """Signs that a picture shows what the data do not.

    Attributes
    ----------
    constant : whether the points of all nodes are equal, up to rounding.
    islands : connected components of the diffusion graph; where they lie relative to each other is arbitrary.
    share_outside_largest_island, share_without_interslice_neighbor : shares of the nodes of the graph.
    t_at_end : whether "auto" chose the last t that the knee of the entropy can have.
    collapsed : whether all landmarks of an island have the same potential, up to rounding.
    """

    constant: bool
    islands: int
    share_outside_largest_island: float
    share_without_interslice_neighbor: float
    t_at_end: bool
    collapsed: bool

    @classmethod
    def of(
        cls,
        points: torch.Tensor,  # (S, M, D)
        resolution: torch.Tensor,  # (S, M)
        affinity: MultisliceAffinity,
        landmarks: Landmarks,
        *,
        t_at_end: bool,
        collapsed: bool,
    ) -> Diagnosis:
        """The signs of a run. O(N D) time, and two numbers that are read from the device."""
        low, high = points.flatten(0, 1).aminmax(dim=0)
        constant = bool((high - low).norm() <= resolution.min())  # NaN, a missing sample, is not constant
        sizes, n_nodes = landmarks.island_sizes(), len(landmarks.clusters)
        outside = 1 - int(sizes.max()) / n_nodes
        return cls(constant, len(sizes), outside, affinity.n_unlinked / n_nodes, t_at_end, collapsed)

    def by_stage(self) -> dict[str, dict[str, Any]]:
        """The signs by the stage that shows them, for its report."""
        return {
            "reduce": {"constant": self.constant},
            "affinity": {"share_without_interslice_neighbor": self.share_without_interslice_neighbor},
            "landmarks": {
                "islands": self.islands,
                "share_outside_largest_island": self.share_outside_largest_island,
            },
            "entropy": {"t_at_end": self.t_at_end},
            "distances": {"collapsed": self.collapsed},
        }

    def sentence(self, p: Params, t: int) -> str | None:
        """What is wrong with a picture of the parameters ``p``, and the settings that may help; None if nothing is."""
        islands = self.share_outside_largest_island > OUTSIDE
        unlinked = self.share_without_interslice_neighbor > UNLINKED
        signs = {
            f"the {'z-scored ' * p.normalize}states of all nodes are equal, so the places say nothing of the data": (
                self.constant
            ),
            f"the diffusion graph has {self.islands:,} islands, whose places relative to each other are arbitrary, and "
            f"{self.share_outside_largest_island:.1%} of the nodes are outside the largest": islands,
            f"{self.share_without_interslice_neighbor:.1%} of the nodes have no interslice neighbor": unlinked,
            f"t={t} is the end of its range": self.t_at_end,
            f"after t={t} steps all landmarks of an island have the same potential, so its shape is only rounding": (
                self.collapsed
            ),
        }
        settings = {
            "normalize=False": self.constant and p.normalize,
            "a trace whose states differ": self.constant and not p.normalize,
            f"an interslice_knn above {p.interslice_knn}": islands or unlinked,
            "landmarks='stratified'": islands and p.landmarks == "spectral",
            f"a t_max above {p.t_max}": self.t_at_end,
            f"a t below {t}": self.collapsed,
        }
        said, helps = ([text for text, holds in texts.items() if holds] for texts in (signs, settings))
        return f"this picture may mislead: {'; '.join(said)}; {' or '.join(helps)} may help" if said else None
