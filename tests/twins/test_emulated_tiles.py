"""The tiles of the CUDA kernels over pairs, emulated: how they are made, kept and visited."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmphate_gpu.ops.kth_neighbor_distance import _around_median
from mmphate_gpu.ops.launch.cuda import Kept
from mmphate_gpu.ops.launch.kernel import Launch
from mmphate_gpu.ops.pair_stack import Stack, new_stack, stack_of
from mmphate_gpu.ops.point_tiles import kd_order

from .cases import assert_same, normal
from .emulated_checks import check_kth, check_radius, check_symmetrized, others
from .emulation import Emulation, Twins, needs_emulation

pytestmark = needs_emulation


def _two_heaps(n: int) -> torch.Tensor:  # (1, n, 6)
    """Points that lie around two places far apart, in turn."""
    points = normal(1, n, 6)
    points[0, ::2] += 100
    return points


@pytest.mark.parametrize("op", ["radius_counts", "median_kth_neighbor_distance"])
def test_tiles_beyond_reach_are_not_visited(emulation: Emulation, op: str) -> None:
    """A visit to a far tile would change the result, because its rough points are replaced by those of near tiles."""
    points = _two_heaps(1280)
    n_tiles = 20

    def start(launch: Launch, device: torch.device) -> None:
        if launch.kernel in ("radius_count", "bracket_count"):
            rough = next(part for part in launch.arguments if isinstance(part, torch.Tensor) and part.ndim == 4)
            swapped = rough.clone()
            swapped[:, n_tiles // 2 :] = rough[:, : n_tiles // 2]
            arguments = tuple(swapped if part is rough else part for part in launch.arguments)
            launch = replace(launch, arguments=arguments, blocks=n_tiles // 2)
        emulation.start(launch, device)

    argument = 5 if op == "median_kth_neighbor_distance" else 3.0
    first = kd_order(points)[0, : 64 * n_tiles // 2]
    if op == "radius_counts":
        result = Twins(start).radius_counts(points, argument)
        assert torch.equal(result[0, first], (others(points)[0, first] <= argument).sum(-1))
    else:
        twins = Twins(start)
        stack = stack_of(twins.gpu, points, ordered=True)
        _, _, (low, high, below, within) = _around_median(twins.gpu, points, stack, argument)
        distances = others(points)[0, first]
        assert torch.equal(below[0, : first.numel()], (distances < low).sum(-1))
        assert torch.equal(within[0, : first.numel()], (distances <= high).sum(-1))


def test_pairs_of_a_set_are_visited_once(emulation: Emulation) -> None:
    """Only the block of the first tile counts the pairs with that tile. All other blocks skip them."""
    points = normal(1, 320, 6)

    def counts(blocks: int) -> torch.Tensor:
        def start(launch: Launch, device: torch.device) -> None:
            emulation.start(replace(launch, blocks=blocks) if launch.kernel == "radius_count" else launch, device)

        return Twins(start).radius_counts(points, 1e3)[0, kd_order(points)[0]]

    assert counts(5).tolist() == [319] * 320
    # The first block counts all pairs of its 64 rows, which are 64 for every other column.
    assert counts(1).tolist() == [319] * 64 + [64] * 256


@pytest.mark.kernels("pair_span", "pair_screen")
@pytest.mark.parametrize("p", [6, 100])
def test_tiles_hold_the_points_in_order_and_their_boxes(emulation: Emulation, p: int) -> None:
    points = normal(2, 150, p)
    stack = stack_of(emulation.twins().gpu, points, ordered=True)
    by_point = stack.rough.transpose(2, 3).flatten(1, 2)
    order = kd_order(points)
    assert torch.equal(stack.order.long(), order) and torch.equal(by_point[:, 150:].isinf(), torch.ones(2, 42, p) > 0)
    centered = torch.take_along_dim(points - points[:, 75:76], order[..., None], 1)
    scale = torch.exp2(-torch.frexp(stack.spans)[1] + 1).double()
    assert torch.equal(stack.spans, (points - points[:, 75:76]).abs().amax((1, 2)))
    assert torch.equal(by_point[:, :150], (centered * scale[:, None, None]).float())
    least, largest = stack.boxes.unbind(1)
    for tile, part in enumerate((slice(0, 64), slice(64, 128), slice(128, 150))):
        first = by_point[:, part, :64]
        assert torch.equal(least[..., tile], first.amin(1)) and torch.equal(largest[..., tile], first.amax(1))


def test_points_are_screened_once(emulation: Emulation) -> None:
    """They are screened again if they change, if another order is needed, and for other points."""
    started = []

    def start(launch: Launch, device: torch.device) -> None:
        started.append(launch.kernel)
        emulation.start(launch, device)

    twins, points = Twins(start), normal(1, 130, 6)

    def screens(op: Callable[..., torch.Tensor], *arguments: object) -> int:
        started.clear()
        op(*arguments)
        return started.count("pair_screen")

    assert screens(twins.radius_counts, points, 1.0) == 1
    assert screens(twins.radius_counts, points, 2.0) == 0
    assert screens(twins.kth_neighbor_distance, points, 3) == 1
    assert screens(twins.kth_neighbor_distance, points, 3) == 0
    points *= 2
    expected = others(points).sort(-1).values[..., 2]
    assert screens(twins.kth_neighbor_distance, points, 3) == 1
    assert_same((twins.kth_neighbor_distance(points, 3),), (expected,))
    assert screens(twins.kth_neighbor_distance, points.clone(), 3) == 1
    with torch.inference_mode():
        unversioned = normal(1, 130, 6)
    assert [screens(twins.kth_neighbor_distance, unversioned, 3) for _ in range(2)] == [1, 1]
    assert screens(twins.kth_neighbor_distance, points, 3) == 1
    del points
    assert twins.gpu.kept._last is None


@pytest.mark.parametrize("step", ["get", "put"])
def test_another_thread_may_put_a_stack_meanwhile(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test stands in for another thread, between two steps of a method."""
    points, newer = normal(2, 1, 130, 6)
    kept, stacks = Kept(), [new_stack(stacked, None) for stacked in (points, newer)]
    kept.put(points, False, stacks[0])
    seen: list[Stack | None] = []
    if step == "get":
        key_of = Kept._key_of

        def meanwhile(*arguments: Any) -> tuple[int, ...]:
            if not seen:
                seen.append(None)
                kept.put(newer, False, stacks[1])
            return key_of(*arguments)

        monkeypatch.setattr(Kept, "_key_of", staticmethod(meanwhile))
        seen = [kept.get(points, False)]
    else:
        make = weakref.ref

        def meanwhile(*arguments: Any) -> weakref.ref[torch.Tensor]:
            seen.append(kept.get(points, False))
            return make(*arguments)

        monkeypatch.setattr(weakref, "ref", meanwhile)
        kept.put(newer, False, stacks[1])
    assert len(seen) == 1 and seen[0] is stacks[0]
    assert kept.get(newer, False) is stacks[1]


@pytest.mark.slow
def test_many_small_sets(cuda: Twins) -> None:
    """Some blocks have rows of many sets."""
    points = normal(200, 5, 6)
    check_kth(cuda, points, 2)
    check_radius(cuda, points, 2.0, torch.int32, torch.float32)
    check_symmetrized(cuda, points, 2.0, 1e-4, torch.float64)
