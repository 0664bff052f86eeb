"""A step of a descent by majorization, accelerated by L-BFGS: accept or refuse a trial, and choose the next one."""

from __future__ import annotations

from array import array
from functools import reduce
from operator import add, mul
from typing import NamedTuple

import torch

from .launch.cuda import Gpu
from .launch.kernel import Argument, Launch, blocks_of
from .launch.rehearsal import Sizes
from .launch.twins import cuda_twin, twins

DEPTH = 5  # past steps from which the curvature is estimated
# Long steps begin once a plain step lowers the stress by less than this share of it. At the start, where a sweep takes
# off half of the stress, they may leap into the basin of a higher minimum.
NEAR = 1e-3
SHORTENED = 2  # times that a step which does not lower the stress is shortened, before a plain one replaces it
# A curvature along a step below this share of what majorization guarantees counts as rounding.
LEAST_CURVATURE = 1e-10
# Threads of a block of the CUDA twin, and the most blocks whose sums the last of them adds up.
THREADS, BLOCKS_OF_SUMS = 256, 64
# The places of `state`: whether the descent has ended; sweeps done; whether the trial is a plain step; refusals in a
# row; whether long steps have begun; the least stress so far; how many steps are stored; how many blocks of the CUDA
# twin have stored their sums (0 between steps); the slots, of DEPTH, in which steps are stored, the oldest first; the
# inner products of all stored rows, row by row.
DONE, N_ITER, PLAIN, REFUSED, IS_NEAR, BEST, N_KEPT, ARRIVED, ORDER = range(9)
GRAM = ORDER + DEPTH
ROWS = 2 * DEPTH
N_STATE = GRAM + ROWS * ROWS


@twins(
    "(Tensor trial_moved, Tensor raw, Tensor(a!) points, Tensor(b!) moved, Tensor(c!) trial, Tensor(d!) step, "
    "Tensor(e!) kept, Tensor(f!) state, float eps, int max_iter) -> ()",
)
def descent_step(
    trial_moved: torch.Tensor,  # (L, C) float64: the plain step from `trial`
    raw: torch.Tensor,  # () float64: the stress at `trial`
    points: torch.Tensor,  # (L, C) float64: the best positions so far
    moved: torch.Tensor,  # (L, C) float64: the plain step from there
    trial: torch.Tensor,  # (L, C) float64
    step: torch.Tensor,  # (L, C) float64: the long step from `points` to `trial`, if the trial is one
    kept: torch.Tensor,  # (2 DEPTH, L C) float64: steps, then how the residual fell along each
    state: torch.Tensor,  # (N_STATE,) float64, one tensor so that it is read and written at once
    eps: float,
    max_iter: int,
) -> None:
    """Accept ``trial`` as ``points``, or refuse it, and write the next trial. All tensors are changed in place.

    A long step that does not lower the stress is shortened: to the minimum of the parabola through the stress at both
    ends, with the slope at the start. After SHORTENED times the plain step replaces it. The descent ends when a plain
    step lowers the stress by less than ``eps`` of itself, after ``max_iter`` sweeps, or at stress 0. Then
    ``state[DONE]`` is set, and further calls change nothing, so that the caller may read it late. L-BFGS works by inner
    products: a step takes one product with the stored rows. The portable version waits for the device, the CUDA version
    never does. O(DEPTH L C) time. Deterministic. Source: Nocedal, "Updating quasi-Newton matrices with limited
    storage", 1980.
    """
    status = state.tolist()
    if status[DONE]:
        return
    gain, places = status[BEST] - float(raw), _Places(points, moved, trial, step)
    status[N_ITER] += 1
    if status[PLAIN] or gain > 0:
        _take(status, gain, eps, max_iter, places, trial_moved, kept)
    else:
        _refuse(status, gain, max_iter, places)
    state.copy_(_tensor(status))


def _tensor(values: list[float]) -> torch.Tensor:  # (k,) float64, on the CPU
    """A tensor of ``values``: ``torch.tensor`` takes several times as long, most of the time of a few points."""
    return torch.frombuffer(array("d", values), dtype=torch.float64)


class _Places(NamedTuple):
    """The tensors of `descent_step` that both answers to a trial change in place."""

    points: torch.Tensor
    moved: torch.Tensor
    trial: torch.Tensor
    step: torch.Tensor


def _refuse(status: list[float], gain: float, max_iter: int, places: _Places) -> None:
    """The next trial lies on the way to the refused one, or is the plain step."""
    status[REFUSED] += 1
    status[DONE] = status[N_ITER] >= max_iter
    if status[DONE]:
        return
    points, moved, trial, step = places
    if status[REFUSED] <= SHORTENED:
        step *= _share(len(points), float(((moved - points) * step).sum()), gain)
        torch.add(points, step, out=trial)
    else:
        status[PLAIN] = True
        trial.copy_(moved)


def _share(n: int, along: float, gain: float) -> float:
    """Where on a step the parabola through the stress of ``n`` points at both ends has its minimum, from 0.1 to 0.5.

    ``along`` is the inner product of the step and the residual at its start, which gives the slope.
    """
    slope = -4 * n * along  # of the sum over ordered pairs
    bend = -gain - slope
    share = -slope / (2 * bend) if bend > 0 else 0.0
    return min(max(share, 0.1), 0.5)


def _take(
    status: list[float],
    gain: float,
    eps: float,
    max_iter: int,
    places: _Places,
    trial_moved: torch.Tensor,
    kept: torch.Tensor,
) -> None:
    """The trial becomes the best position, and the next trial is a long step where the steps so far allow it."""
    points, moved, trial, step = places
    small = gain < eps * status[BEST]
    status[BEST] -= max(gain, 0.0)
    status[REFUSED] = 0
    status[DONE] = (small and status[PLAIN]) or status[N_ITER] >= max_iter or not status[BEST] > 0
    if not status[DONE]:
        residual = trial_moved - trial
        along = _learn(status, kept, trial - points, (moved - points) - residual, residual)
    points.copy_(trial)
    moved.copy_(trial_moved)
    if status[DONE]:
        return
    if small:
        status[N_KEPT] = 0  # the gain is small: forget the steps, so that a plain step confirms the end
    status[IS_NEAR] = status[IS_NEAR] or (gain < NEAR * status[BEST] and status[N_ITER] > DEPTH)
    status[PLAIN] = not (status[IS_NEAR] and status[N_KEPT])
    if status[PLAIN]:
        trial.copy_(moved)
    else:
        scale, weights = _weights(status, along)
        torch.add(scale * residual, torch.mv(kept.t(), _tensor(weights).to(kept.device)).view_as(residual), out=step)
        torch.add(points, step, out=trial)


def _order(status: list[float]) -> list[int]:
    """The slots in use, the oldest first."""
    return [int(slot) for slot in status[ORDER : ORDER + int(status[N_KEPT])]]


def _next_slot(order: list[int]) -> int:
    """The slot of the next step: that of the oldest one, or the first that is free."""
    return order[0] if len(order) == DEPTH else min(set(range(DEPTH)) - set(order))


def _learn(
    status: list[float], kept: torch.Tensor, taken: torch.Tensor, fall: torch.Tensor, residual: torch.Tensor
) -> list[float]:  # (2 DEPTH,)
    """Store a step along which the residual fell to ``residual``; return the inner products of that and all rows."""
    order = _order(status)
    slot = _next_slot(order)
    probes = torch.cat([taken, fall, residual]).view(3, -1)
    kept[slot::DEPTH] = probes[:2]  # rows `slot` and `DEPTH + slot`
    *pairs, along = zip(*torch.mm(kept, probes.t()).tolist(), strict=True)
    for row, products in zip((slot, DEPTH + slot), pairs, strict=True):
        status[GRAM + row * ROWS : GRAM + (row + 1) * ROWS] = status[GRAM + row :: ROWS] = products
    with_step, _ = pairs
    order = [other for other in order if other != slot]
    if with_step[DEPTH + slot] > LEAST_CURVATURE * with_step[slot]:
        order.append(slot)
    status[N_KEPT] = len(order)
    status[ORDER : ORDER + len(order)] = order
    return list(along)


def _gram(status: list[float], row: int) -> list[float]:
    """The inner products of a stored row and all of them."""
    return status[GRAM + row * ROWS : GRAM + (row + 1) * ROWS]


def _weights(status: list[float], along: list[float]) -> tuple[float, list[float]]:
    """The quasi-Newton step as multiples of the residual and of the stored rows, by the two loops of L-BFGS."""
    order = _order(status)
    weights, shares = [0.0] * ROWS, {}

    def product(row: list[float], i: int, scale: float) -> float:
        # `sum` of floats rounds differently from Python 3.12 on.
        return scale * along[i] + reduce(add, map(mul, weights, row))

    steps = {slot: _gram(status, slot) for slot in order}
    for slot in reversed(order):
        shares[slot] = product(steps[slot], slot, 1.0) / steps[slot][DEPTH + slot]
        weights[DEPTH + slot] -= shares[slot]
    newest = order[-1]
    squared = _gram(status, DEPTH + newest)[DEPTH + newest]  # 0 where the fall is too small to square
    scale = max(1.0, steps[newest][DEPTH + newest] / squared if squared else float("inf"))
    weights = [scale * weight for weight in weights]
    for slot in order:
        weights[slot] += (
            shares[slot] - product(_gram(status, DEPTH + slot), DEPTH + slot, scale) / steps[slot][DEPTH + slot]
        )
    return scale, weights


def _rehearsal(sizes: Sizes) -> tuple[torch.Tensor | int, ...]:
    positions = [sizes.positions() for _ in range(5)]
    kept, state = sizes.zeros(ROWS, positions[0].numel()), sizes.zeros(N_STATE)
    return positions[0], sizes.zeros(), *positions[1:], kept, state, 0, 1


@cuda_twin(descent_step, rehearse=lambda sizes: [_rehearsal(sizes)])
def descent_step_cuda(gpu: Gpu, trial_moved, raw, points, moved, trial, step, kept, state, eps, max_iter):
    trial_moved = trial_moved.contiguous()
    device, n, rows = points.device, points.numel(), kept.shape[0]
    defines = {"MMP_DEPTH": str(rows // 2)}
    blocks = blocks_of(n, THREADS)
    few = min(blocks, BLOCKS_OF_SUMS)
    sums = torch.empty(few, 3 * rows + 1, dtype=torch.float64, device=device)
    weights = torch.empty(rows + 1, dtype=torch.float64, device=device)
    action = torch.empty((), dtype=torch.int64, device=device)

    def run(kernel: str, blocks: int, *arguments: Argument) -> None:
        gpu.run(Launch("descent_step", kernel, arguments, blocks, THREADS, defines=defines), device)

    vectors = (trial_moved, points, moved, trial, step, kept, n)
    limits = (float(eps), max_iter, NEAR, LEAST_CURVATURE, SHORTENED)
    run("descent_decision", few, *vectors, raw, points.shape[0], state, *limits, sums, weights, action)
    run("descent_places", blocks, *vectors, weights, action)
