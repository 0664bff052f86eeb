"""One step of a descent by majorisation, sped up by L-BFGS: take or refuse a trial, and choose the next one."""

from __future__ import annotations

from array import array
from functools import reduce
from operator import add, mul

import torch

from .launch.cuda import Gpu
from .launch.kernel import Argument, Launch
from .launch.pair_stack import blocks_of
from .launch.rehearsal import FitSizes
from .launch.twins import cuda_twin, twins

DEPTH = 5  # past steps from which the curvature is guessed
# Gain of a plain step, as a share of the stress, from which on long steps are taken: at the start, where a sweep takes
# off half of the stress, they may leap into the basin of a higher minimum.
NEAR = 1e-3
SHORTENED = 2  # times a step that does not lower the stress is shortened before a plain one takes its place
# Curvature along a step, as a share of what majorisation grants, below which it is taken for rounding.
LEAST_CURVATURE = 1e-10
# Threads of a block of the CUDA twin, and the most blocks whose sums the last of them adds up.
THREADS, BLOCKS_OF_SUMS = 256, 64
# What `state` holds: whether the descent has ended; sweeps done; whether the trial is a plain step; refusals in a row;
# whether long steps have begun; the least stress so far; how many steps are kept; how many blocks of the CUDA twin have
# stored their sums (0 between steps); the slots, of DEPTH, in which steps are kept, the oldest first; the inner
# products of all kept rows, row by row.
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
    points: torch.Tensor,  # (L, C) float64: the best seen
    moved: torch.Tensor,  # (L, C) float64: the plain step from there
    trial: torch.Tensor,  # (L, C) float64
    step: torch.Tensor,  # (L, C) float64: the long step that leads from `points` to `trial`, if it is one
    kept: torch.Tensor,  # (2 DEPTH, L * C) float64: steps, then the falls of the residual along them
    state: torch.Tensor,  # (N_STATE,) float64, one tensor so that it is read and written at once
    eps: float,
    max_iter: int,
) -> None:
    """Take ``trial`` for ``points``, or refuse it, and put the next trial in its place; all in place, in fixed shapes.

    A long step that does not lower the stress is shortened, to the minimum of the parabola through the stress at both
    ends and its slope at the start, and after SHORTENED times gives way to the plain one. The descent has ended, in
    ``state[DONE]``, when a plain step lowers the stress by less than ``eps`` of itself, after ``max_iter`` sweeps, or
    at stress 0; after that nothing changes any more, so that it may be read late. L-BFGS by inner products only: one
    product with what is kept. The portable version waits for the device, the CUDA one never does.
    O(DEPTH L C) time and no memory that lasts. Deterministic. Source: Nocedal, "Updating quasi-Newton matrices with
    limited storage", 1980.
    """
    told = state.tolist()
    if told[DONE]:
        return
    gain = told[BEST] - float(raw)
    told[N_ITER] += 1
    if told[PLAIN] or gain > 0:
        _take(told, gain, eps, max_iter, trial_moved, points, moved, trial, step, kept)
    else:
        _refuse(told, gain, max_iter, points, moved, trial, step)
    state.copy_(_tensor(told))


def _tensor(values: list[float]) -> torch.Tensor:  # (k,) float64, on the CPU
    """Several times as fast as ``torch.tensor``: for few points, a descent is made of such calls."""
    return torch.frombuffer(array("d", values), dtype=torch.float64)


def _refuse(
    told: list[float],
    gain: float,
    max_iter: int,
    points: torch.Tensor,
    moved: torch.Tensor,
    trial: torch.Tensor,
    step: torch.Tensor,
) -> None:
    """The next trial lies on the way to the one refused, or is the plain step."""
    told[REFUSED] += 1
    told[DONE] = told[N_ITER] >= max_iter
    if told[DONE]:
        return
    if told[REFUSED] <= SHORTENED:
        step *= _share(len(points), float(((moved - points) * step).sum()), gain)
        torch.add(points, step, out=trial)
    else:
        told[PLAIN] = True
        trial.copy_(moved)


def _share(n: int, along: float, gain: float) -> float:
    """Where the parabola through the stress of ``n`` points at both ends of a step, and its slope, has its minimum.

    ``along`` is the inner product of the step with the residual at its start.
    """
    slope = -4 * n * along  # of the sum over ordered pairs
    bend = -gain - slope
    share = -slope / (2 * bend) if bend > 0 else 0.0
    return min(max(share, 0.1), 0.5)


def _take(
    told: list[float],
    gain: float,
    eps: float,
    max_iter: int,
    trial_moved: torch.Tensor,
    points: torch.Tensor,
    moved: torch.Tensor,
    trial: torch.Tensor,
    step: torch.Tensor,
    kept: torch.Tensor,
) -> None:
    """The trial becomes the best point."""
    small = gain < eps * told[BEST]
    told[BEST] -= max(gain, 0.0)
    told[REFUSED] = 0
    told[DONE] = (small and told[PLAIN]) or told[N_ITER] >= max_iter or not told[BEST] > 0
    if not told[DONE]:
        residual = trial_moved - trial
        along = _learn(told, kept, trial - points, (moved - points) - residual, residual)
    points.copy_(trial)
    moved.copy_(trial_moved)
    if told[DONE]:
        return
    if small:
        told[N_KEPT] = 0  # too small a gain to go on so: let a plain step confirm
    told[IS_NEAR] = told[IS_NEAR] or (gain < NEAR * told[BEST] and told[N_ITER] > DEPTH)
    told[PLAIN] = not (told[IS_NEAR] and told[N_KEPT])
    if told[PLAIN]:
        trial.copy_(moved)
    else:
        scale, weights = _weights(told, along)
        torch.add(scale * residual, torch.mv(kept.t(), _tensor(weights).to(kept.device)).view_as(residual), out=step)
        torch.add(points, step, out=trial)


def _order(told: list[float]) -> list[int]:
    """The slots in use, the oldest first."""
    return [int(slot) for slot in told[ORDER : ORDER + int(told[N_KEPT])]]


def _next_slot(order: list[int]) -> int:
    """Where the next step is kept: in place of the oldest, or in the first slot that is free."""
    return order[0] if len(order) == DEPTH else min(set(range(DEPTH)) - set(order))


def _learn(
    told: list[float], kept: torch.Tensor, taken: torch.Tensor, fall: torch.Tensor, residual: torch.Tensor
) -> list[float]:  # (2 DEPTH,)
    """Keep a step along which the residual fell to ``residual``; returns the products of that with all that is kept."""
    order = _order(told)
    slot = _next_slot(order)
    probes = torch.cat([taken, fall, residual]).view(3, -1)
    kept[slot::DEPTH] = probes[:2]  # rows `slot` and `DEPTH + slot`
    *pairs, along = zip(*torch.mm(kept, probes.t()).tolist(), strict=True)
    for row, found in zip((slot, DEPTH + slot), pairs, strict=True):
        told[GRAM + row * ROWS : GRAM + (row + 1) * ROWS] = told[GRAM + row :: ROWS] = found
    with_step, _ = pairs
    order = [one for one in order if one != slot]
    if with_step[DEPTH + slot] > LEAST_CURVATURE * with_step[slot]:
        order.append(slot)
    told[N_KEPT] = len(order)
    told[ORDER : ORDER + len(order)] = order
    return list(along)


def _gram(told: list[float], row: int) -> list[float]:
    """The inner products of one row of what is kept with all of them."""
    return told[GRAM + row * ROWS : GRAM + (row + 1) * ROWS]


def _weights(told: list[float], along: list[float]) -> tuple[float, list[float]]:
    """The quasi-Newton step, as a multiple of the residual and of each of the rows that are kept: the two loops."""
    order = _order(told)
    weights, shares = [0.0] * ROWS, {}

    def product(row: list[float], i: int, scale: float) -> float:
        # Not by `sum`, which rounds otherwise from Python 3.12 on.
        return scale * along[i] + reduce(add, map(mul, weights, row))

    steps = {slot: _gram(told, slot) for slot in order}
    for slot in reversed(order):
        shares[slot] = product(steps[slot], slot, 1.0) / steps[slot][DEPTH + slot]
        weights[DEPTH + slot] -= shares[slot]
    newest = order[-1]
    squared = _gram(told, DEPTH + newest)[DEPTH + newest]  # 0 where the fall is too small to square
    scale = max(1.0, steps[newest][DEPTH + newest] / squared if squared else float("inf"))
    weights = [scale * weight for weight in weights]
    for slot in order:
        weights[slot] += (
            shares[slot] - product(_gram(told, DEPTH + slot), DEPTH + slot, scale) / steps[slot][DEPTH + slot]
        )
    return scale, weights


def _rehearsal(fit: FitSizes) -> tuple[torch.Tensor | int, ...]:
    positions = [fit.positions() for _ in range(5)]
    kept, state = fit.zeros(ROWS, positions[0].numel()), fit.zeros(N_STATE)
    return positions[0], fit.zeros(), *positions[1:], kept, state, 0, 1


@cuda_twin(descent_step, rehearse=lambda fit: [_rehearsal(fit)])
def descent_step_cuda(
    gpu: Gpu,
    trial_moved: torch.Tensor,
    raw: torch.Tensor,
    points: torch.Tensor,
    moved: torch.Tensor,
    trial: torch.Tensor,
    step: torch.Tensor,
    kept: torch.Tensor,
    state: torch.Tensor,
    eps: float,
    max_iter: int,
) -> None:
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
