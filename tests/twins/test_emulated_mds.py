"""The CUDA kernels of MDS, emulated: the SMACOF sweep and the step of a descent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmphate_gpu.mds import smacof as smacof_module
from mmphate_gpu.mds.smacof import SmacofRun
from mmphate_gpu.ops import descent_step as descent
from mmphate_gpu.ops.launch.repeat import repeat_until
from mmphate_gpu.ops.launch.twins import CPP, PORTABLE

from .cases import assert_same, normal
from .emulated_checks import distances_of, has_cpp
from .emulation import ORDERS, Emulation, Twins, needs_emulation

pytestmark = needs_emulation


# Blocks have four rows with the first of these numbers of components, and one row with the last.
COMPONENTS = (1, 2, 3, 10, 13)


def _guttman(distances: torch.Tensor, points: torch.Tensor, together: float) -> tuple[torch.Tensor, torch.Tensor]:
    between = distances_of(points[None])[0]
    ratio = torch.where(between > together, distances.double() / between, 0)
    moved = (ratio.sum(1, keepdim=True) * points - ratio @ points) / points.shape[0]
    return moved, (distances.double() - between).square().sum()


@pytest.mark.kernels("guttman_points", "guttman_transform")
@pytest.mark.parametrize("n_components", COMPONENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_guttman_transform(cuda: Twins, n_components: int, dtype: torch.dtype) -> None:
    for n in (1, 2, 3, 4, 5, 31, 127, 300):
        distances = distances_of(normal(1, n, 8))[0].to(dtype)
        points = normal(n, n_components).float().double()  # exact in float32 too
        points[n // 2 :: 7] = points[n // 2].clone()  # duplicates, which do not pull each other
        share = 1e-12
        result = cuda.guttman_transform(distances, points, share)
        expected = _guttman(distances, points, share * float(points.abs().max()))
        # Measured: 1.4e-5 and 1.4e-13, where points lie close to one another.
        most = 5e-5 if dtype == torch.float32 else 5e-13
        torch.testing.assert_close(result, expected, rtol=most, atol=most)
        if has_cpp():
            theirs = CPP["guttman_transform"](distances, points, share)  # off in float32 by 8.6e-5
            torch.testing.assert_close(result, theirs, rtol=4 * most, atol=4 * most)


# Points, moved, trial, step, kept, state.
Places = tuple[torch.Tensor, ...]
# The gain of a trial, as a share of the least stress so far. GOING_ON has large gains, and one that is small enough for
# long steps to begin. OTHERS has a gain below eps, none, losses, a gain of the whole stress, and NaN.
GOING_ON, OTHERS = (0.3, 0.3, 5e-4), (1e-8, 0.0, -0.3, -0.3, 1.0, math.nan)


def _begun(rng: np.random.Generator, n: int, n_components: int) -> Places:
    points, moved = torch.from_numpy(rng.integers(-9, 9, (2, n, n_components)).astype(float))
    state = torch.zeros(descent.N_STATE, dtype=torch.float64)
    state[descent.BEST], state[descent.PLAIN], state[descent.N_ITER] = 1.0, 1, 1
    kept = torch.zeros(descent.ROWS, points.numel(), dtype=torch.float64)
    return points, moved, moved.clone(), torch.zeros_like(points), kept, state


def _branch(before: list[float], after: list[float], gain: float) -> str:
    """The branch that a step took, in words, from the state before and after it."""
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
    *(f"{learned}, then {step}" for learned in ("learned", "left out", "full") for step in ("plain", "long")),
}


def _copies(tensors: Places) -> Places:
    return tuple(tensor.clone() for tensor in tensors)


def _bits(tensors: Places) -> Places:
    """The bits of tensors, where NaN equals NaN."""
    return tuple(tensor.view(torch.int64) for tensor in tensors)


def _assert_alike(result: Places, expected: Places) -> None:
    """Equal up to rounding, since the inner products of the portable version have sums in another order.

    Rows of `kept` that the next step overwrites may differ. The CUDA twin writes them even if it refuses the step.
    """
    state, expected_state = result[-1].tolist(), expected[-1].tolist()
    np.testing.assert_array_equal(state[: descent.GRAM], expected_state[: descent.GRAM])  # NaN equals NaN here
    order = descent._order(state)
    rows = [row for slot in order if slot != descent._next_slot(order) for row in (slot, slot + descent.DEPTH)]
    gram = [tensors[-1][descent.GRAM :].view(descent.ROWS, -1)[rows][:, rows] for tensors in (result, expected)]
    size = expected[4][rows].square().sum(1).sqrt()
    # Measured: 4.2e-16 of the product of the norms.
    assert bool(((gram[0] - gram[1]).abs() <= 1e-13 * size[:, None] * size).all())
    assert_same((*result[:2], result[4][rows]), (*expected[:2], expected[4][rows]))
    # Measured: 4e-11 of the largest coordinate, where two kept steps are nearly equal.
    torch.testing.assert_close(result[2:4], expected[2:4], rtol=0, atol=1e-8 * max(1.0, float(expected[0].abs().max())))


@pytest.mark.kernels("descent_decision", "descent_places")
@pytest.mark.parametrize(("shape", "n_histories"), [((1, 1), 8), ((40, 3), 30)], ids=str)
def test_descent_step_over_histories(cuda_in_turn: Twins, shape: tuple[int, int], n_histories: int) -> None:
    """Each step from the same state as the portable version, until the descent ends. Every branch occurs."""
    rng, met = np.random.default_rng(shape[0]), set()
    for _ in range(n_histories):
        places, max_iter = _begun(rng, *shape), int(rng.choice([2, 40]))
        while not places[-1][descent.DONE]:
            points, moved, trial, _, _, state = places
            before = state.tolist()
            other = rng.random() < (0.05 if before[descent.PLAIN] else 0.5)
            gain = float(rng.choice(OTHERS if other else GOING_ON))
            # The residual falls along the step, or changes at random, where the step may have no curvature.
            fall = rng.choice([0.1, 0.5]) * (trial - points)
            if rng.random() < 0.3:
                fall = torch.from_numpy(rng.normal(size=shape))
            arguments = (trial + (moved - points) - fall, state[descent.BEST] * (1 - gain))
            result, expected = _copies(places), places
            cuda_in_turn.descent_step(*arguments, *result, 1e-6, max_iter)
            PORTABLE["descent_step"](*arguments, *expected, 1e-6, max_iter)
            _assert_alike(result, expected)
            met.add(_branch(before, expected[-1].tolist(), gain))
            places = expected
        for twin in (cuda_in_turn.descent_step, PORTABLE["descent_step"]):
            late = _copies(places)
            twin(*arguments, *late, 1e-6, max_iter)
            assert_same(_bits(late), _bits(places))
    assert met == BRANCHES or shape == (1, 1)


def test_descent_step_of_whole_numbers_has_the_same_bits(cuda: Twins) -> None:
    """Sums of whole numbers are exact, so all decisions have the same bits, with few coordinates and with many."""
    for n in (3, 9000):
        rng = np.random.default_rng(n)
        places = _begun(rng, n, 2)
        places[-1][descent.N_ITER] = descent.DEPTH
        result, expected = _copies(places), places
        arguments = (
            places[2] + torch.from_numpy(rng.integers(-3, 3, (n, 2)).astype(float)),
            torch.tensor(0.9999).double(),
        )
        cuda.descent_step(*arguments, *result, 1e-6, 100)
        PORTABLE["descent_step"](*arguments, *expected, 1e-6, 100)
        assert expected[-1][descent.N_KEPT] == 1 and not expected[-1][descent.PLAIN]
        assert_same((*result[:2], *result[4:]), (*expected[:2], *expected[4:]))
        torch.testing.assert_close(result[2:4], expected[2:4], rtol=1e-14, atol=1e-13)


class NothingRead(TorchDispatchMode):
    """Fails if torch gives a number to the host, which would wait for a GPU, and be an error during a graph capture."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number was read"
        return func(*args, **(kwargs or {}))


def test_a_descent_of_cuda_twins_reads_nothing(emulation: Emulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole descent by the CUDA twins reads nothing back in a sweep, and ends like that of the portable versions."""
    emulation.order, cuda = ORDERS[2], emulation.twins()
    distances = distances_of(normal(1, 20, 5))[0]
    start = normal(20, 2)
    start -= start.mean(0)
    portable = smacof_module.run_to_end(SmacofRun(distances, start, 3000, 1e-6))
    monkeypatch.setattr(smacof_module, "guttman_transform", cuda.guttman_transform)
    monkeypatch.setattr(descent, "descent_step", cuda.descent_step)
    way = SmacofRun(distances, start, 3000, 1e-6)

    def advance() -> None:
        with NothingRead():
            way.advance()

    repeat_until(way.done, advance)
    ends = [_guttman(distances, moved, 1e-12)[1] for moved in (way.moved, portable.coordinates)]
    # Measured: no difference, after the same number of sweeps. Another order of sums may change it by `eps`.
    assert float((ends[0] / ends[1] - 1).abs()) < 1e-5 and way.n_iter > 10
    before = _copies((way.points, way.moved, way.trial, way.state))
    for _ in range(20):
        way.advance()
    assert_same((way.points, way.moved, way.trial, way.state), before)


def test_a_read_number_is_an_error() -> None:
    with NothingRead(), pytest.raises(AssertionError, match="a number was read"):
        float(torch.ones(()))
