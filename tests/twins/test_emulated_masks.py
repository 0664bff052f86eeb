"""The CUDA kernels over points that lack features, emulated, against plain float64 and the C++ twins."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mmphate_gpu.ops.launch.kernel import Launch
from mmphate_gpu.ops.pair_stack import Stack, order_by_presence, stack_of

from .cases import normal
from .emulated_checks import (
    COUNTED,
    POINT_SETS,
    check_kth,
    check_radius,
    check_symmetrized,
    distances_of,
    others,
)
from .emulation import Emulation, Twins, needs_emulation
from .masked_points import PRESENT, TIMESTEPS, lacking

pytestmark = needs_emulation

# One pass, and three passes whose rows do not stay in shared memory.
FEATURES = (1, 6, 70)


@pytest.mark.kernels("radius_count", "radius_fill", "pair_presence")
@pytest.mark.parametrize("name", PRESENT)
def test_radius(cuda_in_turn: Twins, name: str) -> None:
    for p, n in zip(FEATURES, (67, 129, 129), strict=True):
        check_radius(cuda_in_turn, lacking(normal(2, n, p), name), 2.0, *COUNTED, masked=True)


@pytest.mark.kernels("symmetrized_affinity")
@pytest.mark.parametrize("name", PRESENT)
def test_symmetrized(cuda_in_turn: Twins, name: str) -> None:
    for p, n in zip(FEATURES, (129, 67, 31), strict=True):
        check_symmetrized(cuda_in_turn, lacking(normal(2, n, p), name), 2.0, 1e-4, COUNTED[1], masked=True)


@pytest.mark.kernels("kth_neighbor_distance")
@pytest.mark.parametrize("name", PRESENT)
def test_kth(cuda_in_turn: Twins, name: str) -> None:
    for p, n, k in ((1, 67, 3), (6, 129, 60), (6, 7, 6), (70, 67, 40)):
        check_kth(cuda_in_turn, lacking(normal(2, n, p), name), k, masked=True)


@pytest.mark.parametrize("points", POINT_SETS)
def test_over_points(cuda_in_turn: Twins, points: str) -> None:
    for name in ("lengths", "by node"):
        some = lacking(POINT_SETS[points](2, 70, 6), name)
        check_radius(cuda_in_turn, some, 5.0, *COUNTED, masked=True)
        check_symmetrized(cuda_in_turn, some, 5.0, 0.3, COUNTED[1], masked=True)
        check_kth(cuda_in_turn, some, 5, masked=True)


@pytest.mark.kernels("kth_neighbor_distance", "bracket_count")
@pytest.mark.parametrize(
    "name", ["lengths", *(pytest.param(name, marks=pytest.mark.slow) for name in list(PRESENT)[1:])]
)
def test_median_by_a_bracket(cuda_in_turn: Twins, name: str) -> None:
    """Two sets with more points than the sample has."""
    check_kth(cuda_in_turn, lacking(normal(2, 1026, 6), name), 5, masked=True)


@pytest.mark.slow
def test_rows_of_two_passes_that_stay(cuda: Twins) -> None:
    for name in PRESENT:
        points = lacking(normal(2, 67, 33), name)
        check_radius(cuda, points, 2.0, *COUNTED, masked=True)
        check_kth(cuda, points, 5, masked=True)


@pytest.mark.slow
def test_more_features_than_words_are_kept_for(cuda_in_turn: Twins) -> None:
    """The kernels keep the words of 16 passes of up to 27 features. Later features count as those of some rows."""
    points = lacking(normal(1, 70, 450), "by slice")
    reach = float(others(points, True).nanmedian())
    near = others(points, True) <= reach
    assert torch.equal(cuda_in_turn.radius_counts(points, reach, True), near.sum(-1))


def test_a_full_mask_has_the_bits_of_no_mask(cuda_in_turn: Twins) -> None:
    points = normal(2, 140, 6)
    for op, argument in (("radius_counts", 2.0), ("kth_neighbor_distance", 4), ("median_kth_neighbor_distance", 4)):
        assert torch.equal(*(getattr(cuda_in_turn, op)(points, argument, masked) for masked in (False, True)))


def test_points_by_hand(cuda: Twins) -> None:
    """Over two of six features a square counts three times. The last two points share no feature with one another."""
    points = torch.full((1, 4, 6), math.nan, dtype=torch.float64)
    points[0, :, :2] = torch.tensor([[0, 0], [3, 4], [1, math.nan], [math.nan, 1]])
    squares = torch.tensor([[6, 6, 75], [24, 54, 75], [6, 24, math.inf], [6, 54, math.inf]], dtype=torch.float64)
    for k in (1, 2, 3):
        assert torch.equal(cuda.kth_neighbor_distance(points, k, True)[0], squares[:, k - 1].sqrt())
    assert cuda.radius_counts(points, math.inf, True).tolist() == [[3, 3, 2, 2]]


@pytest.mark.parametrize("far", [math.inf, -math.inf, 1e300])
def test_what_the_screen_has_no_bound_for(cuda_in_turn: Twins, far: float) -> None:
    """Float64 decides all pairs of a set with such a coordinate. NaN is no such coordinate here."""
    points = lacking(normal(2, 70, 6), "by node")
    points[1, [3, 35], 2] = far
    near = (distances_of(points, True) <= 2.0) & ~torch.eye(70, dtype=torch.bool)
    assert torch.equal(cuda_in_turn.radius_counts(points, 2.0, True), near.sum(-1))


def _stack(emulation: Emulation, points: torch.Tensor) -> Stack:
    return stack_of(emulation.twins().gpu, points, ordered=True, masked=True)


@pytest.mark.kernels("pair_span", "pair_screen", "pair_presence")
@pytest.mark.parametrize("p", [6, 70])
def test_tiles_boxes_and_words(emulation: Emulation, p: int) -> None:
    """Boxes have no bounds along features that a point lacks, and words have a bit for every feature of a pass."""
    points = lacking(normal(2, 150, p), "lengths")
    stack = _stack(emulation, points)
    ordered = torch.take_along_dim(points, stack.order.long()[..., None], 1)
    present = torch.nn.functional.pad(~ordered.isnan(), (0, stack.passes * stack.part - p, 0, 42))
    tiles = present.view(2, 3, 64, stack.passes, stack.part)
    bits = 2 ** torch.arange(stack.part)
    assert torch.equal(stack.presence[..., :64].long(), (tiles * bits).sum(-1).transpose(2, 3))
    sizes = (64, 64, 22)
    alls = torch.stack([tiles[:, t, :size].all(1) for t, size in enumerate(sizes)], 1)
    assert torch.equal(stack.presence[..., 64].long(), (alls * bits).sum(-1))
    assert torch.equal(stack.presence[..., 65].long(), (tiles.any(2) * bits).sum(-1))
    by_point = stack.rough.transpose(2, 3).flatten(1, 2)[:, :150, :p]
    assert torch.equal(by_point.isnan(), ordered.isnan())
    for t, part in enumerate((slice(0, 64), slice(64, 128), slice(128, 150))):
        first = by_point[:, part, :64]
        least, largest = stack.boxes[..., : first.shape[2], t].unbind(1)
        assert torch.equal(least, first.nan_to_num(-math.inf).amin(1))
        assert torch.equal(largest, first.nan_to_num(math.inf).amax(1))
    # Spans are those from the middle point, or from 0 along features that it lacks.
    middle = points[:, 75:76].nan_to_num(0)
    assert torch.equal(stack.spans, (points - middle).abs().nan_to_num(0).amax((1, 2)))


def test_tiles_hold_points_with_the_same_features(emulation: Emulation) -> None:
    """In the order of presence, points that have the same features follow one another."""
    points = lacking(normal(2, 40 * TIMESTEPS, 6), "lengths")
    order = order_by_presence(points)
    assert torch.equal(order.sort(1).values, torch.arange(points.shape[1]).expand(2, -1))
    present = torch.take_along_dim(~points.isnan(), order[..., None], 1)
    changes = (present[:, 1:] != present[:, :-1]).any(-1).sum(1)
    assert changes.tolist() == [len(torch.unique(~points[0].isnan(), dim=0)) - 1] * 2
    # Later points have more features, and so they do in mixed tiles.
    assert bool((present[:, 1:] >= present[:, :-1]).all())


def test_tiles_beyond_reach_are_not_visited(emulation: Emulation) -> None:
    """Two heaps lie far apart along a feature that all points have, and each lacks another feature.

    The order of presence puts one heap after the other. A visit to the later one would change the result, because its
    rough points are replaced by those of the first.
    """
    points = normal(1, 1280, 6)
    points[0, ::2, 5] += 100
    points[0, ::2, 0] = points[0, 1::2, 1] = math.nan
    first = order_by_presence(points)[0, :640]

    def start(launch: Launch, device: torch.device) -> None:
        if launch.kernel == "radius_count":
            exact, rough, *others_of = launch.arguments
            launch = replace(launch, arguments=(exact, torch.cat([rough[:, :10]] * 2, 1), *others_of), blocks=10)
        emulation.start(launch, device)

    counts = Twins(start).radius_counts(points, 3.0, True)[0, first]
    assert torch.equal(counts, (others(points, True)[0, first] <= 3.0).sum(-1))
