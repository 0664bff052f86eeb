"""Tensor in, tensor out: each op against a dense or closed form."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import random_array
from scipy.spatial.distance import cdist

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.linalg.block_krylov import _cholesky_qr, inner_products, orthonormalize
from mmphate_gpu.linalg.components import components, diagonal_blocks
from mmphate_gpu.linalg.kmeans import kmeans
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.linalg.sparse_gram import sparse_gram
from mmphate_gpu.linalg.symmetric_power import power_chain, symmetric_power
from mmphate_gpu.linalg.symmetric_product import symmetric_product
from mmphate_gpu.linalg.top_eigenpairs import fix_signs, top_eigenpairs
from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops import csr_matmul as csr_matmul_module
from mmphate_gpu.ops import radius_affinity as radius_module
from mmphate_gpu.ops.assign_nearest import assign_nearest
from mmphate_gpu.ops.chunks import pair_chunks, row_chunks
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.ops.csr_matmul import matmul
from mmphate_gpu.ops.distances import distances_by_difference
from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.twins import PORTABLE, serves, serving, why_no_cuda_twins
from mmphate_gpu.ops.radius_affinity import cut_distance, cut_radius, radius_affinity, radius_counts, radius_fill
from mmphate_gpu.ops.scatter_sum import scatter_sum
from mmphate_gpu.runtime import memory
from mmphate_gpu.runtime.devices import resolve_device
from mmphate_gpu.runtime.memory_use import held_bytes


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded_generator(seed)).to(dtype)


def symmetric(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A matrix with these eigenvalues and random eigenvectors."""
    basis = torch.linalg.qr(normal(len(values), len(values), seed=seed)).Q
    return basis @ torch.diag(values) @ basis.T


# ---------------------------------------------------------------- chunks


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "elements"), [(10, 3, 7), (10, 30, 7), (1, 1, 1), (7, 0, 3), (0, 5, 9)]
)
def test_row_chunks_cover_every_row_once(n_rows, n_columns, elements):
    chunks = list(row_chunks(n_rows, n_columns, elements))
    assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(n_rows))
    assert all(chunk.stop - chunk.start == 1 or (chunk.stop - chunk.start) * n_columns <= elements for chunk in chunks)


@pytest.mark.parametrize(
    ("n_sets", "n_points", "elements"), [(5, 3, 20), (5, 3, 8), (5, 3, 1), (1, 7, 49), (3, 4, 10**6)]
)
def test_pair_chunks_cover_every_row_once_and_in_order(n_sets, n_points, elements):
    chunks = list(pair_chunks(n_sets, n_points, elements))
    rows = [
        (one, row)
        for chunk in chunks
        for one in range(chunk.sets.start, chunk.sets.stop)
        for row in range(chunk.rows.start, chunk.rows.stop)
    ]
    assert rows == [(one, row) for one in range(n_sets) for row in range(n_points)]
    for chunk in chunks:
        n_rows = (chunk.sets.stop - chunk.sets.start) * (chunk.rows.stop - chunk.rows.start)
        assert n_rows == 1 or n_rows * n_points <= elements
        assert chunk.sets.stop - chunk.sets.start == 1 or chunk.rows == slice(0, n_points)


# ---------------------------------------------------------------- csr


@pytest.fixture
def sparse_and_dense() -> tuple[Csr, np.ndarray]:
    """17 x 11 with an empty row, int32 indices."""
    matrix = random_array((17, 11), density=0.3, rng=np.random.default_rng(0), format="csr")
    dense = matrix.toarray()
    dense[4] = 0
    return of_dense(dense), dense


def of_dense(dense: np.ndarray, step: int = 5) -> Csr:
    return csr_ops.of_dense_rows(torch.from_numpy(dense).split(step), dense.shape[1])


def dense_of(csr: Csr) -> np.ndarray:
    return csr_ops.to_torch(csr).to_dense().numpy()


def test_of_dense_rows_keeps_the_non_zeros(sparse_and_dense):
    csr, dense = sparse_and_dense
    assert csr.nnz == (dense != 0).sum() and csr.indptr.dtype == csr.indices.dtype == torch.int32
    np.testing.assert_array_equal(dense_of(csr), dense)
    np.testing.assert_array_equal(csr.row_of_entry().numpy(), np.nonzero(dense)[0])
    np.testing.assert_array_equal(csr.indices.numpy(), np.nonzero(dense)[1])


def test_to_torch_shares_memory(sparse_and_dense):
    csr, _ = sparse_and_dense
    tensor = csr_ops.to_torch(csr)
    assert tuple(tensor.shape) == csr.shape
    assert tensor.values().data_ptr() == csr.values.data_ptr()


@pytest.mark.parametrize("kind", [torch.complex64, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("width", [1, 15, 16, 40])
def test_matmul_is_in_the_dtype_of_the_block(sparse_and_dense, kind, width):
    """Entries of either dtype; a thin block, a wide one, and a dtype that only the portable version serves."""
    csr, dense = sparse_and_dense
    block = normal(11, width, dtype=kind)
    for values in (csr.values, csr.values.float()):
        found = matmul(csr._replace(values=values), block, interleave=3)
        assert found.dtype == kind and found.shape == (17, width)
        wanted = torch.from_numpy(dense).to(values.dtype).to(kind) @ block
        # Sums of a few products. Measured: 4e-16 and 2.4e-7.
        tolerance = 1e-14 if kind == torch.float64 else 3e-6
        torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("width", [1, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_on_a_gpu_no_library_multiplies(sparse_and_dense, dtype, width, monkeypatch):
    """On every device except the CPU the op serves, and so its twin does on CUDA."""
    csr, _ = sparse_and_dense
    called: list[str] = []
    monkeypatch.setattr(csr_matmul_module, "csr_matmul", lambda *_: called.append("op"))
    monkeypatch.setitem(PORTABLE, "csr_matmul", lambda *_: called.append("library"))
    for device in ("meta", "cpu"):
        parts = [part.to(device) for part in csr[:3]]
        matmul(Csr(*parts, csr.shape), torch.zeros(11, width, dtype=dtype, device=device))
    assert called == ["op", "library" if dtype == torch.float32 and width == 1 else "op"]


@pytest.mark.parametrize("ends", [[17], [0, 17], [5, 17], [4, 5, 5, 17]], ids=str)
def test_stack_rows(sparse_and_dense, ends):
    """Cut anywhere, an empty row or no row alone, and put together again: the same matrix."""
    csr, dense = sparse_and_dense
    parts = [of_dense(dense[start:stop]) for start, stop in pairwise([0, *ends])]
    assert all(torch.equal(one, other) for one, other in zip(csr_ops.stack_rows(parts)[:3], csr[:3], strict=True))
    assert csr_ops.stack_rows(parts).shape == csr.shape


def test_stack_rows_of_both_index_types(sparse_and_dense):
    csr, dense = sparse_and_dense
    wide = csr._replace(indptr=csr.indptr.long(), indices=csr.indices.long())
    both = csr_ops.stack_rows([wide, csr])
    assert both.indptr.dtype == both.indices.dtype == torch.int32
    np.testing.assert_array_equal(dense_of(both), np.concatenate([dense, dense]))


def test_scale_and_row_sums(sparse_and_dense):
    csr, dense = sparse_and_dense
    factors = normal(17)
    np.testing.assert_array_equal(dense_of(csr_ops.scale(csr, rows=factors)), factors.numpy()[:, None] * dense)
    np.testing.assert_allclose(csr_ops.row_sums(csr).numpy(), dense.sum(1), rtol=1e-15)


def test_row_sums_of_float32_are_float64():
    """A float32 sum of 1e5 tenths is off by 1e-4 and more; the sum of the float32 values in float64 is not."""
    values = torch.full((100_000,), 0.1, dtype=torch.float32)
    csr = Csr(torch.tensor([0, 100_000]), torch.arange(100_000), values, (1, 100_000))
    sums = csr_ops.row_sums(csr)
    assert sums.dtype == torch.float64 and float(sums) == pytest.approx(100_000 * float(values[0]), rel=1e-12)


def test_scale_keeps_the_dtype():
    csr = of_dense(np.eye(3, dtype=np.float32))
    assert csr_ops.scale(csr, rows=torch.ones(3, dtype=torch.float64)).values.dtype == torch.float32


@pytest.mark.parametrize(
    ("nnz", "columns", "kind"),
    [(0, 1, torch.int32), (2**31 - 1, 5, torch.int32), (2**31, 5, torch.int64), (5, 2**31, torch.int64)],
)
def test_index_dtype(nnz, columns, kind):
    assert csr_ops.index_dtype(nnz, columns) == kind


def test_int64_offsets_are_made_from_int64_counts():
    """The scan itself may not overflow: 3 rows of 1e9 entries."""
    indptr = csr_ops.indptr_of_counts(torch.full((3,), 10**9, dtype=torch.int32))
    assert indptr.tolist() == [0, 10**9, 2 * 10**9, 3 * 10**9]


# ---------------------------------------------------------------- distances


@pytest.mark.parametrize("n", [3, 40])  # torch's own cdist takes the product form above 25 rows
def test_distances_keep_small_differences(n, device):
    """Points 1e-9 apart around 1: the product form gives 0 or 1e-8."""
    points = (1 + 1e-9 * normal(n, 4)).to(device)
    found = distances_by_difference(points, points).cpu()
    np.testing.assert_allclose(found.numpy(), cdist(points.cpu().numpy(), points.cpu().numpy()), rtol=1e-14)
    assert bool((found.diagonal() == 0).all()) and torch.equal(found, found.T)


# ---------------------------------------------------------------- radius affinity


def brute_affinity(points, bandwidth, decay, thresh, diagonal):  # (n, p), (n,) or () -> (n, n)
    one_sided = np.exp(-((cdist(points, points) / np.broadcast_to(bandwidth, len(points))[:, None]) ** decay))
    one_sided[one_sided < thresh] = 0
    both = (one_sided + one_sided.T) / 2
    both[both < thresh] = 0
    np.fill_diagonal(both, float(diagonal))
    return both


def dense_blocks(csr: Csr, n_sets: int) -> np.ndarray:  # (B n rows, n columns) -> (B, n, n)
    return csr_ops.to_torch(csr).to_dense().view(n_sets, -1, csr.shape[1]).cpu().numpy()


@pytest.mark.parametrize("elements", [1, 50, 10**6])
@pytest.mark.parametrize("decay", [1, 2, 5, 0.7])
def test_radius_affinity_against_brute_force(decay, elements, monkeypatch, device):
    """By what serves here, and by the portable version in chunks of any size."""
    points = normal(3, 13, 4).numpy()
    bandwidth = np.random.default_rng(1).uniform(0.5, 1.5, (3, 13))
    args = torch.from_numpy(points).to(device), torch.from_numpy(bandwidth).to(device)
    wanted = [brute_affinity(*one, decay, 1e-3, True) for one in zip(points, bandwidth, strict=True)]
    served = radius_affinity(*args, decay=decay, thresh=1e-3, dtype=torch.float64)
    small_chunks(monkeypatch, elements)
    monkeypatch.setattr(radius_module, "symmetrized_affinity", PORTABLE["symmetrized_affinity"])
    for csr in (served, radius_affinity(*args, decay=decay, thresh=1e-3, dtype=torch.float64)):
        found = dense_blocks(csr, 3)
        np.testing.assert_array_equal(found > 0, np.array(wanted) > 0)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)  # measured: 3.4e-16


def small_chunks(monkeypatch, elements: int) -> None:
    chunks = radius_module.pair_chunks
    monkeypatch.setattr(radius_module, "pair_chunks", lambda *shape, **rows: chunks(*shape, elements, **rows))


@pytest.mark.parametrize("elements", [1, 50, 10**6])
@pytest.mark.parametrize("rows", [(0, 13), (4, 5), (5, 12), (7, 7)], ids=str)
@pytest.mark.parametrize("portable", [True, False])
def test_radius_fill_against_brute_force(portable, rows, elements, monkeypatch, device):
    """Rows and columns interleave the sets; every row leaves its gap free where its own point would stand."""
    first, last = rows
    points, decay, reach = normal(3, 13, 4), 2.0, 1.9
    fill, counts_of = radius_fill, radius_counts
    if portable:
        small_chunks(monkeypatch, elements)
        fill, counts_of = PORTABLE["radius_fill"], PORTABLE["radius_counts"]
    given = points.to(device)
    counts = counts_of(given, reach)
    gap = torch.arange(3 * (last - first), device=device) % 4
    indptr = csr_ops.indptr_of_counts(counts[:, first:last].T.reshape(-1) + gap)
    indices = torch.full((int(indptr[-1]),), -1, dtype=torch.int32, device=device)
    values = torch.full((int(indptr[-1]),), math.nan, dtype=torch.float64, device=device)
    gap_at = fill(given, 1.3, decay, reach, first, last, indptr, gap, indices, values)
    at = 0
    for i in range(first, last):
        for one in range(3):
            distances = cdist(points[one, i : i + 1], points[one])[0]
            others = [j for j in range(13) if j != i and distances[j] <= reach]
            own_gap = int(gap[(i - first) * 3 + one])
            before = sum(j < i for j in others)
            assert int(counts[one, i]) == len(others) and int(gap_at[(i - first) * 3 + one]) == at + before
            kept = [at + k + (own_gap if k >= before else 0) for k in range(len(others))]
            assert indices[kept].tolist() == [3 * j + one for j in others]
            # Measured: 2.2e-16.
            np.testing.assert_allclose(values[kept].cpu(), np.exp(-((distances[others] / 1.3) ** decay)), rtol=1e-14)
            free = slice(at + before, at + before + own_gap)
            assert bool((indices[free] == -1).all()) and bool(values[free].isnan().all())
            at += len(others) + own_gap
    assert at == int(indptr[-1])


def test_radius_counts_by_hand(device):
    """Points at 0, 1, 3 and 3, and another set: the point itself does not count, its duplicate does."""
    points = torch.tensor([[[0.0], [1.0], [3.0], [3.0]], [[0.0], [0.0], [0.0], [9.0]]], dtype=torch.float64)
    assert radius_counts(points.to(device), 2.0).tolist() == [[1, 3, 2, 2], [2, 2, 2, 0]]
    assert radius_counts(points.to(device), 0.0).tolist() == [[0, 0, 1, 1], [2, 2, 2, 0]]
    assert radius_counts(points.to(device), math.inf).tolist() == [[3] * 4] * 2


def test_cut_radius():
    assert cut_radius(5, 1e-4) == pytest.approx(1.559, abs=1e-3)  # METHOD: about 1.56 sigma
    assert cut_radius(2, math.exp(-4)) == pytest.approx(2, rel=1e-15)
    assert cut_radius(2, 0) == cut_radius(2, torch.finfo(torch.float32).tiny) == pytest.approx(9.345, abs=1e-3)
    assert cut_radius(0.001, 1e-4) == math.inf


@pytest.mark.parametrize("bandwidth", [2.3e-16, 1e-9, 0.1, 0.3, 1.0, 7.7, 1e8])
@pytest.mark.parametrize("thresh", [math.exp(-1), math.exp(-9), 1e-4, 0.3, 0.0])
def test_cut_distance_is_the_last_kept(bandwidth, thresh):
    """One float further, and exp(-(d / bandwidth)^2) is below thresh."""
    width = torch.tensor(bandwidth, dtype=torch.float64)
    last = cut_distance(width, decay=2, thresh=thresh)
    beyond = torch.nextafter(last, torch.tensor(math.inf, dtype=torch.float64))
    limit = max(thresh, torch.finfo(torch.float32).tiny)
    kept, dropped = (torch.exp(-((distance / width) ** 2)) for distance in (last, beyond))
    assert float(kept) >= limit > float(dropped)


# ---------------------------------------------------------------- scatter sum


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scatter_sum(dtype, device):
    index = torch.randint(0, 50, (10_000,), generator=seeded_generator(0)).to(device)
    values = normal(10_000, dtype=dtype).to(device)
    found = scatter_sum(index, values, 60)
    wanted = np.bincount(index.cpu().numpy(), values.cpu().double().numpy(), minlength=60)
    # Sums of 200 standard normal numbers. Measured: 1.1e-5 (float32) and 0 (the same order).
    np.testing.assert_allclose(found.cpu().numpy(), wanted, rtol=0, atol=5e-5 if dtype == torch.float32 else 1e-13)
    assert found.dtype == dtype and all(torch.equal(found, scatter_sum(index, values, 60)) for _ in range(5))


# ---------------------------------------------------------------- sparse Gram


@pytest.mark.parametrize("n_columns", [3, 64, 65, 200])  # dense rows (the first) and sparse ones
@pytest.mark.parametrize("kind", ["alike", "random", "one label"])
def test_sparse_gram_against_dense(n_columns, kind, device):
    rng = np.random.default_rng(n_columns)
    n = 500
    labels = {
        "alike": np.arange(n) * n_columns // n,
        "random": rng.integers(0, n_columns, n),
        "one label": np.zeros(n),
    }[kind]
    labels = labels.astype(np.int64)
    dense = np.where(rng.random((n, n_columns)) < 0.05, rng.random((n, n_columns)), 0)
    dense[np.arange(n), labels] = 1
    weights = rng.random(n)
    csr = csr_ops.of_dense_rows([torch.from_numpy(dense).to(device)], n_columns)
    found = sparse_gram(csr, torch.from_numpy(weights).to(device))
    # Measured: 2e-13 of entries up to 250.
    np.testing.assert_allclose(found.cpu().numpy(), dense.T @ (weights[:, None] * dense), rtol=0, atol=1e-11)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("without", ["MKL", "narrow indices"])
def test_sparse_gram_by_scipy(without, monkeypatch):
    dense = np.where(np.random.default_rng(0).random((300, 90)) < 0.04, 0.5, 0)
    csr = of_dense(dense, 300)
    wanted = sparse_gram(csr, torch.ones(300))
    if without == "MKL":
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    else:
        csr = csr._replace(indptr=csr.indptr.long(), indices=csr.indices.long())
    assert torch.equal(sparse_gram(csr, torch.ones(300)), wanted)  # quarters: every sum is exact


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_sparse_gram_keeps_nothing():
    """A product of 5e6 entries, five times: 12 bytes an entry kept of each would be 61 MB."""
    dense = np.where(np.random.default_rng(0).random((3000, 2700)) < 0.02, 1.0, 0)
    csr = of_dense(dense, 3000)
    held = []
    for _ in range(5):
        entries = int((sparse_gram(csr, torch.ones(3000)) != 0).sum())
        held.append(held_bytes(torch.device("cpu")))
    assert entries > 4e6
    # Measured: less than 1 MB from the second to the last.
    assert held[-1] - held[1] < 60e6


def test_sparse_gram_of_float32_sums_in_float64():
    dense = np.random.default_rng(0).random((2000, 5)).astype(np.float32)
    found = sparse_gram(of_dense(dense, 2000), torch.ones(2000))
    np.testing.assert_allclose(found.numpy(), dense.astype(float).T @ dense.astype(float), rtol=1e-13)


# ---------------------------------------------------------------- k-means


def blobs(n_blobs: int, each: int, dtype=torch.float64, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points at 1 % of the distance between blobs around each of them."""
    centers = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0), torch.arange(4.0))[:n_blobs].double()
    owner = torch.arange(n_blobs).repeat(each)
    return (centers[owner] + 0.01 * normal(n_blobs * each, 3) + offset).to(dtype), owner


def same_partition(labels: torch.Tensor, owner: torch.Tensor) -> bool:
    pairs = torch.unique(torch.stack([labels.cpu(), owner]), dim=1)
    return pairs.shape[1] == len(pairs[0].unique()) == len(pairs[1].unique())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1e4])  # the product form without centring loses all of the second
def test_kmeans_recovers_separated_blobs(dtype, offset, device):
    points, owner = blobs(8, 20, dtype, offset)
    points = points.to(device)
    found = [same_partition(kmeans(points, 8, generator=seeded_generator(seed)), owner) for seed in range(20)]
    # Seeds are drawn among three points per cluster, which can miss a blob. Measured: 17 of 20.
    assert sum(found) >= 14


def test_kmeans_keeps_most_of_many_blobs():
    """Seeds drawn in one round may share a blob, and Lloyd steps do not part them: the price of few rounds."""
    points, owner = blobs(40, 20)
    for seed in range(5):
        labels = kmeans(points, 40, generator=seeded_generator(seed))
        sizes = torch.bincount(labels)
        whole = [
            len(own.unique()) == 1 and int(sizes[own[0]]) == 20 for own in (labels[owner == one] for one in range(40))
        ]
        assert sum(whole) >= 24  # measured over 20 seeds: 28 to 36
        assert int(labels.max()) + 1 >= 36  # measured: 38 at least


def inertia(points, labels):
    return sum(float((points[labels == one] - points[labels == one].mean(0)).square().sum()) for one in labels.unique())


def test_kmeans_is_as_good_as_scikit_learns():
    """Inertia on points without clusters, against k-means++ with 20 Lloyd steps."""
    sklearn_kmeans = pytest.importorskip("sklearn.cluster").k_means
    points = normal(2000, 5)
    _, _, theirs = sklearn_kmeans(points.numpy(), 100, n_init=1, max_iter=20, random_state=0)
    ours = inertia(points, kmeans(points, 100, generator=seeded_generator(0)))
    assert ours < 1.08 * theirs  # measured over 5 x 5 seeds: 1.005 to 1.04


@pytest.mark.parametrize("n_clusters", [1, 2, 7, 99, 100, 1000])
def test_kmeans_labels_are_contiguous(n_clusters, device):
    labels = kmeans(normal(100, 4).to(device), n_clusters, generator=seeded_generator(0))
    n = int(labels.max()) + 1
    assert labels.dtype == torch.int64 and torch.equal(labels.unique().cpu(), torch.arange(n))
    assert n <= min(n_clusters, 100) and (n_clusters > 7 or n == n_clusters)


def test_kmeans_is_deterministic_by_seed(device):
    points = normal(300, 4).to(device)
    first, again, other = (kmeans(points, 30, generator=seeded_generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("n_clusters", [2, 5, 6, 60])
def test_kmeans_of_duplicates(n_clusters):
    """5 places, 12 points each: points of one place share a label, and there are no more labels than places."""
    place = torch.arange(5).repeat(12)
    labels = kmeans(normal(5, 3)[place], n_clusters, generator=seeded_generator(0))
    assert int(labels.max()) + 1 == min(n_clusters, 5)  # with as many clusters as places, one in ten seeds misses one
    assert all(len(labels[place == one].unique()) == 1 for one in range(5))


def test_kmeans_of_equal_points():
    assert torch.equal(kmeans(torch.ones(20, 3), 4, generator=seeded_generator(0)), torch.zeros(20, dtype=torch.int64))


@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_kmeans_at_any_scale(scale):
    """Squares of 1e-25 are 0 in float32."""
    points, owner = blobs(8, 20, torch.float32)
    assert same_partition(kmeans(points * scale, 8, generator=seeded_generator(0)), owner)


def test_kmeans_leaves_points_alone():
    points = normal(50, 3)
    before = points.clone()
    kmeans(points, 5, generator=seeded_generator(0))
    assert torch.equal(points, before)


def test_kmeans_refuses():
    with pytest.raises(InputError, match=r"points has shape \(5,\); accepted: two axes .* or three"):
        kmeans(torch.zeros(5), 2)
    with pytest.raises(InputError, match=r"points has shape \(0, 3\)"):
        kmeans(torch.zeros(0, 3), 2)
    with pytest.raises(InputError, match="n_clusters=0 is out of range"):
        kmeans(torch.zeros(5, 3), 0)


@pytest.mark.parametrize("n_clusters", [1, 4, 30])
def test_kmeans_of_a_stack_goes_set_by_set(n_clusters, device):
    """Every set has labels of its own, and is clustered as well as alone, whatever the others hold."""
    sets = torch.stack([10.0**scale * normal(60, 3, seed=scale) for scale in range(4)]).to(device)
    labels = kmeans(sets, n_clusters, generator=seeded_generator(0)).cpu()
    found = [own.unique() for own in labels]
    assert torch.equal(torch.cat(found), torch.arange(sum(map(len, found))))
    for points, own in zip(sets.cpu(), labels, strict=True):
        alone = inertia(points, kmeans(points, n_clusters, generator=seeded_generator(0)))
        assert len(own.unique()) == n_clusters
        assert inertia(points, own) <= 1.4 * alone  # measured over 20 seeds: 0.68 to 1.31


def test_kmeans_of_one_set_in_a_stack():
    """The same draws and the same steps."""
    points, _ = blobs(8, 20)
    labels = kmeans(points, 8, generator=seeded_generator(0))
    assert torch.equal(kmeans(points[None], 8, generator=seeded_generator(0))[0], labels)


def test_assign_nearest_in_a_stack(device):
    points, centers = normal(3, 40, 4).to(device), normal(3, 7, 4, seed=1).to(device)
    labels, squared = assign_nearest(points, centers)
    for one in range(3):
        wanted = assign_nearest(points[one], centers[one])
        assert torch.equal(labels[one], wanted[0])
        torch.testing.assert_close(squared[one], wanted[1], rtol=0, atol=1e-12)


def test_assign_nearest_against_brute_force(device):
    points, centers = normal(200, 4, seed=1).to(device), normal(13, 4, seed=2).to(device)
    labels, squared = assign_nearest(points, centers)
    wanted = cdist(points.cpu().numpy(), centers.cpu().numpy())
    np.testing.assert_array_equal(labels.cpu().numpy(), wanted.argmin(1))
    np.testing.assert_allclose(squared.cpu().numpy(), wanted.min(1) ** 2, atol=1e-13)


# ---------------------------------------------------------------- eigenpairs

SPECTRA = {
    "falling": lambda n: 0.9 ** torch.arange(n, dtype=torch.float64),
    "of both signs": lambda n: (-0.85) ** torch.arange(n, dtype=torch.float64),
    "low rank": lambda n: torch.cat([torch.tensor([3.0, -2.0, 1.0]), torch.zeros(n - 3)]).double(),
    "repeated": lambda n: torch.cat(
        [torch.ones(n // 3), 0.1 * torch.rand(n - n // 3, generator=seeded_generator(0))]
    ).double(),
    "zero": lambda n: torch.zeros(n, dtype=torch.float64),
}


@pytest.mark.parametrize("order", ["magnitude", "algebraic"])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("n", [200, 20, 4])
def test_top_eigenpairs_against_eigh(n, spectrum, order, device):
    matrix = symmetric(SPECTRA[spectrum](n))
    k = min(6, n)
    given = matrix.to(device)
    values, vectors = top_eigenpairs(
        lambda block: given @ block, n, k, order=order, device=device, generator=seeded_generator(0)
    )
    values, vectors = values.cpu(), vectors.cpu()
    exact = torch.linalg.eigvalsh(matrix)
    rank = exact.abs() if order == "magnitude" else exact
    wanted = exact[rank.argsort(descending=True)][:k]
    # Measured: values 1.9e-13 (a randomised subspace of 80 of 200 dimensions), residuals, which are its square root,
    # 7e-8; where the subspace is all there is 2e-15 and 2e-15.
    if order == "magnitude":  # of two with one magnitude either may come first
        torch.testing.assert_close(values.abs(), wanted.abs(), rtol=0, atol=1e-11)
    else:
        torch.testing.assert_close(values, wanted, rtol=0, atol=1e-11)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [106, 500])
def test_top_eigenpairs_of_a_space_that_is_exhausted(n, dtype):
    """The last block has room for a few directions only: what rounding leaves of the others must not come in."""
    exact = torch.linspace(1, 0, n, dtype=torch.float64) ** 4
    matrix = symmetric(exact).to(dtype)
    found = top_eigenpairs(lambda b: (matrix @ b.to(dtype)).double(), n, 6, n_passes=n, generator=seeded_generator(0))
    # Measured: 4e-15, and 1.5e-8 for products in float32.
    error = {torch.float32: 2e-7, torch.float64: 5e-14}[dtype]
    torch.testing.assert_close(found[0], exact[:6], rtol=0, atol=error)
    torch.testing.assert_close(found[1].T @ found[1], torch.eye(6, dtype=torch.float64), rtol=0, atol=5e-14)


def test_top_eigenpairs_in_float32():
    matrix = symmetric(SPECTRA["falling"](200)).float()
    values, vectors = top_eigenpairs(
        lambda block: matrix @ block, 200, 10, dtype=torch.float32, generator=seeded_generator(0)
    )
    assert vectors.dtype == torch.float32 and values.dtype == torch.float64
    # Measured: 9e-8.
    torch.testing.assert_close(values, SPECTRA["falling"](200)[:10], rtol=0, atol=1e-6)


def test_top_eigenpairs_more_than_there_are():
    values, vectors = top_eigenpairs(lambda block: 2 * block, 5, 9, generator=seeded_generator(0))
    torch.testing.assert_close(values, torch.full((5,), 2.0, dtype=torch.float64))
    assert vectors.shape == (5, 5)


def test_top_eigenpairs_one_seed_one_result():
    matrix = symmetric(SPECTRA["falling"](100))
    first, again = (top_eigenpairs(lambda b: matrix @ b, 100, 5, generator=seeded_generator(7)) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_top_eigenpairs_unknown_order():
    with pytest.raises(InputError, match="order='smallest' is unknown"):
        top_eigenpairs(lambda block: block, 5, 2, order="smallest")


def test_orthonormalize_drops_dependent_columns():
    basis = orthonormalize(normal(30, 4), None)
    block = torch.cat([basis @ normal(4, 2), normal(30, 2, seed=3), normal(30, 2, seed=3)], 1)
    found = orthonormalize(block, basis)
    assert found.shape == (30, 2)
    both = torch.cat([basis, found], 1)
    torch.testing.assert_close(both.T @ both, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-13)


def assert_orthonormal_basis_of(found: torch.Tensor, block: torch.Tensor) -> None:
    eye = torch.eye(found.shape[1], dtype=torch.float64)
    # Measured: 9e-16 and 2e-15 of the longest column.
    torch.testing.assert_close(found.T @ found, eye, rtol=0, atol=2e-14)
    torch.testing.assert_close(found @ (found.T @ block), block, rtol=0, atol=1e-13 * float(block.norm(dim=0).max()))


@pytest.mark.parametrize("n", [20, 500])
def test_cholesky_qr(n):
    """Columns of any length, not far from orthogonal: what the quick way is for."""
    block = normal(n, 15) * 10.0 ** torch.linspace(-8, 8, 15, dtype=torch.float64)
    floor = torch.tensor(0.0, dtype=torch.float64)
    quick = _cholesky_qr(block if n == 500 else torch.linalg.qr(block).Q + 0.01 * normal(n, 15, seed=1), floor)
    assert quick is not None
    if n == 500:
        assert_orthonormal_basis_of(quick, block)
        for column in range(15):  # the short columns too, each at its own scale
            one = block[:, column : column + 1] / block[:, column].norm()
            torch.testing.assert_close(quick @ (quick.T @ one), one, rtol=0, atol=1e-13)


REFUSED = {
    "nearly dependent": lambda: torch.cat([normal(50, 3), normal(50, 3)[:, 1:2] + 1e-6 * normal(50, 1, seed=1)], 1),
    "dependent": lambda: normal(50, 2).repeat(1, 2),
    "a column of nothing": lambda: torch.cat([normal(50, 3), torch.zeros(50, 1, dtype=torch.float64)], 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_cholesky_qr_refuses(name):
    """Where its Gram matrix has lost the digits; the longer way is taken then, and serves."""
    block = REFUSED[name]()
    assert _cholesky_qr(block, 50 * torch.finfo(block.dtype).eps * block.norm(dim=0).max()) is None
    found = orthonormalize(block, None)
    assert found.shape[1] == {"nearly dependent": 4, "dependent": 2}.get(name, 3)
    assert_orthonormal_basis_of(found, block)


@pytest.mark.parametrize("n", [500, 40_000])
def test_float32_basis_is_orthonormal_to_its_rounding(n):
    """Inner products are summed in float64, so the error does not grow with the number of rows."""
    against = orthonormalize(normal(n, 20, dtype=torch.float32), None)
    found = orthonormalize(normal(n, 15, seed=1, dtype=torch.float32), against)
    both = torch.cat([against, found], 1).double()
    # Measured: 9e-8 and 1.1e-7 for 500 and 40,000 rows.
    torch.testing.assert_close(both.T @ both, torch.eye(35, dtype=torch.float64), rtol=0, atol=5e-7)


def test_inner_products_of_float32_are_near_those_in_float64():
    left, right = normal(10_000, 3, dtype=torch.float32), normal(10_000, 4, seed=1, dtype=torch.float32)
    wanted = left.double().T @ right.double()
    # Of columns of length 100: float32 sums of one chunk are off by 1e-8 of the product of the lengths.
    torch.testing.assert_close(inner_products(left, right), wanted, rtol=0, atol=1e-3)


def test_top_eigenpairs_products():
    """As many products as passes, of blocks of k + 10 columns in the dtype asked for."""
    matrix, blocks = symmetric(SPECTRA["falling"](200)), []

    def product(block):
        blocks.append((tuple(block.shape), block.dtype))
        return matrix.to(block.dtype) @ block

    top_eigenpairs(product, 200, 6, n_passes=4, generator=seeded_generator(0))
    assert blocks == [((200, 16), torch.float64)] * 4
    top_eigenpairs(product, 200, 6, n_passes=2, block=9, dtype=torch.float32, generator=seeded_generator(0))
    assert blocks[4:] == [((200, 9), torch.float32)] * 2


def test_fix_signs():
    vectors = torch.tensor([[1.0, 1.0, 0.0], [-3.0, 2.0, 0.0]])
    assert torch.equal(fix_signs(vectors), torch.tensor([[-1.0, 1.0, 0.0], [3.0, 2.0, 0.0]]))
    assert fix_signs(torch.empty(0, 3)).shape == (0, 3)


# ---------------------------------------------------------------- symmetric products and powers


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129, 700])
def test_symmetric_product_against_the_whole(n, device):
    left = normal(n, 40).to(device)
    found, wanted = symmetric_product(left, left.T), left @ left.T
    # Sums of 40 products of standard normal numbers. Measured: 3e-14.
    torch.testing.assert_close(found, wanted, rtol=0, atol=5e-13)
    assert torch.equal(found, found.T)


def test_symmetric_product_by_hand():
    left = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    assert symmetric_product(left, left.T).tolist() == [[5, 11], [11, 25]]


@pytest.mark.parametrize("t", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("spectrum", ["falling", "of both signs", "low rank", "flat"])
def test_symmetric_power_against_eigh(spectrum, t, device):
    n = 300
    values = torch.linspace(1, 0.9, n, dtype=torch.float64) if spectrum == "flat" else SPECTRA[spectrum](n)
    values = values / values.abs().max()
    matrix = symmetric(values)
    basis = torch.linalg.qr(normal(n, n)).Q
    wanted = basis @ torch.diag(values**t) @ basis.T
    found = symmetric_power(((matrix + matrix.T) / 2).to(device), t).cpu()
    # Measured: 1.3e-14 (flat, t = 40: the rounding of the matrix itself, 40 times).
    torch.testing.assert_close(found, wanted, rtol=0, atol=5e-14)
    assert torch.equal(found, found.T)


def test_symmetric_power_of_whole_numbers_is_exact():
    """The path of three places: 2^k walks between its middle and an end in 2k + 1 steps."""
    path = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    assert symmetric_power(path, 1) is path
    assert symmetric_power(path, 9).tolist() == [[0, 16, 0], [16, 0, 16], [0, 16, 0]]
    assert symmetric_power(path, 10).tolist() == [[16, 0, 16], [0, 32, 0], [16, 0, 16]]


def test_symmetric_power_keeps_tiny_entries_and_zeros():
    """Tridiagonal, 1 and 1e-9: an entry k off the diagonal of the t-th power is C(t, k) 1e-9^k, 0 beyond t."""
    t, step = 13, 1e-9
    matrix = torch.eye(200, dtype=torch.float64) + step * torch.diag(torch.ones(199, dtype=torch.float64), 1)
    matrix = torch.triu(matrix) + torch.triu(matrix, 1).T
    row = symmetric_power(matrix, t)[100]
    wanted = torch.tensor([math.comb(t, k) * step**k for k in range(t + 1)], dtype=torch.float64)
    # Next to it stand terms smaller by 1e-18. Measured: 3.5e-16.
    torch.testing.assert_close(row[100 : 101 + t], wanted, rtol=1e-14, atol=0)
    assert bool((row[101 + t :] == 0).all()) and bool((row[: 100 - t] == 0).all())


# ---------------------------------------------------------------- components


def of_edges(n: int, *edges: tuple[int, int]) -> torch.Tensor:
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for i, j in edges:
        matrix[i, j] = 1
    return matrix


def test_components_by_hand(device):
    """0-3-5 by edges of one direction each, 1-4, and 2 and 6 alone: three sizes."""
    matrix = of_edges(7, (3, 0), (3, 5), (4, 1), (2, 2)).to(device)
    groups = {group.shape[1]: group.tolist() for group in components(matrix)}
    assert groups == {1: [[2], [6]], 2: [[1, 4]], 3: [[0, 3, 5]]}


@pytest.mark.parametrize("n", [1, 2, 50])
def test_components_of_one_piece(n, device):
    for matrix in (torch.ones(n, n), of_edges(n, *((i, i + 1) for i in range(n - 1)))):
        (members,) = components(matrix.to(device))
        assert members.tolist() == [list(range(n))]


def test_components_of_a_one_way_star():
    """Two steps along the rows from the first do not come back to it: the quick look may not say "no"."""
    (members,) = components(of_edges(5, (1, 0), (2, 0), (3, 0), (4, 0)))
    assert members.tolist() == [[0, 1, 2, 3, 4]]


def test_components_without_entries():
    (members,) = components(torch.zeros(4, 4))
    assert members.tolist() == [[0], [1], [2], [3]]


def test_components_of_random_blocks_and_their_blocks(device):
    """Dealt at random, found again; and the diagonal blocks put together are the matrix."""
    rng = np.random.default_rng(0)
    sizes = [3, 5, 5, 1, 8, 3, 1]
    order = torch.from_numpy(rng.permutation(sum(sizes)))
    matrix = torch.block_diag(*(torch.from_numpy(rng.random((size, size))) for size in sizes))[order][:, order]
    given = matrix.to(device)
    groups = components(given)
    assert sorted((len(group), group.shape[1]) for group in groups) == [(1, 8), (2, 1), (2, 3), (2, 5)]
    assert sorted(torch.cat([group.flatten() for group in groups]).tolist()) == list(range(sum(sizes)))
    again = torch.zeros_like(given)
    for members in groups:
        assert bool((members.diff(dim=1) > 0).all())
        again[members[:, :, None], members[:, None, :]] = diagonal_blocks(given, members)
    assert torch.equal(again, given)


def test_diagonal_block_of_one_piece_is_the_matrix():
    matrix = torch.ones(4, 4)
    assert diagonal_blocks(matrix, components(matrix)[0]).data_ptr() == matrix.data_ptr()


# ---------------------------------------------------------------- twins


def test_what_serves_is_said():
    """One line for the CPU and one for CUDA, in words that agree with what does serve."""
    cpu, cuda = serving("cpu"), serving("cuda")
    assert cpu.startswith("C++ (" if serves(torch.device("cpu")) else "portable torch (")
    assert cuda.startswith("CUDA" if serves(torch.device("cuda")) else "portable torch (")
    switch = f"{native.SWITCH}=0 in the environment"
    assert (switch in cpu) == (switch in cuda) == native.switched_off()
    if not torch.cuda.is_available() and not native.switched_off():
        assert cuda == "portable torch (torch sees no CUDA device)" and why_no_cuda_twins() is not None
    assert not serves(torch.device("meta"))


def test_twins_are_ops_of_torch():
    assert {"csr_matmul", "radius_counts", "radius_fill", "symmetrized_affinity"} <= set(PORTABLE)
    for name, portable in PORTABLE.items():
        op = getattr(torch.ops.mmphate_gpu, name)
        assert op.__doc__ == portable.__doc__ and portable.__name__ == name


# ---------------------------------------------------------------- memory, devices, random


def test_memory_limit(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.delenv(memory.MEMORY_LIMIT_VARIABLE, raising=False)
    assert memory.memory_limit() is None and memory.available_bytes(cpu) > 2**20
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, "1e6")
    assert memory.memory_limit() == memory.available_bytes(cpu) == 1_000_000
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, "much")
    with pytest.raises(InputError, match="MMPHATE_GPU_MEMORY_LIMIT='much' is no number of bytes"):
        memory.memory_limit()


@pytest.mark.parametrize("text", ["inf", "nan", "-5"])
def test_memory_limit_out_of_range(monkeypatch, text):
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, text)
    with pytest.raises(InputError, match=f"MMPHATE_GPU_MEMORY_LIMIT='{text}' is no number of bytes"):
        memory.memory_limit()


def test_check_fits(monkeypatch):
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, str(3 * 2**20))
    memory.check_fits("it", 3 * 2**20, torch.device("cpu"), remedy="less helps")
    words = r"it needs 4.0 MiB but cpu has 3.0 MiB available \(MMPHATE_GPU_MEMORY_LIMIT is 3.0 MiB\); less helps"
    with pytest.raises(InputError, match=words):
        memory.check_fits("it", 4 * 2**20, torch.device("cpu"), remedy="less helps")


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (5 * 2**40, "5120.0 GiB")]
)
def test_format_bytes(n, text):
    assert memory.format_bytes(n) == text


def test_resolve_device():
    assert resolve_device("cpu") == torch.device("cpu") == resolve_device(torch.device("cpu"))
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="device='gpu' is unknown"):
        resolve_device("gpu")
    with pytest.raises(InputError, match="device='meta' is not there; accepted here: 'cpu'"):
        resolve_device("meta")
    with pytest.raises(InputError, match="device='cuda:99' is not there"):
        resolve_device("cuda:99")
    with pytest.raises(InputTypeError, match="device=3 must be a string or a torch.device"):
        resolve_device(3)


def test_seeded_generator():
    draws = [torch.rand(3, generator=seeded_generator(seed)) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    fresh = [torch.rand(3, generator=seeded_generator(None)) for _ in range(2)]
    assert not torch.equal(*fresh)
    with pytest.raises(InputError, match="random_state=-1"):
        seeded_generator(-1)


def test_random_state_is_left_alone():
    """A generator of one's own: the user's global one does not move."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    kmeans(normal(50, 3), 5, generator=seeded_generator(0))
    top_eigenpairs(lambda block: block, 50, 3, generator=seeded_generator(0))
    symmetric_power(torch.eye(5, dtype=torch.float64), 3)
    assert torch.equal(before, torch.get_rng_state())


def test_small_distances_everywhere():
    """No op may fall back on the product form for distances: 40 slices 1e-12 apart keep their order."""
    steps = torch.arange(40, dtype=torch.float64)
    points = (1 + 1e-12 * steps)[None, :, None].expand(1, 40, 3).contiguous()
    width = 2 * (points[0, 1] - points[0, 0]).norm()
    counts = radius_counts(points, float(cut_distance(width, decay=2, thresh=1e-4)))[0].tolist()
    assert all(b - a in (0, 1) for a, b in pairwise(counts[:10])) and counts[0] == 6  # 3.03 bandwidths: 6 steps


@pytest.mark.parametrize("t", [*range(1, 130), 511, 512, 513, 1000, 4097])
def test_power_chain_leads_to_t(t):
    known = {1}
    for n, a in power_chain(t):
        assert {n, a} <= known
        known.add(n + a)
    assert t in known
    squaring = t.bit_length() - 1 + t.bit_count() - 1
    assert len(power_chain(t)) <= squaring
    assert t > 512 or t == 1 or max(known) == t


def test_power_chain_is_shorter_than_squaring():
    assert [len(power_chain(t)) for t in (15, 31, 43)] == [5, 7, 7]
