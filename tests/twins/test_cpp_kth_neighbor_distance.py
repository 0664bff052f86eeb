"""The C++ twins of the k-th neighbor distance and its median against the portable versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from mmphate_gpu.ops.kth_neighbor_distance import SAMPLED
from mmphate_gpu.ops.launch.twins import CPP, PORTABLE

from .cases import assert_same, lattice, normal
from .cpp_points import EXACT_SETS, POINT_SETS, stacks_of
from .instruction_sets import needs_cpp, on_every_isa

pytestmark = needs_cpp


# Two float64 distances from sums of squares in different orders. Measured: 2.3e-16.
DISTANCE = 2e-15


def ks(n: int) -> list[int]:
    return sorted({k for k in (1, 2, n // 2, n - 1) if 1 <= k < n})


def test_kth_neighbor_distance(points_of, each_isa):
    for points in points_of:
        for k in ks(points.shape[1]):
            expected = PORTABLE["kth_neighbor_distance"](points, k)
            for _ in each_isa():
                result = CPP["kth_neighbor_distance"](points, k)
                torch.testing.assert_close(result, expected, rtol=DISTANCE, atol=0)


@pytest.mark.parametrize("name", EXACT_SETS)
def test_kth_neighbor_distance_of_ties(name, each_isa):
    for points in stacks_of(name):
        for k in ks(points.shape[1]):
            expected = PORTABLE["kth_neighbor_distance"](points, k)
            for _ in each_isa():
                assert_same((CPP["kth_neighbor_distance"](points, k),), (expected,))


def _misled(*shape: int) -> torch.Tensor:
    """The points that a sample of 4 or 8 takes lie close together, all others far apart."""
    points, n = 10 * normal(*shape), shape[1]
    for sampled in (4, 8):
        rows = [(2 * a + 1) * n // (2 * sampled) for a in range(sampled)]
        points[:, rows] = 100 + 1e-3 * points[:, rows]
    return points


MEDIAN_SETS: dict[str, Callable[..., torch.Tensor]] = {
    "normal": normal,
    "five letters": lambda *shape: torch.from_numpy(
        np.random.default_rng(shape[1]).integers(0, 5, shape).astype(float)
    ),
    "five values": lambda *shape: torch.from_numpy(np.random.default_rng(shape[1]).integers(0, 5, shape).astype(float))[
        ..., :1
    ].expand(shape),
    "two scales": lambda *shape: normal(*shape) * torch.where(torch.arange(shape[1]) % 2 == 0, 1e-6, 1e3)[:, None],
    "two scales in halves": lambda *shape: (
        normal(*shape) * torch.where(torch.arange(shape[1]) < shape[1] // 2, 1e-6, 1e3)[:, None]
    ),
    "misled": _misled,
    **{
        name: POINT_SETS[name]
        for name in ("all equal", "duplicates", "huge", "tiny", "farther and closer", "an outlier")
    },
}


@pytest.fixture(params=MEDIAN_SETS)
def median_points(request: pytest.FixtureRequest) -> Callable[..., torch.Tensor]:
    return MEDIAN_SETS[request.param]


def assert_median(isas: Iterator[str], points: torch.Tensor, k: int) -> None:
    expected, n = PORTABLE["median_kth_neighbor_distance"](points, k), points.shape[1]
    for _ in isas:
        result = CPP["median_kth_neighbor_distance"](points, k)
        torch.testing.assert_close(result, expected, rtol=DISTANCE, atol=0)
        # The bracket changes no bit: the median of all distances is the same.
        every = CPP["kth_neighbor_distance"](points, k).sort(-1).values
        assert torch.equal(result, (every[:, (n - 1) // 2] + every[:, n // 2]) / 2)


@pytest.mark.parametrize("n", [1025, 1100])
def test_median_within_a_bracket(median_points, n, each_isa):
    assert n > 4 * SAMPLED
    points = median_points(1, n, 6)
    for k in (1, 6) if n % 2 else (5, n - 1):
        assert_median(each_isa(), points, k)


@pytest.mark.parametrize("sampled", [2, 4, 8])
def test_median_by_a_small_sample(median_points, sampled, each_isa, monkeypatch):
    """A bracket that is too wide, too narrow, or beside the median does not change the result."""
    monkeypatch.setattr("mmphate_gpu.ops.kth_neighbor_distance.SAMPLED", sampled)
    for n in (4 * sampled, 4 * sampled + 1, 33, 34, 127, 200):
        points = median_points(2, n, 3)
        for k in ks(n):
            assert_median(each_isa(), points, k)


def test_median_of_few(each_isa):
    for n in (2, 3, 31, 32):
        for k in ks(n):
            assert_median(each_isa(), normal(5, n, 4), k)


def test_kth_and_median_have_the_same_bits_everywhere(monkeypatch):
    for points in (normal(3, 33, 6), normal(1, 1100, 10), lattice(40, 9, 2), _misled(1, 1025, 3)):
        for k in (1, 5):
            on_every_isa(
                monkeypatch,
                lambda points=points, k=k: (
                    CPP["kth_neighbor_distance"](points, k),
                    CPP["median_kth_neighbor_distance"](points, k),
                ),
            )
