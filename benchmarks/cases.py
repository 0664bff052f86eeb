"""The named inputs of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmphate_gpu import Trace

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"


@dataclass(frozen=True)
class Case:
    """One run of MMPHATE and what is asked of it besides time and memory."""

    name: str
    what: str
    trace: Callable[[], Trace] = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # of MMPHATE
    storage: str = "auto"
    preservation: tuple[int, ...] = ()  # k of neighbourhood preservation
    oracle: Path | str | None = None  # "reference" (dense float64), or a golden file of the published implementation
    warmup: int = 0  # runs before those that count; on CUDA at least one
    repeats: int = 1  # runs whose median counts; on CUDA at least three


def _walk(*shape: int) -> Callable[[], Trace]:
    def make() -> Trace:
        from mmphate_gpu.datasets import random_walk

        return random_walk(*shape)

    return make


def _suite(scenario: str, n_epochs: int = 101, n_timesteps: int = 80) -> Callable[[], Trace]:
    def make() -> Trace:
        from mmphate_gpu.datasets import bifurcation

        return bifurcation(scenario, n_epochs, n_timesteps)

    return make


def _side_by_side(n_epochs: int, n_timesteps: int, n_units: int, n_samples: int) -> Callable[[], Trace]:
    """Runs of the bifurcation suite side by side, six units each, with more noise."""

    def make() -> Trace:
        import numpy as np

        from mmphate_gpu import as_trace
        from mmphate_gpu.datasets import bifurcation

        n_runs = -(-n_units // 6)
        runs = (
            bifurcation("hopf_pitchfork", n_epochs, n_timesteps, n_samples, seed=24 + run).data.numpy()
            for run in range(n_runs)
        )
        units = np.concatenate(list(runs), axis=2)[:, :, :n_units]
        noise = np.random.default_rng(0).normal(0, 0.01, units.shape)
        return as_trace((units + noise).astype(np.float32))

    return make


def _golden(file: str) -> Callable[[], Trace]:
    def make() -> Trace:
        import numpy as np

        from mmphate_gpu import as_trace

        with np.load(GOLDEN / file) as archive:
            return as_trace(archive["trace"])

    return make


def _golden_case(name: str, file: str) -> Case:
    what = f"{file} against what m-phate 0.1.6 computed"
    return Case(name, what, _golden(file), {"n_landmark": 120}, oracle=GOLDEN / file)


def _full_suite(scenario: str, storage: str) -> Case:
    what = f"bifurcation suite, {scenario}, 48,480 nodes, {storage} affinity"
    options = {"n_components": 3}
    return Case(f"suite-{scenario}-{storage}", what, _suite(scenario), options, storage, preservation=(10, 40))


def _small_suite(storage: str) -> Case:
    options = {"n_components": 3, "n_landmark": 400}
    what = f"bifurcation suite at small size, {storage} affinity"
    trace = _suite("hopf_pitchfork", 12, 14)
    return Case(f"suite-small-{storage}", what, trace, options, storage, (10, 40), "reference")


def _scaling(n_epochs: int) -> Case:
    what = f"bifurcation suite, hopf, {n_epochs} epochs: how cost grows with the number of slices"
    return Case(f"scaling-{80 * n_epochs}", what, _suite("hopf", n_epochs), {"n_components": 3}, "sparse")


def _scale(n_epochs: int, n_timesteps: int, n_units: int, n_samples: int, **options: Any) -> Case:
    n_slices = n_epochs * n_timesteps
    what = f"{n_slices * n_units:,} nodes: units of the bifurcation suite with more noise, ever more slices"
    trace = _side_by_side(n_epochs, n_timesteps, n_units, n_samples)
    return Case(f"scale-{n_slices}x{n_units}x{n_samples}", what, trace, options)


_HAR = _side_by_side(127, 128, 30, 6)
# Slices double at fixed units and samples, up to HAR's and beyond; then ten million nodes.
_SCALES = (*(_scale(127, 4 * 2**doubling, 30, 6) for doubling in range(9)), _scale(125, 400, 200, 50))
_SMALL_SCALES = tuple(_scale(127, timesteps, 6, 6, n_landmark=100) for timesteps in (1, 2))
_ALL = (
    Case("walk-small", "walk of (30, 6, 8), 60 landmarks", _walk(30, 6, 8), {"n_landmark": 60}, oracle="reference"),
    _golden_case("golden-walk", "golden_walk_28x20x12.npz"),
    _golden_case("golden-hopf_pitchfork", "golden_hopf_pitchfork_12x14.npz"),
    _small_suite("sparse"),
    _small_suite("lazy"),
    Case("walk-100x50x25", "M-PHATE's own use: (slice, unit, sample), 2 components", _walk(100, 50, 25)),
    Case("walk-1600x6x10", "the size at which the published implementation took 618 s", _walk(1600, 6, 10)),
    *(_full_suite(scenario, storage) for scenario in ("hopf", "hopf_pitchfork") for storage in ("sparse", "lazy")),
    *map(_scaling, (12, 25, 50, 101, 202)),
    Case("har-127x128x30x6", "HAR size, 487,680 nodes: units of the bifurcation suite with more noise", _HAR),
    *_SMALL_SCALES,
    *_SCALES,
)

CASES = {case.name: case for case in _ALL}
QUICK = (
    "walk-small",
    "golden-walk",
    "golden-hopf_pitchfork",
    "suite-small-sparse",
    "suite-small-lazy",
    "walk-100x50x25",
)
SUITE = tuple(name for name in CASES if name.startswith("suite-hopf"))
GPU = ("walk-100x50x25", *SUITE, "walk-1600x6x10", "har-127x128x30x6")
SMALLEST = ("golden-walk", "suite-small-lazy")
SCALE = tuple(case.name for case in _SCALES)
SMALL_SCALE = tuple(case.name for case in _SMALL_SCALES)
