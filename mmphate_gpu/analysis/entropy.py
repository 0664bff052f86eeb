"""Entropy of an embedding and of the states themselves, over units, time steps, epochs or all nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_number
from ..runtime.isolation import isolated
from ..stages import Callback
from ..trace import Trace, as_trace, principal_axes, trace_points
from ..trace.pca import on_axes
from .entropy_clouds import REMAINING
from .entropy_measure import Measure
from .result import Result, long_columns
from .seeds import drawn_seed

# A normal interval of 95 % has this many standard deviations on each side.
DEVIATIONS = 1.96
_UNITS = {2.0: "bits", math.e: "nats", 10.0: "bans"}


@dataclass(frozen=True, eq=False, repr=False)
class Entropy(Result):
    """Entropies of the clouds of an embedding or of a trace; made by `entropy` and `trace_entropy`.

    A cloud is a set of points, such as all units of one slice. Its members are these units.

    Attributes
    ----------
    values : the entropies, with the axes ``dims``; NaN for a cloud with too few points.
    low, high : 95 % intervals of the same shape; None without replicates.
    dims : the names of the axes that remain, such as ("epoch", "timestep").
    coords : the labels of each of these axes.
    n_points : the number of points of every cloud, in the shape of ``values``.
    n_floored : the number of distances (knn), or of points of clouds without width (kde), that were raised to 1e-12 of
        the scale.
    estimator, over, base : what was asked; base 2 means bits.
    scale : the length by which the coordinates of "kde" and "knn" were divided. Without the division, their entropy
        would be higher by n_components * log(scale).
    replicates : (n_bootstrap, ...) entropies that vary around ``values`` as those of other members would; None
        without them. Each replicate uses the same members in all clouds, so a mean over an axis has replicates too.
    settings : all that was asked; ``of`` is "embedding" or "trace".
    """

    values: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    dims: tuple[str, ...]
    coords: Mapping[str, np.ndarray]
    n_points: np.ndarray
    n_floored: np.ndarray
    estimator: str
    over: str
    base: float
    scale: float
    replicates: np.ndarray | None
    settings: Mapping[str, Any]

    @property
    def n_undefined(self) -> int:
        """How many clouds have too few points for an entropy."""
        return int(np.isnan(self.values).sum())

    def to_dict(self) -> dict[str, Any]:
        """All fields but ``replicates`` as dicts, lists, numbers and texts."""
        return {name: value for name, value in super().to_dict().items() if name != "replicates"}

    def _columns(self) -> dict[str, np.ndarray]:
        interval = {} if self.low is None or self.high is None else {"low": self.low, "high": self.high}
        counts = {"n_points": self.n_points, "n_floored": self.n_floored}
        return long_columns(self.coords, entropy=self.values, **interval, **counts)

    def _summary(self) -> str:
        unit = _UNITS.get(self.base, f"in base {self.base:g}")
        sizes = " x ".join(
            f"{size} {name}{'s' * (size != 1)}" for name, size in zip(self.dims, self.values.shape, strict=True)
        )
        finite = self.values[~np.isnan(self.values)]
        span = " to ".join(f"{value:.3g}" for value in np.unique([finite.min(), finite.max()])) if finite.size else ""
        undefined = f", {self.n_undefined} undefined" if self.n_undefined else ""
        return f"{self.estimator} over {self.over}, {sizes or 'a single cloud'}: {span or 'no'} {unit}{undefined}"


@isolated()
def entropy(
    embedding: Embedding,
    over: str = "units",
    estimator: str = "histogram",
    *,
    bins: int = 10,
    k: int = 3,
    t: int = 1,
    base: float = 2,
    scale: float | None = None,
    bandwidth: float | None = None,
    n_bootstrap: int | None = None,
    random_state: int | None = None,
    verbose: int | bool = 0,
    callback: Callback | None = None,
) -> Entropy:
    """How far the nodes of an embedding spread: the entropy of the units of each slice, or of other sets of nodes.

    Over units the entropy of each (epoch, time step) is the *intra-step entropy*; over time steps that of each (epoch,
    unit) is the *inter-step entropy*. Both names are published for MM-PHATE, without formulas. The estimators:

    * "histogram": ``-sum p log p`` over a grid of ``bins`` cells in every component, from the least to the largest
      coordinate of the whole embedding. M-PHATE's published code used 10 x 10 cells and bits. The value depends on the
      direction of the axes. Its bias is near ``-(cells - 1) / (2 n)`` nats if n is far above the number of cells, and
      -0.6 to -0.3 bits for a Gaussian of 100 points in 10 x 10 cells that span 6 to 8 of its deviations.
    * "kde": ``-mean log p(x_i)``, p from a Gaussian kernel at the other points. Its bandwidth is
      ``s (4 / ((C + 2) n))^(1 / (C + 4))`` for each cloud, where s^2 is the mean variance of a coordinate. The bias is
      positive, more so for clouds that are flat or in pieces.
    * "knn": ``psi(n) - psi(k) + log V_C + C mean log r_k``, the published estimator of Kozachenko and Leonenko.
      Distances below 1e-12 of the scale are raised to it.
    * "spectral": diffusion spectral entropy (arXiv 2312.04823, published) with one bandwidth for all clouds.

    The choice of bandwidths, scale and intervals is this library's own. "kde" and "knn" are differential entropies of
    the coordinates divided by ``scale``. So compare values within one embedding, or of fits with the same ``scale``. A
    cloud that shrinks by half loses C bits.

    Parameters
    ----------
    embedding : Embedding
        Nodes without a place (rows of NaN) leave their clouds.
    over : "units", "timesteps", "epochs" or "nodes"
        The members of a cloud. The result has the axes (epoch, timestep), (epoch, unit), (timestep, unit) or none.
    estimator : "histogram", "kde", "knn" or "spectral"
    bins : int
        Cells of each component, for "histogram".
    k : int
        The neighbor whose distance "knn" uses. A cloud needs more than k points.
    t : int
        Diffusion time of "spectral".
    base : float
        Base of the logarithm: 2 gives bits.
    scale : float, optional
        Length by which the coordinates are divided; by default the root-mean-square radius of the whole embedding.
    bandwidth : float, optional
        Bandwidth of "spectral", in units of the coordinates; by default the median over all clouds of the median
        distance between two points.
    n_bootstrap : int, optional
        Number of replicates for the interval: by default 50, or 20 for "spectral", or 0 over nodes; 0 gives no
        interval. Drawing with replacement would make distances of zero, so each replicate is a random half of the units
        (time steps, epochs) without replacement. The spread of halves is that of the whole (the jackknife that deletes
        half of the members). The interval is the value plus and minus 1.96 standard deviations of the replicates. It
        says how the value varies with the members, and does not include the bias. On Gaussian clouds of 60 points it
        covered the mean of the estimator in 92 to 97 of 100 cases, and in 84 to 88 for "spectral". Over nodes, halves
        of the units are drawn. Fewer than 4 members give no interval.
    random_state : int, optional
        Seed of the replicates.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each replicate.

    Returns
    -------
    Entropy

    Raises
    ------
    InputError, InputTypeError
        An unknown estimator or axis, or a number out of range.

    Warns
    -----
    UserWarning
        A cloud has fewer than 10 points, or no more than ``k`` for "knn".

    Notes
    -----
    O(N n C) time for clouds of n points by "kde" and "knn", O(N n^2) by "spectral" and O(N log n) by "histogram", times
    about 1 + n_bootstrap / 4. Memory: a few chunks of 32 MiB. In a cloud with more than 2000 points, "kde" averages the
    log density at 2000 of them, and "spectral" takes 2000 of them. From 5000 points on, "knn" uses a k-d tree.
    Deterministic with a seed.

    Examples
    --------
    >>> from mmphate_gpu.slices import SliceLayout
    >>> corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> places = np.concatenate([corners.repeat(4, axis=0), np.zeros((16, 2))])
    >>> entropy(Embedding(places, SliceLayout.of_shape(2, 1, 16))).values.ravel()
    array([2., 0.])
    """
    if not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding")
    points = torch.as_tensor(np.array(embedding.coordinates, dtype=np.float64), device="cpu")
    labels = {axis: getattr(embedding.layout, axis) for axis in ("epoch", "timestep", "unit")}
    measure = Measure(over, estimator, bins, k, t, base, scale, bandwidth, n_bootstrap, drawn_seed(random_state))
    points = points.reshape(*embedding.layout.shape, -1)
    return _entropy(points, labels, measure, verbose, callback, {"of": "embedding"})


@isolated()
def trace_entropy(
    trace: Any,
    over: str = "units",
    estimator: str = "histogram",
    *,
    n_components: int = 2,
    normalize: bool = True,
    bins: int = 10,
    k: int = 3,
    t: int = 1,
    base: float = 2,
    scale: float | None = None,
    bandwidth: float | None = None,
    n_bootstrap: int | None = None,
    random_state: int | None = None,
    verbose: int | bool = 0,
    callback: Callback | None = None,
) -> Entropy:
    """`entropy` of the states themselves: of their leading principal components, before any embedding.

    A claim about this entropy does not depend on the layout of a picture. The measure is this library's own definition.
    The points are those of step 1 of docs/method.md (every node z-scored over samples), on the principal axes of all
    nodes.

    Parameters
    ----------
    trace : anything `as_trace` accepts
        Without missing samples, because a principal component score needs every sample. A trace on disk is read block
        by block.
    n_components : int
        Number of principal components. The points are not reduced if they have at most so many samples.
    normalize : bool
        Whether nodes are z-scored. With False, the size of the activity matters too.
    over, estimator, bins, k, t, base, scale, bandwidth, n_bootstrap, random_state, verbose, callback
        As in `entropy`.

    Returns
    -------
    Entropy

    Raises
    ------
    InputError, InputTypeError
        A masked trace, an unknown estimator or axis, or a number out of range.

    Notes
    -----
    The principal axes take O(N P min(N, P)) time and two passes over the trace. The rest costs as much as `entropy`.

    Examples
    --------
    >>> from mmphate_gpu.datasets import random_walk
    >>> trace_entropy(random_walk(5, 12, 6), estimator="kde", random_state=0).values.shape
    (5, 1)
    """
    trace = as_trace(trace)
    if trace.mask is not None:
        raise InputError("trace has missing samples; accepted: a trace without a mask (see Trace.subsample)")
    check_number("n_components", n_components, low=1, integer=True)
    measure = Measure(over, estimator, bins, k, t, base, scale, bandwidth, n_bootstrap, drawn_seed(random_state))
    scores = _scores(trace, n_components, normalize)
    labels = {axis: getattr(trace, axis) for axis in ("epoch", "timestep", "unit")}
    extra = {"of": "trace", "n_components": scores.shape[-1], "normalize": normalize}
    return _entropy(scores.reshape(*trace.shape[:3], -1), labels, measure, verbose, callback, extra)


def _scores(trace: Trace, n_components: int, normalize: bool) -> torch.Tensor:  # (S, M, C)
    points = trace_points(trace, normalize=normalize, n_pca=n_components).points
    return on_axes(points, principal_axes(points, n_components))


def _entropy(
    points: torch.Tensor,  # (E, T, M, C)
    labels: Mapping[str, np.ndarray],
    measure: Measure,
    verbose: int | bool,
    callback: Callback | None,
    extra: Mapping[str, Any],
) -> Entropy:
    result = measure(points, verbose, callback)

    def array(tensor: torch.Tensor) -> np.ndarray:  # (..., B) -> (..., *shape)
        return tensor.reshape(tensor.shape[:-1] + result.shape).cpu().numpy()

    values = array(result.values)
    replicates, reach = result.replicates, None
    if replicates is not None:
        reach = DEVIATIONS * array((replicates - result.values).square().nanmean(0).sqrt())
    dims = REMAINING[measure.over]
    return Entropy(
        values=values,
        low=None if reach is None else values - reach,
        high=None if reach is None else values + reach,
        dims=dims,
        coords={name: labels[name] for name in dims},
        n_points=array(result.n_points),
        n_floored=array(result.n_floored),
        estimator=measure.estimator,
        over=measure.over,
        base=float(measure.base),
        scale=result.scale,
        replicates=None if replicates is None else array(replicates),
        settings=asdict(measure) | {"scale": result.scale, "bandwidth": result.bandwidth} | dict(extra),
    )
