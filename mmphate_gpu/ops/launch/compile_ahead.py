"""The CUDA kernels of a fit, compiled while its first stages run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import torch

from .. import descent_step as descent
from .cuda import Twins
from .kernel import Launch, begin_compiling
from .native import SAMPLED
from .twins import CUPY

# Enough that each op launches what it does with many.
LANDMARKS, UNITS = 64, 2
# From this number of slices on a median is bracketed by a sample first.
MANY_SLICES = 4 * SAMPLED + 1


def compile_ahead(
    device: torch.device, *, n_slices: int, n_features: int, width: int, n_components: int, wide: bool
) -> None:
    """Begin to compile, in threads, the kernels of csrc/cuda that a fit of this size launches on ``device``.

    ``width`` is the number of columns of the blocks that the affinity multiplies; ``wide`` says that its values are
    float64. The function returns at once and launches nothing. It does nothing where the CUDA twins do not serve. The
    first launch of a kernel raises what its compilation raised.
    """
    if device.type == "cuda" and CUPY.serves():
        dtype = torch.float64 if wide else torch.float32
        launches = launches_of_fit(min(n_slices, MANY_SLICES), n_features, width, n_components, dtype)
        begin_compiling(launches, device)


@cache  # a second fit of such sizes asks no launcher
def launches_of_fit(
    n_slices: int, n_features: int, width: int, n_components: int, dtype: torch.dtype
) -> tuple[Launch, ...]:
    """What a fit launches, kernel by kernel, in the order of the first launches; without the arguments.

    The launchers run on zeros on the CPU, with a start function that only notes each launch. This is enough, because
    the kernels depend on types and on these few sizes. Indices are assumed to fit into 32 bits.
    """
    launches: list[Launch] = []

    def start(launch: Launch, _: torch.device) -> None:
        launches.append(replace(launch, arguments=()))
        for argument in launch.arguments:  # also of results: counts of nothing
            if isinstance(argument, torch.Tensor):
                argument.zero_()

    twins = Twins(start)
    zeros = partial(torch.zeros, dtype=torch.float64, device="cpu")
    slice_points = zeros(1, UNITS, n_features)
    unit_points = zeros(1, n_slices, n_features)
    offsets, counts = zeros(n_slices + 1, dtype=torch.int64), zeros(n_slices, dtype=torch.int64)
    entries = zeros(0, dtype=torch.int32), zeros(0, dtype=dtype)
    matrix = zeros(n_slices + 1, dtype=torch.int32), *entries
    twins.kth_neighbor_distance(slice_points, 1)
    twins.symmetrized_affinity(slice_points, zeros(1, UNITS), 1, 0, 0, 1, dtype)
    twins.median_kth_neighbor_distance(unit_points, 1)
    twins.radius_counts(unit_points, 1)
    twins.radius_fill(unit_points, 1, 2, 1, 0, n_slices, offsets, counts, *entries)
    twins.csr_matmul(*matrix, zeros(n_slices, width, dtype=torch.float32), 1)
    twins.landmark_aggregate(*matrix, counts, 1)
    points, moved, trial, step = (zeros(LANDMARKS, n_components) for _ in range(4))
    kept = zeros(descent.ROWS, points.numel())
    state = zeros(descent.N_STATE)
    for distance in (torch.float32, torch.float64):
        trial_moved, raw = twins.guttman_transform(zeros(LANDMARKS, LANDMARKS, dtype=distance), points, 0.0)
    twins.descent_step(trial_moved, raw, points, moved, trial, step, kept, state, 0, 1)
    return tuple(launches)
