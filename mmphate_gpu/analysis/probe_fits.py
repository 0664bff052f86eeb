"""Fits of a linear probe in many slices at once, and how good their predictions are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch

from .probe_features import Features, Folds, scaled_features
from .softmax_regression import out_of_fold, softmax_features

# Quantile of the normal distribution for an interval of 95 %, and resamplings of the interval of R^2.
_Z = 1.959963984540054
_RESAMPLINGS = 400


class Evaluation(NamedTuple):
    """How well B probes predict the samples that their training folds leave out."""

    score: torch.Tensor  # (B,)
    loss: torch.Tensor  # (B,)
    errors: torch.Tensor  # (B, P): 1 for a wrong class, or the squared error
    n_unsolved: int  # fits that did not converge


class Fits(Protocol):
    """A probe for classes or for real targets. ``labels`` are (P,) or (B, P)."""

    measure: ClassVar[str]

    @property
    def chance(self) -> float: ...

    def features(self, states: torch.Tensor, folds: Folds) -> Features:
        """The features of the states (B, P, M), which fits with any labels share."""

    def evaluate(self, features: Features, labels: torch.Tensor) -> Evaluation:
        """Fit every fold of B slices, and judge the predictions."""

    def interval(self, evaluation: Evaluation, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Limits (B,) and (B,) of a 95 % interval of the score, with the labels (P,)."""


@dataclass(frozen=True)
class ClassFits:
    """Multinomial logistic regression, balanced accuracy, and cross-entropy in bits."""

    n_classes: int
    C: float
    measure: ClassVar[str] = "balanced accuracy"

    @property
    def chance(self) -> float:
        return 1 / self.n_classes

    def features(self, states: torch.Tensor, folds: Folds) -> Features:
        return softmax_features(states, folds, self.n_classes, self.C)

    def evaluate(self, features: Features, labels: torch.Tensor) -> Evaluation:
        labels = labels.expand(len(features.points), -1)
        logs, n_unsolved = out_of_fold(features, labels, self.n_classes)
        sizes = torch.bincount(labels[0], minlength=self.n_classes)  # a permutation does not change them
        errors = (logs.argmax(-1) != labels).double()
        score = 1 - (errors / (self.n_classes * sizes[labels])).sum(1)
        loss = -logs.gather(-1, labels[..., None]).mean((1, 2)) / torch.log(logs.new_tensor(2))
        return Evaluation(score, loss, errors, n_unsolved)

    def interval(self, evaluation: Evaluation, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Wilson's interval. If all classes are equally hard, the score has the variance of a share of this number of
        samples: all samples if the classes are equally large, and fewer otherwise."""
        sizes = torch.bincount(labels, minlength=self.n_classes).double()
        return wilson_interval(evaluation.score, self.n_classes**2 / float((1 / sizes).sum()))


@dataclass(frozen=True)
class RealFits:
    """Ridge regression, R^2, and the mean squared error."""

    C: float
    generator: torch.Generator
    measure: ClassVar[str] = "R2"
    chance: ClassVar[float] = 0.0

    def features(self, states: torch.Tensor, folds: Folds) -> Features:
        return scaled_features(states, folds, penalty=1 / self.C, curvature=1)

    def evaluate(self, features: Features, labels: torch.Tensor) -> Evaluation:
        """In the coordinates of the features the squares of the training samples and the penalty sum to the identity,
        so that the products with the labels are the coefficients."""
        folds = features.folds
        labels = labels.expand(len(features.points), -1)
        wanted = labels[:, folds.rows] * folds.weights  # (B, folds, n)
        coefficients = folds.take(features.points).mT @ wanted[..., None]
        predicted = (features.points @ coefficients)[..., 0]  # (B, folds, P)
        tested = predicted.gather(1, folds.of_sample.expand(len(labels), 1, -1))[:, 0]
        errors = (labels - tested).square()
        return Evaluation(1 - errors.sum(1) / _squares(labels), errors.mean(1), errors, 0)

    def interval(self, evaluation: Evaluation, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A percentile bootstrap over the samples. Resamplings of equal labels have no R^2 and do not count."""
        n = len(labels)
        draws = torch.randint(n, (_RESAMPLINGS, n), generator=self.generator, device="cpu").to(labels.device)
        times = labels.new_zeros(_RESAMPLINGS, n).scatter_add_(1, draws, labels.new_ones(draws.shape))
        scores = 1 - evaluation.errors @ times.T / _squares(labels[draws])
        low, high = scores.nanquantile(labels.new_tensor([0.025, 0.975]), 1)
        return low, high


def wilson_interval(share: torch.Tensor, n: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Wilson's 95 % interval of a ``share`` of ``n`` samples.

    Examples
    --------
    >>> low, high = wilson_interval(torch.tensor([1.0], dtype=torch.float64), 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.722, 1.0)
    """
    squared = _Z**2 / n
    center = (share + squared / 2) / (1 + squared)
    half = (share * (1 - share) * squared + (squared / 2) ** 2).sqrt() / (1 + squared)
    return (center - half).clamp_min(0), (center + half).clamp_max(1)


def _squares(labels: torch.Tensor) -> torch.Tensor:  # (B, P) -> (B,)
    """Sums of the squares around the means; NaN if all labels of a row are equal."""
    differ = (labels != labels[:, :1]).any(1)
    squares = (labels - labels.mean(1, keepdim=True)).square().sum(1)
    return torch.where(differ, squares, torch.nan)
