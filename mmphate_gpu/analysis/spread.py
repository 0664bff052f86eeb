"""How far units spread within an epoch, and how far they move between epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime.arrays import to_numpy
from ..runtime.isolation import isolated
from .curves import LARGEST
from .result import Result, long_columns
from .unit_points import positions


@dataclass(frozen=True, eq=False, repr=False)
class Spread(Result):
    """The variance of the nodes of each epoch, in squared units of the coordinates; made by `spread`.

    Attributes
    ----------
    epoch : (E,) labels of the epochs.
    variance : (E,) total variance of the nodes; NaN for an epoch with fewer than two nodes with a place.
    total : sum of ``variance``, without NaN; NaN if all are NaN.
    settings : what was asked.
    """

    epoch: np.ndarray
    variance: np.ndarray
    total: float
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        return {"epoch": self.epoch, "variance": self.variance}

    def _summary(self) -> str:
        components = self.settings["n_components"]
        n_epochs = int(np.isfinite(self.variance).sum())
        return f"total variance {self.total:.4g} over {n_epochs} epochs, {components} components"


@dataclass(frozen=True, eq=False, repr=False)
class Displacement(Result):
    """How far units move between consecutive epochs; made by `displacement`.

    Attributes
    ----------
    before, epoch : (E - 1,) labels of the earlier and of the later epoch of each pair.
    unit : (M,) labels of the units.
    values : (E - 1, M) squared distances, divided by the number of components; NaN for a unit that lacks a place.
    settings : what was asked.
    change : (E - 1,) change of the metric. It and all below are None without a metric.
    pearson, spearman : (M,) correlation of the values of each unit with the change; NaN for fewer than three pairs of
        epochs, or for constants.
    mean_pearson, mean_spearman : correlation of the mean over units with the change.
    """

    before: np.ndarray
    epoch: np.ndarray
    unit: np.ndarray
    values: np.ndarray
    settings: Mapping[str, Any]
    change: np.ndarray | None = None
    pearson: np.ndarray | None = None
    spearman: np.ndarray | None = None
    mean_pearson: float | None = None
    mean_spearman: float | None = None

    def _columns(self) -> dict[str, np.ndarray]:
        return long_columns({"epoch": self.epoch, "unit": self.unit}, displacement=self.values)

    def _summary(self) -> str:
        size = f"{len(self.epoch)} x {len(self.unit)} (pair of epochs x unit)"
        if self.change is None:
            return size
        return f"{size}; with the metric's change: Pearson {self.mean_pearson:.2f}, Spearman {self.mean_spearman:.2f}"


@isolated()
def spread(embedding: Any) -> Spread:
    """The total variance of the nodes of each epoch, summed over the epochs: sum_e trace Cov(Y[e]).

    Published (M-PHATE, arXiv 1908.02831) for traces with a single time step, with ddof 1 and in two components. The
    paper compares networks that generalize with networks that memorize. Here the nodes of an epoch are those of all its
    time steps, and all components count.

    Parameters
    ----------
    embedding : Embedding
        The spread depends on the scale of the picture. So compare networks only in the same picture, or divide the
        coordinates of each picture by their size first.

    Returns
    -------
    Spread

    Raises
    ------
    InputError, InputTypeError
        Something other than an `Embedding`, or coordinates above 1e150.

    Notes
    -----
    O(N C) time and memory. Deterministic.

    Examples
    --------
    >>> from mmphate_gpu import Embedding
    >>> from mmphate_gpu.slices import SliceLayout
    >>> places = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, 5.0]])
    >>> spread(Embedding(places, SliceLayout.of_shape(2, 1, 2))).variance.tolist()
    [2.0, 8.0]
    """
    points = _positions(embedding)
    n_epochs, *_, n_components = points.shape
    clouds = points.reshape(n_epochs, -1, n_components)
    variance = np.array([_total_variance(cloud[~np.isnan(cloud).any(1)]) for cloud in clouds])
    total = float(np.nansum(variance)) if np.isfinite(variance).any() else np.nan
    return Spread(embedding.layout.epoch, variance, total, {"n_components": n_components, "ddof": 1})


def _positions(embedding: Any) -> np.ndarray:  # (E, T, M, C)
    points = positions(embedding)
    largest = np.abs(np.nan_to_num(points)).max()
    if largest > LARGEST:
        raise InputError(f"embedding holds {largest:g}; accepted: coordinates up to {LARGEST:g} in size")
    return points


def _total_variance(places: np.ndarray) -> float:  # (n, C)
    return float(places.var(0, ddof=1).sum()) if len(places) > 1 else np.nan


@isolated()
def displacement(embedding: Any, against: Any = None) -> Displacement:
    """How far each unit moves from an epoch to the next: ||Y[e, m] - Y[e + 1, m]||^2 / C.

    Published (a script of M-PHATE's authors) for traces with a single time step, where it is compared with the change
    of the validation loss. For several time steps the mean over them is taken, which is this library's own definition.

    Parameters
    ----------
    embedding : Embedding
        The picture of M units in E epochs. Distances are in units of its coordinates.
    against : (E,) array, optional
        A metric of the epochs, such as ``trace.metrics["val_loss"]``. Its signed difference from an epoch to the next
        is correlated with the displacement. Pairs with an epoch whose metric is not finite are left out.

    Returns
    -------
    Displacement

    Raises
    ------
    InputError, InputTypeError
        Something other than an `Embedding`, coordinates above 1e150, fewer than two epochs, or ``against`` of another
        length.

    Notes
    -----
    Time steps at which a unit lacks a place in either epoch do not count. Curves over epochs are autocorrelated, so a
    high correlation alone proves little: `follows` tests it. O(N C) time and memory. Deterministic.

    Examples
    --------
    >>> from mmphate_gpu import Embedding
    >>> from mmphate_gpu.slices import SliceLayout
    >>> places = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    >>> displacement(Embedding(places, SliceLayout.of_shape(2, 1, 2))).values.tolist()
    [[2.0, 0.0]]
    """
    points, layout = _positions(embedding), embedding.layout
    if len(points) < 2:
        raise InputError(f"embedding has {len(points)} epoch; accepted: at least 2")
    values = _means(((points[1:] - points[:-1]) ** 2).mean(-1).swapaxes(1, 2))
    settings = {"n_components": points.shape[-1], "against": against is not None}
    labels = layout.epoch[:-1], layout.epoch[1:], layout.unit
    if against is None:
        return Displacement(*labels, values, settings)
    change = np.diff(_metric(against, layout.n_epochs))
    *units, mean = [_correlations(curve, change) for curve in (*values.T, _means(values))]
    pearson, spearman = np.array(units).T
    return Displacement(*labels, values, settings, change, pearson, spearman, *mean)


def _means(values: np.ndarray) -> np.ndarray:  # (..., n) -> (...)
    """The mean of what is not NaN, and NaN for nothing."""
    count = (~np.isnan(values)).sum(-1)
    return np.divide(np.nansum(values, -1), count, out=np.full(count.shape, np.nan), where=count > 0)


def _metric(against: Any, n_epochs: int) -> np.ndarray:  # (E,)
    values = to_numpy("against", against)
    if values.shape != (n_epochs,) or values.dtype.kind not in "fiu":
        raise InputError(
            f"against is {values.dtype} of shape {values.shape}; accepted: real numbers of shape ({n_epochs},)"
        )
    return np.where(np.isfinite(values), values, np.nan).astype(np.float64)


def _correlations(curve: np.ndarray, change: np.ndarray) -> tuple[float, float]:
    """Pearson's and Spearman's correlation over the pairs of numbers that are finite."""
    from scipy.stats import rankdata  # loading it takes longer than all of the package

    kept = np.isfinite(curve) & np.isfinite(change)
    x, y = curve[kept], change[kept]
    return _correlation(x, y), _correlation(rankdata(x), rankdata(y))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:  # (n,), (n,)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x / np.ptp(x), y / np.ptp(y))[0, 1])  # squares of the numbers may overflow or vanish
