"""The study of the bifurcation suite: three scenarios with a known change, three seeds of the fit each.

    python -m benchmarks.studies.bifurcation                  writes docs/findings/bifurcation.json and its pictures
    python -m benchmarks.studies.bifurcation hopf-0 hopf-1    only these fits; the others keep what was measured

What it asks: do the phases of the entropy lie at the bifurcation? Are the two groups of units recovered? Does the
structure differ from that of null models? What do fewer time steps lose? How do other methods draw the same trace?
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies.keep import FOLDER, kept, summary_of
from mmphate_gpu import MMPHATE, Trace, analysis, plots
from mmphate_gpu.datasets import bifurcation

SCENARIOS = ("hopf", "hopf_pitchfork", "hopf_pitchfork_warped")
SEEDS = (0, 1, 2)
N_EPOCHS = 101
# Null models, fewer time steps and other methods fit many times, so they have a smaller suite.
SMALL, SMALL_SHAPE, SMALL_LANDMARKS = "hopf_pitchfork_41x20-0", (41, 20), 500
NAMES = (*(f"{scenario}-{seed}" for scenario in SCENARIOS for seed in SEEDS), SMALL)
GROUPS = (0, 0, 0, 1, 1, 1)  # the units of A and of B
TIMESTEPS = (10, 5, 2)  # of the 20
REPEATS, NULLS = 5, 19


def measured(name: str) -> dict[str, Any]:
    """All measures of one fit, in a form for JSON."""
    started = time.perf_counter()
    scenario, _, seed = name.rpartition("-")
    trace = bifurcation("hopf_pitchfork", *SMALL_SHAPE) if name == SMALL else bifurcation(scenario, N_EPOCHS)
    landmarks = {"n_landmark": SMALL_LANDMARKS} if name == SMALL else {}
    op = MMPHATE(random_state=int(seed), device="cpu", **landmarks).fit(trace)
    path = FOLDER / f"bifurcation-{scenario}-entropy.png" if int(seed) == 0 else None
    results = compared(trace, op) if name == SMALL else described(trace, op, path)
    results["trust"] = analysis.trust(trace, op.result_, estimator=op, random_state=op.random_state)
    entry: dict[str, Any] = {what: summary_of(value) for what, value in results.items()}
    entry["trust"]["largest_island"] = float(max(results["trust"].island_shares))
    return entry | {"t": op.t_, "stress": op.stress_, "seconds": time.perf_counter() - started}


def described(trace: Trace, op: MMPHATE, path: Path | None) -> dict[str, Any]:
    """Entropies with their phases, drawn into ``path``, and communities."""
    result, seeded = op.result_, {"random_state": op.random_state}
    inter = analysis.entropy(result, over="timesteps", estimator="knn", **seeded)
    states = analysis.trace_entropy(trace, over="timesteps", estimator="knn", **seeded)
    phases = analysis.phases(inter, **seeded)
    if path is not None:
        plots.entropy_curves(inter, phases=phases, path=str(path))
    return {
        "inter": inter,
        "states": states,
        "phases": phases,
        "states_phases": analysis.phases(states, **seeded),
        "communities": analysis.unit_communities(result, n=2, groups=GROUPS, **seeded),
        "trace_communities": analysis.unit_communities(trace, n=2, groups=GROUPS, **seeded),
    }


def compared(trace: Trace, op: MMPHATE) -> dict[str, Any]:
    """Null models, fewer time steps, and other methods."""
    options: dict[str, Any] = {"estimator": op, "random_state": op.random_state}
    results = {
        "nulls": analysis.null_models(trace, repeats=NULLS, **options),
        "steps": analysis.subsample_study(trace, over="timesteps", sizes=TIMESTEPS, repeats=REPEATS, **options),
        "baselines": analysis.baselines(trace, embedding=op.result_, **options),
    }
    plots.null_models(results["nulls"], path=str(FOLDER / "bifurcation-nulls.png"))
    plots.subsampling(results["steps"], path=str(FOLDER / "bifurcation-steps.png"))
    plots.baselines(results["baselines"], path=str(FOLDER / "bifurcation-baselines.png"))
    return results


def main(names: Sequence[str]) -> int:
    for name in names or NAMES:
        kept("bifurcation", name, measured(name))
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
