"""The von Neumann entropy has its closed forms, and the diffusion time is that of the float64 singular values."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.diffusion import entropy as entropy_module
from mmphate_gpu.diffusion import entropy_with_error, knee, optimal_t, von_neumann_entropy
from mmphate_gpu.diffusion.knee import knee_errors
from mmphate_gpu.errors import InputError
from mmphate_gpu.linalg.components import components

from .operator_cases import FLAT, OPERATORS, gaussian, markov, uneven

# ---------------------------------------------------------------- t

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("golden_*x*.npz"))


def test_entropy_and_t_match_reference(landmark_op, device):
    wanted = reference.von_neumann_entropy(landmark_op)
    result = von_neumann_entropy(torch.from_numpy(landmark_op).to(device)).cpu().numpy()
    # Measured: 5.3e-14, of entropies up to 4.9. The package multiplies powers, the reference raises to each power.
    first_exact = 2 * (len(landmark_op) > entropy_module.SVD_UP_TO[device.type])
    np.testing.assert_allclose(result[first_exact:], wanted[first_exact:], rtol=0, atol=1e-12)
    # Above SVD_UP_TO the Gram matrix gives the singular values, and the entropies of t = 1 and 2 are less exact. A
    # value that should be 0 is up to s = 3e-7, the square root of GRAM_ERROR, and adds at most -s log s = 5e-6.
    np.testing.assert_allclose(result[:first_exact], wanted[:first_exact], rtol=0, atol=5e-6 * len(landmark_op))
    assert optimal_t(torch.from_numpy(landmark_op).to(device)) == reference.knee(wanted)


def test_t_from_the_gram_matrix_is_that_of_the_reference(landmark_op, device, monkeypatch):
    """The computation for more than 1000 landmarks, with its fallback, on small operators."""
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), 10))
    assert optimal_t(torch.from_numpy(landmark_op).to(device)) == reference.optimal_t(landmark_op)


def certified_gram_entropy(landmark_op: torch.Tensor) -> torch.Tensor | None:
    """The entropy from the Gram matrix, or None if its error could change t. `SVD_UP_TO` has been lowered."""
    low, high = entropy_module._singular_value_bounds(landmark_op, components(landmark_op))
    assert not torch.equal(low, high)  # the Gram matrix gave them
    entropy = entropy_module.entropy_of_singular_values((low + high) / 2)
    return entropy if entropy_module._certain(entropy, low, high) else None


def test_the_gram_matrix_decides_nearly_always_and_its_entropy_is_near(monkeypatch):
    """If the fallback decided, the other tests would not test the Gram matrix."""
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), 10))
    taken, errors = 0, []
    for landmark_op in OPERATORS.values():
        entropy = certified_gram_entropy(torch.from_numpy(landmark_op))
        if entropy is not None:
            taken += 1
            errors.append(np.abs(entropy.numpy() - reference.von_neumann_entropy(landmark_op)).max())
    assert taken >= 40  # measured: 48 of 48
    # Small singular values have an error of up to 1e-7 instead of 1e-16. Measured: 4e-6, median 6e-15.
    assert max(errors) < 1e-3 and np.median(errors) < 1e-12


def test_gram_error_is_within_its_bound():
    """The certificate of t rests on the bound of eigenvalues of the Gram matrix against squared singular values.

    The square root magnifies the error of small eigenvalues. It is measured as 5e-17 of the largest eigenvalue here,
    and as 2.4e-16 over 600 more operators of up to 1000 landmarks; the test allows 1e-14. The error of large
    eigenvalues, 9e-15 here and up to 1.3e-14, is not magnified in the entropy.
    """
    for name, landmark_op in OPERATORS.items():
        values = torch.from_numpy(landmark_op)
        singular = np.linalg.svd(landmark_op, compute_uv=False)
        error = np.abs(torch.linalg.eigvalsh(values.T @ values).flip(0).numpy() - singular**2) / singular[0] ** 2
        small = singular < 1e-3 * singular[0]
        assert error[small].max(initial=0) < entropy_module.GRAM_ERROR / 10, name
        assert error.max() < 10 * entropy_module.GRAM_ERROR, name


@cache
def near_tie() -> np.ndarray:
    """An operator whose two best breaks are nearly equal, by bisection between two operators with different times."""
    first, second = OPERATORS["gaussian 0"], OPERATORS["lazy_walk 0"]
    n = min(len(first), len(second))
    first, second = markov(first[:n, :n]), markov(second[:n, :n])

    def mixed(share: float) -> np.ndarray:
        return (1 - share) * first + share * second

    def best(share: float) -> int:  # without the rule for ties, because bisection would end at the edge of that rule
        return int(errors_of(mixed(share)).argmin())

    low, high = 0.0, 1.0
    assert best(low) != best(high)
    while high - low > 1e-15:
        middle = (low + high) / 2
        if best(middle) == best(low):
            low = middle
        else:
            high = middle
    return mixed((low + high) / 2)


def errors_of(landmark_op: np.ndarray) -> torch.Tensor:
    return knee_errors(torch.from_numpy(reference.von_neumann_entropy(landmark_op)))


def gap_of(landmark_op: np.ndarray) -> float:
    best, second = torch.topk(errors_of(landmark_op), 2, largest=False).values
    return float(second - best)


@pytest.mark.parametrize("distance", [0.0, 1e-13, 1e-11, 1e-9, 1e-7, 1e-5])
def test_a_near_tie_is_left_to_the_svd(distance, monkeypatch):
    """If two breaks are within its error, the Gram matrix must not decide. If it decides, it is right."""
    tied = near_tie()
    landmark_op = (1 - distance) * tied + distance * OPERATORS["lazy_walk 0"][: len(tied), : len(tied)]
    gap = gap_of(landmark_op)
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), 10))
    entropy = certified_gram_entropy(torch.from_numpy(landmark_op))
    if gap < 1e-13:
        assert entropy is None
    if gap > 1e-11:  # for smaller gaps rounding decides, in the reference too
        assert optimal_t(torch.from_numpy(landmark_op)) == reference.optimal_t(landmark_op)


def test_the_breaks_of_the_near_tie_are_as_near_as_float64_allows():
    assert gap_of(near_tie()) < 1e-12


def test_the_fallback_is_the_svd_to_the_last_bit(monkeypatch):
    tied = torch.from_numpy(near_tie())
    by_svd = von_neumann_entropy(tied)
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), 10))
    assert torch.equal(von_neumann_entropy(tied), by_svd)


@pytest.mark.parametrize("threshold", [0, 1000])
@pytest.mark.parametrize("name", FLAT)
def test_flat_entropy_gives_one(name, threshold, monkeypatch, device):
    """After converged training H does not change with time. All breaks are equal, and the first is the knee."""
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), threshold))
    assert optimal_t(torch.from_numpy(FLAT[name]).to(device)) == 1


def test_t_of_more_than_a_thousand_landmarks_is_that_of_the_reference():
    """Without patches."""
    rng = np.random.default_rng(0)
    for form in (gaussian, uneven):
        landmark_op = form(rng, 1100)
        assert optimal_t(torch.from_numpy(landmark_op)) == reference.optimal_t(landmark_op)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_entropy_and_t_are_the_published_ones(path):
    golden = np.load(path)
    # Measured: 1.2e-14 and 9e-15.
    np.testing.assert_allclose(von_neumann_entropy(golden["landmark_op"]), golden["entropy"], rtol=0, atol=1e-12)
    assert optimal_t(golden["landmark_op"]) == int(golden["t"])


# ---------------------------------------------------------------- closed forms


def test_entropy_of_known_singular_values():
    """diag(1, 1/2, 1/4): w_i = s^(i+1) / sum."""
    singular = np.array([1, 0.5, 0.25])
    result = von_neumann_entropy(np.diag(singular), t_max=5)
    for i in range(5):
        weights = singular ** (i + 1) / (singular ** (i + 1)).sum()
        assert result[i] == pytest.approx(-(weights * np.log(weights)).sum(), abs=1e-13)


def test_entropy_of_the_identity_is_log_n():
    np.testing.assert_allclose(von_neumann_entropy(np.eye(20)), math.log(20), rtol=1e-13)


def test_the_entropy_is_that_of_singular_values_not_of_eigenvalues():
    """The matrix has the eigenvalues +-i/sqrt(2) and the singular values 1 and 1/2."""
    matrix = np.array([[0.0, 1.0], [-0.5, 0.0]])
    weights = np.array([2, 1]) / 3
    assert von_neumann_entropy(matrix)[0] == pytest.approx(-(weights * np.log(weights)).sum(), abs=1e-14)


def test_the_entropy_of_a_float32_operator_is_computed_in_float64():
    landmark_op = OPERATORS["gaussian 0"].astype(np.float32)
    result = von_neumann_entropy(torch.from_numpy(landmark_op))
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, reference.von_neumann_entropy(landmark_op.astype(float)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-3, 1e3, 1e30, 1e300])
def test_the_scale_of_an_operator_does_not_matter(scale, landmark_op):
    wanted = reference.von_neumann_entropy(landmark_op)
    # The tolerance covers the rounding of the operator itself and of its scaled entries.
    np.testing.assert_allclose(von_neumann_entropy(scale * landmark_op), wanted, rtol=0, atol=1e-12)
    assert optimal_t(scale * landmark_op) == reference.knee(wanted)


def test_a_zero_operator_has_no_entropy():
    for call in (von_neumann_entropy, optimal_t, entropy_with_error):
        with pytest.raises(InputError, match="landmark_op contains only zeros"):
            call(np.zeros((5, 5)))


def test_a_long_curve_of_an_operator_whose_powers_overflow():
    """All rows lead to one landmark: the largest singular value is 6.4, and its power 400 is infinite."""
    landmark_op = 0.1 * np.eye(50)
    landmark_op[:, 0] += 0.9
    assert np.linalg.norm(landmark_op, 2) > 6
    entropy = von_neumann_entropy(landmark_op, t_max=3000)
    assert np.isfinite(entropy).all() and 1 <= knee(entropy) < 2999
    # Only the largest singular value is left. The others have the epsilon for their weight.
    np.testing.assert_allclose(entropy[-1], -len(landmark_op) * 2.2e-16 * math.log(2.2e-16), atol=1e-12)


def test_t_max_is_the_length_of_the_curve():
    landmark_op = OPERATORS["gaussian 1"]
    for t_max in (4, 10, 250):
        assert len(von_neumann_entropy(landmark_op, t_max)) == t_max
        assert optimal_t(landmark_op, t_max) == reference.optimal_t(landmark_op, t_max)
