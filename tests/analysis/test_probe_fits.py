"""The fits of a linear probe are those of scikit-learn; folds and permutations keep the sizes of the classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from mmphate_gpu.analysis.probe_features import Folds, permuted_within, stratified_folds
from mmphate_gpu.analysis.probe_fits import ClassFits, Evaluation, RealFits, wilson_interval
from mmphate_gpu.analysis.softmax_regression import out_of_fold, softmax_features


def states_and_labels(n_samples: int, n_units: int, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, P, M) states of which the first follow the labels weakly and the second strongly; unit 1 is constant."""
    rng = np.random.default_rng(n_samples)
    labels = rng.integers(0, n_classes, n_samples)
    labels[: 2 * n_classes] = np.tile(np.arange(n_classes), 2)
    centers = rng.normal(size=(2, n_classes, n_units)) * np.array([0.3, 3])[:, None, None]
    states = centers[:, labels] + rng.normal(size=(2, n_samples, n_units)) * rng.uniform(0.1, 10, n_units)
    states[:, :, 1] = 0.1  # its mean is rounded, so that its variance is not exactly zero
    return torch.from_numpy(states), torch.from_numpy(labels)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def parts(folds: Folds) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training, tested) indices of each fold."""
    numbers = folds.of_sample.numpy()
    return [(np.flatnonzero(numbers != fold), np.flatnonzero(numbers == fold)) for fold in range(folds.n_folds)]


@pytest.mark.parametrize(
    ("n_samples", "n_units", "n_classes", "C"),
    [(60, 8, 6, 1.0), (61, 8, 3, 0.1), (50, 9, 2, 1.0), (50, 9, 2, 10.0), (40, 70, 5, 1.0), (41, 41, 2, 1.0)],
)
def test_probabilities_are_those_of_scikit_learn(n_samples, n_units, n_classes, C):
    states, labels = states_and_labels(n_samples, n_units, n_classes)
    folds = stratified_folds(labels, 5, seeded())
    logs, n_unsolved = out_of_fold(softmax_features(states, folds, n_classes, C), labels.expand(2, -1), n_classes)
    assert n_unsolved == 0
    for points, ours in zip(states.numpy(), logs.exp().numpy(), strict=True):
        for train, tested in parts(folds):
            scaler = StandardScaler().fit(points[train])
            model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(
                scaler.transform(points[train]), labels[train]
            )
            # Measured: 1.4e-5 at most. The tolerance of the solver is on its gradient, 1e-5 in scaled coordinates.
            np.testing.assert_allclose(ours[tested], model.predict_proba(scaler.transform(points[tested])), atol=1e-4)


@pytest.mark.parametrize(("n_units", "C"), [(8, 1.0), (70, 0.2)])
def test_predictions_of_real_targets_are_those_of_scikit_learn(n_units, C):
    states, _ = states_and_labels(52, n_units, 3)
    targets = states[0, :, 0] + torch.from_numpy(np.random.default_rng(0).normal(5, 1, 52))
    folds = stratified_folds(torch.zeros(52, dtype=torch.int64), 5, seeded())
    fits = RealFits(C, seeded())
    result = fits.evaluate(fits.features(states, folds), targets)
    for points, errors, score in zip(states.numpy(), result.errors.numpy(), result.score, strict=True):
        expected = np.empty(52)
        for train, tested in parts(folds):
            scaler = StandardScaler().fit(points[train])
            model = Ridge(alpha=1 / C).fit(scaler.transform(points[train]), targets[train])
            expected[tested] = (model.predict(scaler.transform(points[tested])) - targets[tested].numpy()) ** 2
        np.testing.assert_allclose(errors, expected, rtol=1e-8, atol=1e-12)
        assert float(score) == pytest.approx(1 - expected.mean() / targets.var(correction=0).item(), abs=1e-10)


def test_scores_of_classes_of_different_sizes():
    """Balanced accuracy counts classes alike, cross-entropy counts samples alike."""
    states, labels = states_and_labels(60, 8, 3)
    labels[labels == 2] = torch.where(torch.arange(int((labels == 2).sum())) < 4, 2, 1)
    folds = stratified_folds(labels, 4, seeded())
    fits = ClassFits(3, 1.0)
    features = fits.features(states, folds)
    result = fits.evaluate(features, labels)
    logs, _ = out_of_fold(features, labels.expand(2, -1), 3)
    for i in range(2):
        assert float(result.score[i]) == pytest.approx(balanced_accuracy_score(labels, logs[i].argmax(1)), abs=1e-12)
        chosen = logs[i].gather(1, labels[:, None])
        assert float(result.loss[i]) == pytest.approx(-float(chosen.mean()) / np.log(2), abs=1e-12)


def test_folds_are_stratified():
    labels = torch.tensor([0] * 11 + [1] * 5 + [2] * 2 + [3] * 5)
    folds = stratified_folds(labels, 5, seeded())
    sizes = torch.bincount(folds.of_sample)
    assert sorted(sizes.tolist()) == [4, 4, 5, 5, 5]
    counts = torch.stack([torch.bincount(labels[folds.of_sample == fold], minlength=4) for fold in range(5)])
    assert bool((counts.amax(0) - counts.amin(0) <= 1).all())
    for fold, (train, _) in enumerate(parts(folds)):
        rows = folds.rows[fold][folds.weights[fold] == 1]
        assert sorted(rows.tolist()) == train.tolist()


def test_permutations_stay_within_folds():
    labels = torch.arange(60) % 4
    folds = stratified_folds(labels, 5, seeded())
    permuted = permuted_within(folds, labels, 200, seeded(1))
    for fold in range(5):
        inside = permuted[:, folds.of_sample == fold].sort(1).values
        assert torch.equal(inside, labels[folds.of_sample == fold].sort().values.expand(200, -1))
    # Each of 60 samples has each class in a quarter of 200 permutations; 5 deviations of sqrt(200 * 3 / 16).
    assert bool(((permuted == 0).sum(0) - 50).abs().max() < 5 * (200 * 3 / 16) ** 0.5)


def test_the_interval_of_many_samples():
    """With equal errors of 0.1, R^2 is 1 - 0.1 / variance. The variance of n normal numbers varies by sqrt(2 / n)."""
    n = 20_000  # a table of resamplings by samples by samples would take more than 1 TB
    labels = torch.randn(n, generator=seeded(), dtype=torch.float64)
    none, errors = labels[:1], torch.full((1, n), 0.1, dtype=torch.float64)
    low, high = RealFits(1.0, seeded()).interval(Evaluation(none, none, errors, 0), labels)
    assert float(low) < 1 - 0.1 / float(labels.var()) < float(high)
    # The quantiles of 400 resamplings have relative errors of about 10 %.
    assert float(high - low) == pytest.approx(2 * 1.96 * 0.1 * (2 / n) ** 0.5, rel=0.3)


def test_wilson_by_hand():
    """Half of ten: (0.5 + z^2 / 20 -+ z sqrt(0.025 + z^2 / 400)) / (1 + z^2 / 10) with z = 1.96."""
    low, high = wilson_interval(torch.tensor([0.5], dtype=torch.float64), 10)
    assert float(low) == pytest.approx(0.2366, abs=1e-4) and float(high) == pytest.approx(0.7634, abs=1e-4)


@pytest.mark.parametrize(("sizes", "worth"), [((50, 50), 100), ((10, 90), 36)])
def test_samples_that_an_interval_is_worth(sizes, worth):
    """Classes of 10 and 90 are worth 4 / (1 / 10 + 1 / 90) = 36 samples."""
    labels = torch.arange(2).repeat_interleave(torch.tensor(sizes))
    score = torch.tensor([0.8], dtype=torch.float64)
    interval = ClassFits(2, 1.0).interval(Evaluation(score, score, score, 0), labels)
    assert [float(limit) for limit in interval] == pytest.approx([float(x) for x in wilson_interval(score, worth)])
