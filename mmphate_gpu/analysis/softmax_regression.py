"""Multinomial logistic regression with an L2 penalty for many small problems at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .lbfgs import minimize
from .probe_features import Features, Folds, scaled_features

# Of the gradient in the scaled coordinates. The tests compare the probabilities with those of scikit-learn.
TOLERANCE = 1e-5
# The curvature that the scaling of the coordinates assumes, as a share of the squares of the features. Its upper bound
# is 1/2. The curvature at the solution is lower, so that 1/10 needs fewer steps than the bound on simulated states.
_CURVATURE = 0.1


@dataclass(frozen=True)
class _PenalizedLoss:
    """The negative log likelihood plus the penalty, and its gradient, of B fits."""

    points: torch.Tensor  # (B, n, p)
    targets: torch.Tensor  # (B, classes, n): the weight of the point at its class, else 0
    weights: torch.Tensor  # (B, 1, n)
    penalty: torch.Tensor  # (B, 1, p)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        coefficients = x.view(len(x), -1, self.points.shape[2])
        logits = coefficients @ self.points.mT  # (B, classes, n)
        highest = logits.amax(1, keepdim=True)
        likelihood = torch.sub(logits, highest).exp_()
        total = likelihood.sum(1, keepdim=True)
        shrunk = coefficients * self.penalty
        value = torch.linalg.vecdot((total.log() + highest).flatten(1), self.weights.flatten(1))
        value -= torch.linalg.vecdot(logits.flatten(1), self.targets.flatten(1))
        value += torch.linalg.vecdot(shrunk.flatten(1), x) / 2
        residual = likelihood.mul_(self.weights / total).sub_(self.targets)
        return value, torch.baddbmm(shrunk, residual, self.points).flatten(1)

    def select(self, problems: torch.Tensor) -> _PenalizedLoss:
        parts = (self.points, self.targets, self.weights, self.penalty)
        return _PenalizedLoss(*(part[problems] for part in parts))


def softmax_features(states: torch.Tensor, folds: Folds, n_classes: int, C: float) -> Features:
    """The features (B, folds, P, p) for fits of ``n_classes`` with scikit-learn's ``C``, of the states (B, P, M)."""
    # scikit-learn fits two classes with a single vector of coefficients, which is the difference of the two here.
    penalty = (2 if n_classes == 2 else 1) / C
    return scaled_features(states, folds, penalty, _CURVATURE)


def out_of_fold(features: Features, labels: torch.Tensor, n_classes: int) -> tuple[torch.Tensor, int]:
    """Fit every fold, and predict the samples that it leaves out.

    Parameters
    ----------
    features : of B sets of P samples
    labels : (B, P) int64, from 0 to ``n_classes - 1``; every class is in the training samples of every fold

    Returns
    -------
    (log_probabilities, n_unsolved) : natural logarithms (B, P, classes), and the number of fits that did not converge

    Notes
    -----
    The objective is that of scikit-learn's `LogisticRegression`: the sum of the losses plus the squares of the
    coefficients, without the intercept, over 2 C.
    """
    folds = features.folds
    one_hot = torch.nn.functional.one_hot(labels, n_classes).double()
    targets = folds.take(one_hot[:, None].expand(-1, folds.n_folds, -1, -1)) * folds.weights[..., None]
    weights = folds.weights.expand(len(labels), -1, -1)
    loss = _PenalizedLoss(
        folds.take(features.points).flatten(0, 1),
        targets.mT.flatten(0, 1).contiguous(),
        weights.reshape(-1, 1, weights.shape[-1]),
        features.penalty.flatten(0, 1)[:, None],
    )
    n_coordinates = features.points.shape[-1]
    start = loss.points.new_zeros(len(loss.points), n_classes * n_coordinates)
    solution, n_unsolved = minimize(loss, start, tol=TOLERANCE)
    coefficients = solution.view(len(labels), folds.n_folds, n_classes, n_coordinates)
    logits = coefficients @ features.points.mT  # (B, folds, classes, P)
    samples = torch.arange(labels.shape[1], device=labels.device)
    tested = logits[:, folds.of_sample, :, samples].movedim(0, 1)  # (B, P, classes)
    return torch.log_softmax(tested, -1), n_unsolved
