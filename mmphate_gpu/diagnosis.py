"""Signs in a run that its picture may mislead: equal states, islands, nodes without neighbors, and the time t."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from .landmarks.operator import Landmarks
from .operators.multislice import MultisliceAffinity
from .params import Params

# The largest shares of the nodes without a warning: outside the largest island, and without an interslice neighbor.
# At most 0.4 % of the nodes of the digits demo are not linked; in the Hopf scenario 29 % are not.
OUTSIDE, UNLINKED = 0.01, 0.2
# What the places of islands say, by the parameter `islands`.
PLACES_OF_ISLANDS = {"potential": "are arbitrary", "states": "show how far their mean states are apart, not diffusion"}


@dataclass(frozen=True)
class Diagnosis:
    """Signs that a picture shows what the data do not.

    Attributes
    ----------
    constant : whether the points of all nodes are equal, up to rounding.
    islands : connected components of the diffusion graph; diffusion says nothing of their places beside one another.
    share_outside_largest_island, share_without_interslice_neighbor : shares of the nodes of the graph.
    t_at_end : whether "auto" or "eigenvalues" chose the last t that the knee of the entropy can have.
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

    @classmethod
    def of_stages(cls, stages: Iterable[Mapping[str, Any]]) -> Diagnosis | None:
        """The signs in the reports of the stages, as in report.json; None if one is missing or of another type."""
        signs = {name: value for stage in stages for name, value in stage.items()}
        values: dict[str, Any] = {field.name: signs.get(field.name) for field in fields(cls)}
        right = all(type(values[field.name]).__name__ == field.type for field in fields(cls))
        return cls(**values) if right else None

    def sentence(self, p: Params, t: int) -> str | None:
        """What is wrong with a picture of the parameters ``p``, and the settings that may help; None if nothing is."""
        if not (said := self.signs(p, t)):
            return None
        return f"this picture may mislead: {'; '.join(said)}; {' or '.join(self.remedies(p, t))} may help"

    def signs(self, p: Params, t: int) -> list[str]:
        """What is wrong with a picture of the parameters ``p`` after ``t`` steps."""
        texts = {
            f"the {'z-scored ' * p.normalize}states of all nodes are equal, so the places say nothing of the data": (
                self.constant
            ),
            f"the diffusion graph has {self.islands:,} islands, whose places relative to each other "
            f"{PLACES_OF_ISLANDS[p.islands]}, and "
            f"{self.share_outside_largest_island:.1%} of the nodes are outside the largest": self._apart,
            f"{self.share_without_interslice_neighbor:.1%} of the nodes have no interslice neighbor": self._unlinked,
            f"t={t} is the end of its range": self.t_at_end,
            f"after t={t} steps all landmarks of an island have the same potential, so its shape is only rounding": (
                self.collapsed
            ),
        }
        return [text for text, holds in texts.items() if holds]

    def remedies(self, p: Params, t: int) -> list[str]:
        """The settings that may help against the signs."""
        settings = {
            "normalize=False": self.constant and p.normalize,
            "a trace whose states differ": self.constant and not p.normalize,
            f"an interslice_knn above {p.interslice_knn}": self._apart or self._unlinked,
            "landmarks='stratified'": self._apart and p.landmarks == "spectral",
            "islands='states'": self._apart and p.islands == "potential",
            f"a t_max above {p.t_max}": self.t_at_end,
            f"a t below {t}": self.collapsed,
        }
        return [setting for setting, helps in settings.items() if helps]

    @property
    def _apart(self) -> bool:
        return self.share_outside_largest_island > OUTSIDE

    @property
    def _unlinked(self) -> bool:
        return self.share_without_interslice_neighbor > UNLINKED
