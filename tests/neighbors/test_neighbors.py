"""k nearest other points: every backend against brute force, and against one another."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu.errors import InputError
from mmphate_gpu.neighbors import (
    KNN_BACKENDS,
    kneighbors,
    kth_neighbor_distance,
    median_kth_neighbor_distance,
    resolve_knn_backend,
)
from mmphate_gpu.neighbors.keops_backend import drop_self
from mmphate_gpu.ops import kth_neighbor_distance as kth_module
from mmphate_gpu.ops.launch.twins import PORTABLE
from mmphate_gpu.params import KNN_BACKENDS as NAMES

N_FEATURES = 5
EXACT = ("torch", "scipy", "keops")
# KeOps compiles every pair of features and neighbors anew, for 10 s
KS = {"torch": (1, 2, 6), "scipy": (1, 2, 6), "keops": (1, 2)}


@pytest.fixture(params=EXACT)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "keops":
        request.getfixturevalue("keops")
    return request.param


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


STACKS = {
    "scattered": lambda: normal(3, 40, N_FEATURES),
    "many small sets": lambda: normal(50, 7, N_FEATURES),
    "one set": lambda: normal(1, 60, N_FEATURES),
    "as few as k allows": lambda: normal(4, 7, N_FEATURES),
    "pairs": lambda: normal(2, 20, N_FEATURES).repeat_interleave(2, dim=1),
    "more duplicates than k": lambda: normal(2, 4, N_FEATURES).repeat(1, 9, 1),
    "all equal": lambda: torch.ones(2, 20, N_FEATURES, dtype=torch.float64),
    "lattice": lambda: torch.from_numpy(np.random.default_rng(1).integers(0, 2, (2, 40, N_FEATURES)).astype(float)),
    "converged": lambda: 1 + 1e-9 * normal(2, 40, N_FEATURES),
    "tiny": lambda: 1e-8 * normal(2, 40, N_FEATURES),
    "huge": lambda: 1e8 * normal(2, 40, N_FEATURES),
    "far from the origin": lambda: 1e6 + normal(2, 40, N_FEATURES),
}


def brute_distances(points: torch.Tensor) -> np.ndarray:  # (B, n, n - 1), ascending
    """Distances to all others. The point itself is left out by its index, not by its distance."""
    sets = []
    for point_set in points.cpu().numpy():
        distances = cdist(point_set, point_set)
        distances[np.eye(len(point_set), dtype=bool)] = -1
        sets.append(np.sort(distances, axis=1)[:, 1:])
    return np.stack(sets)


def check(points: torch.Tensor, k: int, backend: str) -> None:
    distances, indices = kneighbors(points, k, backend=backend)
    n_sets, n_points, _ = points.shape
    assert distances.shape == indices.shape == (n_sets, n_points, k)
    assert distances.dtype == torch.float64 and indices.dtype == torch.int64
    # Sums of five squares in two orders, and a root. Measured: 3e-16.
    np.testing.assert_allclose(distances.cpu().numpy(), brute_distances(points)[..., :k], rtol=1e-14, atol=0)
    assert bool((distances[..., 1:] >= distances[..., :-1]).all())
    itself = torch.arange(n_points, device=points.device)[:, None]
    assert not bool((indices == itself).any())  # a point is never its own neighbor
    assert bool((indices.sort(-1).values.diff(dim=-1) > 0).all())  # nor named twice
    for i, point_set in enumerate(points):  # the distances are those of the points named
        named = (point_set[indices[i]] - point_set[:, None]).norm(dim=-1)
        torch.testing.assert_close(distances[i], named, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", STACKS)
def test_against_brute_force(name, backend, device):
    for k in KS[backend]:
        check(STACKS[name]().to(device), k, backend)


@pytest.mark.parametrize("elements", [1, 100, 1700])
def test_in_small_chunks(elements, monkeypatch, device):
    """Some rows of a set at a time, or some sets: the point itself is left out in each."""
    chunks = kth_module.pair_chunks
    monkeypatch.setattr(kth_module, "pair_chunks", lambda sets, points: chunks(sets, points, elements))
    for name in ("scattered", "more duplicates than k", "many small sets"):
        check(STACKS[name]().to(device), 2, "torch")


def test_not_contiguous(backend, device):
    """The unit-major stack is a transposed view before it is copied."""
    points = normal(40, 3, N_FEATURES).to(device).transpose(0, 1)
    assert not points.is_contiguous()
    check(points, 2, backend)


def test_kth_is_the_last_of_k(backend, device):
    points = STACKS["scattered"]().to(device)
    for k in KS[backend]:
        expected = brute_distances(points)[..., k - 1]
        actual = kth_neighbor_distance(points, k, backend=backend)
        np.testing.assert_allclose(actual.cpu().numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("name", STACKS)
def test_kth_and_its_median_by_both_ops(name, device):
    """By "auto", which may be the C++ or CUDA op, and by the portable op."""
    points = STACKS[name]().to(device)
    exact = brute_distances(points)
    for k in sorted({1, 2, 6, exact.shape[-1]}):
        expected = exact[..., k - 1]
        for kth in (kth_neighbor_distance, PORTABLE["kth_neighbor_distance"]):
            # Measured: 4.5e-16.
            np.testing.assert_allclose(kth(points, k).cpu().numpy(), expected, rtol=1e-14, atol=0)
        for median in (median_kth_neighbor_distance, PORTABLE["median_kth_neighbor_distance"]):
            np.testing.assert_allclose(median(points, k).cpu().numpy(), np.median(expected, axis=1), rtol=1e-14, atol=0)


def test_median_by_every_backend(backend):
    points = STACKS["scattered"]()
    for k in KS[backend]:
        expected = np.median(brute_distances(points)[..., k - 1], axis=1)
        actual = median_kth_neighbor_distance(points, k, backend=backend).numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-14, atol=0)


def test_float32_points_are_not_read_as_float64(device):
    """The C++ and CUDA ops read float64; torch computes stacks of another dtype."""
    points = STACKS["scattered"]().to(device, torch.float32)
    expected = brute_distances(points.double())[..., 1]
    actual = kth_neighbor_distance(points, 2)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.cpu().numpy(), expected, rtol=1e-6)  # measured: 1.6e-7
    np.testing.assert_allclose(median_kth_neighbor_distance(points, 2).cpu(), np.median(expected, axis=1), rtol=1e-6)


@pytest.mark.parametrize("function", [kth_neighbor_distance, median_kth_neighbor_distance])
def test_kth_refuses_what_kneighbors_refuses(function):
    """The argument is checked before an op reads it."""
    points = STACKS["scattered"]()
    with pytest.raises(InputError, match=r"k=40 .* must be an integer >= 1 and <= 39"):
        function(points, 40)
    with pytest.raises(InputError, match="knn_backend='faiss' is unknown"):
        function(points, 2, backend="faiss")
    with pytest.raises(InputError, match="accepted: three axes"):
        function(points[0], 2)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_median_is_numpys(n):
    """`torch.median` takes the lower of two; step 4 of docs/method.md takes the mean of both."""
    values = np.random.default_rng(n).normal(size=(3, n))
    np.testing.assert_array_equal(kth_module.median(torch.from_numpy(values)).numpy(), np.median(values, axis=1))


def test_on_a_line_by_hand(backend):
    points = torch.zeros(1, 9, N_FEATURES, dtype=torch.float64)
    points[0, :, 2] = torch.tensor([0.0, 1, 3, 6, 10, 15, 21, 28, 36])
    distances, indices = kneighbors(points, 2, backend=backend)
    assert distances[0, 0].tolist() == [1, 3] and indices[0, 0].tolist() == [1, 2]
    assert distances[0, 3].tolist() == [3, 4] and indices[0, 3].tolist() == [2, 4]
    assert distances[0, 8].tolist() == [8, 15] and indices[0, 8].tolist() == [7, 6]


def test_same_bits_on_every_run(backend, device):
    points = STACKS["pairs"]().to(device)
    first, again = (kneighbors(points, 2, backend=backend) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_points_do_not_change(backend):
    points = STACKS["scattered"]()
    before = points.clone()
    kneighbors(points, 2, backend=backend)
    assert torch.equal(points, before)


def test_keops_in_three_dimensions_of_batch(keops):
    """Sets do not see one another: shifting one leaves the neighbors of the others."""
    points = STACKS["scattered"]()
    moved = points.clone()
    moved[1] += 100
    torch.testing.assert_close(kneighbors(points, 2, backend="keops")[1], kneighbors(moved, 2, backend="keops")[1])


# ---------------------------------------------------------------- the approximate backend


@pytest.mark.slow  # numba compiles NN-descent: 30 s and more
def test_pynndescent_finds_nearly_all():
    pytest.importorskip("pynndescent")
    points = normal(2, 600, N_FEATURES, seed=2)
    distances, indices = kneighbors(points, 10, backend="pynndescent")
    exact, named = kneighbors(points, 10, backend="torch")
    common = (indices[..., :, None] == named[..., None, :]).any(-1).double().mean()
    assert common > 0.95  # measured: 0.9997
    itself = torch.arange(600)[:, None]
    assert not bool((indices == itself).any())
    assert bool((distances >= exact * (1 - 1e-12)).all())  # never less than the exact ones
    for i, point_set in enumerate(points):  # in float64, although the index is in float32
        true = (point_set[indices[i]] - point_set[:, None]).norm(dim=-1)
        torch.testing.assert_close(distances[i], true, rtol=1e-14, atol=0)
    assert bool((distances.diff(dim=-1) >= 0).all())
    again = kneighbors(points, 10, backend="pynndescent")
    assert torch.equal(again[1], indices)  # seeded


@pytest.mark.slow
def test_pynndescent_with_duplicates():
    """NN-descent leaves lists unfilled or fills them with copies: every point still has k others, copies at 0."""
    pytest.importorskip("pynndescent")
    points = normal(1, 60, N_FEATURES).repeat(1, 5, 1)
    distances, indices = kneighbors(points, 3, backend="pynndescent")
    assert not bool((indices == torch.arange(300)[:, None]).any())
    assert bool(torch.isfinite(distances).all())
    assert float((distances[..., 0] == 0).double().mean()) > 0.9


def test_pynndescent_of_few_points_is_exact():
    points = STACKS["scattered"]()
    actual, expected = (kneighbors(points, 6, backend=name) for name in ("pynndescent", "torch"))
    assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])


# ---------------------------------------------------------------- choice and refusal


def test_every_name_has_a_backend():
    assert set(KNN_BACKENDS) == set(NAMES) - {"auto"}


def test_auto_is_exact():
    cpu = torch.device("cpu")
    assert {resolve_knn_backend("auto", cpu, n) for n in (None, 0, 61)} == {"torch"}
    assert {resolve_knn_backend("auto", cpu, n) for n in (1, 60)} == {"scipy"}
    assert resolve_knn_backend("auto", torch.device("cuda")) in EXACT
    assert resolve_knn_backend("pynndescent", torch.device("cpu")) == "pynndescent"


@pytest.mark.parametrize("k", [0, -1, 40, 1.5, True, None])
def test_k_out_of_range(k):
    with pytest.raises(InputError, match=r"k=.* must be an integer >= 1 and <= 39"):
        kneighbors(STACKS["scattered"](), k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e200])
def test_scipy_refuses_points_without_finite_distances(value):
    points = STACKS["scattered"]()
    points[2, 5, 1] = value
    with pytest.raises(InputError, match=r"points\[2\] has a distance that is not finite; accepted: finite numbers"):
        kneighbors(points, 2)
    check(1e150 * STACKS["scattered"](), 2, "scipy")


def test_unknown_backend():
    with pytest.raises(
        InputError, match="knn_backend='faiss' is unknown; accepted: 'auto', 'torch', 'scipy', 'keops', 'pynndescent'"
    ):
        kneighbors(STACKS["scattered"](), 2, backend="faiss")


@pytest.mark.parametrize("shape", [(5,), (5, 3), (1, 2, 3, 4)], ids=str)
def test_wrong_axes(shape):
    with pytest.raises(InputError, match="points has shape .*; accepted: three axes"):
        kneighbors(torch.zeros(shape, dtype=torch.float64), 1)


@pytest.mark.parametrize(("name", "module"), [("keops", "pykeops.torch"), ("pynndescent", "pynndescent")])
def test_missing_package_is_named(name, module, monkeypatch):
    """The message names the missing package and the extra that brings it."""
    monkeypatch.setitem(sys.modules, module, None)
    expected = rf'knn_backend="{name}" needs the package .*pip install "mmphate-gpu\[{name}\]"'
    with pytest.raises(InputError, match=expected):
        kneighbors(normal(1, 300, N_FEATURES), 2, backend=name)


def test_drop_self():
    """A list loses the point itself, wherever it is; a list of duplicates only loses the last one."""
    distances = torch.tensor([[[0.0, 1, 2], [0, 0, 1], [0, 0, 0]]])
    indices = torch.tensor([[[0, 1, 2], [2, 1, 0], [0, 1, 3]]])
    kept, named = drop_self(distances, indices)
    assert named.tolist() == [[[1, 2], [2, 0], [0, 1]]]
    assert kept.tolist() == [[[1, 2], [0, 1], [0, 0]]]
