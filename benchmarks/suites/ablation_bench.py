"""An input of the ablations, the usual run on it, and the rows of runs that differ from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.cases import digits_trace
from benchmarks.measure.conditions import conditions
from benchmarks.measure.device import PeakMeter
from benchmarks.measure.rows import Row, timing
from benchmarks.measure.timer import once, warm
from benchmarks.suites.pictures import Picture, disparity, disparity_within, picture
from mmphate_gpu import Trace, datasets, neighborhood_preservation
from mmphate_gpu.landmarks import Landmarks, landmark_diffusion
from mmphate_gpu.operators import AffinityOperator, affinity_of_points
from mmphate_gpu.trace import normalize

NAME = "ablations"
N_SVD = 100
KEPT = (10, 40)

# Most seconds of the cold call -> warm calls. Little of a long call is due to the cold start.
REPEATS = {2.0: 3, 20.0: 1}
# name -> trace, from the folder that keeps what takes long to make; landmarks of all ablations but "landmarks"
INPUTS: dict[str, tuple[Callable[[Path | None], Trace], int]] = {
    "suite-12x14": (lambda folder: datasets.bifurcation("hopf_pitchfork", 12, 14), 200),
    "suite-51x40": (lambda folder: datasets.bifurcation("hopf_pitchfork", 51, 40), 2000),
    "suite-101x80": (lambda folder: datasets.bifurcation("hopf_pitchfork"), 4000),
    "digits-51x8x20x50": (digits_trace, 2000),
}
SMALL, MIDDLE, LARGE = ("suite-12x14",), ("suite-51x40", "digits-51x8x20x50"), "suite-101x80"

Result = TypeVar("Result")


class Bench:
    """An input, the run on it with all defaults, and the rows of what differs from it."""

    def __init__(self, ablation: str, name: str, device: torch.device, folder: Path | None = None) -> None:
        make, self.n_landmark = INPUTS[name]
        self.trace = make(folder).to(device)
        self.device = device
        self.points = normalize(self.trace)  # (S, M, D) float64
        sizes = {size: getattr(self.trace, size) for size in ("n_slices", "n_units", "n_samples", "n_nodes")}
        self.common = {"suite": NAME, "case": name, **conditions(device), **sizes}
        self.ablation, self.name = ablation, name

    def affinity(self, **changes: Any) -> AffinityOperator:
        """The affinity as CSR in the dtype of a run on this trace, but for the ``changes``."""
        options = {"storage": "sparse", "dtype": self.trace.data.dtype} | changes
        return affinity_of_points(self.points, **options).operator

    def landmarks(self, operator: AffinityOperator, n: int | None = None, **options: Any) -> Landmarks:
        options = {"random_state": 0, "points": self.points, "n_svd": N_SVD} | options
        return landmark_diffusion(operator, n_landmark=n or self.n_landmark, **options)

    @functools.cached_property
    def plain(self) -> AffinityOperator:
        return self.affinity()

    @functools.cached_property
    def usual_landmarks(self) -> Landmarks:
        return self.landmarks(self.plain)

    @functools.cached_property
    def usual(self) -> Picture:
        return picture(self.usual_landmarks)

    def with_same_clusters(self, operator: AffinityOperator) -> Picture:
        return picture(self.landmarks(operator, clusters=self.usual_landmarks.clusters))

    def timed(self, call: Callable[..., Result], *arguments: Any, **options: Any) -> tuple[Result, dict[str, Any]]:
        """The result of ``call``, and fields of a row: its times, and the memory of the cold call."""
        results: list[Result] = []

        def run() -> None:
            results.clear()  # two results need not be in memory together
            results.append(call(*arguments, **options))

        meter = PeakMeter(self.device)
        cold = once(run, self.device)
        meter("cold")
        memory = meter.run_fields()
        repeats = next((n for most, n in REPEATS.items() if cold <= most), 0)
        times = timing(warm(run, self.device, repeats)) if repeats else {"seconds": cold, "repeats": 0}
        return results[0], {**times, "warmup": 1, "cold_seconds": cold, **memory}

    def row(self, choice: str, stage: str, against: str = "", **fields: Any) -> Row:
        settings = {"ablation": self.ablation, "choice": choice} | ({"against": against} if against else {})
        return Row(stage=stage, settings=settings | fields.pop("settings", {}), **self.common, **fields)

    def quality(self, result: Picture, against: Picture | None) -> dict[str, Any]:
        """Fields of a row; ``against`` is the picture to compare with, or None for the first one."""
        ks = [k for k in KEPT if k < self.trace.n_slices]
        shares = neighborhood_preservation(self.trace, result.embedding, ks)
        kept = {str(k): inter for k, (_, inter) in zip(ks, shares, strict=True)}
        fields = {"t": result.t, "stress": result.stress, "preservation": kept, "n_landmark": len(result.distances)}
        statistics: dict[str, Any] = {"islands": int(result.islands().max()) + 1}
        if against is not None:
            fields["procrustes"] = disparity(against.embedding, result.embedding)
            within = disparity_within(against.embedding, result.embedding, against.islands())
            statistics["procrustes_within"] = within
        return fields | {"statistics": statistics}
