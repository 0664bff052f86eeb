"""Another fit with the settings of an estimator: of shuffled or smaller traces, or with other seeds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputTypeError
from ..trace import Trace

if TYPE_CHECKING:
    from ..estimator import MMPHATE

# A study makes dozens of fits. With 1,000 landmarks a fit of 10,000 nodes takes seconds.
N_LANDMARK = 1000


def study_estimator(estimator: Any, n_components: int = 2) -> MMPHATE:
    """The estimator whose settings a study repeats: ``estimator``, or by default `MMPHATE` with 1,000 landmarks."""
    from ..estimator import MMPHATE  # loads scikit-learn

    if estimator is None:
        return MMPHATE(n_components=n_components, n_landmark=N_LANDMARK)
    if not isinstance(estimator, MMPHATE):
        raise InputTypeError(f"estimator is a {type(estimator).__name__}; accepted: an MMPHATE, or None")
    return estimator


def refitted(trace: Trace, estimator: MMPHATE, random_state: int | None) -> Embedding:
    """The embedding of ``trace`` by a new estimator with the settings of ``estimator`` and the seed ``random_state``.

    The callback and the progress bar of ``estimator`` are left out. Its warnings are not shown, because they would
    speak of traces that the user has not made.
    """
    settings = estimator.get_params(deep=False) | {"random_state": random_state, "verbose": 0, "callback": None}
    with quiet():
        return type(estimator)(**settings).fit(trace).result_


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the library's warnings, which would repeat for every fit of a study."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def disparity(first: np.ndarray, second: np.ndarray) -> float:  # (n, C), (n, C)
    """Procrustes disparity of two pictures of the same nodes, from 0 (equal up to similarity) to 1.

    Rows with NaN in either are left out. NaN means that fewer than two nodes are left, or that they all coincide.
    """
    from scipy.spatial import procrustes

    both = np.isfinite(first).all(1) & np.isfinite(second).all(1)
    pair = first[both], second[both]
    if any(len(points) < 2 or not np.ptp(points, axis=0).any() for points in pair):
        return float("nan")
    return float(procrustes(*pair)[2])
