"""The CUDA kernels of a run, compiled while its first stages compute."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from .cuda import Gpu
from .kernel import Launch, begin_compiling
from .rehearsal import MOST_POINTS, Sizes
from .twins import CUPY


def compile_ahead(
    device: torch.device,
    *,
    n_points: int,
    n_features: int,
    n_columns: int,
    n_components: int,
    wide: bool,
    masked: bool = False,
    surplus: tuple[int, ...] = (),
) -> None:
    """Begin to compile, in threads, the kernels of csrc/cuda that ops of these `Sizes` launch on ``device``.

    ``wide`` says that the values of the sparse matrix are float64, and ``masked`` that points may lack features.
    ``surplus`` are the numbers of components of the layouts that lead to further starts of MDS. The function returns at
    once and launches nothing. It does nothing where the CUDA twins do not run. The first launch of a kernel raises what
    its compilation raised.
    """
    if device.type == "cuda" and CUPY.serves():
        dtype = torch.float64 if wide else torch.float32
        sizes = Sizes(min(n_points, MOST_POINTS + 1), n_features, n_columns, n_components, dtype, masked, surplus)
        begin_compiling(launches_of(sizes), device)


@cache  # a second run of such sizes calls no launcher
def launches_of(sizes: Sizes) -> tuple[Launch, ...]:
    """Every launch of a run, without its arguments.

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
