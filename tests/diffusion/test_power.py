"""Powers of the landmark operator are right in every entry, and bad operators are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.diffusion import diffuse, knee, optimal_t, von_neumann_entropy
from mmphate_gpu.diffusion import entropy as entropy_module
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.landmarks import landmark_diffusion
from mmphate_gpu.linalg.components import components
from mmphate_gpu.operators import SparseAffinity
from mmphate_gpu.ops.csr import of_dense_rows

from .operator_cases import OPERATORS, uneven

# ---------------------------------------------------------------- diffusion


@pytest.mark.parametrize("t", [1, 2, 7, 50])
def test_diffuse_matches_repeated_products(landmark_op, t):
    wanted = np.linalg.matrix_power(landmark_op, t)
    # Measured: 1.8e-15.
    np.testing.assert_allclose(diffuse(landmark_op, t), wanted, rtol=0, atol=1e-13)


def landmarks_of_suite(get_case, device) -> tuple[torch.Tensor, torch.Tensor]:
    _, dense = get_case("hopf and pitchfork")
    operator = SparseAffinity(of_dense_rows([torch.from_numpy(dense.copy()).to(device)], len(dense)))
    result = landmark_diffusion(operator, clusters=torch.arange(len(dense)) % 150)
    return result.landmark_op, result.degrees


def three_walks(_, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Three walks without links between them, on 30, 30 and 50 places in random order, with steps of 1e-3 or rarer."""
    rng = np.random.default_rng(0)
    affinity = np.zeros((110, 110))
    for first, last in ((0, 30), (30, 60), (60, 110)):
        size = last - first
        affinity[first:last, first:last] = np.eye(size) + np.diag(10 ** rng.uniform(-5, -3, size - 1), 1)
    order = rng.permutation(110)
    affinity = torch.from_numpy((affinity + affinity.T)[np.ix_(order, order)]).to(device)
    degrees = affinity.sum(1)
    return affinity / degrees[:, None], degrees


@pytest.mark.parametrize("made", [landmarks_of_suite, three_walks])
@pytest.mark.parametrize("t", [1, 2, 7, 50])
@pytest.mark.parametrize("with_degrees", [True, False])
def test_diffuse_is_right_entry_by_entry(made, t, with_degrees, get_case, device):
    """Tiny entries are compared with products of 19 digits, and 0 stays 0, with and without the symmetric form."""
    landmark_op, degrees = made(get_case, device)
    wanted = np.linalg.matrix_power(landmark_op.cpu().numpy().astype(np.longdouble), t)
    result = diffuse(landmark_op, t, degrees if with_degrees else None).cpu().numpy()
    # Relative to every entry, down to 8e-202. Measured: 8.8e-15.
    np.testing.assert_allclose(result, wanted.astype(float), rtol=1e-13, atol=0)
    np.testing.assert_array_equal(result == 0, wanted == 0)
    np.testing.assert_allclose(result.sum(1), 1, rtol=1e-12)


def test_the_power_of_two_components_is_that_of_each():
    """Entries between the components stay 0."""
    first, second = (torch.from_numpy(OPERATORS[name]) for name in ("gaussian 0", "uneven 1"))
    result = diffuse(torch.block_diag(first, second), 5)
    torch.testing.assert_close(result, torch.block_diag(diffuse(first, 5), diffuse(second, 5)), rtol=1e-13, atol=0)


@pytest.mark.parametrize("svd_up_to", [20, 1000])
def test_singular_values_of_components_are_those_of_the_whole(svd_up_to, monkeypatch):
    """Components of several sizes; with the lower limit the Gram matrix computes some of them."""
    monkeypatch.setattr(entropy_module, "SVD_UP_TO", dict.fromkeys(("cpu", "cuda"), svd_up_to))
    rng = np.random.default_rng(0)
    parts = [torch.from_numpy(uneven(rng, n)) for n in (30, 12, 12, 1, 40)]
    order = torch.from_numpy(rng.permutation(95))
    whole = torch.block_diag(*parts)[order][:, order]
    low, high = entropy_module._singular_value_bounds(whole, components(whole))
    exact = torch.linalg.svdvals(whole)  # measured: up to 7e-16 outside of the bounds by the plain SVD
    assert bool((low.sort(descending=True).values <= exact + 1e-14).all())
    assert bool((high.sort(descending=True).values >= exact - 1e-14).all())
    assert int((low == high).sum()) == (25 if svd_up_to == 20 else 95)
    # Measured: 1.3e-15.
    wanted = reference.von_neumann_entropy(whole.numpy())
    np.testing.assert_allclose(von_neumann_entropy(whole).numpy(), wanted, rtol=0, atol=1e-12)
    assert optimal_t(whole) == reference.optimal_t(whole.numpy())


def test_degrees_make_the_operator_symmetric(get_case):
    _, dense = get_case("walk")
    operator = SparseAffinity(of_dense_rows([torch.from_numpy(dense.copy())], len(dense)))
    for clusters in (None, torch.arange(len(dense)) % 20):
        result = landmark_diffusion(operator, n_landmark=None, clusters=clusters)
        flow = result.degrees[:, None] * result.landmark_op
        torch.testing.assert_close(flow, flow.T, rtol=1e-12, atol=0)


# ---------------------------------------------------------------- array types and bad input


def test_numpy_arrays_give_numpy_arrays():
    landmark_op = OPERATORS["gaussian 0"]
    for result in (von_neumann_entropy(landmark_op), diffuse(landmark_op, 3)):
        assert isinstance(result, np.ndarray) and result.dtype == np.float64
    assert type(optimal_t(landmark_op)) is int and type(knee(von_neumann_entropy(landmark_op))) is int


def test_the_operator_is_not_changed():
    landmark_op = OPERATORS["gaussian 0"].copy()
    before = landmark_op.copy()
    von_neumann_entropy(landmark_op)
    diffuse(landmark_op, 5)
    np.testing.assert_array_equal(landmark_op, before)


@pytest.mark.parametrize("function", [von_neumann_entropy, optimal_t, lambda op: diffuse(op, 2)])
@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 2, 2), (0, 0)], ids=str)
def test_an_operator_that_is_not_square_is_refused(function, shape):
    with pytest.raises(InputError, match="landmark_op has shape .*; accepted: a square matrix"):
        function(np.ones(shape))


@pytest.mark.parametrize("function", [von_neumann_entropy, optimal_t, lambda op: diffuse(op, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_operator_that_is_not_finite_is_refused(function, value):
    landmark_op = np.eye(3)
    landmark_op[1, 2] = value
    with pytest.raises(InputError, match="landmark_op contains NaN or infinity"):
        function(landmark_op)


@pytest.mark.parametrize("t_max", [0, 3, -1, 2.5, "100", None, True])
def test_a_bad_t_max_is_refused(t_max):
    for function in (von_neumann_entropy, optimal_t):
        with pytest.raises(InputError, match="t_max="):
            function(np.eye(3), t_max)


@pytest.mark.parametrize(
    ("t", "error"), [(0, InputError), (-1, InputError), (1.5, InputTypeError), ("auto", InputTypeError)]
)
def test_a_bad_t_is_refused(t, error):
    with pytest.raises(error, match="t="):
        diffuse(np.eye(3), t)
