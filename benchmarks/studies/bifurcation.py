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
from typing import Any

from benchmarks.studies.keep import FOLDER, kept, summary_of
from mmphate_gpu import MMPHATE, analysis, plots
from mmphate_gpu.datasets import bifurcation

SCENARIOS = ("hopf", "hopf_pitchfork", "hopf_pitchfork_warped")
SEEDS = (0, 1, 2)
NAMES = tuple(f"{scenario}-{seed}" for scenario in SCENARIOS for seed in SEEDS)
N_EPOCHS = 101
GROUPS = (0, 0, 0, 1, 1, 1)  # the units of A and of B
# The parameter is linspace(-1, 2, epochs), and the bifurcation is where it is 0.
BIFURCATION = (N_EPOCHS - 1) / 3
TIMESTEPS = (40, 20, 10)  # of 80
FULL = "hopf_pitchfork-0"  # null models, fewer steps and other methods fit many times
REPEATS, NULLS = 3, 5


def estimator(seed: int) -> MMPHATE:
    return MMPHATE(random_state=seed, device="cpu")


def measured(name: str) -> dict[str, Any]:
    """All measures of one fit, in a form for JSON."""
    started = time.perf_counter()
    scenario, _, seed_text = name.rpartition("-")
    trace, seed = bifurcation(scenario, N_EPOCHS), int(seed_text)
    op = estimator(seed).fit(trace)
    result = op.result_
    intra = analysis.entropy(result, over="units", estimator="histogram", random_state=seed)
    inter = analysis.entropy(result, over="timesteps", estimator="knn", random_state=seed)
    states = analysis.trace_entropy(trace, over="timesteps", estimator="knn", random_state=seed)
    results: dict[str, Any] = {
        "intra": intra,
        "inter": inter,
        "states": states,
        "phases": analysis.phases(inter, random_state=seed),
        "states_phases": analysis.phases(states, random_state=seed),
        "communities": analysis.unit_communities(result, n=2, groups=GROUPS, random_state=seed),
        "trace_communities": analysis.unit_communities(trace, n=2, groups=GROUPS, random_state=seed),
        "trust": analysis.trust(trace, result, estimator=op, random_state=seed),
    }
    if seed == 0:
        path = str(FOLDER / f"bifurcation-{scenario}-entropy.png")
        plots.entropy_curves(inter, phases=results["phases"], path=path)
    if name == FULL:
        results |= compared(trace, result, seed)
    entry = {what: summary_of(value) for what, value in results.items()}
    entry["trust"]["largest_island"] = float(max(results["trust"].island_shares))
    return entry | {"t": op.t_, "stress": op.stress_, "seconds": time.perf_counter() - started}


def compared(trace: Any, result: Any, seed: int) -> dict[str, Any]:
    """Null models, fewer time steps, and other methods. Minutes."""
    options: dict[str, Any] = {"estimator": estimator(seed), "random_state": seed}
    results = {
        "nulls": analysis.null_models(trace, repeats=NULLS, **options),
        "steps": analysis.subsample_study(trace, over="timesteps", sizes=TIMESTEPS, repeats=REPEATS, **options),
        "baselines": analysis.baselines(trace, embedding=result, **options),
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
