"""The C++ twins against the portable torch versions, on every instruction set this processor has."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import mmphate_gpu.pipeline  # noqa: F401  registers every op
from mmphate_gpu.ops.csr import indptr_of_counts, of_dense_rows
from mmphate_gpu.ops.kth_neighbor_distance import SAMPLED
from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.twins import CPP, PORTABLE
from mmphate_gpu.ops.radius_affinity import SMALLEST, cut_radius

# A machine with a GPU may have pytest and little else. The other files of this folder run there.
hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies
pytestmark = pytest.mark.skipif(native.why_no_native() is not None, reason=f"no C++ twins: {native.why_no_native()}")

ALL_ISAS = ("baseline", "avx2", "avx512")


def isas() -> tuple[str, ...]:
    """The instruction sets up to the widest one this processor has; the library holds them all."""
    return ALL_ISAS[: ALL_ISAS.index(native.isa()) + 1] if native.why_no_native() is None else ()


ISAS = isas()


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(native, "isa", lambda: request.param)
    return request.param


@pytest.fixture
def each_isa(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Iterator[str]]:
    """One after the other, where what they are compared with is dear."""

    def names() -> Iterator[str]:
        for name in ISAS:
            monkeypatch.setattr(native, "isa", lambda name=name: name)
            yield name

    return names


def on_every_isa(monkeypatch: pytest.MonkeyPatch, run: Callable[[], tuple[torch.Tensor, ...]]) -> None:
    """``run`` gives the same bits whatever serves, with one thread and with two, and again."""
    threads, found = torch.get_num_threads(), []
    try:
        for name, n_threads in [*itertools.product(ISAS, (1, 2)), (ISAS[-1], 2)]:
            monkeypatch.setattr(native, "isa", lambda name=name: name)
            torch.set_num_threads(n_threads)
            found.append(run())
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert_same(found[0], other)


def with_one_and_two_threads(run: Callable[[], tuple[torch.Tensor, ...]]) -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 2):
            torch.set_num_threads(n_threads)
            found.append(run())
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert_same(found[0], other)


def assert_same(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    """Equal in type, shape and every bit."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


# ---------------------------------------------------------------- points

# Around the lanes of a register, the rows done at once (8), the least set with a screen (32), and beyond the set size
# that is shared between threads (512).
POINTS = (1, 2, 31, 32, 33, 127, 129, 1025)
FEATURES = (1, 2, 6, 10, 25, 100, 130)
SHAPES = [
    *((1, n, p) for n in POINTS[:-1] for p in FEATURES),
    *((1, POINTS[-1], p) for p in (1, 10, 130)),
    *((3, n, p) for n, p in itertools.product(POINTS[:-1], (2, 25))),
    *((200, n, p) for n, p in itertools.product((2, 5, 32), (1, 10))),
    (2, 520, 6),
]
# What the kinds other than scattered points are tried on.
FEW_SHAPES = [(1, 2, 3), (3, 31, 6), (1, 33, 1), (2, 129, 25), (40, 9, 2), (1, 530, 26)]


def _normal(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(math.prod(shape)).normal(size=shape))


def _lattice(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(math.prod(shape)).integers(0, 3, shape).astype(float))


def _outlier(*shape: int) -> torch.Tensor:
    points = _normal(*shape)
    points[:, shape[1] // 2] += 1e6
    return points


# Exact: sums of whole squares and their products with powers of two. There the twins agree to the last bit, and
# distances tie exactly.
EXACT_KINDS: dict[str, Callable[..., torch.Tensor]] = {
    "lattice": _lattice,
    "huge lattice": lambda *shape: 2.0**490 * _lattice(*shape),
    "tiny lattice": lambda *shape: 2.0**-490 * _lattice(*shape),
    "far lattice": lambda *shape: 2.0**40 + _lattice(*shape),
    "zeros": lambda *shape: torch.zeros(shape, dtype=torch.float64),
    "all equal": lambda *shape: torch.full(shape, 0.1, dtype=torch.float64),
}
KINDS: dict[str, Callable[..., torch.Tensor]] = {
    "duplicates": lambda *shape: _normal(*shape)[:, torch.arange(shape[1]) % max(1, shape[1] // 3)],
    "some zero vectors": lambda *shape: _normal(*shape) * (torch.arange(shape[1]) % 2)[:, None],
    "huge": lambda *shape: 1e150 * _normal(*shape),
    "tiny": lambda *shape: 1e-150 * _normal(*shape),
    "far and close": lambda *shape: 1e4 + 1e-6 * _normal(*shape),
    "farther and closer": lambda *shape: 1e8 + 1e-6 * _normal(*shape),
    "an outlier": _outlier,
    "two groups": lambda *shape: _normal(*shape) * 1e-3 + (torch.arange(shape[1]) % 2 * 1e3)[:, None],
    **EXACT_KINDS,
}
# Distances of both twins: sums of squares in two orders, and a root. Measured: 2.3e-16.
DISTANCE = 2e-15


def stacks() -> Iterator[torch.Tensor]:
    yield from (_normal(*shape) for shape in SHAPES)


def stacks_of(kind: str) -> Iterator[torch.Tensor]:
    yield from (KINDS[kind](*shape) for shape in FEW_SHAPES)


def all_distances(points: torch.Tensor) -> torch.Tensor:
    """The different distances of the first set, ascending."""
    return torch.unique(torch.cdist(points[0], points[0], compute_mode="donot_use_mm_for_euclid_dist"))


def reaches(points: torch.Tensor) -> list[float]:
    """None, below the least, some, all; never so near a distance that rounding would decide."""
    distances = all_distances(points)
    if distances.numel() == 1:
        return [0.0, 1e-160, 1.0]
    gaps = torch.nonzero(distances[1:] > distances[:-1] * (1 + 1e-9)).flatten()
    middle = (distances[gaps] / 2 + distances[gaps + 1] / 2).tolist()
    return [0.0, middle[0], middle[len(middle) // 10], middle[len(middle) // 2], 1.1 * float(distances[-1])]


def ties(points: torch.Tensor) -> list[float]:
    """Exactly on a distance, and one float64 short of it."""
    distances = all_distances(points)
    some = distances[[0, distances.numel() // 2, -1]].tolist()
    return [reach for distance in some for reach in (distance, np.nextafter(distance, 0))]


@pytest.fixture(params=["normal", *KINDS])
def points_of(request: pytest.FixtureRequest) -> list[torch.Tensor]:
    return list(stacks() if request.param == "normal" else stacks_of(request.param))


# ---------------------------------------------------------------- counts and entries within a radius


def test_radius_counts(points_of, each_isa):
    for points in points_of:
        for reach in reaches(points):
            wanted = PORTABLE["radius_counts"](points, reach)
            for _ in each_isa():
                assert_same((CPP["radius_counts"](points, reach),), (wanted,))


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_radius_counts_at_a_tie(kind, each_isa):
    """A distance that is the reach is within it; one float64 short it is not."""
    for points in stacks_of(kind):
        for reach in ties(points):
            wanted = PORTABLE["radius_counts"](points, reach)
            for _ in each_isa():
                assert_same((CPP["radius_counts"](points, reach),), (wanted,))


def test_radius_counts_of_a_view():
    points = _normal(40, 3, 5).transpose(0, 1)
    assert_same((CPP["radius_counts"](points, 2.0),), (CPP["radius_counts"](points.contiguous(), 2.0),))


def filled(
    fill: Callable[..., torch.Tensor],
    points: torch.Tensor,
    reach: float,
    *,
    decay: float = 2.0,
    rows: tuple[int, int] | None = None,
    index: torch.dtype = torch.int32,
    value: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, ...]:
    """gap_at, indices and values, with gaps of 0 to 3 entries; -1 and NaN where nothing was written."""
    first, last = rows or (0, points.shape[1])
    counts = PORTABLE["radius_counts"](points, reach)[:, first:last].T.reshape(-1)
    gap = torch.arange(counts.numel()) % 4
    indptr = indptr_of_counts(counts + gap)
    indices, values = torch.full((int(indptr[-1]),), -1, dtype=index), torch.full((int(indptr[-1]),), math.nan)
    values = values.to(value)
    bandwidth = reach / 2 or 1.0
    gap_at = fill(points, bandwidth, decay, reach, first, last, indptr, gap, indices, values)
    return gap_at, indices, values


def assert_filled_alike(isas: Iterator[str], points: torch.Tensor, reach: float, **options) -> None:
    wanted = filled(PORTABLE["radius_fill"], points, reach, **options)
    free = wanted[1] == -1
    # Float64: exp(-u^decay), u up to 2, shows decay u^decay times the error of the distance. Measured: 8e-15 for decay
    # 5, 2e-15 for 2. Float32: the portable version rounds the exponent too. Measured: 6e-8 of 1.
    tolerance = {"rtol": 1e-13, "atol": 0} if wanted[2].dtype == torch.float64 else {"rtol": 0, "atol": 1.2e-7}
    for _ in isas:
        found = filled(CPP["radius_fill"], points, reach, **options)
        assert_same(found[:2], wanted[:2])
        assert bool(found[2][free].isnan().all())
        torch.testing.assert_close(found[2][~free], wanted[2][~free], **tolerance)


def _walk(n: int, p: int) -> torch.Tensor:
    """A walk: the neighbours of a point are those before and after it, and where the walk comes near again."""
    return _normal(1, n, p).cumsum(1)


def test_radius_fill_of_a_walk(each_isa):
    for points in (_walk(130, 2), _walk(1100, 3), _walk(1100, 10)):
        for reach in reaches(points)[1:4]:
            for decay in (1.0, 2.0, 5.0):
                assert_filled_alike(each_isa(), points, reach, decay=decay)


def test_radius_fill(points_of, each_isa):
    for points in points_of[::2] + points_of[-1:]:
        for reach in reaches(points)[1:4:2]:
            assert_filled_alike(each_isa(), points, reach)


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_radius_fill_at_a_tie(kind, each_isa):
    for points in stacks_of(kind):
        for reach in ties(points)[2:4]:
            assert_filled_alike(each_isa(), points, reach)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("value", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("decay", [2.0, 5.0, 0.7])
def test_radius_fill_of_every_storage(decay, value, index, each_isa):
    for points in (_normal(3, 33, 6), _normal(1, 530, 10), _lattice(40, 9, 2)):
        assert_filled_alike(each_isa(), points, reaches(points)[3], decay=decay, value=value, index=index)


@pytest.mark.parametrize("rows", [(0, 1), (0, 8), (5, 6), (7, 40), (32, 33), (20, 20), (0, 33)], ids=str)
def test_radius_fill_of_some_rows(rows, each_isa):
    for points in (_normal(3, 33, 6), _normal(2, 530, 10)):
        own = tuple(min(row, points.shape[1]) for row in rows)
        assert_filled_alike(each_isa(), points, reaches(points)[3], rows=own)


@pytest.mark.parametrize("n", [33, 600])
@pytest.mark.parametrize("off", [-1, 1])
def test_radius_fill_refuses_rows_counted_otherwise(n, off, isa):
    """Nothing is written where the offsets do not leave the room the entries need."""
    points, reach = _normal(1, n, 6), 2.0
    counts = CPP["radius_counts"](points, reach).flatten()
    counts[n // 2] += off
    indptr = indptr_of_counts(counts)
    indices, values = torch.zeros(int(indptr[-1]), dtype=torch.int32), torch.zeros(int(indptr[-1]))
    with pytest.raises(native.NativeError, match="radius_fill: status 3"):
        CPP["radius_fill"](points, 1.0, 2.0, reach, 0, n, indptr, torch.zeros_like(counts), indices, values)


def symmetrized(function: Callable[..., tuple], points: torch.Tensor, **options) -> tuple[torch.Tensor, ...]:
    settings = {"decay": 5.0, "thresh": 1e-4, "dtype": torch.float64} | options
    scale = float(all_distances(points)[-1]) or 1.0
    rng = np.random.default_rng(points.shape[1])
    bandwidth = scale * torch.from_numpy(rng.uniform(0.05, 0.5, points.shape[:2]))
    cut = cut_radius(settings["decay"], settings["thresh"]) * (1 + 1e-9)
    return function(points, bandwidth, settings["decay"], settings["thresh"], SMALLEST, cut, settings["dtype"])


def assert_symmetrized_alike(isas: Iterator[str], points: torch.Tensor, **options) -> None:
    wanted = symmetrized(PORTABLE["symmetrized_affinity"], points, **options)
    # Down to the threshold, (d / sigma)^decay is at most 88, of which the exponential shows the rounding. Measured:
    # 2.9e-14 (decay 40); float32: none.
    tolerance = 1e-12 if wanted[2].dtype == torch.float64 else 2e-7
    for _ in isas:
        found = symmetrized(CPP["symmetrized_affinity"], points, **options)
        assert_same(found[:2], wanted[:2])
        torch.testing.assert_close(found[2], wanted[2], rtol=tolerance, atol=0)


def test_symmetrized_affinity(points_of, each_isa):
    for points in points_of[::3] + points_of[-1:]:
        assert_symmetrized_alike(each_isa(), points)


@pytest.mark.parametrize("decay", [1.0, 2.0, 5.0, 0.7, 40.0])
@pytest.mark.parametrize("thresh", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_symmetrized_affinity_of_every_option(decay, thresh, dtype, each_isa):
    for points in (_normal(30, 9, 4), _normal(1, 129, 6)):
        assert_symmetrized_alike(each_isa(), points, decay=decay, thresh=thresh, dtype=dtype)


def test_affinities_have_the_same_bits_everywhere(monkeypatch):
    """No fused operation, no sum in another order: the same entries on every instruction set and number of threads."""
    for points in (
        _normal(3, 33, 6),
        _normal(1, 1025, 10),
        _walk(600, 6),
        _lattice(40, 9, 2),
        KINDS["farther and closer"](2, 129, 25),
    ):
        for reach in reaches(points)[1:4]:
            on_every_isa(monkeypatch, lambda points=points, reach=reach: (CPP["radius_counts"](points, reach),))
            for value, decay in (
                (torch.float32, 2.0),
                (torch.float64, 2.0),
                (torch.float64, 5.0),
                (torch.float64, 0.7),
            ):

                def run(points=points, reach=reach, value=value, decay=decay):
                    found = filled(CPP["radius_fill"], points, reach, value=value, decay=decay)
                    return *found[:2], found[2].nan_to_num(-1)

                on_every_isa(monkeypatch, run)
        for decay in (5.0, 2.5):

            def run_symmetrized(points=points, decay=decay):
                return symmetrized(CPP["symmetrized_affinity"], points, decay=decay)

            on_every_isa(monkeypatch, run_symmetrized)


# ---------------------------------------------------------------- k-th neighbours


def ks(n: int) -> list[int]:
    return sorted({k for k in (1, 2, n // 2, n - 1) if 1 <= k < n})


def test_kth_neighbor_distance(points_of, each_isa):
    for points in points_of:
        for k in ks(points.shape[1]):
            wanted = PORTABLE["kth_neighbor_distance"](points, k)
            for _ in each_isa():
                found = CPP["kth_neighbor_distance"](points, k)
                torch.testing.assert_close(found, wanted, rtol=DISTANCE, atol=0)


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_kth_neighbor_distance_of_ties(kind, each_isa):
    for points in stacks_of(kind):
        for k in ks(points.shape[1]):
            wanted = PORTABLE["kth_neighbor_distance"](points, k)
            for _ in each_isa():
                assert_same((CPP["kth_neighbor_distance"](points, k),), (wanted,))


def _misled(*shape: int) -> torch.Tensor:
    """The points that a sample of 4 or 8 takes lie close together, all others far apart."""
    points, n = 10 * _normal(*shape), shape[1]
    for sampled in (4, 8):
        rows = [(2 * a + 1) * n // (2 * sampled) for a in range(sampled)]
        points[:, rows] = 100 + 1e-3 * points[:, rows]
    return points


MEDIAN_KINDS: dict[str, Callable[..., torch.Tensor]] = {
    "normal": _normal,
    "five letters": lambda *shape: torch.from_numpy(
        np.random.default_rng(shape[1]).integers(0, 5, shape).astype(float)
    ),
    "five values": lambda *shape: torch.from_numpy(np.random.default_rng(shape[1]).integers(0, 5, shape).astype(float))[
        ..., :1
    ].expand(shape),
    "two scales": lambda *shape: _normal(*shape) * torch.where(torch.arange(shape[1]) % 2 == 0, 1e-6, 1e3)[:, None],
    "two scales in halves": lambda *shape: (
        _normal(*shape) * torch.where(torch.arange(shape[1]) < shape[1] // 2, 1e-6, 1e3)[:, None]
    ),
    "misled": _misled,
    **{name: KINDS[name] for name in ("all equal", "duplicates", "huge", "tiny", "farther and closer", "an outlier")},
}


@pytest.fixture(params=MEDIAN_KINDS)
def median_kind(request: pytest.FixtureRequest) -> Callable[..., torch.Tensor]:
    return MEDIAN_KINDS[request.param]


def assert_median(isas: Iterator[str], points: torch.Tensor, k: int) -> None:
    wanted, n = PORTABLE["median_kth_neighbor_distance"](points, k), points.shape[1]
    for _ in isas:
        found = CPP["median_kth_neighbor_distance"](points, k)
        torch.testing.assert_close(found, wanted, rtol=DISTANCE, atol=0)
        # To the last bit that of all distances, which the bracket spares.
        every = CPP["kth_neighbor_distance"](points, k).sort(-1).values
        assert torch.equal(found, (every[:, (n - 1) // 2] + every[:, n // 2]) / 2)


@pytest.mark.parametrize("n", [1025, 1100])
def test_median_within_a_bracket(median_kind, n, each_isa):
    assert n > 4 * SAMPLED
    points = median_kind(1, n, 6)
    for k in (1, 6) if n % 2 else (5, n - 1):
        assert_median(each_isa(), points, k)


@pytest.mark.parametrize("sampled", [2, 4, 8])
def test_median_by_a_small_sample(median_kind, sampled, each_isa, monkeypatch):
    """A bracket that is too wide, too narrow, or beside the median: what it decides is the same."""
    monkeypatch.setattr("mmphate_gpu.ops.kth_neighbor_distance.SAMPLED", sampled)
    for n in (4 * sampled, 4 * sampled + 1, 33, 34, 127, 200):
        points = median_kind(2, n, 3)
        for k in ks(n):
            assert_median(each_isa(), points, k)


def test_median_of_few(each_isa):
    for n in (2, 3, 31, 32):
        for k in ks(n):
            assert_median(each_isa(), _normal(5, n, 4), k)


def test_kth_and_median_have_the_same_bits_everywhere(monkeypatch):
    for points in (_normal(3, 33, 6), _normal(1, 1100, 10), _lattice(40, 9, 2), _misled(1, 1025, 3)):
        for k in (1, 5):
            on_every_isa(
                monkeypatch,
                lambda points=points, k=k: (
                    CPP["kth_neighbor_distance"](points, k),
                    CPP["median_kth_neighbor_distance"](points, k),
                ),
            )


# ---------------------------------------------------------------- sparse products

WIDTHS = (1, 3, 15, 16, 17, 110, 111, 130)
INTERLEAVES = (1, 3, 7)


def sparse(n_rows: int, n_columns: int, *, value: torch.dtype, index: torch.dtype, density: float = 0.2):
    """CSR parts with empty rows (the first, the last, every seventh), and one row that is full."""
    rng = np.random.default_rng(n_rows + n_columns)
    mask = rng.random((n_rows, n_columns)) < density
    mask[::7] = mask[-1:] = False
    mask[n_rows // 2] = True
    dense = np.where(mask, rng.uniform(0.1, 1, mask.shape), 0)
    csr = of_dense_rows([torch.from_numpy(dense).to(value)], n_columns)
    return csr.indptr.to(index), csr.indices.to(index), csr.values


def block_of(n: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    return _normal(n, width).to(dtype)


STORAGE = list(itertools.product((torch.int32, torch.int64), (torch.float32, torch.float64)))
MATRICES = [(90, 90), (1, 40), (40, 1), (33, 700), (700, 33), (64, 64), (65, 3)]


@pytest.mark.parametrize("block_dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("index", "value"), STORAGE, ids=str)
def test_csr_matmul(index, value, block_dtype, isa):
    for shape in MATRICES:
        parts = sparse(*shape, value=value, index=index)
        for width in WIDTHS:
            block = block_of(shape[1], width, block_dtype)
            found = CPP["csr_matmul"](*parts, block, 1)
            wanted = PORTABLE["csr_matmul"](*parts[:2], parts[2].double(), block.double(), 1)
            assert found.dtype == block_dtype and found.shape == (shape[0], width)
            # Sums of up to 700 products of standard normal numbers with numbers below 1, by a float64 sum. Measured:
            # 3e-14 and 3.3e-5.
            tolerance = 1e-12 if block_dtype == torch.float64 else 1e-4
            torch.testing.assert_close(found.double(), wanted, rtol=0, atol=tolerance)
            for interleave in INTERLEAVES[1:]:
                assert torch.equal(CPP["csr_matmul"](*parts, block, interleave), found)


@pytest.mark.parametrize(("n_rows", "n_columns", "width"), [(9, 3000, 130), (200, 70_000, 16), (2, 150_000, 1)])
def test_csr_matmul_in_bands(n_rows, n_columns, width, isa):
    """More columns than the second-level cache holds rows of the block: they come in bands."""
    parts = sparse(n_rows, n_columns, value=torch.float64, index=torch.int32, density=0.01)
    block = block_of(n_columns, width, torch.float64)
    found = CPP["csr_matmul"](*parts, block, 1)
    # Sums of up to 150,000 products. Measured: 4e-13.
    torch.testing.assert_close(found, PORTABLE["csr_matmul"](*parts, block, 1), rtol=0, atol=5e-12)
    for interleave in INTERLEAVES[1:]:
        assert torch.equal(CPP["csr_matmul"](*parts, block, interleave), found)


@pytest.mark.parametrize("width", [1, 3, 17, 130])
def test_csr_matmul_without_entries(width, isa):
    """No entries, no rows, no columns: zeros of the right shape."""
    for n_rows, n_columns in ((5, 7), (0, 7), (5, 0)):
        for index in (torch.int32, torch.int64):
            parts = (torch.zeros(n_rows + 1, dtype=index), torch.zeros(0, dtype=index), torch.zeros(0))
            for dtype in (torch.float32, torch.float64):
                block = torch.full((n_columns, width), math.nan, dtype=dtype)
                for interleave in INTERLEAVES:
                    found = CPP["csr_matmul"](*parts, block, interleave)
                    assert found.dtype == dtype and torch.equal(found, torch.zeros(n_rows, width, dtype=dtype))


def test_csr_matmul_reads_no_other_row(isa):
    """Vectors reach past the end of a row of the block: what stands there is let go, NaN too."""
    n = 40
    even = torch.arange(0, n, 2, dtype=torch.int32)
    parts = torch.tensor([0, n // 2], dtype=torch.int32), even, torch.ones(n // 2, dtype=torch.float64)
    for width in WIDTHS:
        block = block_of(n, width, torch.float64)
        clean = CPP["csr_matmul"](*parts, block, 1)
        block[1::2] = math.nan
        assert torch.equal(CPP["csr_matmul"](*parts, block, 1), clean)


@pytest.mark.parametrize("density", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("n_columns", [70, 1500])
def test_csr_matmul_of_rows_that_go_together(density, n_columns, isa):
    """Rows with like columns are multiplied side by side, others one by one, as all are with a class for every row."""
    n_rows = 90
    indptr, indices, values = sparse(n_rows, n_columns, value=torch.float32, index=torch.int32, density=density)
    for width, dtype in itertools.product((17, 110, 111), (torch.float32, torch.float64)):
        block = block_of(n_columns, width, dtype)
        alone = CPP["csr_matmul"](indptr, indices, values, block, n_rows)
        assert torch.equal(CPP["csr_matmul"](indptr, indices, values, block, 1), alone)
        assert torch.equal(CPP["csr_matmul"](indptr, indices, values, block, 3), alone)
        # An entry that is not there multiplies nothing, infinity and NaN neither.
        block[n_columns // 2], block[-1, -1] = math.inf, math.nan
        wanted = PORTABLE["csr_matmul"](indptr, indices, values, block, 1)
        found = CPP["csr_matmul"](indptr, indices, values, block, 1)
        assert torch.equal(found.isnan(), wanted.isnan()) and torch.equal(found.isinf(), wanted.isinf())
        assert bool(found[::7].eq(0).all())


def test_csr_matmul_of_a_column_named_again_and_again(isa):
    """More entries in a row than it has columns, beside rows that are alike and in one by itself."""
    n_rows, n_entries = 17, 500
    indptr = torch.arange(n_rows + 1) * n_entries
    indices, values = torch.zeros(n_rows * n_entries, dtype=torch.int64), torch.ones(n_rows * n_entries)
    for width in (5, 40):
        found = CPP["csr_matmul"](indptr, indices, values, torch.ones(1, width, dtype=torch.float64), 1)
        assert bool((found == n_entries).all())


def test_csr_matmul_of_views(isa):
    parts = sparse(90, 90, value=torch.float64, index=torch.int32)
    block = block_of(40, 90, torch.float64).T
    assert torch.equal(CPP["csr_matmul"](*parts, block, 1), CPP["csr_matmul"](*parts, block.contiguous(), 1))


def test_csr_matmul_has_the_same_bits_with_more_threads(isa):
    parts = sparse(700, 3000, value=torch.float32, index=torch.int32)
    for width, dtype in itertools.product((1, 17, 110), (torch.float32, torch.float64)):
        block = block_of(3000, width, dtype)
        with_one_and_two_threads(lambda block=block: (CPP["csr_matmul"](*parts, block, 3),))


# ---------------------------------------------------------------- sums by label


@pytest.mark.parametrize(("index", "value"), STORAGE, ids=str)
@pytest.mark.parametrize("label", [torch.int32, torch.int64], ids=str)
def test_landmark_aggregate(index, value, label, monkeypatch):
    for n_rows, n_columns in MATRICES:
        parts = sparse(n_rows, n_columns, value=value, index=index)
        rng = np.random.default_rng(0)
        for n in (1, 9, 300):
            labels = torch.from_numpy(rng.integers(0, max(1, n - 1), n_columns)).to(label)  # one does not occur
            wanted = PORTABLE["landmark_aggregate"](*parts, labels, n)
            # The same sums in the same order: to the last bit.
            assert_same(CPP["landmark_aggregate"](*parts, labels, n), wanted)
            on_every_isa(monkeypatch, lambda p=parts, one=labels, n=n: CPP["landmark_aggregate"](*p, one, n))


def test_landmark_aggregate_leaves_out_zeros(isa):
    """Stored zeros make no entry, alone or before an entry of the same label."""
    indptr = torch.tensor([0, 2, 4, 4, 7], dtype=torch.int32)
    indices = torch.tensor([0, 1, 0, 2, 0, 1, 2], dtype=torch.int32)
    values = torch.tensor([0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 3.0])
    labels = torch.tensor([4, 4, 1])
    found = CPP["landmark_aggregate"](indptr, indices, values, labels, 6)
    assert [part.tolist() for part in found] == [[0, 1, 1, 1, 3], [4, 1, 4], [2.0, 3.0, 1.0]]
    assert_same(found, PORTABLE["landmark_aggregate"](indptr, indices, values, labels, 6))


# ---------------------------------------------------------------- SMACOF sweeps

LANDMARKS = (1, 2, 3, 5, 31, 32, 33, 70, 127, 300)


def sweep_of(n: int, n_components: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Distances that no points in a plane have, points with duplicates, and the share up to which two count as one."""
    distances = torch.cdist(_normal(n, 7), _normal(n, 7), compute_mode="donot_use_mm_for_euclid_dist").to(dtype)
    points = 2 * _normal(n, n_components)
    points[n // 2 :: 5] = points[0].clone()
    points -= points.mean(0)
    return distances, points, 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n_components", range(1, 13))
def test_guttman_transform(n_components, dtype, isa):
    for n in LANDMARKS:
        arguments = sweep_of(n, n_components, dtype)
        before = arguments[1].clone()
        moved, raw = CPP["guttman_transform"](*arguments)
        wanted, wanted_raw = PORTABLE["guttman_transform"](arguments[0].double(), *arguments[1:])
        assert moved.dtype == raw.dtype == torch.float64 and torch.equal(arguments[1], before)
        # A coordinate's rounding, as D / d magnifies it: a thousandfold where two points lie next to one another.
        between = torch.cdist(arguments[1], arguments[1], compute_mode="donot_use_mm_for_euclid_dist")
        together = arguments[2] * arguments[1].abs().max()
        ratios = torch.where(between > together, arguments[0] / between, 0).sum(1).max()
        scale = torch.finfo(dtype).eps * float(arguments[1].abs().max()) * max(1.0, float(ratios) / n)
        # Measured: 2.9 times this, and 22 roundings of the stress.
        worst, share = float((moved - wanted).abs().max()), abs(float(raw / wanted_raw) - 1) if n > 1 else 0
        assert worst <= 10 * scale and share <= 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("n_components", [1, 2, 3, 7])
def test_guttman_transform_of_points_together(n_components, isa):
    """All points in one place: nothing divided by 0, everything stays at the centre."""
    for n, dtype in itertools.product((2, 33, 127), (torch.float32, torch.float64)):
        distances = sweep_of(n, n_components, dtype)[0]
        for share in (0.0, 1e-8):
            points = torch.zeros(n, n_components).double()
            moved, raw = CPP["guttman_transform"](distances, points, share)
            assert bool((moved == 0).all())
            assert float(raw) == pytest.approx(float(distances.double().square().sum()), rel=1e-6)


def test_guttman_transform_by_hand(isa):
    """Two points 2 apart that should be 6 apart: they move to +-3, and the stress is twice 4^2."""
    distances = torch.tensor([[0.0, 6.0], [6.0, 0.0]], dtype=torch.float64)
    points = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    moved, raw = CPP["guttman_transform"](distances, points, 1e-8)
    assert moved.tolist() == [[3.0], [-3.0]] and float(raw) == 32


@pytest.mark.parametrize("n_components", [1, 2, 3, 4, 5, 12])
def test_guttman_transform_has_the_same_bits_with_more_threads(n_components, isa):
    for n, dtype in itertools.product((33, 301), (torch.float32, torch.float64)):
        arguments = sweep_of(n, n_components, dtype)
        with_one_and_two_threads(lambda arguments=arguments: CPP["guttman_transform"](*arguments))


# ---------------------------------------------------------------- nearest centres


def whole(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Whole numbers: every product and sum is exact in float32, and many distances are equal."""
    return torch.randint(-6, 7, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# Less than a tile, a tile, a block and beyond; within a panel, a panel, and beyond; one feature and many.
NEAREST_SIZES = [(1, 1, 1), (3, 2, 5), (8, 48, 1), (127, 47, 3), (128, 49, 7), (129, 24, 100), (300, 150, 17)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "k", "n_features"), NEAREST_SIZES)
def test_assign_nearest_of_whole_numbers(n, k, n_features, dtype, isa):
    """The first of the nearest centres, and its squared distance to the last bit."""
    points, centers = whole(2, n, n_features, seed=0, dtype=dtype), whole(2, k, n_features, seed=1, dtype=dtype)
    squares = (points[:, :, None] - centers[:, None]).square().sum(-1)
    labels, squared = CPP["assign_nearest"](points, centers)
    assert torch.equal(squared, squares.amin(-1))
    first = torch.from_numpy(squares.numpy().argmin(-1))  # NumPy's is the first of equals by contract
    assert torch.equal(labels, first)
    assert_same((labels[1], squared[1]), CPP["assign_nearest"](points[1], centers[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_assign_nearest_against_float64(dtype, isa):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(700, 100, generator=generator, dtype=torch.float64).to(dtype)
    centers = points[::7] + 0.1 * torch.randn(100, 100, generator=generator, dtype=torch.float64).to(dtype)
    exact = torch.cdist(points.double(), centers.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    labels, squared = CPP["assign_nearest"](points, centers)
    # The rounding of the norms that are subtracted, 400 together at most. Measured 1.9e-7 of them in float32 and 6e-16
    # in float64, on every instruction set; a label is wrong only within that.
    rounding = 400 * {torch.float32: 2e-6, torch.float64: 4e-15}[dtype]
    own = exact.gather(1, labels[:, None])[:, 0]
    assert float((squared.double() - own).abs().max()) < rounding
    assert float((own - exact.amin(1)).max()) < 2 * rounding


NO_ENTRIES = torch.zeros(0, dtype=torch.int32), torch.zeros(0)
MISREAD = {
    "points of another device": lambda x: CPP["radius_counts"](x.to("meta"), 1.0),
    "float32 where doubles are read": lambda x: CPP["kth_neighbor_distance"](x.float(), 1),
    "bandwidths of another device": lambda x: CPP["symmetrized_affinity"](
        x, torch.ones(2, 9, dtype=torch.float64, device="meta"), 2.0, 0.0, 0.0, 1.0, torch.float64
    ),
    "int32 offsets beside int64 indices": lambda x: CPP["csr_matmul"](
        torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0]), torch.ones(1), x[0], 1
    ),
    "a place for results that is not contiguous": lambda x: CPP["radius_fill"](
        x, 1.0, 2.0, 0.0, 0, 9, torch.zeros(19, dtype=torch.int64), torch.zeros(36, dtype=torch.int64)[::2], *NO_ENTRIES
    ),
    "half precision": lambda x: CPP["assign_nearest"](x.half(), x.half()),
    "points and centers of two types": lambda x: CPP["assign_nearest"](x, x.float()),
    "distances in half precision": lambda x: CPP["guttman_transform"](x[0].half() @ x[0].half().T, x[0], 0.0),
}


@pytest.mark.parametrize("call", MISREAD.values(), ids=MISREAD)
def test_memory_that_cpp_would_misread_is_refused(call):
    with pytest.raises(native.NativeError, match=r"tensor \d is torch.*; accepted: torch.* on the CPU, contiguous"):
        call(_normal(2, 9, 3))


def test_assign_nearest_has_the_same_bits_with_more_threads(isa):
    points, centers = sweep_of(301, 20, torch.float32)[1].float(), sweep_of(60, 20, torch.float32)[1].float()
    with_one_and_two_threads(lambda: CPP["assign_nearest"](points, centers))
    # Several sets are dealt to the threads whole.
    stack = points.view(7, 43, 20), centers.view(3, 20, 20)[[0, 1, 2, 0, 1, 2, 0]]
    with_one_and_two_threads(lambda: CPP["assign_nearest"](*stack))
    assert_same(CPP["assign_nearest"](points.T.contiguous().T, centers), CPP["assign_nearest"](points, centers))


# ---------------------------------------------------------------- any small input

few = settings(derandomize=True, max_examples=60, deadline=None)


@st.composite
def whole_points(draw: st.DrawFn) -> torch.Tensor:
    """A small stack of whole numbers at some scale: every sum is exact, ties abound."""
    n_sets, n, p = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    span = draw(st.integers(0, 4))
    values = draw(st.lists(st.integers(-span, span), min_size=n_sets * n * p, max_size=n_sets * n * p))
    scale = 2.0 ** draw(st.integers(-300, 300))
    return scale * torch.tensor(values, dtype=torch.float64).view(n_sets, n, p)


@few
@given(points=whole_points(), square=st.integers(0, 90), data=st.data())
def test_any_whole_points(points, square, data):
    scale = float(points.abs()[points != 0].min()) if bool((points != 0).any()) else 1.0
    reach = scale * math.sqrt(square)
    assert_same((CPP["radius_counts"](points, reach),), (PORTABLE["radius_counts"](points, reach),))
    first = data.draw(st.integers(0, points.shape[1]))
    last = data.draw(st.integers(first, points.shape[1]))
    assert_filled_alike(iter(ISAS[:1]), points, reach, rows=(first, last))
    assert_symmetrized_alike(iter(ISAS[:1]), points)
    if points.shape[1] > 1:
        k = data.draw(st.integers(1, points.shape[1] - 1))
        for name in ("kth_neighbor_distance", "median_kth_neighbor_distance"):
            assert_same((CPP[name](points, k),), (PORTABLE[name](points, k),))


@st.composite
def whole_matrix(draw: st.DrawFn) -> np.ndarray:
    n_rows, n_columns = draw(st.integers(1, 20)), draw(st.integers(1, 30))
    entries = st.sampled_from([0, 0, 0, 1, 2, 5])
    values = draw(st.lists(entries, min_size=n_rows * n_columns, max_size=n_rows * n_columns))
    return np.array(values, dtype=float).reshape(n_rows, n_columns)


@few
@given(dense=whole_matrix(), width=st.integers(1, 20), interleave=st.integers(1, 25), seed=st.integers(0, 5))
def test_any_whole_matrix(dense, width, interleave, seed):
    rng = np.random.default_rng(seed)
    csr = of_dense_rows([torch.from_numpy(dense)], dense.shape[1])
    block = rng.integers(-9, 9, (dense.shape[1], width)).astype(float)
    found = CPP["csr_matmul"](*csr[:3], torch.from_numpy(block), interleave)
    np.testing.assert_array_equal(found.numpy(), dense @ block)
    labels = rng.integers(0, 4, dense.shape[1])
    indptr, indices, values = CPP["landmark_aggregate"](*csr[:3], torch.from_numpy(labels), 4)
    again = np.zeros((len(dense), 4))
    again[np.repeat(np.arange(len(dense)), np.diff(indptr.numpy())), indices.numpy()] = values.numpy()
    np.testing.assert_array_equal(again, dense @ np.eye(4)[labels])


# ---------------------------------------------------------------- the library itself


@pytest.fixture
def afresh() -> Iterator[None]:
    """What is known about the library is forgotten, before and after."""
    native.why_no_native.cache_clear(), native._library.cache_clear()
    yield
    native.why_no_native.cache_clear(), native._library.cache_clear()


def test_switched_off(afresh, monkeypatch):
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.why_no_native() == "MMPHATE_GPU_NATIVE=0 in the environment"


def test_not_built(afresh, monkeypatch):
    monkeypatch.setattr(native, "_library_path", lambda: None)
    assert "libmmphate_cpu.so was not built" in str(native.why_no_native())


def test_built_from_other_sources(afresh, monkeypatch):
    monkeypatch.setattr(native, "_sources_stamp", lambda: "0" * 64)
    with pytest.warns(RuntimeWarning, match="the portable torch versions serve: .* built from other sources"):
        assert "build it again" in str(native.why_no_native())


def test_installed_without_sources(afresh, monkeypatch):
    """Nothing to compare with: a wheel holds the library alone."""
    monkeypatch.setattr(native, "_sources_stamp", lambda: None)
    assert native.why_no_native() is None


def test_no_library_at_all(afresh, monkeypatch, tmp_path):
    path = tmp_path / "libmmphate_cpu.so"
    path.write_text("not a library")
    monkeypatch.setenv(native.PATH_VARIABLE, str(path))
    with pytest.warns(RuntimeWarning, match="the portable torch versions serve: libmmphate_cpu.so does not load"):
        assert "does not load" in str(native.why_no_native())


def test_another_library(afresh, monkeypatch):
    """It loads, and holds nothing of ours."""
    monkeypatch.setenv(native.PATH_VARIABLE, torch._C.__file__)
    with pytest.warns(RuntimeWarning, match="the portable torch versions serve: .* has no entry point"):
        assert "has no entry point of the C++ twins" in str(native.why_no_native())


FIT = """
import json, numpy, sys, warnings
from mmphate_gpu import MMPHATE
from mmphate_gpu.ops.launch.native import why_no_native
trace = numpy.cumsum(numpy.random.default_rng(0).normal(size=(40, 8, 6)), axis=0)
model = MMPHATE(n_landmark=60, random_state=0, device="cpu").fit(trace)
embedding = numpy.asarray(model.embedding_)
print(json.dumps({"why": why_no_native(), "t": int(model.t_), "embedding": embedding.tolist()}))
"""


def fit_with(switch: str) -> dict:
    env = {**os.environ, native.SWITCH: switch, "PYTHONPATH": str(Path(native.PACKAGE).parent)}
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_fit_without_the_library_is_the_same():
    """Portable ops from end to end: the same t, the same picture to rounding."""
    ours, portable = fit_with("1"), fit_with("0")
    assert ours["why"] is None and portable["why"] == "MMPHATE_GPU_NATIVE=0 in the environment"
    assert ours["t"] == portable["t"]
    first, other = np.array(ours["embedding"]), np.array(portable["embedding"])
    assert first.shape == other.shape and np.isfinite(first).all()
    # Measured: 6e-15 of the largest coordinate.
    np.testing.assert_allclose(first, other, rtol=0, atol=1e-9 * np.abs(first).max())
