"""Which units belong together: communities of units by their paths, and the evidence for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_choice, check_number
from ..ops.chunks import row_chunks
from ..runtime.arrays import to_numpy
from ..runtime.isolation import isolated
from ..stages import Callback
from .agreement import adjusted_rand, aligned, modularity, seed_stability
from .partitions import METHODS, best_partition, kmeans, n_distinct
from .progress import progress
from .result import Result, long_columns
from .seeds import drawn_seed
from .unit_points import (
    Members,
    UnitPoints,
    path_squares,
    shuffled_squares,
    squares_of_gram,
    summed_affinity,
    unit_points,
)

NULLS = ("units", "normal")
_MOST_COMMUNITIES = 10
# Entries of the distances of the null draws that are in memory at a time: 64 MiB an array.
_NULL_ELEMENTS = 2**23
# Silhouettes of the same distances that were summed in another order count as equal.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class UnitCommunities(Result):
    """Communities of M units, with the evidence for them; made by `unit_communities`.

    g is the number of partitions: 1, or one for each epoch. `unit_communities` defines the measures.

    Attributes
    ----------
    unit : (M,) labels of the units.
    epoch : (g,) labels of the epochs; None for whole paths.
    community : (g, M) integers from 0; -1 for noise, and for a unit without a place.
    n_slices : (g,) number of slices that count.
    silhouette, modularity : (g,) from -1 to 1.
    seed_stability : (g,) adjusted Rand index over seeds.
    epoch_stability : (g - 1,) adjusted Rand index of consecutive epochs.
    ari, nmi : (g,) agreement with the groups of the caller; None without groups.
    null_silhouette : (g, n_null) silhouettes of the null draws.
    p : (g,) p-values of the silhouettes.
    settings : what was asked.
    """

    unit: np.ndarray
    epoch: np.ndarray | None
    community: np.ndarray
    n_slices: np.ndarray
    silhouette: np.ndarray
    modularity: np.ndarray
    seed_stability: np.ndarray
    epoch_stability: np.ndarray
    ari: np.ndarray | None
    nmi: np.ndarray | None
    null_silhouette: np.ndarray
    p: np.ndarray
    settings: Mapping[str, Any]

    @property
    def n_communities(self) -> np.ndarray:  # (g,)
        """The number of communities of each partition, without noise."""
        return np.array([len(np.unique(row[row >= 0])) for row in self.community])

    def _columns(self) -> dict[str, np.ndarray]:
        if self.epoch is None:
            return {"unit": self.unit, "community": self.community[0]}
        return long_columns({"epoch": self.epoch, "unit": self.unit}, community=self.community)

    def _summary(self) -> str:
        numbers, n_units = self.n_communities, len(self.unit)
        size = f"{numbers[0]}" if len(set(numbers)) == 1 else f"{numbers.min()} to {numbers.max()}"
        where = "by whole paths" if self.epoch is None else f"at {len(self.epoch)} epoch(s)"
        noun = "community" if size == "1" else "communities"
        parts = [f"{size} {noun} of {n_units} units {where}", f"{self.settings['method']}"]
        parts += [f"silhouette {_middle(self.silhouette):.2f}", f"modularity {_middle(self.modularity):.2f}"]
        parts += [] if self.ari is None else [f"ARI with groups {_middle(self.ari):.2f}"]
        return ", ".join([*parts, self._null_summary()])

    def _null_summary(self) -> str:
        tested = self.p[~np.isnan(self.p)]
        if not len(tested):
            return "no p"
        return f"p {tested[0]:.2g}" if len(self.p) == 1 else f"p <= 0.05 at {(tested <= 0.05).sum()} of {len(tested)}"


def _middle(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


@isolated()
def unit_communities(
    of: Any,
    epoch: Any = None,
    n: int | None = None,
    method: str = "kmeans",
    *,
    groups: Any = None,
    n_seeds: int = 20,
    null: str = "units",
    n_null: int = 99,
    random_state: int | None = None,
    verbose: int | bool = 0,
    callback: Callback | None = None,
) -> UnitCommunities:
    """Communities of the M units, by their paths through all slices, through those of an epoch, or epoch by epoch.

    This measure is this library's own definition. The distance of two units is Euclidean between their paths: over all
    slices and components of a picture, or over all slices and samples of a trace, z-scored by step 1 of
    docs/method.md. A picture bends distances, so a claim should hold in the trace too.

    * *silhouette*: mean over units of (b - a) / max(a, b), where a is the mean distance of a unit to the others of its
      community, and b that to the units of the nearest other community.
    * *modularity*: Newman's, weighted, on the intraslice affinity (step 3) summed over the slices, without diagonal.
    * *seed_stability*: mean adjusted Rand index (ARI) of all pairs of ``n_seeds`` runs of k-means with a single start
      each; NaN for methods without a seed.
    * *epoch_stability*: ARI of consecutive epochs. Their communities are matched by the largest overlap, and matched
      communities have the same number.
    * *ari*, *nmi*: agreement with ``groups``; the mutual information is divided by the mean of both entropies.
    * *p*: (1 + draws of the null whose silhouette is as high) / (1 + ``n_null``), with ``n`` chosen anew in each draw;
      NaN without two communities.

    The silhouette always chooses some number of communities, also for units without any groups. So believe it only with
    a low p. Under the null "units" the units are shuffled in each slice, so no group lasts from slice to slice. A low p
    then says that units keep their places relative to each other. Groups do so, and units that are evenly spread and
    stay where they are do so too. So does every picture: MM-PHATE links each unit with itself, and its pictures of
    independent noise have a low p. Believe this p of a trace only; for a picture, `null_models` embeds shuffled traces
    and compares the "silhouette". Shuffling changes nothing in a single slice, so p is NaN for such a path. Under the
    null "normal" the paths are drawn from a normal distribution with the covariance of the paths of the units. A low p
    then says that there are gaps between groups of paths. This null is conservative: with few units without gaps, a low
    p is rarer than its level.

    Parameters
    ----------
    of : Embedding, or anything `as_trace` accepts
        A picture, or the states themselves. A stored trace is read block by block.
    epoch : label of an epoch, "each", or None
        None takes whole paths. A label is a coordinate of the epoch axis; dates may be ISO text.
    n : int, optional
        Number of communities, 1 to M. None takes the number from 2 to min(10, M - 1) with the highest silhouette. It is
        never larger than the number of different places of the units. "hdbscan" accepts only None.
    method : {"kmeans", "hierarchical", "hdbscan"}
        k-means (the best of 4 starts by k-means++), Ward's tree, or HDBSCAN with clusters of at least max(2, M // 10)
        units, which leaves units as noise (-1).
    groups : (M,), optional
        Known groups of the units, such as ``trace.unit_layer``.
    n_seeds : int
        Number of runs of k-means for ``seed_stability``.
    null : {"units", "normal"}
        What a null draw is: units shuffled in each slice, or paths from a normal distribution.
    n_null : int
        Number of null draws. With 0, p is NaN.
    random_state : int, optional
        Seed of k-means and of the null draws.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each partition.

    Returns
    -------
    UnitCommunities

    Raises
    ------
    InputError, InputTypeError
        An unknown epoch, method or null, a number out of range, groups of another length, or a bad trace.

    Notes
    -----
    A unit without a place in all slices of a path has community -1. A slice in which one of the other units lacks a
    place does not count, nor does a sample that one of them lacks. O(n_null S M^2 p) time for p coordinates, and
    O(n_null M^2) for each partition; about 300 MiB of temporaries. Deterministic with a seed.

    Examples
    --------
    >>> from mmphate_gpu.datasets import bifurcation
    >>> trace = bifurcation("hopf_pitchfork", n_epochs=20, n_timesteps=4)  # units 0 to 2, and 3 to 5
    >>> result = unit_communities(trace, groups=[0, 0, 0, 1, 1, 1], random_state=0)
    >>> result.community.tolist(), float(result.ari[0]), float(result.p[0])
    ([[0, 0, 0, 1, 1, 1]], 1.0, 0.01)
    """
    points = unit_points(of)
    seed = drawn_seed(random_state)
    settings = {"of": "embedding" if isinstance(of, Embedding) else "trace", "epoch": epoch, "n": n, "method": method}
    settings |= {"n_seeds": n_seeds, "null": null, "n_null": n_null, "random_state": seed}
    _check(settings, points.layout.n_units)
    labels = None if groups is None else _groups(groups, points.layout.n_units)
    epochs, paths = _paths(points, epoch)
    rng, rows = np.random.default_rng(seed), []
    with progress(len(paths), verbose, callback, "communities") as advance:
        for members in paths:
            rows.append(_partition(points, members, settings, labels, rng))
            advance()
    return _result(points, epochs, rows, settings, labels is not None)


def _check(settings: Mapping[str, Any], n_units: int) -> None:
    check_choice("method", settings["method"], METHODS)
    check_choice("null", settings["null"], NULLS)
    check_number("n_seeds", settings["n_seeds"], low=1, integer=True)
    check_number("n_null", settings["n_null"], low=0, integer=True)
    if settings["n"] is not None:
        if settings["method"] == "hdbscan":
            raise InputError(f"n={settings['n']!r} has no meaning for method='hdbscan'; accepted: None")
        check_number("n", settings["n"], low=1, high=n_units, integer=True)


def _groups(groups: Any, n_units: int) -> np.ndarray:  # (M,) int64
    values = to_numpy("groups", groups)
    if values.shape != (n_units,):
        raise InputError(f"groups has shape {values.shape}; accepted: ({n_units},), a group for each unit")
    try:
        return np.unique(values, return_inverse=True)[1]
    except TypeError as error:
        raise InputTypeError(f"groups cannot be ordered ({error}); accepted: numbers, or text") from error


def _paths(points: UnitPoints, epoch: Any) -> tuple[np.ndarray | None, list[Members]]:
    """The epochs of the partitions, and the members of each."""
    layout, n_timesteps = points.layout, points.layout.n_timesteps
    if epoch is None:
        return None, [points.members(slice(0, layout.n_epochs * n_timesteps))]
    chosen = np.arange(layout.n_epochs) if _is_each(epoch) else _places(layout.epoch, epoch)
    slices = (slice(int(e) * n_timesteps, (int(e) + 1) * n_timesteps) for e in chosen)
    return layout.epoch[chosen], [points.members(part) for part in slices]


def _is_each(epoch: Any) -> bool:
    return isinstance(epoch, str) and epoch == "each"


def _places(labels: np.ndarray, epoch: Any) -> np.ndarray:  # (1,)
    """The index of the epoch with this label."""
    try:
        label = np.asarray(epoch, labels.dtype if labels.dtype.kind in "mM" else None)
    except ValueError as error:
        raise InputError(f"epoch={epoch!r} is no date ({error}); accepted: {_examples(labels)}") from error
    places = np.array([i for i, value in enumerate(labels) if label.ndim == 0 and value == label[()]], dtype=np.int64)
    if len(places) == 0:
        raise InputError(f"epoch={epoch!r} is no label of an epoch; accepted: {_examples(labels)}")
    return places[:1]


def _examples(labels: np.ndarray) -> str:
    some = ", ".join(map(str, labels[:3]))
    return f"None, 'each', or one of {some}{', ...' if len(labels) > 3 else ''}"


@dataclass(frozen=True, eq=False)
class _Partition:
    """The communities of a path, and the evidence for them. The names are those of `UnitCommunities`."""

    community: np.ndarray  # (M,)
    n_slices: int
    silhouette: float
    modularity: float
    seed_stability: float
    ari: float
    nmi: float
    null_silhouette: np.ndarray  # (n_null,)
    p: float


def _partition(
    points: UnitPoints,
    members: Members,
    settings: Mapping[str, Any],
    groups: np.ndarray | None,
    rng: np.random.Generator,
) -> _Partition:
    squares, method = path_squares(points, members), settings["method"]
    ks = _numbers(squares, settings["n"])
    if not ks:
        return _trivial(points, members, settings)
    labels, width = (values[0] for values in best_partition(squares[None], ks, method, rng))
    null = _null_silhouettes(points, members, squares, settings, rng)
    ari, nmi = (np.nan, np.nan) if groups is None else _agreement(labels, groups[members.units])
    return _Partition(
        community=_of_all_units(points, members, labels),
        n_slices=int(members.counted.sum()),
        silhouette=float(width),
        modularity=modularity(summed_affinity(points, members), labels),
        seed_stability=_seed_stability(squares, labels, settings, rng),
        ari=ari,
        nmi=nmi,
        null_silhouette=null,
        p=_p(float(width), null),
    )


def _numbers(squares: np.ndarray, n: int | None) -> Sequence[int]:
    """The numbers of communities to choose from; none for units that cannot be divided."""
    distinct = n_distinct(squares)
    if n is not None:
        return [min(n, distinct)] if distinct > 1 else []
    return range(2, min(_MOST_COMMUNITIES, len(squares) - 1, distinct) + 1)


def _trivial(points: UnitPoints, members: Members, settings: Mapping[str, Any]) -> _Partition:
    """All units in a single community: they are too few, or all at the same place. -1 if no slice counts."""
    n_slices = int(members.counted.sum())
    community = _of_all_units(points, members, np.full(len(members.units), 0 if n_slices else -1))
    return _Partition(community, n_slices, *(np.nan,) * 5, np.full(settings["n_null"], np.nan), np.nan)


def _of_all_units(points: UnitPoints, members: Members, labels: np.ndarray) -> np.ndarray:  # (m,) -> (M,)
    community = np.full(points.layout.n_units, -1, dtype=np.int64)
    community[members.units] = labels
    return community


def _null_silhouettes(
    points: UnitPoints, members: Members, squares: np.ndarray, settings: Mapping[str, Any], rng: np.random.Generator
) -> np.ndarray:  # (n_null,)
    """The silhouettes of the null draws; NaN for shuffled units of a single slice, which are the same points."""
    if settings["null"] == "units" and members.counted.sum() < 2:
        return np.full(settings["n_null"], np.nan)
    widths = []
    for part in row_chunks(settings["n_null"], squares.size, _NULL_ELEMENTS):
        n = part.stop - part.start
        normal = settings["null"] == "normal"
        draws = _normal_squares(squares, n, rng) if normal else shuffled_squares(points, members, n, rng)
        ks = _numbers(squares, settings["n"])
        widths.append(best_partition(draws, ks, settings["method"], rng)[1])
    return np.concatenate([*widths, np.empty(0)])


def _normal_squares(squares: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:  # (m, m) -> (n, m, m)
    """Squared distances of points from a normal distribution with the covariance of the points with ``squares``."""
    center = np.eye(len(squares)) - 1 / len(squares)
    variances = np.linalg.eigvalsh(-center @ squares @ center / 2).clip(0)
    draws = rng.standard_normal((n, len(squares), len(squares))) * np.sqrt(variances)
    return squares_of_gram(draws @ draws.swapaxes(1, 2))


def _p(width: float, null: np.ndarray) -> float:
    """The p-value of a silhouette. A draw without two communities has no silhouette, and counts as lower."""
    if np.isnan(width) or np.isnan(null).all():
        return np.nan
    return float((1 + (null >= width - _ROUNDING).sum()) / (1 + len(null)))


def _seed_stability(
    squares: np.ndarray, labels: np.ndarray, settings: Mapping[str, Any], rng: np.random.Generator
) -> float:
    if settings["method"] != "kmeans":
        return np.nan
    return seed_stability(kmeans(squares[None], int(labels.max()) + 1, settings["n_seeds"], rng)[0][0])


def _agreement(labels: np.ndarray, groups: np.ndarray) -> tuple[float, float]:  # (m,), (m,)
    from sklearn.metrics import normalized_mutual_info_score

    kept = labels >= 0
    nmi = normalized_mutual_info_score(groups[kept], labels[kept]) if kept.sum() > 1 else np.nan
    return float(adjusted_rand(labels, groups)), float(nmi)


def _result(
    points: UnitPoints, epochs: np.ndarray | None, rows: list[_Partition], settings: Mapping[str, Any], grouped: bool
) -> UnitCommunities:
    columns: dict[str, Any] = {
        field.name: np.stack([getattr(row, field.name) for row in rows]) for field in fields(_Partition)
    }
    community = aligned(columns["community"])
    columns |= {"community": community} | ({} if grouped else {"ari": None, "nmi": None})
    stability = adjusted_rand(community[1:], community[:-1])
    return UnitCommunities(
        unit=points.layout.unit, epoch=epochs, epoch_stability=stability, settings=settings, **columns
    )
