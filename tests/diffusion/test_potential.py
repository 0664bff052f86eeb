"""The potential and its distances, in float64 (steps 10 and 11 of docs/method.md)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_distances

from mmphate_gpu import reference
from mmphate_gpu.diffusion import diffuse
from mmphate_gpu.diffusion import potential as potential_module
from mmphate_gpu.diffusion.potential import collapsed, diffusion_potential, potential_distances, potential_of_power
from mmphate_gpu.errors import InputError
from mmphate_gpu.landmarks import landmark_diffusion
from mmphate_gpu.linalg.components import components
from mmphate_gpu.operators import SparseAffinity
from mmphate_gpu.ops.csr import of_dense_rows


def markov(n: int, seed: int = 0, sharp: float = 3.0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(n, 3))
    affinity = np.exp(-sharp * ((points[:, None] - points) ** 2).sum(-1))
    return affinity / affinity.sum(1, keepdims=True)


# ---------------------------------------------------------------- potential


@pytest.mark.parametrize("t", [1, 2, 13])
@pytest.mark.parametrize("gamma", [-1, -0.5, 0, 0.3, 0.9, 1])
def test_potential_matches_reference(gamma, t, device):
    landmark_op = markov(60)
    result = diffusion_potential(torch.from_numpy(landmark_op).to(device), t, gamma)
    assert result.dtype == torch.float64
    # Measured: 3.6e-15, of potentials up to 20.
    np.testing.assert_allclose(
        result.cpu().numpy(), reference.diffusion_potential(landmark_op, t, gamma), rtol=0, atol=1e-12
    )


def test_potential_by_hand():
    """Q = P^2 of [[1/2, 1/2], [1/4, 3/4]] = [[3/8, 5/8], [5/16, 11/16]]."""
    landmark_op = np.array([[0.5, 0.5], [0.25, 0.75]])
    power = np.array([[3 / 8, 5 / 8], [5 / 16, 11 / 16]])
    np.testing.assert_allclose(diffusion_potential(landmark_op, 2, -1), power, rtol=1e-15)
    np.testing.assert_allclose(diffusion_potential(landmark_op, 2), 2 * np.sqrt(power), rtol=1e-15)
    np.testing.assert_allclose(diffusion_potential(landmark_op, 2, 1), -np.log(power + 1e-7), rtol=1e-15)


def test_gamma_zero_puts_rows_on_a_sphere():
    """Every row of the square-root potential has squared norm 4."""
    result = diffusion_potential(markov(50), 5)
    np.testing.assert_allclose((result**2).sum(1), 4, rtol=1e-13)


def test_potential_of_power_leaves_the_power_alone():
    power = torch.from_numpy(markov(20))
    before = power.clone()
    for gamma in (-1, 0, 1):
        potential_of_power(power, gamma)
    assert torch.equal(power, before)


@pytest.mark.parametrize("gamma", [-1.1, 1.1, np.nan, "0", None])
def test_a_gamma_out_of_range_is_refused(gamma):
    with pytest.raises(InputError, match="gamma="):
        diffusion_potential(np.eye(3), 1, gamma)


def test_a_bad_operator_or_t_is_refused():
    with pytest.raises(InputError, match="landmark_op has shape"):
        diffusion_potential(np.ones((2, 3)), 1)
    with pytest.raises(InputError, match="t=0"):
        diffusion_potential(np.eye(3), 0)


# ---------------------------------------------------------------- distances


def assert_distances(distances: np.ndarray, rows: np.ndarray, metric: str = "euclidean") -> None:
    wanted = cdist(rows, rows, metric)
    np.testing.assert_array_equal(distances, distances.T)
    assert (np.diagonal(distances) == 0).all()
    # Relative, for every pair; the goal is 1e-9. Worst measured over these tests: 5e-11.
    off = ~np.eye(len(rows), dtype=bool)
    np.testing.assert_allclose(distances[off], wanted[off], rtol=1e-9, atol=0)


@pytest.mark.parametrize("gamma", [-1, 0, 1])
@pytest.mark.parametrize("t", [1, 20])
def test_distances_match_reference(t, gamma, device):
    rows = diffusion_potential(markov(120), t, gamma)
    result = potential_distances(torch.from_numpy(rows).to(device))
    assert result.dtype == torch.float64
    assert_distances(result.cpu().numpy(), rows)


@pytest.mark.parametrize("spread", [1e-3, 1e-6, 1e-9, 1e-12])
def test_close_rows_keep_their_digits(spread, device):
    """Pairs of rows that differ by ``spread``: below 1e-8 the product form alone has no right digit."""
    rng = np.random.default_rng(0)
    rows = rng.random((40, 30))
    rows = np.concatenate([rows, rows + spread * rng.normal(size=rows.shape)])
    assert_distances(potential_distances(torch.from_numpy(rows).to(device)).cpu().numpy(), rows)


def test_distances_keep_their_digits_if_all_rows_are_close():
    """Converged diffusion: the rows are close to one another and far from the origin."""
    rows = 1 + 1e-9 * np.random.default_rng(0).random((50, 20))
    assert_distances(potential_distances(rows), rows)


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1e8, 1e100])
def test_distances_are_right_at_any_scale(scale):
    rows = scale * np.random.default_rng(0).random((30, 10))
    assert_distances(potential_distances(rows), rows)


def test_duplicates_are_at_distance_zero():
    rows = np.repeat(np.random.default_rng(0).random((10, 7)), 3, axis=0)
    result = potential_distances(rows)
    same = np.arange(30)[:, None] // 3 == np.arange(30) // 3
    assert (result[same] == 0).all() and (result[~same] > 0).all()
    assert (potential_distances(np.ones((5, 3))) == 0).all()


def test_close_pairs_in_many_chunks(monkeypatch):
    """More close pairs than fit into a chunk: all pairs of 80 rows, three pairs at a time."""
    rows = 1 + 1e-9 * np.random.default_rng(0).random((80, 20))
    rows[0] = 0
    chunks = potential_module.row_chunks
    monkeypatch.setattr(potential_module, "row_chunks", lambda n, columns, elements: chunks(n, columns, 60))
    assert_distances(potential_distances(rows), rows)


def test_distances_of_a_float32_potential_are_computed_in_float64():
    rows = np.random.default_rng(0).random((20, 9)).astype(np.float32)
    result = potential_distances(rows)
    assert result.dtype == np.float64
    assert_distances(result, rows.astype(float))


@pytest.mark.parametrize("t", [1, 20])
def test_cosine_matches_reference(t, device):
    rows = diffusion_potential(markov(60), t)
    result = potential_distances(torch.from_numpy(rows).to(device), "cosine").cpu().numpy()
    # Absolute, because 1 - cosine of SciPy loses the digits of a small distance. Measured: 1.2e-15.
    np.testing.assert_allclose(result, reference.potential_distances(rows, "cosine"), rtol=0, atol=1e-14)
    assert result.min() >= 0


def test_cosine_of_close_rows_by_hand():
    """1 - cos(a) = a^2 / 2 for a small angle. With a rounded cosine the difference is 0 or 1e-16."""
    angles = np.array([0, 1e-9, 3e-9])
    result = potential_distances(np.stack([np.cos(angles), np.sin(angles)], 1), "cosine")
    np.testing.assert_allclose(result, (angles[:, None] - angles) ** 2 / 2, rtol=1e-6)


COSINE = {
    "potential_distances": lambda rows: potential_distances(rows, "cosine"),
    "reference": lambda rows: reference.potential_distances(rows, "cosine"),
}


@pytest.mark.parametrize("twin", COSINE)
def test_cosine_of_zero_rows_is_that_of_scikit_learn(twin):
    """The distance is 1 to every other row, also to another row of zeros."""
    rows = np.random.default_rng(0).normal(size=(9, 4))
    rows[[0, 4, 8]] = 0
    wanted = cosine_distances(rows)
    np.fill_diagonal(wanted, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Both round 1 - cosine, of numbers up to 2. Measured: 3e-16.
        np.testing.assert_allclose(COSINE[twin](rows), wanted, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(COSINE[twin](np.zeros((3, 2))), 1 - np.eye(3))


@pytest.mark.parametrize("twin", COSINE)
@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e200, 1.5e308])
def test_cosine_does_not_depend_on_the_length_of_a_row(twin, scale):
    rows = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    wanted = COSINE[twin](rows)
    result = COSINE[twin](np.concatenate([rows, scale * rows]))
    np.testing.assert_array_equal(result, np.tile(wanted, (2, 2)))


@pytest.mark.parametrize("twin", COSINE)
def test_cosine_of_equal_rows_is_exactly_zero(twin):
    rows = np.repeat(np.random.default_rng(0).random((5, 7)), 2, axis=0)
    result = COSINE[twin](rows)
    same = np.arange(10)[:, None] // 2 == np.arange(10) // 2
    assert (result[same] == 0).all() and (result[~same] > 0).all()


def landmarks_of_a_case(get_case) -> tuple[torch.Tensor, torch.Tensor]:
    _, dense = get_case("hopf and pitchfork")
    operator = SparseAffinity(of_dense_rows([torch.from_numpy(dense.copy())], len(dense)))
    result = landmark_diffusion(operator, n_landmark=300, random_state=0)
    return result.landmark_op, result.degrees


def chain(_) -> tuple[torch.Tensor, torch.Tensor]:
    """A walk on a line with rare steps: entries of its powers fall to 1e-135, and the others are 0."""
    affinity = torch.eye(150, dtype=torch.float64) + torch.diag(torch.full((149,), 1e-5, dtype=torch.float64), 1)
    affinity = affinity + affinity.T
    degrees = affinity.sum(1)
    return affinity / degrees[:, None], degrees


@pytest.mark.parametrize("made", [landmarks_of_a_case, chain])
@pytest.mark.parametrize("t", [2, 27])
@pytest.mark.parametrize("with_degrees", [True, False])
def test_distances_after_the_power(made, t, with_degrees, get_case):
    """An entry of Q that should be 0 may not be computed as 1e-16, since its square root (gamma = 0) would be 1e-8.

    The oracle has 19 digits and no negative numbers that could cancel, so all its entries are right, even tiny ones.
    """
    landmark_op, degrees = made(get_case)
    power = np.linalg.matrix_power(landmark_op.numpy().astype(np.longdouble), t)
    rows = 2 * np.sqrt(power)
    wanted = np.stack([np.sqrt(((rows - row) ** 2).sum(1)) for row in rows]).astype(float)
    result = diffuse(landmark_op, t, degrees if with_degrees else None)
    assert torch.equal(result == 0, torch.from_numpy(power == 0))
    # Of distances up to 2.8. Measured: 7.5e-13.
    distances = potential_distances(potential_of_power(result, 0))
    np.testing.assert_allclose(distances.numpy(), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_components_have_collapsed_even_if_they_differ(metric):
    """Two groups without links between them: distances within a group are only rounding, the others are not."""
    landmark_op = torch.block_diag(*[torch.full((4, 4), 0.25, dtype=torch.float64)] * 2)
    groups = components(landmark_op)
    potential = diffusion_potential(landmark_op, 5)
    assert collapsed(potential_distances(potential, metric), metric, potential, groups)


def test_bad_potentials_and_metrics_are_refused():
    with pytest.raises(InputError, match="metric='manhattan' is unknown; accepted: 'euclidean', 'cosine'"):
        potential_distances(np.ones((3, 2)), "manhattan")
    with pytest.raises(InputError, match=r"potential has shape \(3,\); accepted: two axes"):
        potential_distances(np.ones(3))
    with pytest.raises(InputError, match=r"potential has shape \(3, 0\); accepted: two axes .* none empty"):
        potential_distances(np.ones((3, 0)), "cosine")
    with pytest.raises(InputError, match="potential contains NaN or infinity"):
        potential_distances(np.array([[1.0, np.nan], [0.0, 1.0]]))
