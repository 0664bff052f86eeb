"""The named inputs of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks.measure.records import ROOT
from benchmarks.measure.tasks import QUICK as SMALL
from benchmarks.networks import EPOCHS as DIGITS_EPOCHS
from benchmarks.networks import recording

if TYPE_CHECKING:
    from mmphate_gpu import Trace

GOLDEN = ROOT / "tests" / "golden"
Maker = Callable[[Path | None], "Trace"]  # takes the folder that keeps what takes long to make


@dataclass(frozen=True)
class Case:
    """A run of MMPHATE, and what is measured besides time and memory."""

    name: str
    what: str
    trace: Maker = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # of MMPHATE
    storage: str = "auto"
    preservation: tuple[int, ...] = (10, 40)  # k of neighborhood preservation, if there are more slices
    oracle: Path | str | None = None  # "reference" (dense float64), a golden file, or None for a sample of nodes
    estimate: float = 10.0  # seconds of a task on two cores: making the input, all runs, accuracy
    cuda_only: bool = False
    axis: str = ""  # of suite "scale": what doubles from case to case


def _walk(*shape: int) -> Maker:
    def make(folder: Path | None = None) -> Trace:
        from mmphate_gpu.datasets import random_walk

        return random_walk(*shape)

    return make


def _suite(*arguments: Any) -> Maker:
    def make(folder: Path | None = None) -> Trace:
        from mmphate_gpu.datasets import bifurcation

        return bifurcation(*arguments)

    return make


def _side_by_side(n_epochs: int, n_timesteps: int, n_units: int, n_samples: int) -> Maker:
    """Runs of the bifurcation suite side by side, six units each, with more noise."""

    def make(folder: Path | None = None) -> Trace:
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


def digits_trace(folder: Path | None = None) -> Trace:
    """A real recording: the hidden states of the demo's LSTM, (51, 8, 20, 50), while it learns to read digits."""
    return recording("digits-lstm", folder, DIGITS_EPOCHS)


def _golden(file: str) -> Maker:
    def make(folder: Path | None = None) -> Trace:
        import numpy as np

        from mmphate_gpu import as_trace

        with np.load(GOLDEN / file) as archive:
            return as_trace(archive["trace"])

    return make


def _golden_case(name: str, file: str) -> Case:
    what = f"{file} against what m-phate 0.1.6 computed"
    return Case(name, what, _golden(file), {"n_landmark": 120}, preservation=(10,), oracle=GOLDEN / file, estimate=5)


def _full_suite(scenario: str, storage: str, estimate: float) -> Case:
    what = f"bifurcation suite, {scenario}, 48,480 nodes, {storage} affinity"
    return Case(f"suite-{scenario}-{storage}", what, _suite(scenario), {"n_components": 3}, storage, estimate=estimate)


def _small_suite(storage: str) -> Case:
    options = {"n_components": 3, "n_landmark": 400}
    what = f"bifurcation suite at small size, {storage} affinity"
    trace = _suite("hopf_pitchfork", 12, 14)
    return Case(f"suite-small-{storage}", what, trace, options, storage, oracle="reference", estimate=6)


def _sized(name: str, what: str, *shape: int, **options: Any) -> Case:
    what = f"{what}: units of the bifurcation suite with more noise"
    return Case(f"{name}-{'x'.join(map(str, shape))}", what, _side_by_side(*shape), **options)


# ---------------------------------------------------------------- series


def _scale(
    axis: str, shape: tuple[int, int, int, int], estimate: float, n_landmark: int | None = None, before: str = ""
) -> Case:
    """A case of a series. ``before`` is put before its name."""
    n_epochs, n_timesteps, n_units, n_samples = shape
    sizes = f"{n_epochs * n_timesteps}x{n_units}x{n_samples}"
    what = f"{n_epochs * n_timesteps * n_units:,} nodes: units of the bifurcation suite with more noise"
    options = {} if n_landmark is None else {"n_landmark": n_landmark}
    name = f"{before}{axis}-{sizes}" + ("" if n_landmark is None else f"-{n_landmark}")
    return Case(name, what, _side_by_side(*shape), options, axis=axis, estimate=estimate)


# One size doubles, the others stay. Slices double up to those of HAR, the last case of the CPU, and on to 3.9 million
# nodes. Samples stay below 100, because a PCA reduces more. Series begin where a stage is long enough to be compared.
_SLICE_SECONDS = (60, 70, 110, 60, 140, 400, 300, 300, 300)
_SERIES = {
    "slices": tuple(_scale("slices", (127, 4 * 2**k, 30, 6), seconds) for k, seconds in enumerate(_SLICE_SECONDS)),
    "units": tuple(_scale("units", (127, 8, 16 * 2**k, 6), seconds) for k, seconds in enumerate((60, 70, 90, 50, 90))),
    "samples": tuple(
        _scale("samples", (127, 16, 12, 5 * 2**k), seconds) for k, seconds in enumerate((60, 60, 60, 70, 80))
    ),
    "landmarks": tuple(
        _scale("landmarks", (127, 8, 30, 6), seconds, 500 * 2**k) for k, seconds in enumerate((20, 25, 35, 70, 120))
    ),
}
_SMALL = {
    "slices": [((127, 1, 6, 6), 100), ((127, 2, 6, 6), 100)],
    "units": [((127, 1, 8, 6), 100), ((127, 1, 16, 6), 100)],
    "samples": [((127, 1, 6, 5), 100), ((127, 1, 6, 10), 100)],
    "landmarks": [((127, 1, 12, 6), 50), ((127, 1, 12, 6), 100)],
}
_SMALL_SERIES = {
    axis: tuple(_scale(axis, shape, 4, n_landmark, SMALL) for shape, n_landmark in sizes)
    for axis, sizes in _SMALL.items()
}
AXES = tuple(_SERIES)
_ALL = (
    Case("walk-small", "a small walk", _walk(30, 6, 8), {"n_landmark": 60}, "auto", (10,), "reference", 5),
    _golden_case("golden-walk", "golden_walk_28x20x12.npz"),
    _golden_case("golden-hopf_pitchfork", "golden_hopf_pitchfork_12x14.npz"),
    _small_suite("sparse"),
    _small_suite("lazy"),
    Case("digits-51x8x20x50", "recorded: the demo's LSTM learns to read digits", digits_trace, estimate=40),
    Case("walk-100x50x25", "M-PHATE's own use: (slice, unit, sample), 2 components", _walk(100, 50, 25), estimate=60),
    Case("walk-1600x6x10", "the size for which the published code took 618 s", _walk(1600, 6, 10), estimate=70),
    _full_suite("hopf", "sparse", 80),
    _full_suite("hopf", "lazy", 85),
    _full_suite("hopf_pitchfork", "sparse", 110),
    _full_suite("hopf_pitchfork", "lazy", 140),
    _sized("area2bump", "Area2Bump size, 128,000 nodes", 80, 80, 20, 40, estimate=100),
    _sized("large-part", "a fiftieth of the large run's slices, all its units", 25, 40, 200, 50, estimate=100),
    _sized("har", "HAR size, 487,680 nodes", 127, 128, 30, 6, estimate=330),
    _sized("large", "the large run, 10,000,000 nodes", 125, 400, 200, 50, estimate=600, cuda_only=True),
    *(case for series in (*_SMALL_SERIES.values(), *_SERIES.values()) for case in series),
)

CASES = {case.name: case for case in _ALL}
QUICK = ("walk-small", "golden-walk", "golden-hopf_pitchfork", "suite-small-sparse", "suite-small-lazy")
SERIES = {axis: tuple(case.name for case in series) for axis, series in _SERIES.items()}
SMALL_SERIES = {axis: tuple(case.name for case in series) for axis, series in _SMALL_SERIES.items()}
