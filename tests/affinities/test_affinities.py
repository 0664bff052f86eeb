"""METHOD steps 3 to 6 against the dense float64 reference: the same sparsity pattern, the same entries."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes

from mmphate_gpu import diffusion_potential, landmark_diffusion, metric_mds, optimal_t, potential_distances, reference
from mmphate_gpu.affinities import MultisliceAffinity, affinity_of_points
from mmphate_gpu.affinities import intraslice as intraslice_module
from mmphate_gpu.affinities import multislice as multislice_module
from mmphate_gpu.affinities.bandwidth import interslice_bandwidth, kth_unit_distance
from mmphate_gpu.affinities.intraslice import intraslice_affinity
from mmphate_gpu.errors import InputError
from mmphate_gpu.linalg.top_eigenpairs import top_eigenpairs
from mmphate_gpu.operators import AffinityOperator, LazyAffinity, SparseAffinity, TiledAffinity, to_scipy
from mmphate_gpu.operators import choose as choose_module
from mmphate_gpu.operators.tiles import tiles_bytes
from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.pipeline import interpolate
from mmphate_gpu.runtime import memory
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace import as_trace, normalize, trace_points
from mmphate_gpu.trace.points import FLOOR


def walk(*shape: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(0).normal(size=shape), axis=0)


GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("golden_*x*.npz"))

# Required: 1e-6 (float32), 1e-12 (float64). Worst over all cases, on a CPU: 3.0e-8 (float32: half a unit in the last
# place below 1) and 3.3e-14 (float64, the suite: its units are 1e-3 apart after normalisation, whose rounding that
# magnifies).
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = [torch.float32, torch.float64]


def quietly_affinity(points: torch.Tensor, **options) -> MultisliceAffinity:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="interslice_knn=.* is clamped")
        return affinity_of_points(points, **options)


def affinity_of_case(case, device: torch.device, **options) -> AffinityOperator:
    points, resolution = case.points(device), case.resolution(device)
    return quietly_affinity(points, resolution=resolution, **options, **case.options).operator


def by_products(operator, width: int = 16) -> np.ndarray:
    """All entries of an operator, as it multiplies: K @ identity, ``width`` columns at a time."""
    n = operator.shape[0]
    eye = torch.eye(n, -(-n // width) * width, dtype=operator.dtype, device=operator.device)  # one width: one formula
    return torch.cat([operator @ part for part in eye.split(width, dim=1)], 1)[:, :n].cpu().numpy()


def assert_same_entries(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    np.testing.assert_array_equal(found != 0, wanted != 0, err_msg="sparsity pattern")
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


# ---------------------------------------------------------------- against the reference


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_entries_match_reference(case_and_reference, storage, dtype, device):
    case, wanted = case_and_reference
    operator = affinity_of_case(case, device, storage=storage, dtype=dtype)
    assert type(operator) is {"sparse": SparseAffinity, "lazy": LazyAffinity}[storage]
    assert operator.dtype == dtype and operator.device.type == device.type
    assert_same_entries(operator.to_dense().cpu().numpy(), wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lazy_products_match_reference(case_and_reference, dtype, device):
    """What the lazy form multiplies with is made by other code than what `to_dense` shows."""
    case, wanted = case_and_reference
    lazy = affinity_of_case(case, device, storage="lazy", dtype=dtype)
    found = by_products(LazyAffinity(**_parts(lazy), engine="torch"), width=128)
    assert_same_entries(found, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_keops_products_match_reference(case_and_reference, dtype, device, keops):
    case, wanted = case_and_reference
    lazy = affinity_of_case(case, device, storage="lazy", dtype=dtype)
    found = by_products(LazyAffinity(**_parts(lazy), engine="keops"))
    assert_same_entries(found, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["tiles", "fused"])
def test_half_precision_products_match_reference(case_and_reference, form, dtype, device):
    """To the rounding to half; the pattern of tiles is exact, that of the fused product but for pairs at the cut."""
    case, wanted = case_and_reference
    lazy = affinity_of_case(case, device, storage="lazy", dtype=dtype)
    lazy = LazyAffinity(**_parts(lazy), engine="fused" if form == "fused" else "torch")
    found = by_products(TiledAffinity(lazy) if form == "tiles" else lazy, width=128)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2.0**-12 + 1e-6)
    if form == "tiles":
        np.testing.assert_array_equal(found != 0, wanted != 0, err_msg="sparsity pattern")


def _parts(lazy: LazyAffinity) -> dict:
    return {name: getattr(lazy, name) for name in ("unit_points", "bandwidth", "intraslice", "thresh", "dtype")}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_entries_match_published_implementation(path, device):
    """The entries m-phate computed; a float32 trace normalised in float32, as it did."""
    golden = np.load(path)
    trace = golden["trace"]
    centred = trace - trace.mean(-1, keepdims=True)
    points = torch.from_numpy((centred / centred.std(-1, keepdims=True)).astype(np.float64)).to(device)
    resolution = trace_points(as_trace(trace)).resolution.to(device)
    found = to_scipy(affinity_of_points(points, storage="sparse", resolution=resolution).operator)
    np.testing.assert_array_equal(found.indptr, golden["indptr"])
    # Within a row the published indices need not ascend.
    wanted = type(found)((golden["values"], golden["indices"], golden["indptr"]), shape=found.shape)
    wanted.sort_indices()
    np.testing.assert_array_equal(found.indices, wanted.indices)
    # Measured: 1e-15 (walk) and 2e-16 (suite).
    np.testing.assert_allclose(found.data, wanted.data, rtol=0, atol=1e-12)


def test_golden_data_is_there():
    assert len(GOLDEN) == 2


# ---------------------------------------------------------------- closed forms


def test_two_units_of_one_slice_by_hand():
    """Each is the other's nearest: bandwidth = distance, affinity exp(-1)."""
    points = torch.tensor([[[0.0], [3.0]]], dtype=torch.float64)
    dense = _dense_blocks(intraslice_affinity(points, knn=1))
    np.testing.assert_allclose(dense, [[[1, math.exp(-1)], [math.exp(-1), 1]]], rtol=1e-15)


def test_one_sided_entry_is_halved_by_hand():
    """Units at 0, 1 and 10, knn = 1: sigma = 1, 1, 9. From 0 and 1 the far one is below thresh, not from it."""
    points = torch.tensor([[[0.0], [1.0], [10.0]]], dtype=torch.float64)
    dense = _dense_blocks(intraslice_affinity(points, knn=1))[0]
    assert dense[0, 2] == dense[2, 0] == pytest.approx(math.exp(-((10 / 9) ** 5)) / 2, rel=1e-14)
    assert dense[1, 2] == dense[2, 1] == pytest.approx(math.exp(-1) / 2, rel=1e-14)
    assert dense[0, 1] == pytest.approx(math.exp(-1), rel=1e-14)


def test_halved_entry_below_thresh_goes():
    """Step 6: units at 0, 1 and x with a one-sided affinity between thresh and 2 thresh, which the average cuts."""
    # sigma of the far unit is x - 1, and exp(-(x / (x-1))^5) = 1.5e-4 for:
    u = (-math.log(1.5e-4)) ** 0.2
    far = u / (u - 1)
    points = torch.tensor([[[0.0], [1.0], [far]]], dtype=torch.float64)
    dense = _dense_blocks(intraslice_affinity(points, knn=1))[0]
    assert dense[0, 2] == dense[2, 0] == 0
    assert _dense_blocks(intraslice_affinity(points, knn=1, thresh=0.5e-4))[0][0, 2] == pytest.approx(0.75e-4, rel=1e-9)


def test_no_decay_by_hand():
    """Units at 0, 1 and 10, knn = 1: 0 and 1 name each other (1), the far one names unit 1 (1/2)."""
    points = torch.tensor([[[0.0], [1.0], [10.0]]], dtype=torch.float64)
    dense = _dense_blocks(intraslice_affinity(points, knn=1, decay=None))
    np.testing.assert_array_equal(dense, [[[1, 1, 0], [1, 1, 0.5], [0, 0.5, 1]]])


def test_no_decay_in_chunks_of_rows(monkeypatch):
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 9, 4)))
    whole = intraslice_affinity(points, decay=None)
    monkeypatch.setattr(intraslice_module, "pair_chunks", lambda *shape: _small_chunks(*shape))
    in_chunks = intraslice_affinity(points, decay=None)
    assert all(torch.equal(a, b) for a, b in zip(whole[:3], in_chunks[:3], strict=True))


def _small_chunks(*shape):
    from mmphate_gpu.ops.chunks import pair_chunks

    return pair_chunks(*shape, elements=20)


def _dense_blocks(csr: csr_ops.Csr) -> np.ndarray:  # (S*M, M) -> (S, M, M)
    dense = torch.zeros(csr.shape, dtype=csr.values.dtype)
    dense[csr.row_of_entry(), csr.indices.long()] = csr.values
    return dense.view(-1, csr.shape[1], csr.shape[1]).numpy()


def test_bandwidth_of_equal_steps():
    """Slices 0, 1, ..., 10 on a line, knn = 2: 1 inside, 2 at the ends, median 1. Two units: the mean of 1 and 3."""
    line = torch.arange(11, dtype=torch.float64)[None, :, None]
    assert float(interslice_bandwidth(torch.cat([line, 3 * line]), 2)) == 2


def test_bandwidth_floors():
    equal = torch.zeros(3, 4, 2, dtype=torch.float64)
    assert float(interslice_bandwidth(equal, 2)) == FLOOR
    assert bool((kth_unit_distance(equal, 2) == 0).all())
    assert bool((kth_unit_distance(equal[:, :1], 2) == 0).all())  # one unit: nothing to be near to


def test_floor_is_per_unit():
    """METHOD floors each unit's median, not their mean: a dead unit adds the floor, the other its median."""
    line = torch.arange(11, dtype=torch.float64)[None, :, None]
    assert float(interslice_bandwidth(torch.cat([line, 0 * line]), 2)) == (1 + FLOOR) / 2


def test_bandwidth_matches_reference(get_case):
    for name in ("walk", "hopf", "repeated slices", "one dead unit", "huge, unnormalised", "two slices"):
        points = get_case(name)[0].points()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = interslice_bandwidth(unit_major(points), 25)
            wanted = reference.interslice_bandwidth(points.numpy(), knn=25)
        # Measured: 4e-16; sums of squares of a few numbers in two orders.
        assert float(found) == pytest.approx(wanted, rel=1e-14), name


# ---------------------------------------------------------------- options, invariants


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
    dense = quietly_affinity(case.points(), storage="sparse", dtype=dtype, **case.options).operator.to_dense()
    assert torch.equal(dense > 0, dense.T > 0)
    # Not to the last bit: torch's vectorised power and its scalar remainder loop round apart, and (i, j), (j, i) may
    # meet one each.
    assert float((dense - dense.T).abs().max()) <= torch.finfo(dtype).eps / 2
    assert bool((dense.diagonal() == 1).all())
    thresh = case.options.get("thresh", 1e-4)
    assert float(dense.max()) <= 1 and float(dense[dense > 0].min()) >= thresh * (1 - 1e-7)  # float32 of thresh itself


def test_thresh_zero_keeps_all_that_float32_holds(get_case):
    points = torch.from_numpy(walk(30, 5, 5)) ** 3  # some far apart
    wanted = reference.multislice_affinity(points.numpy(), thresh=0, interslice_knn=5, normalize=False)
    options = {"thresh": 0, "interslice_knn": 5}
    sparse, lazy = (affinity_of_points(points, storage=storage, **options).operator for storage in ("sparse", "lazy"))
    found = sparse.to_dense().numpy()
    tiny = torch.finfo(torch.float32).tiny
    # The reference keeps float64 entries below the smallest float32 too; those are 0 here.
    np.testing.assert_array_equal(found > 0, wanted >= tiny)
    assert ((wanted > 0) & (wanted < tiny)).any()  # or this test shows nothing
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    assert_same_entries(by_products(lazy), found, 1e-15)


@pytest.mark.parametrize("width", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_forms_agree_on_entries_at_the_cut(steps, width):
    """Points on a line and a thresh exactly on one of their distances: rounding decides, in both forms alike."""
    points = width * torch.arange(8, dtype=torch.float64)[None, :, None]
    own = torch.ones(8, dtype=torch.float64)
    intraslice = csr_ops.Csr(torch.arange(9, dtype=torch.int32), torch.zeros(8, dtype=torch.int32), own, (8, 1))
    bandwidth, thresh = torch.tensor(width, dtype=torch.float64), math.exp(-(steps**2))
    lazy = LazyAffinity(points, bandwidth, intraslice, thresh=thresh, dtype=torch.float64, engine="torch")
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


def test_torch_and_keops_neighbours_give_one_affinity(get_case, keops):
    points = get_case("repeated units")[0].points()
    found = [
        affinity_of_points(points, storage="sparse", interslice_knn=2, knn_backend=name).operator.to_dense().numpy()
        for name in ("torch", "keops")
    ]
    # Both bandwidths are exact, from sums of squares in two orders: measured 3e-16.
    assert_same_entries(*found, 1e-13)


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


# ---------------------------------------------------------------- the choice of storage


def test_auto_stores_what_fits(get_case):
    assert isinstance(affinity_of_points(get_case("walk")[0].points()).operator, SparseAffinity)


def test_auto_turns_lazy_where_memory_is_short(get_case, monkeypatch):
    points = get_case("walk")[0].points()
    stored = affinity_of_points(points, storage="sparse").operator
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(stored.nbytes))  # more than 40 % of what is there
    assert isinstance(affinity_of_points(points).operator, LazyAffinity)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(3 * stored.nbytes))
    assert isinstance(affinity_of_points(points).operator, SparseAffinity)


def test_sparse_that_does_not_fit_is_refused_with_numbers(get_case, monkeypatch):
    points = get_case("walk")[0].points()
    nnz = affinity_of_points(points, storage="sparse").operator.nnz
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1000")
    with pytest.raises(
        InputError,
        match=rf"{nnz:,} entries needs .* KiB but cpu has 1000 B available \(.*\); storage=\"lazy\"",
    ):
        affinity_of_points(points, storage="sparse")


def test_unknown_storage():
    with pytest.raises(InputError, match="storage='dense' is unknown; accepted: 'auto', 'sparse', 'tiles', 'lazy'"):
        affinity_of_points(torch.zeros(3, 2, 1, dtype=torch.float64), storage="dense")


def test_tiles_that_do_not_fit_are_refused_with_numbers(get_case, monkeypatch):
    points = get_case("walk")[0].points()
    operator = affinity_of_points(points, storage="tiles").operator
    assert isinstance(operator, TiledAffinity)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1000")
    words = rf"{operator.layout.n_stored:,} tiles needs .* KiB but cpu has 1000 B available \(.*\); storage=\"lazy\""
    with pytest.raises(InputError, match=words):
        affinity_of_points(points, storage="tiles")


def test_auto_on_a_gpu(get_case, monkeypatch):
    """Tiles where they fit and are filled well enough, else CSR where that fits, else neither."""
    lazy = affinity_of_points(get_case("walk")[0].points(), storage="lazy").operator
    tiles, csr = (
        tiles_bytes(lazy.tile_layout().n_stored),
        affinity_of_points(get_case("walk")[0].points(), storage="sparse").operator.nbytes,
    )
    assert csr < tiles  # 30 slices in tiles of 128
    best = multislice_module._best_storage

    def with_memory(needed: int) -> str:
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(int(needed / choose_module.STORED_SHARE) + 1))
        monkeypatch.setattr(multislice_module, "available_bytes", lambda device: memory.memory_limit())
        return best(lazy)

    assert with_memory(tiles) == "sparse"  # a CPU has no use for tiles
    lazy.device = torch.device("cuda")
    assert with_memory(tiles) == "sparse"  # nor has a GPU for which Triton cannot compile
    monkeypatch.setattr(multislice_module.TRITON, "serves", lambda: True)
    assert [with_memory(needed) for needed in (tiles, tiles - 1000, csr, csr - 1000)] == [
        "tiles", "sparse", "sparse", "lazy",
    ]  # fmt: skip
    monkeypatch.setattr(choose_module, "TILES_FROM", 1.0)
    assert with_memory(tiles) == "sparse"


def test_forms_agree_end_to_end(path_or_walk):
    """The same diffusion time and picture, given the same clusters."""
    points, n_landmark = path_or_walk
    runs = {storage: _run(points, storage, n_landmark) for storage in ("sparse", "tiles", "lazy")}
    runs["fused"] = _run(points, "fused", n_landmark)
    t, wanted = runs.pop("sparse")
    for name, (found_t, found) in runs.items():
        assert found_t == t, name
        # Measured: 0 for all, since what is aggregated is exact in every form.
        assert procrustes(wanted, found)[2] < 1e-3, name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("storage", ["tiles", "lazy"])
def test_without_landmarks_every_form_is_exact(storage, dtype):
    points = normalize(as_trace(walk(40, 5, 5)))
    wanted, found = (
        landmark_diffusion(affinity_of_points(points, storage=name, dtype=dtype).operator, n_landmark=None)
        for name in ("sparse", storage)
    )
    assert torch.equal(found.landmark_op, wanted.landmark_op)


@pytest.fixture(params=[*GOLDEN, "walk"], ids=lambda one: getattr(one, "stem", one))
def path_or_walk(request) -> tuple[torch.Tensor, int]:
    if request.param == "walk":
        return normalize(as_trace(walk(60, 5, 5))), 60
    return normalize(as_trace(np.load(request.param)["trace"])), 120


def _run(points: torch.Tensor, storage: str, n_landmark: int) -> tuple[int, np.ndarray]:
    operator = affinity_of_points(points, storage="lazy" if storage == "fused" else storage).operator
    if storage == "fused":
        operator = LazyAffinity(**_parts(operator), engine="fused")
    clusters = torch.arange(operator.shape[0]) * n_landmark // operator.shape[0]
    found = landmark_diffusion(operator, clusters=clusters)
    t = optimal_t(found.landmark_op)
    distances = potential_distances(diffusion_potential(found.landmark_op, t))
    return t, interpolate(found.transitions, metric_mds(distances, random_state=0).coordinates).numpy()


@pytest.mark.parametrize("form", ["tiles", "fused"])
def test_half_precision_finds_as_good_a_subspace(form):
    """Clusters are made from 50 vectors in place of the leading eigenvectors of D^-1/2 K D^-1/2: how much they hold."""
    points = normalize(as_trace(walk(200, 5, 5)))
    exact = affinity_of_points(points, storage="sparse").operator
    half = affinity_of_points(points, storage="tiles" if form == "tiles" else "lazy").operator
    half = half if form == "tiles" else LazyAffinity(**_parts(half), engine="fused")
    root = exact.row_sums().rsqrt().diag()
    diff_aff = root @ exact.to_dense() @ root
    held = []
    for operator in (exact, half):
        values, vectors = _leading(operator, 50)
        assert float(values.max()) < 1 + 1e-5  # measured: below 1 in all three
        held.append(float(torch.einsum("ij,ij->", vectors, diff_aff @ vectors)))
    # Of 35.5930, by eigh. Measured: 35.590832 exact, 35.590831 both others.
    assert abs(held[0] - held[1]) < 1e-4


def _leading(operator: AffinityOperator, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    root, generator = operator.row_sums().rsqrt()[:, None], torch.Generator().manual_seed(0)
    return top_eigenpairs(
        lambda block: operator.product(root * block) * root, operator.shape[0], k, generator=generator
    )
