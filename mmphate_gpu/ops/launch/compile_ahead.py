"""The CUDA kernels of a fit, compiled while its first stages run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from ..kth_neighbor_distance import SAMPLED
from .cuda import Gpu
from .kernel import Launch, begin_compiling
from .rehearsal import FitSizes
from .twins import CUPY

# With more slices than this a fit launches the same kernels: medians of so many distances come from a bracket.
MANY_SLICES = 4 * SAMPLED + 1


def compile_ahead(
    device: torch.device, *, n_slices: int, n_features: int, width: int, n_components: int, wide: bool
) -> None:
    """Begin to compile, in threads, the kernels of csrc/cuda that a fit of this size launches on ``device``.

    ``width`` is the number of columns of the blocks that the affinity multiplies; ``wide`` says that its values are
    float64. The function returns at once and launches nothing. It does nothing where the CUDA twins do not run. The
    first launch of a kernel raises what its compilation raised.
    """
    if device.type == "cuda" and CUPY.serves():
        dtype = torch.float64 if wide else torch.float32
        sizes = FitSizes(min(n_slices, MANY_SLICES), n_features, width, n_components, dtype)
        begin_compiling(launches_of_fit(sizes), device)


@cache  # a second fit of such sizes calls no launcher
def launches_of_fit(sizes: FitSizes) -> tuple[Launch, ...]:
    """Every launch of a fit, without its arguments.

    The launchers run their rehearsals: on zeros on the CPU, with a start function that only records the launch. This is
    enough, because the kernels depend on types and on ``sizes`` alone.
    """
    launches: list[Launch] = []

    def start(launch: Launch, _: torch.device) -> None:
        launches.append(replace(launch, arguments=()))
        for argument in launch.arguments:  # results too: launchers read counts from them
            if isinstance(argument, torch.Tensor):
                argument.zero_()

    CUPY.rehearse(sizes, Gpu(start))
    return tuple(launches)
