"""Fits of a trace by several recipes and seeds, in turn, and a row for each recipe."""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.measure.conditions import conditions
from benchmarks.measure.device import use_device
from benchmarks.measure.rows import Row, timing
from benchmarks.measure.tasks import QUICK, emit, task_options
from benchmarks.networks import NETWORKS, recording
from mmphate_gpu import MMPHATE, Trace, datasets, neighborhood_preservation
from mmphate_gpu.analysis.refit import disparity, quiet
from mmphate_gpu.params import RECIPES, recipe_parameters

NAME = "recipes"
N_COMPONENTS = 3
KEPT = (10, 40)
SEEDS = (0, 1, 2, 3, 4)
SUITES = ("hopf", "hopf_pitchfork", "hopf_pitchfork_warped")
Maker = Callable[[Path | None], Trace]  # from the folder that keeps what takes long to make


def _suite(scenario: str, *sizes: int) -> Maker:
    return lambda folder: datasets.bifurcation(scenario, *sizes)


RUNS: dict[str, Maker] = {
    **{scenario: _suite(scenario) for scenario in SUITES},
    "walk-100x50x25": lambda folder: datasets.random_walk(100, 50, 25),
    **{name: functools.partial(recording, name) for name in NETWORKS},
}
SMALL = f"{QUICK}hopf"
SMALL_LANDMARKS = 200


class Fit(NamedTuple):
    """What is kept of a fit."""

    picture: np.ndarray  # (N, C)
    seconds: float
    t: int
    stress: float
    islands: int
    n_landmark: int


def fit(trace: Trace, recipe: str, seed: int, **options: Any) -> Fit:
    op = MMPHATE(**recipe_parameters(recipe) | {"n_components": N_COMPONENTS, "random_state": seed} | options)
    started = time.perf_counter()
    with quiet():
        op.fit(trace)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    islands = next(stage["islands"] for stage in op.report_ if stage["stage"] == "landmarks")
    return Fit(op.result_.coordinates, seconds, op.t_, op.stress_, islands, op.n_landmark_)


def fits(trace: Trace, recipes: Sequence[str], seeds: Sequence[int], **options: Any) -> dict[str, list[Fit]]:
    """The fits of each recipe, by seed. The recipes take turns, so that other work of the machine slows all of them.

    A small fit comes first, because the first fit of a process is slower than the others.
    """
    fit(datasets.random_walk(40, 4, 6), recipes[0], 0)
    by_recipe: dict[str, list[Fit]] = {recipe: [] for recipe in recipes}
    for seed, recipe in itertools.product(seeds, recipes):
        by_recipe[recipe].append(fit(trace, recipe, seed, **options))
    return by_recipe


def disparities(fits: Sequence[Fit]) -> list[float]:
    """The Procrustes disparity of each pair of pictures, over all nodes."""
    return [disparity(first.picture, second.picture) for first, second in itertools.combinations(fits, 2)]


def rows(
    run: str, trace: Trace, recipes: Sequence[str], seeds: Sequence[int], device: torch.device, **options: Any
) -> Iterator[Row]:
    """A row for each recipe. Neighbors kept are those of the first seed, whose landmarks are those of the row."""
    sizes = {size: getattr(trace, size) for size in ("n_slices", "n_units", "n_samples", "n_nodes")}
    for recipe, of_recipe in fits(trace, recipes, seeds, device=device, **options).items():
        kept = neighborhood_preservation(trace, of_recipe[0].picture, KEPT)
        pairs = disparities(of_recipe)
        yield Row(
            suite=NAME,
            case=run,
            settings={"recipe": recipe, "seeds": list(seeds), "parameters": recipe_parameters(recipe) | options},
            n_landmark=of_recipe[0].n_landmark,
            statistics={
                **{name: [getattr(fit, name) for fit in of_recipe] for name in ("t", "stress", "islands")},
                "procrustes": pairs,
            },
            t=of_recipe[0].t,
            stress=of_recipe[0].stress,
            preservation={str(k): inter for k, (_, inter) in zip(KEPT, kept, strict=True)},
            procrustes=max(pairs, default=None),
            warmup=1,
            **timing([fit.seconds for fit in of_recipe]),
            **sizes,
            **conditions(device),
        )


def main() -> int:
    parser = task_options()
    parser.add_argument("--recipes", nargs="+", default=tuple(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    options = parser.parse_args()
    (run,) = options.names
    small = {"n_landmark": SMALL_LANDMARKS} if run == SMALL else {}
    trace = _suite("hopf", 12, 14)(None) if run == SMALL else RUNS[run](options.folder)
    emit(list(rows(run, trace, options.recipes, options.seeds, use_device(options.device), **small)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
