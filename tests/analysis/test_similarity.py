"""Linear CKA and SVCCA: closed forms, invariances, and the same numbers as plain NumPy."""

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu import InputError, as_trace
from mmphate_gpu.analysis import similarity as module
from mmphate_gpu.analysis.similarity import AXES, METHODS, similarity


def states(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def of_epochs(*cells, method):
    """The similarity of cells (n, M), each of which becomes an epoch with a single step."""
    return similarity(as_trace(np.stack([cell.T for cell in cells])[:, None]), method, "epochs")


def rotation(n, seed=1):
    return np.linalg.qr(states(n, n, seed=seed))[0]


def plain_cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def plain_svcca(x, y):
    bases = []
    for cell in (x, y):
        left, size, _ = np.linalg.svd(cell - cell.mean(0), full_matrices=False)
        share = np.cumsum(size**2) / np.sum(size**2)
        bases.append(left[:, : np.searchsorted(share, 0.99) + 1])
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).mean()


PLAIN = {"cka": plain_cka, "svcca": plain_svcca}


# ---------------------------------------------------------------- known values


def test_cka_by_hand():
    """Two centered columns each: X'Y = diag(4, 0), and both norms of X'X and Y'Y are 4 sqrt(2)."""
    a, b, c = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).astype(float)
    x, y = np.column_stack([a, b]), np.column_stack([a, c])
    np.testing.assert_allclose(of_epochs(x, y, method="cka"), [[1, 0.5], [0.5, 1]], atol=1e-14)
    # The directions of X and Y share a line: cosines 1 and 0.
    np.testing.assert_allclose(of_epochs(x, y, method="svcca"), [[1, 0.5], [0.5, 1]], atol=1e-14)


@pytest.mark.parametrize("n, m", [(50, 6), (5, 20)])  # more samples than units, and fewer
def test_cka_does_not_change_with_rotations_shifts_and_a_scale(n, m):
    x = states(n, m)
    result = of_epochs(x, x @ rotation(m), 1e-3 * x + 7, 1e140 * x, states(n, m, seed=2), method="cka")
    # Beside a shift of 7, float64 keeps 13 digits of numbers near 1e-3.
    np.testing.assert_allclose(result[:4, :4], 1, rtol=1e-9)
    np.testing.assert_allclose(result[:4, 4], plain_cka(x, states(n, m, seed=2)), rtol=1e-9)
    assert result[0, 4] < 0.99


def test_svcca_does_not_change_with_linear_maps_of_the_kept_directions():
    x = states(60, 4)
    stretched = x @ (rotation(4) * [1, 2, 3, 1.5]) @ rotation(4, seed=3)  # every direction holds more than 1 %
    result = of_epochs(x, stretched, method="svcca")
    np.testing.assert_allclose(result, 1, rtol=1e-12)
    assert of_epochs(x, stretched, method="cka")[0, 1] < 0.99


def test_svcca_leaves_out_directions_that_hold_little():
    """X and Y share three strong directions. The fourth is noise that holds less than 1 % of the variance."""
    x = states(60, 3)
    noisy = [np.column_stack([x, 0.05 * states(60, seed=seed)]) for seed in (1, 2)]
    np.testing.assert_allclose(of_epochs(*noisy, method="svcca"), 1, atol=1e-3)  # the noise tilts the directions
    loud = [np.column_stack([x, states(60, seed=seed)]) for seed in (1, 2)]
    assert of_epochs(*loud, method="svcca")[0, 1] < 0.9


@pytest.mark.parametrize("n, m", [(2000, 10), (10, 200)])
def test_cka_of_independent_states_is_what_the_docstring_says(n, m):
    result = of_epochs(*states(20, n, m), method="cka")
    others = result[np.triu_indices(20, 1)]
    # 190 pairs; centering takes one of the n samples.
    assert others.mean() == pytest.approx(m / (n - 1 + m), rel=0.05)


# ---------------------------------------------------------------- cells of a trace


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("over", AXES)
@pytest.mark.parametrize("shape", [(7, 3, 4, 5), (4, 1, 9, 3), (1, 5, 2, 2)])
@pytest.mark.parametrize("elements", [module._GROUP_ELEMENTS, 1, 100])
def test_cells_are_those_of_plain_numpy(method, over, shape, elements, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ELEMENTS", elements)  # groups of one cell, of a few, and of all
    values = states(*shape).cumsum(0)
    cells = [cell.swapaxes(1, 2).reshape(-1, shape[2]) for cell in np.moveaxis(values, AXES.index(over), 0)]
    expected = [[PLAIN[method](x, y) for y in cells] for x in cells]
    result = similarity(as_trace(values), method, over)
    # Products of small float64 matrices. SVCCA takes bases from eigenvectors, whose squares round.
    np.testing.assert_allclose(result, expected, rtol=1e-10)
    np.testing.assert_allclose(result, result.T, rtol=1e-12)
    assert result.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_constant_states_have_no_similarity(method):
    values = states(3, 2, 4, 5)
    values[1] = np.array([0.1, 0.7, 0.3, 1e-9])[:, None]  # their means round
    result = similarity(as_trace(values), method, "epochs")
    assert np.isnan(result[1]).all() and np.isnan(result[:, 1]).all()
    assert np.isfinite(result[[0, 0, 2], [0, 2, 2]]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_stored_trace_has_the_same_numbers(method, tmp_path):
    trace = as_trace(states(4, 3, 2, 5))
    mp.save_trace(tmp_path / "t.npz", trace)
    stored = mp.load_trace(tmp_path / "t.npz", stream=True)
    assert np.array_equal(similarity(stored, method, "timesteps"), similarity(trace, method, "timesteps"))


def test_bad_arguments_are_refused():
    trace = as_trace(states(3, 2, 4, 5))
    with pytest.raises(InputError, match="method='rsa' is unknown; accepted: 'cka', 'svcca'"):
        similarity(trace, "rsa", "epochs")
    with pytest.raises(InputError, match="over='units' is unknown; accepted: 'epochs', 'timesteps'"):
        similarity(trace, "cka", "units")
    masked = as_trace(states(3, 2, 4, 5), mask=states(3, 2, 4, 5) > -1)
    with pytest.raises(InputError, match="the trace is masked; accepted"):
        similarity(masked, "cka", "epochs")
