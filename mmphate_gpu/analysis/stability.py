"""How far the communities of units outlast a change, such as a switch of the task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError, check_number
from ..linalg.safe_scale import safe_scale
from ..runtime.isolation import isolated
from ..slices import SliceLayout
from .agreement import adjusted_rand
from .partitions import best_kmeans
from .result import Result, long_columns
from .seeds import drawn_seed
from .unit_points import positions, squares_of_gram

# Starts of the k-means of a seed, of which the best counts.
_RESTARTS = 10


@dataclass(frozen=True, eq=False, repr=False)
class CommunityStability(Result):
    """The agreement of the communities in two slices; made by `community_stability`.

    Attributes
    ----------
    before, after : (epoch, time step), the labels of the slices.
    ks : (k,) numbers of communities.
    rand : (k, n_seeds) adjusted Rand index: 1 for equal communities, 0 for what chance gives.
    mean : mean of ``rand``.
    settings : what was asked.
    """

    before: tuple[Any, Any]
    after: tuple[Any, Any]
    ks: np.ndarray
    rand: np.ndarray
    mean: float
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        return long_columns({"k": self.ks, "seed": np.arange(self.rand.shape[1])}, rand=self.rand)

    def _summary(self) -> str:
        slices = " to ".join(f"(epoch {epoch}, time step {step})" for epoch, step in (self.before, self.after))
        return f"{slices}: adjusted Rand {self.mean:.2f}, mean over k = {self.ks[0]} to {self.ks[-1]}"


@isolated()
def community_stability(
    embedding: Any,
    before: int | tuple[int, int],
    after: int | tuple[int, int],
    ks: Sequence[int] = range(3, 9),
    n_seeds: int = 20,
    random_state: int | None = None,
) -> CommunityStability:
    """How well the communities of units in two slices agree: the mean adjusted Rand index.

    Published (M-PHATE, arXiv 1908.02831): k-means of the positions of the units in each slice, the adjusted Rand index
    of both partitions, and its mean over ``ks`` and seeds. The study of continual learning in that paper compares the
    last slice before a switch of the task with the fourth after it. The starts of k-means are not published: here a
    seed is the best of 10 starts by k-means++ in each slice.

    Parameters
    ----------
    embedding : Embedding
        The picture whose units are grouped.
    before, after : int or (int, int)
        A slice is a single time step of a single epoch: the indices (epoch, timestep), or its number
        ``epoch * n_timesteps + timestep``. Negative indices count from the end. With a single time step, slices are
        epochs, as in M-PHATE. With several, choose the same time step for both. Otherwise the communities also differ
        because the sequence has gone on.
    ks : sequence of int
        Numbers of communities: at least 2, and fewer than there are units with a place in both slices. With a community
        for each unit, all partitions would agree.
    n_seeds : int
        Number of runs for each k.
    random_state : int, optional
        Seed of the runs.

    Returns
    -------
    CommunityStability

    Raises
    ------
    InputError, InputTypeError
        A slice that does not exist, a k out of range, or something other than an `Embedding`.

    Notes
    -----
    Units that lack a place in one of the slices do not count. O(n_seeds M^2 k) time for a sweep of k-means.
    Deterministic with a seed.

    Examples
    --------
    >>> from mmphate_gpu import Embedding
    >>> layout = SliceLayout.of_shape(2, 1, 6)
    >>> places = np.array([[0.0], [0.1], [4.0], [4.1], [9.0], [9.1]])
    >>> community_stability(Embedding(np.concatenate([places, -places]), layout), 0, 1, ks=[3], random_state=0)
    CommunityStability((epoch 0, time step 0) to (epoch 1, time step 0): adjusted Rand 1.00, mean over k = 3 to 3)
    """
    points, layout = positions(embedding), embedding.layout
    ids = {"before": _slice(layout, "before", before), "after": _slice(layout, "after", after)}
    pair = points.reshape(layout.n_epochs * layout.n_timesteps, layout.n_units, -1)[list(ids.values())]
    pair = pair[:, ~np.isnan(pair).any((0, 2))]
    ks = _checked_ks(ks, pair.shape[1])
    n_seeds, seed = int(check_number("n_seeds", n_seeds, low=1, integer=True)), drawn_seed(random_state)
    rand = _rand(pair, ks, n_seeds, np.random.default_rng(seed))
    labels = [(layout.epoch[i // layout.n_timesteps], layout.timestep[i % layout.n_timesteps]) for i in ids.values()]
    settings = {"slices": list(ids.values()), "ks": ks, "n_seeds": n_seeds, "random_state": seed}
    return CommunityStability(labels[0], labels[1], np.array(ks), rand, float(rand.mean()), settings)


def _slice(layout: SliceLayout, name: str, place: Any) -> int:
    """The number of the slice that the user names."""
    sizes: tuple[int, ...] = (layout.n_epochs * layout.n_timesteps,)
    indices = [place]
    if isinstance(place, (tuple, list)):
        sizes, indices = (layout.n_epochs, layout.n_timesteps), list(place)
    if len(indices) != len(sizes):
        raise InputTypeError(f"{name}={place!r} has {len(indices)} indices; accepted: a slice, or (epoch, timestep)")
    numbers = [
        int(check_number(name, index, low=-size, high=size - 1, integer=True)) % size
        for index, size in zip(indices, sizes, strict=True)
    ]
    return int(np.ravel_multi_index(numbers, sizes))


def _checked_ks(ks: Any, n_units: int) -> list[int]:
    if not isinstance(ks, Iterable):
        raise InputTypeError(f"ks={ks!r} is a {type(ks).__name__}; accepted: a sequence of integers")
    values = [int(k) if isinstance(k, np.integer) else k for k in ks]
    if not values:
        raise InputError("ks is empty; accepted: at least one number of communities")
    if n_units < 3:
        raise InputError(f"embedding has {n_units} unit(s) with a place in both slices; accepted: at least 3")
    return [int(check_number("ks", k, low=2, high=n_units - 1, integer=True)) for k in values]


def _rand(pair: np.ndarray, ks: Sequence[int], n_seeds: int, rng: np.random.Generator) -> np.ndarray:  # (k, n_seeds)
    """The adjusted Rand index between the slices of ``pair`` (2, m, C)."""
    pair = pair * safe_scale(torch.from_numpy(pair))  # communities do not depend on the scale
    pair = pair - pair.mean(1, keepdims=True)
    squares = np.repeat(squares_of_gram(pair @ pair.swapaxes(1, 2)), n_seeds, axis=0)  # one copy for each seed
    labels = [best_kmeans(squares, k, rng, _RESTARTS).reshape(2, n_seeds, -1) for k in ks]
    return np.stack([adjusted_rand(first, second) for first, second in labels])
