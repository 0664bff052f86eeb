"""The CUDA kernels of a fit, compiled while its first stages run."""

from __future__ import annotations

import torch

from . import descent_step as descent
from ._cuda import Twins
from ._launch import Launch, begin_compiling
from ._native import SAMPLED
from .twins import CUPY

# With this many landmarks MDS launches the same kernels as with more.
LANDMARKS = 64


def compile_ahead(
    device: torch.device, *, n_slices: int, n_units: int, n_features: int, width: int, n_components: int, wide: bool
) -> None:
    """Begin to compile, in threads, the kernels of csrc/cuda that a fit of this size launches on ``device``.

    ``width`` is the number of columns of the blocks that the affinity multiplies; ``wide`` says that its values are
    float64. The function returns at once and launches nothing. It does nothing where the CUDA twins do not serve. The
    first launch of a kernel raises what its compilation raised.
    """
    if device.type == "cuda" and CUPY.serves():
        dtype = torch.float64 if wide else torch.float32
        begin_compiling(launches_of_fit(n_slices, n_units, n_features, width, n_components, dtype), device)


def launches_of_fit(
    n_slices: int, n_units: int, n_features: int, width: int, n_components: int, dtype: torch.dtype
) -> list[Launch]:
    """What a fit launches, kernel by kernel, in the order of the first launches.

    The launchers run on zeros on the CPU, with a start function that only notes each launch. This is enough, because
    the kernels depend on types and on these few sizes. Indices are assumed to fit into 32 bits.
    """
    launches: list[Launch] = []

    def start(launch: Launch, _: torch.device) -> None:
        launches.append(launch)
        for argument in launch.arguments:  # results are among them: zero counts, as no kernel wrote any
            if isinstance(argument, torch.Tensor):
                argument.zero_()

    twins = Twins(start)
    slice_points = torch.zeros(1, n_units, n_features, dtype=torch.float64)
    # From this number of slices on a sample brackets the median first.
    unit_points = torch.zeros(1, min(n_slices, 4 * SAMPLED + 1), n_features, dtype=torch.float64)
    n_rows = unit_points.shape[1]
    offsets, counts = torch.zeros(n_rows + 1, dtype=torch.int64), torch.zeros(n_rows, dtype=torch.int64)
    entries = torch.zeros(0, dtype=torch.int32), torch.zeros(0, dtype=dtype)
    matrix = torch.zeros(n_rows + 1, dtype=torch.int32), *entries
    twins.kth_neighbor_distance(slice_points, 1)
    twins.symmetrised_affinity(slice_points, torch.ones(1, n_units, dtype=torch.float64), 1, 0, 0, 1, dtype)
    twins.median_kth_neighbor_distance(unit_points, 1)
    twins.radius_counts(unit_points, 1)
    twins.radius_fill(unit_points, 1, 2, 1, 0, n_rows, offsets, counts, *entries)
    twins.csr_matmul(*matrix, torch.zeros(n_rows, width), 1)
    twins.landmark_aggregate(*matrix, counts, 1)
    places = [torch.zeros(LANDMARKS, n_components, dtype=torch.float64) for _ in range(4)]
    kept = torch.zeros(descent.ROWS, places[0].numel(), dtype=torch.float64)
    state = torch.zeros(descent.N_STATE, dtype=torch.float64)
    for distance in (torch.float32, torch.float64):
        moved, raw = twins.guttman_transform(torch.zeros(LANDMARKS, LANDMARKS, dtype=distance), places[0], 0.0)
    twins.descent_step(moved, raw, *places, kept, state, 0, 1)
    return launches
