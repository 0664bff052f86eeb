"""The CUDA twins on a GPU against the C++ twins, bit for bit where that is promised, or the portable versions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from mmphate_gpu.linalg import kmeans
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.mds import stress
from mmphate_gpu.mds.smacof import SmacofRun, smacof
from mmphate_gpu.ops.csr import Csr, indptr_of_counts, of_dense_rows, to_torch
from mmphate_gpu.ops.csr_matmul import matmul
from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.repeat import EAGER, repeat_until
from mmphate_gpu.ops.launch.twins import CPP, CUPY, PORTABLE
from mmphate_gpu.ops.radius_affinity import SMALLEST, cut_radius
from mmphate_gpu.pipeline import interpolate

from .masked_points import PRESENT, lacking
from .waits import no_waits

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(CUPY.why_not() is not None, reason=str(CUPY.why_not())),
]

SHAPES = [*itertools.product((1, 3), (2, 31, 32, 33, 127, 129), (1, 6, 25, 130)), (2, 1025, 10), (500, 6, 10)]
POINT_SETS = ("normal", "lattice", "all equal", "huge", "tiny", "far from 0")


def points_of(name: str, *shape: int) -> torch.Tensor:
    normal = torch.randn(*shape, dtype=torch.float64, generator=seeded_generator(sum(shape)))
    return {
        "normal": normal,
        "lattice": (2 * normal).round(),
        "all equal": torch.full_like(normal, 0.1),
        "huge": 1e150 * normal,
        "tiny": 1e-150 * normal,
        "far from 0": 1e8 + normal,
    }[name]


def moved(arguments: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    return tuple(value.to(device, copy=True) if isinstance(value, torch.Tensor) else value for value in arguments)


def both(op: str, *arguments: Any) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...], bool]:
    """The results of CUDA and of the CPU, and whether the latter come from the C++ twin."""
    has_cpp = native.why_no_native() is None
    on_cpu = CPP[op] if has_cpp else PORTABLE[op]
    on_gpu = getattr(torch.ops.mmphate_gpu, op)
    results = on_gpu(*moved(arguments, "cuda")), on_cpu(*moved(arguments, "cpu"))
    ours, expected = (result if isinstance(result, tuple | list) else (result,) for result in results)
    assert all(part.device.type == "cuda" for part in ours)
    return tuple(part.cpu() for part in ours), tuple(expected), has_cpp


def assert_alike(results: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...], exact: bool) -> None:
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if exact or not a.is_floating_point():
            assert torch.equal(a, b)
        else:  # the portable version rounds differently, by a few units in the last place
            torch.testing.assert_close(a, b, rtol=1e-12 if a.dtype == torch.float64 else 1e-6, atol=0)


def reach_of(points: torch.Tensor) -> float:
    distances = torch.cdist(points[0], points[0], compute_mode="donot_use_mm_for_euclid_dist")
    return float(distances.flatten().sort().values[distances.numel() // 2])


@pytest.mark.parametrize("name", POINT_SETS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_radius(shape, name):
    points = points_of(name, *shape)
    reach = reach_of(points)
    counts, expected, has_cpp = both("radius_counts", points, reach)
    if not has_cpp:
        pytest.skip("without the C++ twin the last bit of a distance may decide a pair at the cut")
    assert_alike(counts, expected, True)
    gap = torch.arange(counts[0].numel()) % 3
    indptr = indptr_of_counts(counts[0].T.reshape(-1) + gap)
    nnz = int(indptr[-1])
    for index, value in itertools.product((torch.int32, torch.int64), (torch.float32, torch.float64)):
        arguments = (points, max(reach, 1e-300) / 2, 2.0, reach, 0, shape[1], indptr, gap)
        targets = [(torch.zeros(nnz, dtype=index), torch.zeros(nnz, dtype=value)) for _ in range(2)]
        on_gpu = moved(targets[0], "cuda")
        gap_at = torch.ops.mmphate_gpu.radius_fill(*moved(arguments, "cuda"), *on_gpu)
        expected_gap_at = CPP["radius_fill"](*arguments, *targets[1])
        assert_alike((gap_at.cpu(), *moved(on_gpu, "cpu")), (expected_gap_at, *targets[1]), True)


@pytest.mark.parametrize("name", POINT_SETS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_symmetrized_and_neighbors(shape, name):
    points = points_of(name, *shape)
    for k in {1, shape[1] // 2, shape[1] - 1} - {0}:
        assert_alike(*both("kth_neighbor_distance", points, k))
        medians, expected, has_cpp = both("median_kth_neighbor_distance", points, k)
        assert_alike(medians, expected, has_cpp)
    bandwidth = expected[0].clamp_min(torch.finfo(torch.float64).eps)[:, None].expand(shape[:2]).contiguous()
    if has_cpp:
        cut = cut_radius(5, 1e-4) * (1 + 1e-9)
        assert_alike(*both("symmetrized_affinity", points, bandwidth, 5.0, 1e-4, SMALLEST, cut, torch.float32))


@pytest.mark.parametrize("name", PRESENT)
@pytest.mark.parametrize("shape", [(3, 129, 6), (1, 1300, 10), (2, 70, 70)], ids=str)
def test_points_that_lack_features(shape, name):
    points = lacking(points_of("normal", *shape), name)
    for op, argument in (("radius_counts", 2.0), ("kth_neighbor_distance", 5), ("median_kth_neighbor_distance", 5)):
        assert_alike(*both(op, points, argument, True))
    bandwidth = torch.full(shape[:2], 1.5, dtype=torch.float64)
    cut = cut_radius(5, 1e-4) * (1 + 1e-9)
    assert_alike(*both("symmetrized_affinity", points, bandwidth, 5.0, 1e-4, SMALLEST, cut, torch.float32, True))


@pytest.mark.parametrize("width", [1, 15, 16, 17, 64, 110, 130, 300])
@pytest.mark.parametrize("interleave", [1, 6])
def test_csr_matmul(width, interleave):
    dense = torch.rand(600, 500, generator=seeded_generator(0)) * (
        torch.rand(600, 500, generator=seeded_generator(1)) < 0.1
    )
    csr = of_dense_rows([dense], 500)
    for dtype, most in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        block = torch.randn(500, width, dtype=dtype, generator=seeded_generator(2))
        parts = (csr.indptr, csr.indices, csr.values.to(dtype), block, interleave)
        (product,), (expected,), _ = both("csr_matmul", *parts)
        # About 50 products in a row, each rounded, are off by up to 100 units in the last place of the largest.
        assert float((product - expected).abs().max()) < most * float(expected.abs().max())


def test_landmark_aggregate():
    dense = torch.rand(700, 600, generator=seeded_generator(0)) * (
        torch.rand(700, 600, generator=seeded_generator(1)) < 0.1
    )
    csr = of_dense_rows([dense], 600)
    for n in (1, 7, 33, 1500):
        labels = torch.randint(0, n, (600,), generator=seeded_generator(n))
        sums, expected, _ = both("landmark_aggregate", *csr[:3], labels, n)
        # Sums are in float64 and round to float32 once, so at most the last place differs.
        assert_alike(sums, expected, False)


@pytest.mark.parametrize("n_components", [1, 2, 3, 10, 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_guttman_transform(n_components, dtype):
    points = torch.randn(777, n_components, dtype=torch.float64, generator=seeded_generator(0))
    points -= points.mean(0)
    points[5] = points[700]  # two equal points
    high = torch.randn(777, 20, dtype=torch.float64, generator=seeded_generator(1))
    distances = torch.cdist(high, high).fill_diagonal_(0).to(dtype)
    (moved_points, raw), expected, _ = both("guttman_transform", distances, points, 1e-6)
    most = 1e-5 if dtype == torch.float32 else 1e-12  # sums of 777 terms in another order
    assert float((moved_points - expected[0]).abs().max()) < most * float(expected[0].abs().max())
    assert float((raw - expected[1]).abs()) < most * float(expected[1])


def way_of(n: int, dtype: torch.dtype, max_iter: int) -> SmacofRun:
    high = torch.randn(n, 20, dtype=torch.float64, generator=seeded_generator(1))
    start = torch.randn(n, 2, dtype=torch.float64, generator=seeded_generator(0))
    distances = torch.cdist(high, high).fill_diagonal_(0).to(dtype)
    return SmacofRun(distances.cuda(), (start - start.mean(0)).cuda(), max_iter, 1e-6)


@pytest.mark.parametrize("max_iter", [5, 30, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_descent_under_a_graph_has_the_bits_of_single_sweeps(dtype, max_iter):
    for n in (37, 500):
        one_by_one, replayed = (way_of(n, dtype, max_iter) for _ in range(2))
        while not one_by_one.done:
            one_by_one.advance()
        repeat_until(replayed.done, replayed.advance)
        assert torch.equal(replayed.moved, one_by_one.moved) and torch.equal(replayed.state, one_by_one.state)
        assert replayed.n_iter <= max_iter and (replayed.n_iter == max_iter or bool(replayed.moved.isfinite().all()))
        before = replayed.moved.clone()
        replayed.advance()
        assert torch.equal(replayed.moved, before)


def test_a_capture_keeps_the_cache_of_the_allocator():
    way = way_of(200, torch.float64, 300)
    torch.empty(2**28, dtype=torch.uint8, device="cuda")  # freed at once, and cached
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    repeat_until(way.done, way.advance)
    assert cached >= 2**28 and torch.cuda.memory_reserved() - torch.cuda.memory_allocated() >= 2**28


def test_a_step_that_fails_within_a_capture_leaves_the_device_in_order():
    way, steps = way_of(200, torch.float64, 3000), 0

    def advance() -> None:
        nonlocal steps
        steps += 1
        if steps == EAGER + 3:
            raise ZeroDivisionError
        way.advance()

    before = torch.cuda.current_stream()
    with pytest.raises(ZeroDivisionError):
        repeat_until(way.done, advance)
    assert torch.cuda.current_stream() == before and not torch.cuda.is_current_stream_capturing()
    again = way_of(200, torch.float64, 3000)
    repeat_until(again.done, again.advance)
    assert bool(again.done) and bool(again.moved.isfinite().all())


def test_descent_step_reads_nothing():
    way = way_of(200, torch.float64, 3000)
    way.advance()
    torch.cuda.synchronize()
    with no_waits():
        for _ in range(12):
            way.advance()
    assert way.n_iter == 14


def test_descent_ends_where_that_of_the_cpu_does():
    way = way_of(500, torch.float64, 3000)
    ends = [smacof(way.distances.to(device), way.points.to(device)).coordinates.cpu() for device in ("cuda", "cpu")]
    on_gpu, on_cpu = (stress(way.distances.cpu(), end) for end in ends)
    assert abs(on_gpu / on_cpu - 1) < 1e-4  # `eps` allows this much, as on the CPU with and without float32


def test_same_bits_on_every_run():
    points = points_of("normal", 3, 1500, 10)
    reach = reach_of(points)
    runs = [torch.ops.mmphate_gpu.radius_counts(points.cuda(), reach) for _ in range(2)]
    assert torch.equal(*runs)
    runs = [torch.ops.mmphate_gpu.median_kth_neighbor_distance(points.cuda(), 25) for _ in range(2)]
    assert torch.equal(*runs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_same_bits_of_sums_by_the_library(dtype):
    """k-means and the interpolation use products of cuSPARSE. NVIDIA promises that each run has the same bits."""
    points = torch.randn(20_000, 100, dtype=dtype, generator=seeded_generator(0)).cuda()
    labels = torch.randint(0, 300, (20_000,), generator=seeded_generator(1)).cuda()
    runs = [kmeans._means(points, labels, points[:300].clone()) for _ in range(5)]
    assert all(torch.equal(runs[0], run) for run in runs[1:])
    indices = torch.randint(0, 20_000, (40_000, 7), generator=seeded_generator(2)).sort(1).values.int().cuda()
    values = torch.rand(indices.shape, dtype=dtype, generator=seeded_generator(3)).cuda()
    indptr = torch.arange(0, indices.numel() + 1, 7, dtype=torch.int32, device="cuda")
    rows = to_torch(Csr(indptr, indices.flatten(), values.flatten(), (40_000, 20_000)))
    places = torch.randn(20_000, 2, dtype=torch.float64, generator=seeded_generator(4)).cuda()
    runs = [interpolate(rows, places) for _ in range(5)]
    assert all(torch.equal(runs[0], run) for run in runs[1:])
    # Some of the rows have the same bits as they have in a product of all rows.
    block = places.to(dtype)
    csr = Csr(indptr, indices.flatten(), values.flatten(), (40_000, 20_000))
    whole = matmul(csr, block)
    part = Csr(indptr[:101], csr.indices[:700], csr.values[:700], (100, 20_000))
    assert torch.equal(matmul(part, block), whole[:100])
