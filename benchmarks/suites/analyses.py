"""Suite "analyses": seconds and memory of each analysis, on the recording of the demo and at the size of HAR.

Each analysis has a process of its own. Baselines, null models and subsample studies fit many times, so they are left
out. The goals: all analyses of the recording take at most 60 s on two cores, and those at the size of HAR at most 10
minutes. Each adds at most 3 GB to what its process held before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.cases import DIGITS_EPOCHS
from benchmarks.measure.conditions import conditions
from benchmarks.measure.device import PeakMeter, use_device
from benchmarks.measure.rows import Row
from benchmarks.measure.tables import Table, bytes_text
from benchmarks.measure.tasks import QUICK, Task, emit, python_task, task_options
from mmphate_gpu import MMPHATE, Embedding, Trace, analysis, as_trace
from mmphate_gpu.slices import SliceLayout

NAME = "analyses"
SMALL, LARGE = "digits-51x8x20x50", "har-127x128x30x60"
PARTS = (SMALL, LARGE)
MOST_SECONDS = {SMALL: 60.0, LARGE: 600.0}
MOST_ADDED_BYTES = 3e9
QUICK_EPOCHS = 5
QUICK_ANALYSES = ("linear_probe", "trust")
N_CLASSES = 6  # activities of HAR
ESTIMATE = {SMALL: 15.0, LARGE: 40.0}  # seconds of a task


class Inputs(NamedTuple):
    """What the analyses of a case read."""

    trace: Trace
    embedding: Embedding
    model: torch.nn.Module
    states: dict[int, dict[str, torch.Tensor]]
    probe: torch.Tensor


def small(epochs: int = DIGITS_EPOCHS) -> Inputs:
    """The demo's training and its embedding."""
    from mmphate_gpu.cli.demo import N_LANDMARK, digits, train

    data = digits()
    training = train(data, epochs=epochs)
    assert training.model is not None
    result = MMPHATE(n_landmark=N_LANDMARK, random_state=0, device="cpu").fit(training.trace).result_
    return Inputs(training.trace, result, training.model, training.states, data.probe[0])


class Reader(torch.nn.Module):
    """An untrained LSTM of 30 units that reads nine channels, as those for HAR do."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(9, 30, batch_first=True)
        self.head = torch.nn.Linear(30, N_CLASSES)

    def forward(self, signals: torch.Tensor) -> torch.Tensor:  # (B, T, 9) -> (B, classes)
        return self.head(self.rnn(signals)[0][:, -1])


def large(shape: str = LARGE.removeprefix("har-")) -> Inputs:
    """States of the size of HAR, in which the classes grow apart, with the first two samples as coordinates."""
    n_epochs, n_timesteps, n_units, n_samples = sizes = tuple(map(int, shape.split("x")))
    rng, label = np.random.default_rng(0), np.arange(n_samples) % N_CLASSES
    progress = np.linspace(0, 1, n_epochs)
    signal = rng.standard_normal((n_units, N_CLASSES))[:, label]  # (M, P)
    states = rng.standard_normal(sizes, dtype=np.float32)
    states += (progress[:, None, None, None] * signal).astype(np.float32)
    trace = as_trace(states, label=label, metrics={"accuracy": progress})
    embedding = Embedding(states[..., :2].reshape(-1, 2).astype(float), SliceLayout.of_shape(*sizes[:3]))
    torch.manual_seed(0)
    probe = torch.randn(n_samples, n_timesteps, 9, device="cpu")
    return Inputs(trace, embedding, Reader(), {}, probe)


def _ablations(call: Callable[..., Any]) -> Callable[[Inputs], Any]:
    def run(inputs: Inputs) -> Any:
        options: dict[str, Any] = {"states": inputs.states} if inputs.states else {}
        return call(inputs.model, "rnn", inputs.probe, inputs.trace.label, random_state=0, **options)

    return run


ENTROPIES = ("histogram", "kde", "knn", "spectral")
# `label_information` fits a probe itself.
ANALYSES: dict[str, Callable[[Inputs], Any]] = {
    **{
        f"entropy, {name}, over {over}": lambda i, name=name, over=over: analysis.entropy(
            i.embedding, over=over, estimator=name, random_state=0
        )
        for name in ENTROPIES
        for over in ("units", "timesteps")
    },
    "trace_entropy": lambda i: analysis.trace_entropy(i.trace, over="units", estimator="knn", random_state=0),
    "phases": lambda i: analysis.phases(analysis.entropy(i.embedding, random_state=0), random_state=0),
    "follows": lambda i: analysis.follows(
        analysis.entropy(i.embedding, random_state=0), next(iter(i.trace.metrics.values()))
    ),
    "linear_probe": lambda i: analysis.linear_probe(i.trace, random_state=0),
    "label_information": lambda i: analysis.label_information(i.trace, random_state=0),
    "ablate_timesteps": _ablations(analysis.ablate_timesteps),
    "ablate_units": _ablations(analysis.ablate_units),
    "unit_communities": lambda i: analysis.unit_communities(i.embedding, random_state=0),
    "community_stability": lambda i: analysis.community_stability(i.embedding, 0, i.trace.n_slices - 1, random_state=0),
    "spread": lambda i: analysis.spread(i.embedding),
    "displacement": lambda i: analysis.displacement(i.embedding),
    "trust": lambda i: analysis.trust(i.trace, i.embedding, random_state=0),
}


def measured(case: str, name: str, device: torch.device, *, quick: bool = False) -> Row:
    """The row of a single run of the analysis ``name``; with ``quick``, of a training that ends early."""
    inputs = large() if case == LARGE else small(QUICK_EPOCHS if quick else DIGITS_EPOCHS)
    meter = PeakMeter(device)
    started = time.perf_counter()
    ANALYSES[name](inputs)
    seconds = time.perf_counter() - started
    meter("total")
    sizes = {size: getattr(inputs.trace, size) for size in ("n_slices", "n_units", "n_samples", "n_nodes")}
    times = {"seconds": seconds, "repeats": 0, "warmup": 0, "cold_seconds": seconds}
    return Row(suite=NAME, case=case, stage=name, **times, **sizes, **meter.run_fields(), **conditions(device))


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """A task for each analysis of each case; a few of the small case if ``quick``. All of them run on the CPU."""
    before, names = (QUICK, QUICK_ANALYSES) if quick else ("", tuple(ANALYSES))
    options: dict[str, Any] = {"device": "cpu", "quick": quick, "timeout": 1800.0}
    return [
        python_task(
            NAME, f"{before}{case}, {name}", NAME, case, name,
            estimate=ESTIMATE[case] / (5 if quick else 1), fields={"case": case, "stage": name}, **options,
        )
        for case in only or ((SMALL,) if quick else PARTS)
        for name in names
    ]  # fmt: skip


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """A line for each analysis, with the seconds and the added memory of each case, and the sums."""
    done = [row for row in rows if not row.skipped]
    cell = {(row.stage, row.case): f"{row.seconds or 0:.1f} s, {bytes_text(row.added_bytes)}" for row in done}
    cases = [case for case in PARTS if any(row.case == case for row in rows)]
    lines = [(name, *(cell.get((name, case), "") for case in cases)) for name in ANALYSES]
    sums = (f"{_seconds(done, case):.1f} s" for case in cases)
    return [Table(("analysis", *cases), [*lines, ("all", *sums)])]


def _seconds(rows: Sequence[Row], case: str) -> float:
    """The seconds of all analyses of ``case``. `label_information` fits the probe itself, so that counts once."""
    return sum(row.seconds or 0 for row in rows if row.case == case and row.stage != "linear_probe")


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """A sentence for each case whose analyses together take too long, and for each that takes too much memory."""
    sums = {case: _seconds(rows, case) for case in PARTS}
    slow = [
        f"{NAME} of {case}: {sums[case]:.0f} s in all, goal at most {most:.0f} s"
        for case, most in MOST_SECONDS.items()
        if sums[case] > most
    ]
    heavy = [row for row in rows if (row.added_bytes or 0) > MOST_ADDED_BYTES]
    goal = f"goal at most {bytes_text(MOST_ADDED_BYTES)}"
    return slow + [f"{row.stage} of {row.case}: {bytes_text(row.added_bytes)} added, {goal}" for row in heavy]


def main() -> int:
    options = task_options().parse_args()
    case, name = options.names
    emit([measured(case, name, use_device(options.device), quick=options.quick)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
