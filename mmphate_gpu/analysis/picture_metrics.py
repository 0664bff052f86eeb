"""Named numbers that describe a picture of a trace, by which null models and smaller traces are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_choice, check_number
from ..trace import Trace
from .communities import unit_communities
from .entropy import entropy
from .means import mean_of_finite
from .node_distances import (
    NodeDistances,
    geodesic_spearman,
    node_distances,
    picture_scale,
    placed_nodes,
    stress_of,
)
from .node_sets import NodeSets, node_sets
from .preservation import inter_preserved, intra_preserved
from .rank_quality import rank_quality
from .refit import quiet
from .spread import spread

# Random slices and nodes that are measured. They are few, because a study measures dozens of pictures.
_N_SLICES = 200
_N_NODES = 1000

Metric = Callable[[Trace, Embedding], float]


@dataclass(frozen=True)
class Picture:
    """A trace and its embedding, with what the measures need."""

    trace: Trace
    embedding: Embedding
    k: int
    seed: int

    @property
    def sets(self) -> NodeSets:
        return node_sets(self.trace, self.embedding, n_slices=_N_SLICES, random_state=self.seed)

    @property
    def ks(self) -> tuple[list[int], list[int]]:
        """The number of neighbors among the units of a slice, and among the slices of a unit.

        It is at most half of the others. If all others were neighbors, every picture would keep them.
        """
        return [min(self.k, (self.trace.n_units - 1) // 2)], [min(self.k, (self.trace.n_slices - 1) // 2)]

    @property
    def distances(self) -> NodeDistances:
        sets = self.sets
        nodes = np.random.default_rng(self.seed).permutation(placed_nodes(sets))[None, :_N_NODES]
        return node_distances(sets, nodes)[0]


def _preservation(picture: Picture) -> tuple[float, ...]:
    intra, inter = picture.ks
    return intra_preserved(picture.sets, intra)[0], inter_preserved(picture.sets, inter)[0]


def _ranks(picture: Picture) -> tuple[float, ...]:
    trustworthiness, continuity = rank_quality(picture.sets, picture.ks[1])
    return trustworthiness[1, 0], continuity[1, 0]


def _distances(picture: Picture) -> tuple[float, ...]:
    distances = picture.distances
    return geodesic_spearman(distances)[0], float(stress_of(distances, picture_scale(distances))[0])


def _spread(picture: Picture) -> tuple[float, ...]:
    """The variance within epochs as a share of that of all nodes."""
    places = picture.embedding.coordinates
    total = np.nanvar(places, axis=0, ddof=1).sum()
    variance = mean_of_finite(spread(picture.embedding).variance, 0)
    return (float(variance / total) if total > 0 else float("nan"),)


def _entropy(picture: Picture) -> tuple[float, ...]:
    return (float(mean_of_finite(entropy_curve(picture.embedding), 0)),)


def entropy_curve(embedding: Embedding) -> np.ndarray:  # (E,)
    """The intra-step entropy of each epoch, the mean over its time steps; NaN for an epoch without one.

    "kde" depends neither on the direction of the axes nor on the scale, in which two fits may differ.
    """
    with quiet():  # of few units
        values = entropy(embedding, over="units", estimator="kde", n_bootstrap=0).values
    return mean_of_finite(values, 1)


def _silhouette(picture: Picture) -> tuple[float, ...]:
    with quiet():
        communities = unit_communities(picture.embedding, n_seeds=1, n_null=1, random_state=picture.seed)
    return (float(communities.silhouette[0]),)


# What is measured together, by the names of its numbers.
_GROUPS: dict[tuple[str, ...], Callable[[Picture], tuple[float, ...]]] = {
    ("intra", "inter"): _preservation,
    ("trustworthiness", "continuity"): _ranks,
    ("geodesic_spearman", "stress"): _distances,
    ("entropy",): _entropy,
    ("spread",): _spread,
    ("silhouette",): _silhouette,
}
METRICS = tuple(name for names in _GROUPS for name in names)
# Metrics that judge a picture: 1 if a higher value is better, -1 if a lower.
BETTER = dict.fromkeys(("intra", "inter", "trustworthiness", "continuity", "geodesic_spearman"), 1) | {"stress": -1}


@dataclass(frozen=True)
class Metrics:
    """The metrics that a study was asked for."""

    functions: Mapping[str, Metric | None]  # None: the metric of this library
    k: int

    @property
    def names(self) -> list[str]:
        return list(self.functions)

    def __call__(self, trace: Trace, embedding: Embedding, seed: int) -> np.ndarray:  # (n_metrics,)
        picture = Picture(trace, embedding, self.k, seed)
        values: dict[str, float] = {}
        of_library = {name for name, function in self.functions.items() if function is None}
        for names, measure in _GROUPS.items():
            if of_library.intersection(names):
                values |= dict(zip(names, measure(picture), strict=True))
        values |= {name: _number(name, f(trace, embedding)) for name, f in self.functions.items() if f is not None}
        return np.array([values[name] for name in self.functions])


def checked_metrics(metrics: Any, k: int) -> Metrics:
    """The metrics of ``metrics``: names in `METRICS`, or a mapping from names to functions of trace and embedding."""
    k = int(check_number("k", k, low=1, integer=True))
    if isinstance(metrics, str) or not isinstance(metrics, (Mapping, Sequence)):
        accepted = "accepted: a sequence of names, or a mapping from names to functions"
        raise InputTypeError(f"metrics={metrics!r}; {accepted}")
    if not metrics:
        raise InputError(f"metrics is empty; accepted: names in {', '.join(METRICS)}")
    if isinstance(metrics, Mapping):
        return Metrics({str(name): _checked_function(name, function) for name, function in metrics.items()}, k)
    return Metrics({check_choice("metrics", name, METRICS): None for name in metrics}, k)


def _checked_function(name: str, function: Any) -> Metric:
    if not callable(function):
        raise InputTypeError(f"metrics[{name!r}] is a {type(function).__name__}; accepted: a function")
    return function


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises the last for several numbers
        raise InputTypeError(f"metrics[{name!r}] returned a {type(value).__name__}; accepted: a number") from error
