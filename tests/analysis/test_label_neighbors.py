"""The information of a number and a class, against scikit-learn, a direct computation, and known values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif

from mmphate_gpu.analysis.label_neighbors import neighbor_information, without_ties


def values_and_labels(sizes: list[int], n_rows: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """(rows, P) numbers whose means differ between the classes by 0 to 2 deviations, in mixed order."""
    rng = np.random.default_rng(sum(sizes))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.normal(size=(n_rows, len(labels))) + labels * rng.uniform(0, 2, (n_rows, 1)), labels


def information(values: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:  # (rows,) bits
    return neighbor_information(torch.from_numpy(values), torch.from_numpy(labels)[None], k)[0].numpy()


def directly(row: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The definition, sample by sample."""
    distances = np.abs(row[:, None] - row)
    terms = []
    for i, label in enumerate(labels):
        mates = np.sort(np.delete(distances[i], i)[np.delete(labels, i) == label])
        near = min(k, len(mates))
        nearer = (distances[i] < mates[near - 1]).sum()  # the sample itself is one
        terms.append(digamma(near) - digamma(len(mates) + 1) - digamma(nearer))
    return (digamma(len(row)) + np.mean(terms)) / np.log(2)


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("sizes", [[30, 30], [2, 5, 9, 14], [2, 2, 2]])
def test_the_definition(sizes, k):
    values, labels = values_and_labels(sizes)
    expected = [directly(row, labels, k) for row in values]
    np.testing.assert_allclose(information(values, labels, k), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_scikit_learn(k):
    """With classes of more than 2 k + 1 samples. In smaller ones scikit-learn rounds distances to about 1e-8."""
    values, labels = values_and_labels([10, 12, 25])
    expected = mutual_info_classif(values.T, labels, n_neighbors=k, random_state=0) / np.log(2)
    # Its noise of 1e-10 changes no count here.
    np.testing.assert_allclose(information(values, labels, k).clip(0), expected, rtol=0, atol=1e-9)


def test_numbers_in_columns_are_those_in_rows():
    """A slice with a mask of its own has such numbers. torch warns of them once in a process."""
    values, labels = values_and_labels([10, 12])
    in_columns = np.asfortranarray(values)
    np.testing.assert_array_equal(information(in_columns, labels, 3), information(values, labels, 3))


def test_several_labelings_at_once_are_those_of_each():
    values, labels = values_and_labels([4, 7, 9])
    rng = np.random.default_rng(0)
    labelings = np.stack([labels, *(rng.permutation(labels) for _ in range(4))])
    together = neighbor_information(torch.from_numpy(values), torch.from_numpy(labelings), 3).numpy()
    for row, labeling in zip(together, labelings, strict=True):
        np.testing.assert_array_equal(row, information(values, labeling, 3))


@pytest.mark.parametrize("distance", [0.5, 2.0, 6.0])
def test_two_gaussians(distance):
    """The information is the entropy of the mixture minus that of a Gaussian."""

    def density(x: float) -> float:
        return (np.exp(-(x**2) / 2) + np.exp(-((x - distance) ** 2) / 2)) / (8 * np.pi) ** 0.5

    mixture, _ = quad(lambda x: -density(x) * np.log2(density(x)), -9, distance + 9)
    exact = mixture - np.log2(2 * np.pi * np.e) / 2
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    estimates = information(rng.normal(size=(50, 400)) + distance * labels, labels, 3)
    # The deviation of one estimate from 400 samples was measured to be at most 0.06 bits; the mean is of 50.
    assert abs(estimates.mean() - exact) < 0.03


@pytest.mark.parametrize(("n_classes", "size", "most"), [(2, 20, 0.06), (10, 10, 0.13)])
def test_the_bias_is_what_the_docstring_says(n_classes, size, most):
    """Gaussians that are 2 deviations apart, the distance of 0, 1, 2 and 10 where the bias was largest."""
    labels = np.arange(n_classes * size) % n_classes

    def density(x: float) -> float:
        return float(np.exp(-((x - 2 * np.arange(n_classes)) ** 2) / 2).mean() / (2 * np.pi) ** 0.5)

    mixture, _ = quad(lambda x: -density(x) * np.log2(density(x)), -9, 2 * n_classes + 7, limit=200)
    exact = mixture - np.log2(2 * np.pi * np.e) / 2
    rng = np.random.default_rng(0)
    estimates = information(rng.normal(size=(800, len(labels))) + 2 * labels, labels, 3)
    # The standard error of a mean of 800 is 0.005 bits.
    assert estimates.mean() - exact == pytest.approx(most, abs=0.02)
    apart = information(rng.normal(size=(1, len(labels))) + 99 * labels, labels, 3)[0]
    assert np.log2(n_classes) < apart < np.log2(n_classes) + 0.07  # psi(n) - psi(n / classes) is above the logarithm


def test_ties_are_broken():
    """A rectified number, of which half of the samples are 0, and numbers that were rounded to float16."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    raw = rng.normal(size=(40, 300)) + 1.5 * labels
    tied = np.concatenate([np.maximum(raw - 1.5, 0), raw.astype(np.float16).astype(np.float64)])
    clean = without_ties(torch.from_numpy(tied), torch.Generator("cpu").manual_seed(0))
    assert all(len(row.unique()) == 300 for row in clean)
    estimates = information(clean.numpy(), labels, 3).reshape(2, 40).mean(1)
    exact = information(raw, labels, 3).mean()
    assert abs(estimates[1] - exact) < 0.02  # a rounding of 1e-3 hides nothing
    assert 0.3 * exact < estimates[0] < exact  # zeros hide some of it


def test_constant_numbers_have_no_information():
    values = np.full((3, 20), 0.1)
    values[1] = np.arange(20)
    clean = without_ties(torch.from_numpy(values), torch.Generator("cpu").manual_seed(0))
    assert information(clean.numpy(), np.repeat([0, 1], 10), 3)[[0, 2]].tolist() == [0, 0]


def test_scale_and_shift_do_not_matter():
    values, labels = values_and_labels([10, 20])
    scaled = [without_ties(torch.from_numpy(v), torch.Generator("cpu").manual_seed(0)) for v in (values, 1e-6 * values)]
    # The noise is 1e-10 of the size of the values in both.
    torch.testing.assert_close(scaled[0], scaled[1], rtol=0, atol=1e-9)
