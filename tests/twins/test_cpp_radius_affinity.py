"""The C++ twins of the affinities against the portable versions."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.ops.csr import indptr_of_counts
from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.twins import CPP, PORTABLE

from .cases import assert_same, lattice, normal
from .cpp_affinities import assert_filled_alike, assert_symmetrized_alike, filled, symmetrized
from .cpp_points import EXACT_SETS, POINT_SETS, reaches, stacks_of, ties
from .instruction_sets import needs_cpp, on_every_isa

pytestmark = needs_cpp


def test_radius_counts(points_of, each_isa):
    for points in points_of:
        for reach in reaches(points):
            expected = PORTABLE["radius_counts"](points, reach)
            for _ in each_isa():
                assert_same((CPP["radius_counts"](points, reach),), (expected,))


@pytest.mark.parametrize("name", EXACT_SETS)
def test_radius_counts_at_a_tie(name, each_isa):
    """A distance equal to the reach is within it. The next larger distance is not."""
    for points in stacks_of(name):
        for reach in ties(points):
            expected = PORTABLE["radius_counts"](points, reach)
            for _ in each_isa():
                assert_same((CPP["radius_counts"](points, reach),), (expected,))


def test_radius_counts_of_a_view():
    points = normal(40, 3, 5).transpose(0, 1)
    assert_same((CPP["radius_counts"](points, 2.0),), (CPP["radius_counts"](points.contiguous(), 2.0),))


def walk(n: int, p: int) -> torch.Tensor:
    """A walk. Neighbors of a point are the points before and after it, and those where the walk comes near again."""
    return normal(1, n, p).cumsum(1)


def test_radius_fill_of_a_walk(each_isa):
    for points in (walk(130, 2), walk(1100, 3), walk(1100, 10)):
        for reach in reaches(points)[1:4]:
            for decay in (1.0, 2.0, 5.0):
                assert_filled_alike(each_isa(), points, reach, decay=decay)


def test_radius_fill(points_of, each_isa):
    for points in points_of[::2] + points_of[-1:]:
        for reach in reaches(points)[1:4:2]:
            assert_filled_alike(each_isa(), points, reach)


@pytest.mark.parametrize("name", EXACT_SETS)
def test_radius_fill_at_a_tie(name, each_isa):
    for points in stacks_of(name):
        for reach in ties(points)[2:4]:
            assert_filled_alike(each_isa(), points, reach)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("value", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("decay", [2.0, 5.0, 0.7])
def test_radius_fill_of_every_storage(decay, value, index, each_isa):
    for points in (normal(3, 33, 6), normal(1, 530, 10), lattice(40, 9, 2)):
        assert_filled_alike(each_isa(), points, reaches(points)[3], decay=decay, value=value, index=index)


@pytest.mark.parametrize("rows", [(0, 1), (0, 8), (5, 6), (7, 40), (32, 33), (20, 20), (0, 33)], ids=str)
def test_radius_fill_of_some_rows(rows, each_isa):
    for points in (normal(3, 33, 6), normal(2, 530, 10)):
        some_rows = tuple(min(row, points.shape[1]) for row in rows)
        assert_filled_alike(each_isa(), points, reaches(points)[3], rows=some_rows)


@pytest.mark.parametrize("n", [33, 600])
@pytest.mark.parametrize("off", [-1, 1])
def test_radius_fill_refuses_rows_of_another_length(n, off, isa):
    """A row is not written if its offsets leave too little or too much room for its entries."""
    points, reach = normal(1, n, 6), 2.0
    counts = CPP["radius_counts"](points, reach).flatten()
    counts[n // 2] += off
    indptr = indptr_of_counts(counts)
    indices, values = torch.zeros(int(indptr[-1]), dtype=torch.int32), torch.zeros(int(indptr[-1]))
    with pytest.raises(native.NativeError, match="radius_fill: status 3"):
        CPP["radius_fill"](points, 1.0, 2.0, reach, 0, n, indptr, torch.zeros_like(counts), indices, values)


def test_symmetrized_affinity(points_of, each_isa):
    for points in points_of[::3] + points_of[-1:]:
        assert_symmetrized_alike(each_isa(), points)


@pytest.mark.parametrize("decay", [1.0, 2.0, 5.0, 0.7, 40.0])
@pytest.mark.parametrize("thresh", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_symmetrized_affinity_of_every_option(decay, thresh, dtype, each_isa):
    for points in (normal(30, 9, 4), normal(1, 129, 6)):
        assert_symmetrized_alike(each_isa(), points, decay=decay, thresh=thresh, dtype=dtype)


def test_affinities_have_the_same_bits_everywhere(monkeypatch):
    """No operation is fused and no sum has another order, so all instruction sets and numbers of threads agree."""
    for points in (
        normal(3, 33, 6),
        normal(1, 1025, 10),
        walk(600, 6),
        lattice(40, 9, 2),
        POINT_SETS["farther and closer"](2, 129, 25),
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
                    result = filled(CPP["radius_fill"], points, reach, value=value, decay=decay)
                    return *result[:2], result[2].nan_to_num(-1)

                on_every_isa(monkeypatch, run)
        for decay in (5.0, 2.5):

            def run_symmetrized(points=points, decay=decay):
                return symmetrized(CPP["symmetrized_affinity"], points, decay=decay)

            on_every_isa(monkeypatch, run_symmetrized)
