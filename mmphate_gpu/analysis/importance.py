"""Rank the units of a layer by several measures, and ask whether the measures agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_choice, check_number
from ..runtime.arrays import to_numpy
from .ablation import UnitAblation
from .entropy import Entropy, entropy
from .false_discovery import corrected
from .label_information import LabelInformation
from .means import mean_of_finite
from .result import Result
from .seeds import drawn_seed, seeded

# With at most this many units, all orders are tried: 7! = 5040.
_EXACT_UNITS = 7
# Correlations of two orders that agree up to rounding count as equal.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class UnitImportance(Result):
    """Scores of the M units by several measures, their ranks, and the agreement of B pairs of measures.

    Attributes
    ----------
    unit : (M,), labels of the units.
    scores : {measure: (M,)}, larger for a more important unit; NaN where a unit has none.
    ranks : {measure: (M,)}, 1 for the largest score; units with equal scores share their mean rank.
    pairs : list of B pairs of measures.
    spearman : (B,), rank correlation of the scores, in -1 to 1; NaN if a measure has equal scores for all units.
    p : (B,), the probability of a correlation as far from 0 if the units of one measure are permuted.
    q : (B,), the same, corrected for B pairs by Benjamini and Hochberg.
    settings : what was asked.
    """

    unit: np.ndarray  # (M,)
    scores: Mapping[str, np.ndarray]
    ranks: Mapping[str, np.ndarray]
    pairs: list[tuple[str, str]]
    spearman: np.ndarray
    p: np.ndarray
    q: np.ndarray
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        ranks = {f"rank by {name}": values for name, values in self.ranks.items()}
        return {"unit": self.unit, **self.scores, **ranks}

    def _summary(self) -> str:
        firsts = [f"{name} {self._first(ranks)}" for name, ranks in self.ranks.items()]
        agreement = [
            f"{first} ~ {second} " + ("undefined" if np.isnan(rho) else f"{rho:+.2f} (p = {p:.2g})")
            for (first, second), rho, p in zip(self.pairs, self.spearman, self.p, strict=True)
        ]
        return "; ".join([f"{len(self.unit)} units, first by {', '.join(firsts)}", *agreement])

    def _first(self, ranks: np.ndarray) -> str:
        """The label of the first unit; "none" if all units have the same rank."""
        return "none" if np.nanmin(ranks) == np.nanmax(ranks) else f"{self.unit[np.nanargmin(ranks)]}"


def unit_importance(
    embedding: Embedding | Entropy | None = None,
    ablation: UnitAblation | None = None,
    information: LabelInformation | None = None,
    *,
    scores: Mapping[str, Any] | None = None,
    epochs: str = "mean",
    n_permutations: int = 10_000,
    random_state: int | None = None,
) -> UnitImportance:
    """Rank the M units of a layer by several measures, and test whether the rankings agree.

    The measures are *entropy*, the inter-step entropy of a unit; *ablation*, the change of loss without the unit; and
    *information*, the bits of the label that the unit holds, as a mean over time steps. So the claim "units of high
    inter-step entropy are important" becomes a correlation with a p-value. The claim is published for MM-PHATE. The
    test and the other measures are this library's own.

    Parameters
    ----------
    embedding : Embedding or Entropy, optional
        An entropy over the time steps, or an embedding, whose ``entropy(embedding, over="timesteps")`` is computed.
    ablation : UnitAblation, optional
        The result of `ablate_units`.
    information : LabelInformation, optional
        The result of `label_information`.
    scores : {name: (M,)}, optional
        Other measures, larger for a more important unit.
    epochs : {"mean", "last"}
        Whether a measure is averaged over its epochs, or taken at the last one. NaN does not count.
    n_permutations : int
        Number of random permutations. For at most 7 units, all permutations are tried instead.
    random_state : int, optional
        Seed of the permutations.

    Returns
    -------
    UnitImportance

    Raises
    ------
    InputError, InputTypeError
        Fewer than two measures; measures of different units; a wrong result; a number out of range.

    Warns
    -----
    UserWarning
        The entropy of an embedding of fewer than 10 time steps, as `entropy` does.

    Notes
    -----
    The Spearman correlation of each pair of measures is over the units that have a number in both. p is two-sided: the
    share of the permutations with a correlation at least as far from 0, or (1 + their number) / (1 + n_permutations) if
    the permutations are random. Few units give a weak test: with M units, p is at least 2 / M!, which is 1 / 12 for 4
    units. O(B M n_permutations) time for B pairs, and 16 M n_permutations bytes. Deterministic with a seed.

    Examples
    --------
    >>> sizes = {"norm": [3.0, 1.0, 2.0, 5.0], "variance": [9.0, 1.0, 4.0, 25.0]}
    >>> unit_importance(scores=sizes)
    UnitImportance(4 units, first by norm 3, variance 3; norm ~ variance +1.00 (p = 0.083))
    """
    check_choice("epochs", epochs, ("mean", "last"))
    permutations = int(check_number("n_permutations", n_permutations, low=1, integer=True))
    seed = drawn_seed(random_state)
    generator = seeded(seed)
    unit, measures = _measures(embedding, ablation, information, scores, epochs)
    pairs = list(itertools.combinations(measures, 2))
    tests = [_test(measures[first], measures[second], permutations, generator) for first, second in pairs]
    spearman, p = (np.array(column) for column in zip(*tests, strict=True))
    return UnitImportance(
        unit=unit,
        scores=measures,
        ranks={name: _ranks(-values) for name, values in measures.items()},
        pairs=pairs,
        spearman=spearman,
        p=p,
        q=corrected(p),
        settings={"epochs": epochs, "n_permutations": permutations, "random_state": seed},
    )


def _measures(
    embedding: Any, ablation: Any, information: Any, scores: Any, epochs: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The labels of the units, and each measure with one number for each unit."""
    units: dict[str, np.ndarray] = {}
    measures: dict[str, np.ndarray] = {}
    if embedding is not None:
        units["entropy"], measures["entropy"] = _of_entropy(embedding, epochs)
    if ablation is not None:
        _check_type("ablation", ablation, UnitAblation)
        units["ablation"], measures["ablation"] = ablation.unit, _over_epochs(ablation.loss_change, epochs)
    if information is not None:
        _check_type("information", information, LabelInformation)
        values = _over_epochs(mean_of_finite(information.per_unit, 1), epochs)
        units["information"], measures["information"] = information.unit, values
    measures |= _others(scores, set(measures))
    if len(measures) < 2:
        raise InputError(
            f"unit_importance got {len(measures)} measures; accepted: at least two of embedding=, ablation=, "
            "information= and scores="
        )
    return _common_units(units, measures), measures


def _of_entropy(embedding: Any, epochs: str) -> tuple[np.ndarray, np.ndarray]:
    _check_type("embedding", embedding, (Embedding, Entropy))
    result = entropy(embedding, over="timesteps", n_bootstrap=0) if isinstance(embedding, Embedding) else embedding
    if result.dims != ("epoch", "unit"):
        raise InputError(f"embedding is an entropy over {result.over}; accepted: over='timesteps', or an Embedding")
    return result.coords["unit"], _over_epochs(result.values, epochs)


def _others(scores: Any, taken: set[str]) -> dict[str, np.ndarray]:
    if not isinstance(scores, (Mapping, type(None))):
        raise InputTypeError(f"scores is a {type(scores).__name__}; accepted: a dict of name and (M,) numbers")
    result = {str(name): to_numpy(f"scores[{name!r}]", values) for name, values in (scores or {}).items()}
    for name, values in result.items():
        if values.ndim != 1 or values.dtype.kind not in "biuf" or np.isinf(values).any():
            raise InputError(
                f"scores[{name!r}] has shape {values.shape} and dtype {values.dtype}; accepted: a finite number or NaN "
                "for each unit"
            )
        if name in taken:
            raise InputError(f"scores has the name {name!r} of another measure; accepted: another name")
    return {name: values.astype(np.float64) for name, values in result.items()}


def _check_type(name: str, value: Any, accepted: Any) -> None:
    if not isinstance(value, accepted):
        names = " or ".join(cls.__name__ for cls in (accepted if isinstance(accepted, tuple) else (accepted,)))
        raise InputTypeError(f"{name} is a {type(value).__name__}; accepted: {names}")


def _common_units(units: dict[str, np.ndarray], measures: dict[str, np.ndarray]) -> np.ndarray:
    """The labels of the units; `InputError` if measures have different numbers of units, or different labels."""
    sizes = {name: len(values) for name, values in measures.items()}
    if len(set(sizes.values())) > 1 or min(sizes.values()) < 2:
        raise InputError(f"the measures have {sizes} units; accepted: the same number, and at least 2")
    empty = [name for name, values in measures.items() if np.isnan(values).all()]
    if empty:
        raise InputError(f"{empty[0]} is NaN for all units; accepted: a measure with a number for some units")
    labels = list(units.values()) or [np.arange(min(sizes.values()))]
    for name, values in units.items():
        if not np.array_equal(values, labels[0]):
            raise InputError(
                f"{name} is of the units {_shown(values)}, and {next(iter(units))} of {_shown(labels[0])}; accepted: "
                "measures of the same units"
            )
    return labels[0]


def _shown(values: np.ndarray) -> str:
    return f"{', '.join(map(str, values[:3].tolist()))}, ..."


def _over_epochs(values: np.ndarray, epochs: str) -> np.ndarray:  # (E, M) -> (M,)
    return values[-1].copy() if epochs == "last" else mean_of_finite(values, 0)


def _test(
    first: np.ndarray, second: np.ndarray, n_permutations: int, generator: np.random.Generator
) -> tuple[float, float]:
    """The Spearman correlation of two measures and its two-sided p by permutations; NaN if one has no order."""
    both = ~(np.isnan(first) | np.isnan(second))
    ranks = [_ranks(values[both]) - (both.sum() + 1) / 2 for values in (first, second)]
    norm = math.sqrt(np.prod([(values**2).sum() for values in ranks]))
    if not norm:
        return math.nan, math.nan
    rho = float(ranks[0] @ ranks[1] / norm)
    if len(ranks[0]) <= _EXACT_UNITS:
        orders = np.array(list(itertools.permutations(ranks[1])))
        return rho, float(np.mean(_as_far(orders @ ranks[0] / norm, rho)))
    orders = generator.permuted(np.tile(ranks[1], (n_permutations, 1)), axis=1)
    return rho, float((1 + _as_far(orders @ ranks[0] / norm, rho).sum()) / (1 + n_permutations))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share their mean rank, and NaN stays NaN."""
    from scipy.stats import rankdata  # loading it takes longer than all of the package

    return rankdata(values, nan_policy="omit")


def _as_far(correlations: np.ndarray, rho: float) -> np.ndarray:
    return np.abs(correlations) >= abs(rho) - _ROUNDING
