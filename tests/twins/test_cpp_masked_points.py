"""The C++ twins of the ops over pairs on points that lack features, against the portable versions."""

from __future__ import annotations

import math

import pytest
import torch

from mmphate_gpu.ops.distances import distances_by_difference
from mmphate_gpu.ops.kth_neighbor_distance import SAMPLED
from mmphate_gpu.ops.launch.twins import CPP, PORTABLE

from .cases import assert_same, duplicates, lattice, normal
from .cpp_affinities import assert_filled_alike, assert_symmetrized_alike, filled, symmetrized
from .cpp_masks import MASKS, lacking, stacks_lacking
from .instruction_sets import needs_cpp, on_every_isa

pytestmark = needs_cpp


def distances(points: torch.Tensor) -> torch.Tensor:
    """The different finite distances of the first set, ascending."""
    every = torch.unique(distances_by_difference(points[0], points[0], True))
    return every[every < math.inf]


def reaches(points: torch.Tensor) -> list[float]:
    """Distances of the points, the largest included, so that some pairs tie with the reach."""
    every = distances(points)
    return [0.0, *every[[0, every.numel() // 4, every.numel() // 2, -1]].tolist()] if every.numel() else [0.0, 1.0]


def ks(n: int) -> list[int]:
    return sorted({k for k in (1, 2, n // 2, n - 1) if 1 <= k < n})


@pytest.mark.parametrize("mask", MASKS)
def test_counts_are_those_of_the_portable_version(mask, each_isa):
    """Both versions round in the same order, so that they agree where a distance equals the reach."""
    for points in stacks_lacking(mask):
        for reach in [*reaches(points), math.inf]:
            expected = PORTABLE["radius_counts"](points, reach, True)
            for _ in each_isa():
                assert_same((CPP["radius_counts"](points, reach, True),), (expected,))


@pytest.mark.parametrize("mask", MASKS)
def test_neighbors_are_those_of_the_portable_version(mask, each_isa):
    for points in stacks_lacking(mask):
        for k in ks(points.shape[1]):
            for op in ("kth_neighbor_distance", "median_kth_neighbor_distance"):
                expected = PORTABLE[op](points, k, True)
                for _ in each_isa():
                    assert_same((CPP[op](points, k, True),), (expected,))


@pytest.mark.parametrize("mask", MASKS)
def test_entries_are_those_of_the_portable_version(mask, each_isa):
    for points in list(stacks_lacking(mask))[::2]:
        assert_filled_alike(each_isa(), points, reaches(points)[1], masked=True)
        n = points.shape[1]
        assert_filled_alike(each_isa(), points, reaches(points)[-2], rows=(n // 3, n - n // 4), masked=True)
        assert_symmetrized_alike(each_isa(), points, masked=True)


@pytest.mark.parametrize("mask", ["lengths", "few patterns", "random", "empty points", "one feature each"])
@pytest.mark.parametrize("sampled", [4, SAMPLED])
def test_median_within_a_bracket(mask, sampled, each_isa, monkeypatch):
    """Brackets that a sample finds, also where most distances are infinite."""
    monkeypatch.setattr("mmphate_gpu.ops.kth_neighbor_distance.SAMPLED", sampled)
    n = 4 * sampled + 1 + 60 * (sampled < SAMPLED)
    for make in (normal, lattice, duplicates):
        points = lacking(make(1, n, 5), mask)
        for k in (1, 6, n // 8, n // 2):
            expected = PORTABLE["median_kth_neighbor_distance"](points, k, True)
            for _ in each_isa():
                assert_same((CPP["median_kth_neighbor_distance"](points, k, True),), (expected,))


def test_points_that_lack_nothing_have_the_bits_of_no_mask(each_isa):
    """A factor p / p is 1, so no bit changes."""
    for points in (normal(3, 9, 4), normal(2, 40, 70), lattice(1, 129, 6), duplicates(1, 1100, 10)):
        reach = reaches(points)[3]
        for _ in each_isa():
            for op, argument in (("radius_counts", reach), ("kth_neighbor_distance", 3)):
                assert_same((CPP[op](points, argument, True),), (CPP[op](points, argument),))
            medians = (CPP["median_kth_neighbor_distance"](points, 3, *masked) for masked in ((True,), ()))
            assert_same((next(medians),), (next(medians),))
            plain, masked = (filled(CPP["radius_fill"], points, reach, masked=masked) for masked in (False, True))
            assert_same(plain[:2], masked[:2])
            assert torch.equal(plain[2].nan_to_num(-1), masked[2].nan_to_num(-1))
            affinities = (symmetrized(CPP["symmetrized_affinity"], points, masked=masked) for masked in (False, True))
            assert_same(next(affinities), next(affinities))


def test_every_instruction_set_has_the_same_bits(monkeypatch):
    for mask in ("lengths", "few patterns", "mostly random"):
        for points in (lacking(normal(3, 33, 6), mask), lacking(normal(1, 530, 10), mask)):
            reach = reaches(points)[2]

            def run(points=points, reach=reach):
                gap_at, indices, values = filled(CPP["radius_fill"], points, reach, masked=True)
                affinity = symmetrized(CPP["symmetrized_affinity"], points, masked=True)
                near = (CPP[f"{op}kth_neighbor_distance"](points, 5, True) for op in ("", "median_"))
                counts = CPP["radius_counts"](points, reach, True)
                return counts, *near, gap_at, indices, values.nan_to_num(-1), *affinity

            on_every_isa(monkeypatch, run)


def test_more_patterns_than_runs():
    """130 patterns of 65 points, in turn: some of them have no run of their own."""
    n_patterns, p = 130, 9
    bits = torch.arange(1, n_patterns + 1)[:, None] >> torch.arange(p) & 1
    points = normal(1, 65 * n_patterns, p)
    points[0, bits.repeat(65, 1) == 0] = math.nan
    rows = torch.arange(0, points.shape[1], 131)
    near = distances_by_difference(points[0, rows], points[0], True)
    near[torch.arange(rows.numel()), rows] = math.inf  # a point is no neighbor of its own
    assert torch.equal(CPP["radius_counts"](points, 1.5, True)[0, rows], (near <= 1.5).sum(1))
    expected = near.sort(1).values[:, 4]
    assert torch.equal(CPP["kth_neighbor_distance"](points, 5, True)[0, rows], expected)


def test_patterns_of_one_hash_are_told_apart():
    """Two sets of features for which the hash of csrc/cpu/presence.h is the same."""
    odd, word = 0x9E3779B97F4A7C15, 2**64 - 1

    def second(first: int, like: tuple[int, int]) -> int:
        """The second word that gives ``first`` the hash of ``like``."""
        mixed = [number * odd & word for number in (first, like[0])]
        return like[1] ^ mixed[0] ^ mixed[0] >> 29 ^ mixed[1] ^ mixed[1] >> 29

    first = (0x123456789ABCDEF, 0xFEDCBA9876543210)
    patterns = [first, (0x0F0F0F0F12345678, second(0x0F0F0F0F12345678, first))]
    has = torch.tensor([[(words[f // 64] >> f % 64) & 1 for f in range(128)] for words in patterns], dtype=torch.bool)
    points = normal(1, 80, 128).masked_fill(~has[torch.arange(80) % 2], math.nan)
    for reach in reaches(points):
        assert_same((CPP["radius_counts"](points, reach, True),), (PORTABLE["radius_counts"](points, reach, True),))


def test_points_that_share_too_few_features_are_infinitely_far():
    """Two groups that share no feature, a point without any, and another that shares one value with the first group."""
    points = torch.full((1, 40, 4), math.nan, dtype=torch.float64)
    points[0, :20, :2] = normal(20, 2)
    points[0, 20:38, 2:] = normal(18, 2)
    points[0, 39, 0] = points[0, 0, 0]
    assert bool(CPP["kth_neighbor_distance"](points, 21, True)[0, :38].isinf().all())
    assert CPP["kth_neighbor_distance"](points, 1, True)[0, 38:].tolist() == [math.inf, 0.0]
    assert bool(CPP["median_kth_neighbor_distance"](points, 21, True).isinf().all())
    counts = CPP["radius_counts"](points, math.inf, True)[0]
    assert counts.tolist() == [20] * 20 + [17] * 18 + [0, 20]
    width = torch.full((1, 40), math.inf, dtype=torch.float64)
    indptr, indices, values = CPP["symmetrized_affinity"](points, width, 5.0, 1e-4, 1e-38, 1.6, torch.float64, True)
    assert indptr.diff().tolist() == [*(counts[:38] + 1).tolist(), 0, 21]
    assert bool((values == 1).all()) and 38 not in indices
