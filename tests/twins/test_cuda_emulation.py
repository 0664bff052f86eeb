"""The CUDA twins, run on the CPU, against plain float64 and against the C++ twins."""

from __future__ import annotations

import ctypes
import itertools
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmphate_gpu.affinities.bandwidth import interslice_bandwidth
from mmphate_gpu.datasets import bifurcation
from mmphate_gpu.mds import smacof as smacof_module
from mmphate_gpu.mds.smacof import Way
from mmphate_gpu.ops import descent_step as descent
from mmphate_gpu.ops.kth_neighbor_distance import SAMPLED, _around_median, median
from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.kernel import Launch
from mmphate_gpu.ops.launch.pair_stack import KeptStack, Stack, new_stack
from mmphate_gpu.ops.launch.repeat import repeat_until
from mmphate_gpu.ops.launch.sources import source_folder
from mmphate_gpu.ops.launch.twins import CPP, PORTABLE
from mmphate_gpu.ops.point_tiles import kd_order
from mmphate_gpu.ops.radius_affinity import SMALLEST, cut_distance, cut_radius
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace import normalize

from .emulation import ORDERS, Emulation, Twins, compile_text, why_no_emulation

pytestmark = pytest.mark.skipif(why_no_emulation() is not None, reason=str(why_no_emulation()))

# Around the edges of a warp (32) and of a tile (64); two tiles and a bit, which are put into the order of a kd-tree.
POINTS = (1, 2, 31, 32, 33, 127, 129)
# Numbers of features in one pass, and in two and four passes, whose rows stay in shared memory or not. Every number of
# features in a pass is compiled anew, so all tests keep to these.
FEATURES = (1, 6, 10, 33, 100)
SETS = (1, 3)
SHAPES = list(itertools.product(SETS, POINTS, FEATURES))

C_TYPES = {torch.int32: "mmp_i32", torch.int64: "mmp_i64", torch.float32: "float", torch.float64: "double"}
STORAGE = list(itertools.product((torch.int32, torch.int64), (torch.float32, torch.float64)))
COUNTED = (torch.int32, torch.float64)  # the types of kernels that only count; these are always compiled
# Width of the dense block -> lanes and columns a lane (see _cuda.CSR_SHAPES).
WIDTHS = {1: (16, 1), 16: (16, 1), 17: (32, 1), 33: (32, 2), 110: (32, 4), 300: (32, 4)}
# Components -> rows of a block.
COMPONENTS = {1: 4, 2: 4, 3: 4, 10: 4, 13: 1}


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    return Emulation(tmp_path_factory.mktemp("cuda_emulation"))


# The third schedule is a variation on the others.
@pytest.fixture(
    params=[*ORDERS[:2], pytest.param(ORDERS[2], marks=pytest.mark.slow)], ids=lambda order: f"order {order}"
)
def cuda(emulation: Emulation, request: pytest.FixtureRequest) -> Twins:
    """The CUDA twins, threads and blocks in each of several orders."""
    emulation.order = request.param
    return emulation.twins()


@pytest.fixture
def cuda_in_turn(emulation: Emulation, request: pytest.FixtureRequest) -> Twins:
    """The same in one order, another one for every test: for what runs over many shapes."""
    emulation.order = ORDERS[len(request.node.name) % len(ORDERS)]
    return emulation.twins()


def natives() -> bool:
    return native.why_no_native() is None


def assert_same(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    """Equal in type, shape and every bit."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert torch.equal(a, b)


# ---------------------------------------------------------------- points


def _normal(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(math.prod(shape)).normal(size=shape))


def _lattice(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(math.prod(shape)).integers(0, 3, shape).astype(float))


def _duplicates(*shape: int) -> torch.Tensor:
    return _normal(*shape)[:, torch.arange(shape[1]) % max(1, shape[1] // 3)]


# Points, and which share of their spread the radius is.
POINT_SETS: dict[str, Callable[..., torch.Tensor]] = {
    "normal": _normal,
    "lattice": _lattice,
    "duplicates": _duplicates,
    "all equal": lambda *shape: torch.full(shape, 0.1, dtype=torch.float64),
    "zeros": lambda *shape: torch.zeros(shape, dtype=torch.float64),
    "huge": lambda *shape: 1e150 * _normal(*shape),
    "tiny": lambda *shape: 1e-150 * _normal(*shape),
    "far from 0": lambda *shape: 1e8 + _normal(*shape),
    "some zero vectors": lambda *shape: _normal(*shape) * (torch.arange(shape[1]) % 2)[:, None],
}


def squared_distances(points: torch.Tensor) -> torch.Tensor:  # (B, n, p) -> (B, n, n)
    """Feature by feature in order, every operation rounded: the sum that all twins agree on."""
    squares = torch.zeros(*points.shape[:2], points.shape[1], dtype=torch.float64)
    for feature in points.unbind(-1):
        difference = feature[:, :, None] - feature[:, None, :]
        squares += difference * difference
    return squares


def distances_of(points: torch.Tensor) -> torch.Tensor:
    """NumPy's square root is correctly rounded, as C++'s and CUDA's are; torch's on the CPU is not always."""
    return torch.from_numpy(np.sqrt(squared_distances(points).numpy()))


def others(points: torch.Tensor) -> torch.Tensor:
    """Distances, infinite from every point to itself."""
    return distances_of(points) + torch.diag(torch.full((points.shape[1],), math.inf))


def middle_distance(points: torch.Tensor) -> float:
    """A distance that occurs, near the middle of all: pairs lie on the cut."""
    found = others(points)
    found = found[found.isfinite() & (found > 0)].sort().values
    return float(found[found.numel() // 2]) if found.numel() else 1.0


# ---------------------------------------------------------------- radius


def _check_radius(cuda: Twins, points: torch.Tensor, decay: float, index: torch.dtype, value: torch.dtype) -> None:
    reach = middle_distance(points)
    bandwidth = reach / 2
    near = others(points) <= reach
    counts = cuda.radius_counts(points, reach)
    assert torch.equal(counts, near.sum(-1))
    n_sets, n = counts.shape
    first, last = (0, n) if n < 32 else (n // 3, n - 1)
    gap = torch.arange(n_sets * (last - first)) % 3
    rows = counts[:, first:last].T.reshape(-1) + gap
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), rows.cumsum(0)])

    def fill(twins: Twins) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indices, values = (
            torch.full((int(indptr[-1]),), -7, dtype=index),
            torch.full((int(indptr[-1]),), -7, dtype=value),
        )
        where = (bandwidth, decay, reach, first, last, indptr, gap)
        return twins.radius_fill(points, *where, indices, values), indices, values

    gap_at, indices, values = fill(cuda)
    affinity = torch.exp(-((others(points) / bandwidth) ** decay)).to(value)
    expected = _fill_by_rows(near, affinity, first, last, indptr, gap)
    assert_same((gap_at, indices), (expected[0], expected[1].to(index)))
    torch.testing.assert_close(values, expected[2], rtol=2e-7 if value == torch.float32 else 1e-13, atol=0)
    if natives():
        assert_same((counts,), (CPP["radius_counts"](points, reach),))
        assert_same((gap_at, indices, values), fill(SimpleNamespace(**CPP)))


def _fill_by_rows(
    near: torch.Tensor, affinity: torch.Tensor, first: int, last: int, indptr: torch.Tensor, gap: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What radius_fill writes, row by row; -7 where it writes nothing."""
    n_sets = near.shape[0]
    gap_at = torch.empty_like(gap)
    indices, values = torch.full((int(indptr[-1]),), -7), torch.full((int(indptr[-1]),), -7, dtype=affinity.dtype)
    for row, (i, s) in enumerate(itertools.product(range(first, last), range(n_sets))):
        columns = torch.nonzero(near[s, i]).squeeze(1)
        place = indptr[row] + torch.arange(columns.numel()) + torch.where(columns > i, gap[row], 0)
        indices[place], values[place] = columns * n_sets + s, affinity[s, i, columns]
        gap_at[row] = indptr[row] + (columns < i).sum()
    return gap_at, indices, values


@pytest.mark.slow
@pytest.mark.parametrize("n", POINTS)
def test_radius_over_shapes(cuda_in_turn: Twins, n: int) -> None:
    for n_sets, p in itertools.product(SETS, FEATURES):
        _check_radius(cuda_in_turn, _normal(n_sets, n, p), 2.0, *COUNTED)


@pytest.mark.parametrize("points", POINT_SETS)
def test_radius_over_points(cuda: Twins, points: str) -> None:
    for types, n in itertools.product(STORAGE, (7, 67)):
        _check_radius(cuda, POINT_SETS[points](3, n, 6), 5.0, *types)


def test_radius_of_other_decays_and_many_points(cuda_in_turn: Twins) -> None:
    _check_radius(cuda_in_turn, _normal(1, 1025, 10), 2.5, *COUNTED)


@pytest.mark.parametrize("reach", [0.0, 5e-324, 1e-200, 1.0, math.sqrt(2), 1e200, math.inf])
def test_radius_ties(cuda_in_turn: Twins, reach: float) -> None:
    points = _lattice(2, 70, 6)
    assert torch.equal(
        cuda_in_turn.radius_counts(points, reach),
        (others(points) <= reach).logical_and(~torch.eye(70, dtype=torch.bool)).sum(-1),
    )


def test_radius_at_the_cut_of_the_package(cuda_in_turn: Twins) -> None:
    """A distance that is the last to count, and the float above it."""
    reach = float(cut_distance(torch.tensor(0.7, dtype=torch.float64), decay=2.0, thresh=1e-4))
    points = torch.tensor([[[0.0], [reach], [math.nextafter(reach, math.inf)]]], dtype=torch.float64)
    assert cuda_in_turn.radius_counts(points, reach).tolist() == [[1, 2, 1]]


def test_radius_fill_reports_rows_of_another_length(cuda: Twins) -> None:
    """Neither more nor fewer entries than counted go unnoticed, and nothing is written beyond a row."""
    points = _normal(1, 40, 6)
    counts = cuda.radius_counts(points, 2.0)[0]
    for change in (-1, 1):
        wrong = counts.clone()
        wrong[20] += change
        indptr = torch.cat([torch.zeros(1, dtype=torch.int64), wrong.cumsum(0)])
        indices, values = torch.full((int(indptr[-1]) + 9,), -7), torch.full((int(indptr[-1]) + 9,), -7.0)
        with pytest.raises(native.NativeError, match="counted"):
            cuda.radius_fill(points, 1.0, 2.0, 2.0, 0, 40, indptr, torch.zeros_like(wrong), indices, values)
        assert (indices[-9:] == -7).all() and (values[-9:] == -7).all()


def test_a_tensor_of_another_device_reaches_no_kernel(cuda: Twins) -> None:
    """Its address would be read as one of this device."""
    bandwidth = torch.ones(2, 9, dtype=torch.float64, device="meta")
    with pytest.raises(native.NativeError, match="symmetrized_affinity: a tensor is on meta; accepted: cpu"):
        cuda.symmetrized_affinity(_normal(2, 9, 3), bandwidth, 2.0, 0.0, 0.0, 1.0, torch.float64)


# ---------------------------------------------------------------- symmetrized


def _check_symmetrized(cuda: Twins, points: torch.Tensor, decay: float, thresh: float, value: torch.dtype) -> None:
    n_sets, n, _ = points.shape
    bandwidth = middle_distance(points) / 3 * (1 + torch.arange(n_sets * n).view(n_sets, n) % 3).double()
    bandwidth[0, 0] = 5e-324
    cut = cut_radius(decay, thresh) * (1 + 1e-9)
    given = (points, bandwidth, decay, thresh, SMALLEST, cut, value)
    indptr, indices, values = cuda.symmetrized_affinity(*given)
    distances = distances_of(points)
    one_sided = torch.exp(-((distances / bandwidth[:, :, None]) ** decay))
    one_sided[one_sided < thresh] = 0
    dense = (one_sided + one_sided.mT) / 2
    dense[dense < max(thresh, SMALLEST)] = 0
    rows, columns = torch.nonzero(dense.view(n_sets * n, n), as_tuple=True)
    assert torch.equal(indptr.long(), torch.searchsorted(rows, torch.arange(n_sets * n + 1)))
    assert torch.equal(indices.long(), columns)
    expected = dense.view(n_sets * n, n)[rows, columns].to(value)
    torch.testing.assert_close(values, expected, rtol=2e-7 if value == torch.float32 else 1e-12, atol=0)
    if natives():
        assert_same((indptr, indices, values), CPP["symmetrized_affinity"](*given))


@pytest.mark.parametrize("n", POINTS)
def test_symmetrized_over_shapes(cuda_in_turn: Twins, n: int) -> None:
    for n_sets, p in itertools.product(SETS, FEATURES):
        _check_symmetrized(cuda_in_turn, _normal(n_sets, n, p), 2.0, 1e-4, COUNTED[1])


@pytest.mark.parametrize("points", POINT_SETS)
def test_symmetrized_over_points(cuda: Twins, points: str) -> None:
    for (_, value), n in itertools.product(STORAGE[:2], (7, 67)):
        _check_symmetrized(cuda, POINT_SETS[points](3, n, 6), 5.0, 0.3, value)


# ---------------------------------------------------------------- k-th neighbour


def _check_kth(cuda: Twins, points: torch.Tensor, k: int) -> None:
    expected = others(points).sort(-1).values[..., k - 1]
    found, medians = cuda.kth_neighbor_distance(points, k), cuda.median_kth_neighbor_distance(points, k)
    assert_same((found, medians), (expected, median(expected)))
    if natives():
        assert_same((found,), (CPP["kth_neighbor_distance"](points, k),))
        assert_same((medians,), (CPP["median_kth_neighbor_distance"](points, k),))


@pytest.mark.slow
@pytest.mark.parametrize("n", [n for n in POINTS if n > 1])
def test_kth_over_shapes(cuda_in_turn: Twins, n: int) -> None:
    for turn, (n_sets, p) in enumerate(itertools.product(SETS, FEATURES)):
        _check_kth(cuda_in_turn, _normal(n_sets, n, p), (1, n - 1, n // 2 or 1, min(5, n - 1))[turn % 4])


@pytest.mark.parametrize("points", POINT_SETS)
def test_kth_over_points(cuda: Twins, points: str) -> None:
    for k, n in ((1, 7), (3, 67), (40, 67), (60, 129), (128, 129)):
        _check_kth(cuda, POINT_SETS[points](3, n, 6), k)


@pytest.mark.parametrize("points", ["normal", "lattice", "duplicates"])
def test_median_by_a_bracket(cuda_in_turn: Twins, points: str) -> None:
    """More points than are sampled, in several sets: 2 x 1026."""
    _check_kth(cuda_in_turn, POINT_SETS[points](2, 1026, 6), 5)


def test_median_where_the_sample_misleads(cuda_in_turn: Twins) -> None:
    """Every sampled point lies close to its two neighbours, the others far apart: the bracket does not hold the median.

    Points on a line, whose order is that of a kd-tree, so that the places sampled are known.
    """
    n = 2051
    points = torch.zeros(1, n, 6, dtype=torch.float64)
    points[0, :, 0] = 1e3 * torch.arange(n, dtype=torch.float64)
    sampled = (2 * torch.arange(SAMPLED) + 1) * n // (2 * SAMPLED)
    for side in (-1, 1):
        points[0, sampled + side, 0] = points[0, sampled, 0] + side * (1 + 1e-3 * torch.arange(sampled.numel()))
    assert torch.equal(kd_order(points)[0], torch.arange(n))
    _check_kth(cuda_in_turn, points, 2)


def _two_heaps(n: int) -> torch.Tensor:  # (1, n, 6)
    """Points that lie in turn around two places far apart."""
    points = _normal(1, n, 6)
    points[0, ::2] += 100
    return points


@pytest.mark.parametrize("op", ["radius_counts", "median_kth_neighbor_distance"])
def test_tiles_beyond_reach_are_not_visited(emulation: Emulation, op: str) -> None:
    """A visit of a far tile would show: its rough points are overwritten with those of near tiles."""
    points = _two_heaps(1280)
    n_tiles = 20

    def start(launch: Launch, device: torch.device) -> None:
        if launch.kernel in ("radius_count", "bracket_count"):
            rough = next(one for one in launch.arguments if isinstance(one, torch.Tensor) and one.ndim == 4)
            swapped = rough.clone()
            swapped[:, n_tiles // 2 :] = rough[:, : n_tiles // 2]
            arguments = tuple(swapped if one is rough else one for one in launch.arguments)
            launch = replace(launch, arguments=arguments, blocks=n_tiles // 2)
        emulation.start(launch, device)

    argument = 5 if op == "median_kth_neighbor_distance" else 3.0
    first = kd_order(points)[0, : 64 * n_tiles // 2]
    if op == "radius_counts":
        found = Twins(start).radius_counts(points, argument)
        assert torch.equal(found[0, first], (others(points)[0, first] <= argument).sum(-1))
    else:
        twins = Twins(start)
        stack = twins.gpu.stack_of(points, ordered=True)
        _, _, (low, high, below, within) = _around_median(twins.gpu, points, stack, argument)
        distances = others(points)[0, first]
        assert torch.equal(below[0, : first.numel()], (distances < low).sum(-1))
        assert torch.equal(within[0, : first.numel()], (distances <= high).sum(-1))


def test_pairs_of_a_set_are_visited_once(emulation: Emulation) -> None:
    """Only the block of the first tile counts pairs with that tile; all other blocks skip them."""
    points = _normal(1, 320, 6)

    def counts(blocks: int) -> torch.Tensor:
        def start(launch: Launch, device: torch.device) -> None:
            emulation.start(replace(launch, blocks=blocks) if launch.kernel == "radius_count" else launch, device)

        return Twins(start).radius_counts(points, 1e3)[0, kd_order(points)[0]]

    assert counts(5).tolist() == [319] * 320
    # The first block alone counts its own pairs, and one for every column with each of its 64 rows.
    assert counts(1).tolist() == [319] * 64 + [64] * 256


@pytest.mark.parametrize("p", [6, 100])
def test_tiles_hold_the_points_in_order_and_their_boxes(emulation: Emulation, p: int) -> None:
    points = _normal(2, 150, p)
    stack = emulation.twins().gpu.stack_of(points, ordered=True)
    by_point = stack.rough.transpose(2, 3).flatten(1, 2)
    order = kd_order(points)
    assert torch.equal(stack.order.long(), order) and torch.equal(by_point[:, 150:].isinf(), torch.ones(2, 42, p) > 0)
    centred = torch.take_along_dim(points - points[:, 75:76], order[..., None], 1)
    scale = torch.exp2(-torch.frexp(stack.spans)[1] + 1).double()
    assert torch.equal(stack.spans, (points - points[:, 75:76]).abs().amax((1, 2)))
    assert torch.equal(by_point[:, :150], (centred * scale[:, None, None]).float())
    least, largest = stack.boxes.unbind(1)
    for tile, part in enumerate((slice(0, 64), slice(64, 128), slice(128, 150))):
        first = by_point[:, part, :64]
        assert torch.equal(least[..., tile], first.amin(1)) and torch.equal(largest[..., tile], first.amax(1))


def test_points_are_screened_once(emulation: Emulation) -> None:
    """They are screened again when they change, when another order is needed, or for other points."""
    started = []

    def start(launch: Launch, device: torch.device) -> None:
        started.append(launch.kernel)
        emulation.start(launch, device)

    twins, points = Twins(start), _normal(1, 130, 6)

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
        unversioned = _normal(1, 130, 6)
    assert [screens(twins.kth_neighbor_distance, unversioned, 3) for _ in range(2)] == [1, 1]
    assert screens(twins.kth_neighbor_distance, points, 3) == 1
    del points
    assert twins.gpu._kept._last is None


@pytest.mark.parametrize("step", ["get", "put"])
def test_another_thread_may_put_a_stack_meanwhile(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another thread would come in between two steps of a method, the test itself does."""
    points, newer = _normal(2, 1, 130, 6)
    kept, stacks = KeptStack(), [new_stack(one, None) for one in (points, newer)]
    kept.put(points, False, stacks[0])
    seen: list[Stack | None] = []
    if step == "get":
        key_of = KeptStack._key_of

        def meanwhile(*arguments: Any) -> tuple[int, ...]:
            if not seen:
                seen.append(None)
                kept.put(newer, False, stacks[1])
            return key_of(*arguments)

        monkeypatch.setattr(KeptStack, "_key_of", staticmethod(meanwhile))
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
    """Blocks whose rows lie in many sets."""
    points = _normal(200, 5, 6)
    _check_kth(cuda, points, 2)
    _check_radius(cuda, points, 2.0, torch.int32, torch.float32)
    _check_symmetrized(cuda, points, 2.0, 1e-4, torch.float64)


# ---------------------------------------------------------------- the float32 screen


def _shells(p: int, scale: float, offset: float) -> torch.Tensor:  # (2, 70, p)
    """Points on a sphere around the first one, but for some parts in 1e9 to 1e6 of its radius; some of them twice."""
    rng = np.random.default_rng(p)
    directions = rng.normal(size=(2, 70, p))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    off = 10.0 ** rng.uniform(-9, -6, (2, 70, 1)) * rng.choice((-1, 0, 1), (2, 70, 1))
    points = directions * (1 + off)
    points[:, 0] = 0
    points[:, 40:50] = points[:, 30:40]
    return torch.from_numpy((points + offset) * scale)


def _around(distance: float) -> list[float]:
    """A distance, its neighbours, and what is nearer to it than float32 can tell."""
    near = [distance * (1 + off) for off in (-1e-6, -1e-7, -1e-8, 1e-8, 1e-7, 1e-6)]
    return [distance, math.nextafter(distance, 0), math.nextafter(distance, math.inf), *near]


# Scale and offset in scales. The last two: squares that vanish, and squares beyond the range of float64.
RANGES = {"plain": (1, 0), "offset": (1, 1e6), "small": (1e-30, 0), "large": (1e30, 3), "tiny": (1e-161, 0)}
RANGES |= {"beyond": (1e154, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("p", [1, 10, 33, 100])
def test_pairs_that_float32_cannot_tell_apart(cuda_in_turn: Twins, kind: str, p: int) -> None:
    points = _shells(p, *RANGES[kind])
    distances = others(points)
    for reach in _around(float(distances[0, 0, 20])):
        counts = cuda_in_turn.radius_counts(points, reach)
        # Squares beyond the range are infinite: within an infinite distance, but not of the point itself.
        near = (distances <= reach) & ~torch.eye(70, dtype=torch.bool)
        assert torch.equal(counts, near.sum(-1))
        if natives():
            assert_same((counts,), (CPP["radius_counts"](points, reach),))
    if kind != "beyond":  # infinite bandwidths are not for the affinity
        _check_radius(cuda_in_turn, points, 2.0, *COUNTED)
        _check_symmetrized(cuda_in_turn, points, 2.0, 0.3, torch.float64)
    for k in (1, 35, 69):
        _check_kth(cuda_in_turn, points, k)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e300])
def test_what_the_screen_has_no_bound_for(cuda_in_turn: Twins, wrong: float) -> None:
    """Of one point, which spoils nothing for the others of its set."""
    points = _normal(2, 70, 6)
    points[1, [3, 35], 2] = wrong
    near = distances_of(points) <= 2.0
    near[:, range(70), range(70)] = False
    assert torch.equal(cuda_in_turn.radius_counts(points, 2.0), near.sum(-1))


_SCREEN = """
#include <cuda_emulation.h>
#include "{csrc}/common/screen.h"
namespace of {{
#include "{csrc}/cuda/pair_cut.h"
}}
using namespace of;
extern "C" double screen_error(double span, long long p) {{ return mmp_screen(span, p).error; }}
// How many of n pairs the screen tells wrongly, and the largest share of its error that one used up.
extern "C" long long screen_faults(const double* x, const double* y, const float* a, const float* b, long long n,
                                   long long p, double span, double* used) {{
    const MmpScreen screen = mmp_screen(span, p);
    long long faults = 0;
    for (long long i = 0; i < n; ++i) {{
        const double square = mmp_squared_distance(x + i * p, 1, y + i * p, 1, p), root = sqrt(square);
        float fused = 0, rounded = 0;
        for (long long f = i * p; f < (i + 1) * p; ++f) {{
            const float d = a[f] - b[f];
            fused = fmaf(d, d, fused), rounded = rounded + d * d;
        }}
        for (const float rough : {{fused, rounded}}) {{
            faults += rough <= mmp_surely(screen, std::nextafter(root, 0.0)) || rough > mmp_possibly(screen, root);
            faults += square < mmp_least_square(screen, rough) || square > mmp_most_square(screen, rough);
            const double off = std::fabs(sqrt((double)rough) - root * screen.scale);
            *used = std::fmax(*used, off / (screen.error + screen.relative * root * screen.scale));
        }}
    }}
    return faults;
}}
"""


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = compile_text("screen", _SCREEN.format(csrc=source_folder()), tmp_path_factory.mktemp("screen"))
    library.screen_error.restype, library.screen_error.argtypes = ctypes.c_double, (ctypes.c_double, ctypes.c_int64)
    return library


def _pointer(values: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, 1e-160, 1e-305])
@pytest.mark.parametrize("p", [1, 2, 10, 50, 200])
def test_the_bound_of_the_screen_holds(emulation: Emulation, screen: ctypes.CDLL, p: int, scale: float) -> None:
    """Of 4,000 pairs whose distances go from one to 1e-9 of the span, coordinates on the edge of their rounding."""
    rng = np.random.default_rng(p)
    ends = rng.uniform(-1, 1, (1, 4000, p)) * 10.0 ** rng.uniform(-9, 0, (1, 4000, 1))
    middle = rng.uniform(-1, 1, (1, 4000, p))
    points = torch.from_numpy(np.concatenate([middle, np.zeros((1, 1, p)), middle + ends], 1) * scale)
    stack = emulation.twins().gpu.stack_of(points)
    rough = stack.rough.transpose(2, 3).flatten(1, 2)[..., :p]  # past the last feature 0, past the last point infinite
    spans = stack.spans
    x, y = points[0, :4000].contiguous(), points[0, 4001:].contiguous()
    a, b = rough[0, :4000].contiguous(), rough[0, 4001:].contiguous()
    used, span = ctypes.c_double(), ctypes.c_double(float(spans))
    given = (*map(_pointer, (x, y, a, b)), ctypes.c_int64(4000), ctypes.c_int64(p), span, ctypes.byref(used))
    assert screen.screen_faults(*given) == 0
    assert used.value <= 1  # measured: 0.46 for p = 1 to 0.05 for p = 200; the bound adds up what rarely does
    # Tight enough to be of use: 4.2 2^-24 sqrt(p) of the span, unless squares vanish beside it.
    assert screen.screen_error(span, p) == pytest.approx(4.2 * 2**-24 * p**0.5, rel=1e-12) or scale < 1e-150


def test_the_screen_gives_up_where_it_has_no_bound(screen: ctypes.CDLL) -> None:
    for span, p in ((math.nan, 3), (math.inf, 3), (1e154, 3), (1.0, 2**20)):
        assert screen.screen_error(span, p) == math.inf
    assert screen.screen_error(1e153, 3) < 1e-6 and screen.screen_error(0.0, 3) < math.inf


def _pairs_in_doubt(emulation: Emulation, points: torch.Tensor, reach: float) -> int:
    """Ordered pairs that reach float64: they alone change with the points that float64 is given."""

    def count(exact: float) -> int:
        def start(launch: Launch, device: torch.device) -> None:
            if launch.kernel == "radius_count":
                launch = replace(launch, arguments=(torch.full_like(points, exact), *launch.arguments[1:]))
            emulation.start(launch, device)

        return int(Twins(start).radius_counts(points, reach).sum())

    return count(0.0) - count(math.nan)


def test_few_pairs_of_a_trace_reach_float64(emulation: Emulation) -> None:
    """At full size 0.3 in a million pairs of the suite's Hopf units, one in a million of Hopf and pitchfork."""
    for scenario in ("hopf", "hopf_pitchfork"):
        by_unit = unit_major(normalize(bifurcation(scenario, n_epochs=12, n_timesteps=30)))
        bandwidth = interslice_bandwidth(by_unit, 25)
        reach = float(cut_distance(bandwidth, decay=2.0, thresh=1e-4))
        pairs = by_unit.shape[0] * by_unit.shape[1] ** 2
        assert _pairs_in_doubt(emulation, by_unit.contiguous(), reach) <= 1e-5 * pairs
    # And all that can be in doubt are counted: 69 of the first point of each set with the others, and their ties.
    points = _shells(10, 1, 0)
    assert _pairs_in_doubt(emulation, points, float(others(points)[0, 0, 20])) >= 4 * 60


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("p", [6, 33, 100])
def test_nothing_is_read_before_it_is_there(emulation: Emulation, p: int, order: int) -> None:
    """Shared memory begins as NaN, which float64 would decide correctly: a fault shows as more pairs in doubt."""
    emulation.order, points = order, _normal(1, 330, p)
    reach = middle_distance(points)
    assert _pairs_in_doubt(emulation, points, reach) <= 30  # a fault: thousands
    assert torch.equal(emulation.twins().radius_counts(points, reach), (others(points) <= reach).sum(-1))


# ---------------------------------------------------------------- sparse matrices


def random_csr(
    n_rows: int, n_columns: int, share: float, index: torch.dtype, value: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Entries above 0; every fourth row is empty and the last one full."""
    rng = np.random.default_rng(n_rows + n_columns)
    there = rng.random((n_rows, n_columns)) < share
    there[::4] = False
    there[-1] = True
    rows, columns = np.nonzero(there)
    indptr = torch.from_numpy(np.searchsorted(rows, np.arange(n_rows + 1)))
    values = torch.from_numpy(rng.random(rows.size) + 0.01)
    return indptr.to(index), torch.from_numpy(columns.copy()).to(index), values.to(value)


def dense_of(indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, n_columns: int) -> torch.Tensor:
    rows = torch.repeat_interleave(torch.arange(indptr.numel() - 1), (indptr[1:] - indptr[:-1]).long())
    dense = torch.zeros(indptr.numel() - 1, n_columns, dtype=torch.float64)
    dense[rows, indices.long()] = values.double()
    return dense


def _check_product(cuda: Twins, csr: tuple[torch.Tensor, ...], block: torch.Tensor, interleave: int) -> None:
    product = cuda.csr_matmul(*csr, block, interleave)
    assert product.dtype == block.dtype
    expected = dense_of(*csr, block.shape[0]) @ block.double()
    most = 1e-4 if block.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(product.double(), expected, rtol=0, atol=most)
    # Without a fused multiply-add the baseline rounds once more.
    if natives() and native.isa() != "baseline":
        assert_same((product,), (CPP["csr_matmul"](*csr, block, interleave),))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_csr_matmul_over_widths(cuda: Twins, width: int, dtype: torch.dtype) -> None:
    for n_rows, interleave in ((1, 1), (33, 1), (70, 7), (71, 3)):
        csr = random_csr(n_rows, 60, 0.2, *STORAGE[0])
        _check_product(cuda, csr, _normal(60, width).to(dtype), interleave)


def test_csr_matmul_over_types(cuda_in_turn: Twins) -> None:
    for types, block in itertools.product(STORAGE, (torch.float32, torch.float64)):
        csr = random_csr(50, 90, 0.3, *types)
        _check_product(cuda_in_turn, csr, _normal(90, 110).to(block), 5)


def test_csr_matmul_of_nothing(cuda_in_turn: Twins) -> None:
    empty = (torch.zeros(4, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), torch.zeros(0))
    assert torch.equal(cuda_in_turn.csr_matmul(*empty, torch.ones(5, 16), 1), torch.zeros(3, 16))
    assert cuda_in_turn.csr_matmul(torch.zeros(1, dtype=torch.int32), *empty[1:], torch.ones(5, 16), 1).shape == (0, 16)


@pytest.mark.parametrize("n_labels", [1, 2, 32, 33, 500, 6112, 6113])
def test_landmark_aggregate(cuda: Twins, n_labels: int) -> None:
    for types in STORAGE:
        csr = random_csr(43, 400, 0.5, *types)
        labels = torch.from_numpy(np.random.default_rng(n_labels).integers(0, n_labels, 400))
        labels[:100] = n_labels - 1  # many entries of one label, and the last window in use
        # Runs of every length up to a warp's, and two labels that alternate.
        labels[100:300] = labels[100 + (torch.arange(200).double() * 2).sqrt().long()]
        labels[300:340] = labels[300 + torch.arange(40) % 2]
        indptr, indices, values = cuda.landmark_aggregate(*csr, labels, n_labels)
        expected = dense_of(*csr, 400) @ torch.nn.functional.one_hot(labels, n_labels).double()
        found = dense_of(indptr, indices, values, n_labels)
        assert torch.equal(found > 0, expected > 0)
        rounding = 1e-13 if values.dtype == torch.float64 else 1e-7
        torch.testing.assert_close(found, expected, rtol=rounding, atol=0)
        if natives():
            assert_same((indptr, indices, values), CPP["landmark_aggregate"](*csr, labels, n_labels))


# ---------------------------------------------------------------- Guttman transform


def _guttman(distances: torch.Tensor, points: torch.Tensor, together: float) -> tuple[torch.Tensor, torch.Tensor]:
    between = distances_of(points[None])[0]
    ratio = torch.where(between > together, distances.double() / between, 0)
    moved = (ratio.sum(1, keepdim=True) * points - ratio @ points) / points.shape[0]
    return moved, (distances.double() - between).square().sum()


@pytest.mark.parametrize("n_components", COMPONENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_guttman_transform(cuda: Twins, n_components: int, dtype: torch.dtype) -> None:
    for n in (1, 2, 3, 4, 5, 31, 127, 300):
        distances = distances_of(_normal(1, n, 8))[0].to(dtype)
        points = _normal(n, n_components).float().double()  # the same points in float32
        points[n // 2 :: 7] = points[n // 2].clone()  # duplicates: they pull nothing
        share = 1e-12
        found = cuda.guttman_transform(distances, points, share)
        expected = _guttman(distances, points, share * float(points.abs().max()))
        # Measured: 1.4e-5 and 1.4e-13, where points lie close to one another.
        most = 5e-5 if dtype == torch.float32 else 5e-13
        torch.testing.assert_close(found, expected, rtol=most, atol=most)
        if natives():
            theirs = CPP["guttman_transform"](distances, points, share)  # off in float32 by 8.6e-5
            torch.testing.assert_close(found, theirs, rtol=4 * most, atol=4 * most)


# ---------------------------------------------------------------- steps of a descent

# Points, moved, trial, step, kept, state.
Places = tuple[torch.Tensor, ...]
# Gains of a trial, as a share of the least stress seen. Most are large, or such as end the wait for long steps; others
# are less than eps, none, a rise, all of it, and no number.
GOING_ON, OTHERS = (0.3, 0.3, 5e-4), (1e-8, 0.0, -0.3, -0.3, 1.0, math.nan)


def _begun(rng: np.random.Generator, n: int, n_components: int) -> Places:
    points, moved = torch.from_numpy(rng.integers(-9, 9, (2, n, n_components)).astype(float))
    state = torch.zeros(descent.N_STATE, dtype=torch.float64)
    state[descent.BEST], state[descent.PLAIN], state[descent.N_ITER] = 1.0, 1, 1
    kept = torch.zeros(descent.ROWS, points.numel(), dtype=torch.float64)
    return points, moved, moved.clone(), torch.zeros_like(points), kept, state


def _branch(before: list[float], after: list[float], gain: float) -> str:
    """In words, what a step did; from the counts before and after alone."""
    plain = bool(before[descent.PLAIN])
    if after[descent.DONE]:
        return "ended with stress 0" if gain == 1 else "ended"
    if not plain and not gain > 0:
        return "gave way" if after[descent.PLAIN] else "shortened"
    kept = int(before[descent.N_KEPT]), int(after[descent.N_KEPT])
    if not plain and kept[1] == 0:
        return "forgot"
    learned = {0: "full" if kept[0] == descent.DEPTH else "left out", 1: "learned", -1: "left out"}[kept[1] - kept[0]]
    return f"{learned}, then {'plain' if after[descent.PLAIN] else 'long'}"


BRANCHES = {
    *("ended with stress 0", "ended", "gave way", "shortened", "forgot"),
    *(f"{learned}, then {kind}" for learned in ("learned", "left out", "full") for kind in ("plain", "long")),
}


def _copies(tensors: Places) -> Places:
    return tuple(tensor.clone() for tensor in tensors)


def _bits(tensors: Places) -> Places:
    """NaN is then like NaN."""
    return tuple(tensor.view(torch.int64) for tensor in tensors)


def _assert_alike(found: Places, wanted: Places) -> None:
    """To rounding: the portable products are the library's, whose sums have another order.

    Rows of `kept` that the next step will take do not count: the CUDA twin writes those of a step it then refuses.
    """
    told, expected = found[-1].tolist(), wanted[-1].tolist()
    np.testing.assert_array_equal(told[: descent.GRAM], expected[: descent.GRAM])  # NaN is like NaN
    order = descent._order(told)
    rows = [row for slot in order if slot != descent._next_slot(order) for row in (slot, slot + descent.DEPTH)]
    gram = [tensors[-1][descent.GRAM :].view(descent.ROWS, -1)[rows][:, rows] for tensors in (found, wanted)]
    size = wanted[4][rows].square().sum(1).sqrt()
    # Measured: 4.2e-16 of the product of their norms.
    assert bool(((gram[0] - gram[1]).abs() <= 1e-13 * size[:, None] * size).all())
    assert_same((*found[:2], found[4][rows]), (*wanted[:2], wanted[4][rows]))
    # Measured: 4e-11 of the largest coordinate, where two of the steps kept are nearly alike.
    torch.testing.assert_close(found[2:4], wanted[2:4], rtol=0, atol=1e-8 * max(1.0, float(wanted[0].abs().max())))


@pytest.mark.parametrize(("shape", "n_histories"), [((1, 1), 8), ((40, 3), 30)], ids=str)
def test_descent_step_over_histories(cuda_in_turn: Twins, shape: tuple[int, int], n_histories: int) -> None:
    """Against the portable version, step by step from the same state, until the descent ends; every branch is met."""
    rng, met = np.random.default_rng(shape[0]), set()
    for _ in range(n_histories):
        places, max_iter = _begun(rng, *shape), int(rng.choice([2, 40]))
        while not places[-1][descent.DONE]:
            points, moved, trial, _, _, state = places
            before = state.tolist()
            other = rng.random() < (0.05 if before[descent.PLAIN] else 0.5)
            gain = float(rng.choice(OTHERS if other else GOING_ON))
            # The residual falls along the step, or does anything: then there may be no curvature to keep.
            fall = rng.choice([0.1, 0.5]) * (trial - points)
            if rng.random() < 0.3:
                fall = torch.from_numpy(rng.normal(size=shape))
            arguments = (trial + (moved - points) - fall, state[descent.BEST] * (1 - gain))
            found, wanted = _copies(places), places
            cuda_in_turn.descent_step(*arguments, *found, 1e-6, max_iter)
            PORTABLE["descent_step"](*arguments, *wanted, 1e-6, max_iter)
            _assert_alike(found, wanted)
            met.add(_branch(before, wanted[-1].tolist(), gain))
            places = wanted
        for twin in (cuda_in_turn.descent_step, PORTABLE["descent_step"]):
            late = _copies(places)
            twin(*arguments, *late, 1e-6, max_iter)
            assert_same(_bits(late), _bits(places))
    assert met == BRANCHES or shape == (1, 1)


def test_descent_step_of_whole_numbers_has_the_same_bits(cuda: Twins) -> None:
    """Sums are exact then, so all that is decided is equal to the last bit; more than one thread a coordinate too."""
    for n in (3, 9000):
        rng = np.random.default_rng(n)
        places = _begun(rng, n, 2)
        places[-1][descent.N_ITER] = descent.DEPTH
        found, wanted = _copies(places), places
        arguments = (
            places[2] + torch.from_numpy(rng.integers(-3, 3, (n, 2)).astype(float)),
            torch.tensor(0.9999).double(),
        )
        cuda.descent_step(*arguments, *found, 1e-6, 100)
        PORTABLE["descent_step"](*arguments, *wanted, 1e-6, 100)
        assert wanted[-1][descent.N_KEPT] == 1 and not wanted[-1][descent.PLAIN]
        assert_same((*found[:2], *found[4:]), (*wanted[:2], *wanted[4:]))
        torch.testing.assert_close(found[2:4], wanted[2:4], rtol=1e-14, atol=1e-13)


class NothingRead(TorchDispatchMode):
    """Fails where torch hands a number to the host, which on a GPU would wait for it, and in a capture be an error."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number was read"
        return func(*args, **(kwargs or {}))


def test_a_descent_of_cuda_twins_reads_nothing(emulation: Emulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way by the CUDA twins: nothing is read back in a sweep; the end is that of the portable versions."""
    emulation.order, cuda = ORDERS[2], emulation.twins()
    distances = distances_of(_normal(1, 20, 5))[0]
    start = _normal(20, 2)
    start -= start.mean(0)
    portable = smacof_module._descend(distances, start, 3000, 1e-6, smacof_module.one_sweep)
    monkeypatch.setattr(smacof_module, "guttman_transform", cuda.guttman_transform)
    monkeypatch.setattr(descent, "descent_step", cuda.descent_step)
    way = Way(distances, start, 3000, 1e-6)

    def advance() -> None:
        with NothingRead():
            way.advance()

    repeat_until(way.done, advance)
    ends = [_guttman(distances, moved, 1e-12)[1] for moved in (way.moved, portable.coordinates)]
    # Measured: the same, after as many sweeps; another order of a sum may leave as much open as `eps` does.
    assert float((ends[0] / ends[1] - 1).abs()) < 1e-5 and way.n_iter > 10
    before = _copies((way.points, way.moved, way.trial, way.state))
    for _ in range(20):
        way.advance()
    assert_same((way.points, way.moved, way.trial, way.state), before)


def test_what_reads_is_found() -> None:
    with NothingRead(), pytest.raises(AssertionError, match="a number was read"):
        float(torch.ones(()))


# ---------------------------------------------------------------- the emulation itself

_FAULTY = """
#include <cuda_emulation.h>
namespace of {
typedef long long Row[64];
static void reversed(const long long* from, long long* to, long long synchronised) {
    MMP_SHARED(Row, shared);
    shared[threadIdx.x] = from[threadIdx.x];
    if (synchronised) __syncthreads();
    to[threadIdx.x] = shared[63 - threadIdx.x];
}
static void stuck(long long threads) {
    if (threadIdx.x < threads) __syncthreads();
}
static void half_a_vote(long long lanes) {
    if (threadIdx.x < lanes) __ballot_sync(0xffffffffu, 1);
}
static void last_block(const long long* from, long long* by_block, long long* n_done, long long* sum,
                       long long counted) {
    if (threadIdx.x != 0) return;
    by_block[blockIdx.x] = from[blockIdx.x];
    const long long place = atomicAdd(n_done, 1ll);
    if ((counted ? place : blockIdx.x) != gridDim.x - 1) return;
    *sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) *sum += by_block[b];
}
}
MMP_EMULATE(of, reversed)
MMP_EMULATE(of, stuck)
MMP_EMULATE(of, half_a_vote)
MMP_EMULATE(of, last_block)
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    folder = tmp_path_factory.mktemp("faulty")
    return Emulation(folder, libraries={"faulty": compile_text("faulty", _FAULTY, folder)})


def _start(emulation: Emulation, kernel: str, *arguments: object, blocks: int = 1) -> None:
    emulation.start(Launch("faulty", kernel, arguments, blocks, 64), torch.device("cpu"))


@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_barrier_shows(faulty: Emulation, order: int) -> None:
    faulty.order = order
    start, ends = torch.arange(64), [torch.empty(64, dtype=torch.int64) for _ in range(2)]
    for synchronised, end in enumerate(ends):
        _start(faulty, "reversed", start, end, synchronised)
    assert torch.equal(ends[1], start.flip(0))
    assert not torch.equal(ends[0], start.flip(0))


@pytest.mark.parametrize("order", ORDERS)
def test_a_last_block_by_number_shows(faulty: Emulation, order: int) -> None:
    """In the order where the blocks run backwards; the one that counts those before it is right in all."""
    faulty.order, sums = order, []
    for counted in (0, 1):
        by_block, n_done, total = torch.zeros(3, 5, dtype=torch.int64).unbind()
        _start(faulty, "last_block", torch.arange(1, 6), by_block, n_done, total, counted, blocks=5)
        sums.append(int(total[0]))
    assert sums == [5 if order == 1 else 15, 15]


@pytest.mark.parametrize("kernel", ["stuck", "half_a_vote"])
def test_what_would_hang_is_reported(faulty: Emulation, kernel: str) -> None:
    with pytest.raises(RuntimeError, match="never reach"):
        _start(faulty, kernel, 20)
    _start(faulty, kernel, 64)


def test_arguments_of_other_types_are_reported(faulty: Emulation) -> None:
    with pytest.raises(RuntimeError, match="arguments d for q"):
        _start(faulty, "stuck", 20.0)
    with pytest.raises(RuntimeError, match="arguments QFq for QQq"):
        _start(faulty, "reversed", torch.arange(64), torch.ones(64), 1)


def test_every_kernel_is_emulated(emulation: Emulation) -> None:
    """This test needs those above to have run."""
    sources = {path.stem for path in (source_folder() / "cuda").glob("*.cu")}
    assert {source for source in sources for name in emulation.libraries if name.startswith(source)} == sources
