"""Steps 3 to 6 against the dense float64 reference: the same sparsity pattern, the same entries."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.affinities import Interslice
from mmphate_gpu.operators import LazyAffinity, SparseAffinity, TiledAffinity, affinity_of_points, to_scipy
from mmphate_gpu.operators.lazy_fused import LazyFusedAffinity
from mmphate_gpu.operators.lazy_keops import LazyKeopsAffinity
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.trace import as_trace, trace_points

from .entries import DTYPES, GOLDEN, affinity_of_case, assert_same_entries, by_products, quietly_affinity, walk

# Required: 1e-6 (float32), 1e-12 (float64). Worst over all cases, on a CPU: 3.0e-8 (float32: half a unit in the last
# place below 1) and 3.3e-14 (float64, the suite: its units are 1e-3 apart after normalization, whose rounding that
# magnifies).
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def needs_every_sample(case) -> None:
    if case.mask is not None:
        pytest.skip("this form has no distances over some samples; a masked trace takes another")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_entries_match_reference(case_and_reference, storage, dtype, device):
    case, expected = case_and_reference
    operator = affinity_of_case(case, device, storage=storage, dtype=dtype)
    assert operator.storage == storage
    if device.type == "cpu":  # on CUDA another class may hold the lazy form
        assert isinstance(operator, {"sparse": SparseAffinity, "lazy": LazyAffinity}[storage])
    assert operator.dtype == dtype and operator.device.type == device.type
    assert_same_entries(operator.to_dense().cpu().numpy(), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lazy_products_match_reference(case_and_reference, dtype, device):
    """Other code makes the entries of a product than those of `to_dense`."""
    case, expected = case_and_reference
    lazy = affinity_of_case(case, device, storage="lazy", dtype=dtype)
    actual = by_products(LazyAffinity(lazy.intraslice, lazy.interslice), width=128)
    assert_same_entries(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_keops_products_match_reference(case_and_reference, dtype, device, keops):
    case, expected = case_and_reference
    needs_every_sample(case)
    lazy = affinity_of_case(case, device, storage="lazy", dtype=dtype)
    actual = by_products(LazyKeopsAffinity(lazy.intraslice, lazy.interslice))
    assert_same_entries(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", [TiledAffinity, LazyFusedAffinity])
def test_half_precision_products_match_reference(case_and_reference, form, dtype, device):
    """To the rounding to half; the pattern of tiles is exact, that of the fused product but for pairs at the cut."""
    case, expected = case_and_reference
    if form is LazyFusedAffinity:
        needs_every_sample(case)
    lazy = affinity_of_case(case, device, storage="lazy", dtype=dtype)
    actual = by_products(form(lazy.intraslice, lazy.interslice), width=128)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2.0**-12 + 1e-6)
    if form is TiledAffinity:
        np.testing.assert_array_equal(actual != 0, expected != 0, err_msg="sparsity pattern")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_entries_match_published_implementation(path, device):
    """The entries that m-phate computed, from a float32 trace that is normalized in float32, as there."""
    golden = np.load(path)
    trace = golden["trace"]
    centered = trace - trace.mean(-1, keepdims=True)
    points = torch.from_numpy((centered / centered.std(-1, keepdims=True)).astype(np.float64)).to(device)
    resolution = trace_points(as_trace(trace)).resolution.to(device)
    actual = to_scipy(affinity_of_points(points, storage="sparse", resolution=resolution).operator)
    np.testing.assert_array_equal(actual.indptr, golden["indptr"])
    # Within a row the published indices need not ascend.
    expected = type(actual)((golden["values"], golden["indices"], golden["indptr"]), shape=actual.shape)
    expected.sort_indices()
    np.testing.assert_array_equal(actual.indices, expected.indices)
    # Measured: 1e-15 (walk) and 2e-16 (suite).
    np.testing.assert_allclose(actual.data, expected.data, rtol=0, atol=1e-12)


def test_golden_data_is_there():
    assert len(GOLDEN) == 2


def test_clamped_interslice_knn_warns(get_case):
    points = get_case("twenty slices")[0].points()
    with pytest.warns(UserWarning, match="interslice_knn=25 is clamped to 19: the trace has 20 slices"):
        clamped = affinity_of_points(points, storage="sparse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = affinity_of_points(points, storage="sparse", interslice_knn=19)
    assert torch.equal(clamped.operator.to_dense(), exact.operator.to_dense())


def test_no_warning_where_nothing_is_clamped(get_case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        affinity_of_points(get_case("walk")[0].points(), storage="sparse")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_invariants(case_and_reference, dtype):
    case, _ = case_and_reference
    options = {"storage": "sparse", "dtype": dtype, "masked": case.mask is not None, **case.options}
    dense = quietly_affinity(case.points(), **options).operator.to_dense()
    assert torch.equal(dense > 0, dense.T > 0)
    # Not to the last bit: torch's vectorized power and its scalar remainder loop round apart, and (i, j), (j, i) may
    # meet one each.
    assert float((dense - dense.T).abs().max()) <= torch.finfo(dtype).eps / 2
    assert bool((dense.diagonal() == 1).all())
    thresh = case.options.get("thresh", 1e-4)
    assert float(dense.max()) <= 1 and float(dense[dense > 0].min()) >= thresh * (1 - 1e-7)  # float32 of thresh itself


def test_thresh_zero_keeps_all_that_float32_holds(get_case):
    points = torch.from_numpy(walk(30, 5, 5)) ** 3  # some far apart
    expected = reference.multislice_affinity(points.numpy(), thresh=0, interslice_knn=5, normalize=False)
    options = {"thresh": 0, "interslice_knn": 5}
    sparse, lazy = (affinity_of_points(points, storage=storage, **options).operator for storage in ("sparse", "lazy"))
    actual = sparse.to_dense().numpy()
    tiny = torch.finfo(torch.float32).tiny
    # The reference keeps float64 entries below the smallest float32 too; those are 0 here.
    np.testing.assert_array_equal(actual > 0, expected >= tiny)
    assert ((expected > 0) & (expected < tiny)).any()  # or this test shows nothing
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    assert_same_entries(by_products(lazy), actual, 1e-15)


@pytest.mark.parametrize("width", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_forms_agree_on_entries_at_the_cut(steps, width):
    """Points on a line and a thresh exactly on one of their distances: rounding decides, in both forms alike."""
    points = width * torch.arange(8, dtype=torch.float64)[None, :, None]
    ones = torch.ones(8, dtype=torch.float64)
    intraslice = Csr(torch.arange(9, dtype=torch.int32), torch.zeros(8, dtype=torch.int32), ones, (8, 1))
    bandwidth = torch.tensor(width, dtype=torch.float64)
    lazy = LazyAffinity(intraslice, Interslice(points, bandwidth, math.exp(-(steps**2))))
    np.testing.assert_array_equal(by_products(lazy, 8) > 0, lazy.to_dense().numpy() > 0)


def test_order_of_units_does_not_matter(get_case):
    """Renaming units permutes K and changes nothing else."""
    points = get_case("walk")[0].points()
    order = torch.tensor([3, 0, 4, 1, 2])
    n_slices, n_units, _ = points.shape
    permuted = affinity_of_points(points[:, order], storage="sparse").operator.to_dense()
    nodes = (torch.arange(n_slices)[:, None] * n_units + order).flatten()
    # The bandwidth is a mean over units, in another order: measured 6e-17 here.
    original = affinity_of_points(points, storage="sparse").operator.to_dense()
    torch.testing.assert_close(permuted, original[nodes][:, nodes], rtol=0, atol=1e-14)


def test_scale_does_not_matter(get_case):
    """All distances times a power of two: the same bits."""
    points = get_case("walk")[0].points()
    once, scaled = (affinity_of_points(p, storage="sparse").operator.to_dense() for p in (points, 2.0**20 * points))
    assert torch.equal(once, scaled)


def test_torch_and_keops_neighbors_give_one_affinity(get_case, keops):
    points = get_case("repeated units")[0].points()
    actual = [
        affinity_of_points(points, storage="sparse", interslice_knn=2, knn_backend=name).operator.to_dense().numpy()
        for name in ("torch", "keops")
    ]
    # Both bandwidths are exact, from sums of squares in two orders: measured 3e-16.
    assert_same_entries(*actual, 1e-13)


def test_points_are_left_alone(get_case):
    points = get_case("walk")[0].points()
    before = points.clone()
    for storage in ("sparse", "lazy"):
        affinity_of_points(points, storage=storage)
    assert torch.equal(points, before)


def test_same_bits_on_every_run(get_case):
    points = get_case("hopf")[0].points()
    first, second = (affinity_of_points(points, storage="sparse").operator.csr for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
