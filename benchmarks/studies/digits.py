"""The study of the digits: LSTM, GRU and plain RNN of the same size, three seeds each.

    python -m benchmarks.studies.digits                writes docs/findings/digits.json and its pictures
    python -m benchmarks.studies.digits LSTM-0 GRU-0   only these networks; the others keep what was measured
    python -m benchmarks.studies.digits --no-refits    what fits many times keeps what was measured

What it asks: do the measures agree between cells and seeds? Does inter-step entropy mark the units that ablation says
matter? Does entropy follow accuracy? What do fewer time steps lose? How do other methods draw the same trace?
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.studies.keep import FOLDER, kept, summary_of
from mmphate_gpu import MMPHATE, Embedding, analysis, plots
from mmphate_gpu.cli.demo import CELLS, N_LANDMARK, Digits, Training, digits, train

SEEDS = (0, 1, 2)
EPOCHS = 50
N_PROBE = 10  # held-out images of each class: ten classes of five would leave one image of each in a fold
TIMESTEPS = (4, 2)  # of the eight
REPEATS = 5
NULLS = 19  # so that the least p is 0.05
DRAWN_SEED = 0


class Network(NamedTuple):
    """A trained network, with the digits that it has seen and the fit of its trace."""

    name: str
    data: Digits
    training: Training
    fit: MMPHATE

    @property
    def embedding(self) -> Embedding:
        return self.fit.result_

    @property
    def cell(self) -> str:
        return self.name.partition("-")[0]

    @property
    def seed(self) -> int:
        return int(self.name.partition("-")[2])


NAMES = tuple(f"{cell}-{seed}" for cell in CELLS for seed in SEEDS)


def estimator(seed: int) -> MMPHATE:
    return MMPHATE(n_landmark=N_LANDMARK, random_state=seed, device="cpu")


def network(name: str) -> Network:
    """Train and embed the network ``name``, such as "LSTM-0". About 10 s on two cores."""
    cell, _, seed = name.partition("-")
    data = digits(int(seed), n_probe=N_PROBE)
    training = train(data, epochs=EPOCHS, seed=int(seed), cell=cell)
    return Network(name, data, training, estimator(int(seed)).fit(training.trace))


# ---------------------------------------------------------------- what is measured


def entropies(n: Network) -> dict[str, Any]:
    """Entropy of the picture and of the states, with phases, and what follows the held-out accuracy."""
    options: dict[str, Any] = {"estimator": "knn", "random_state": n.seed}
    intra = analysis.entropy(n.embedding, over="units", **options)
    inter = analysis.entropy(n.embedding, over="timesteps", estimator="histogram", random_state=n.seed)
    states = analysis.trace_entropy(n.training.trace, over="units", **options)
    phases = analysis.phases(intra, random_state=n.seed)
    accuracy = n.training.trace.metrics["test_accuracy"]
    follows = analysis.follows(intra, accuracy, random_state=n.seed)
    if n.seed == DRAWN_SEED:
        metrics = {name: n.training.trace.metrics[name] for name in ("test_accuracy", "test_loss")}
        plots.entropy_curves(intra, phases=phases, metrics=metrics, path=picture(n, "entropy"))
    return {"intra": intra, "inter": inter, "states": states, "phases": phases, "follows": follows}


def labels(n: Network) -> dict[str, Any]:
    """What a linear probe reads from the states, and their information on the label."""
    trace, seed = n.training.trace, n.seed
    probe = analysis.linear_probe(trace, random_state=seed)
    information = analysis.label_information(trace, probe=probe, random_state=seed)
    if seed == DRAWN_SEED:
        plots.heatmap(probe, path=picture(n, "probe"))
        plots.heatmap(information, path=picture(n, "information"))
    return {"probe": probe, "information": information}


def importance(n: Network, inter: Any, information: Any) -> dict[str, Any]:
    """Ablations of time steps and units on all held-out images, and three rankings of the units."""
    images, classes = n.data.test
    arguments: tuple[Any, ...] = (n.training.model, "rnn", images, classes.numpy())
    options: dict[str, Any] = {"states": n.training.states, "random_state": n.seed}
    steps = analysis.ablate_timesteps(*arguments, **options)
    units = analysis.ablate_units(*arguments, **options)
    ranked = analysis.unit_importance(inter, ablation=units, information=information, random_state=n.seed)
    if n.seed == DRAWN_SEED:
        plots.heatmap(steps, path=picture(n, "ablation"))
        plots.unit_rankings(ranked, path=picture(n, "rankings"))
    return {"timesteps": steps, "units": units, "importance": ranked}


def judged(n: Network) -> dict[str, Any]:
    """Communities of units, and trust."""
    communities = analysis.unit_communities(n.embedding, epoch="each", random_state=n.seed)
    if n.seed == DRAWN_SEED:
        plots.community_strips(communities, path=picture(n, "communities"))
    trust = analysis.trust(n.training.trace, n.embedding, estimator=n.fit, random_state=n.seed)
    return {"communities": communities, "trust": trust}


def refitted(n: Network) -> dict[str, Any]:
    """Fewer time steps; and for one seed null models and other methods."""
    trace, seed, fit = n.training.trace, n.seed, n.fit
    measured: dict[str, Any] = {
        "steps": analysis.subsample_study(
            trace, over="timesteps", sizes=TIMESTEPS, repeats=REPEATS, estimator=fit, random_state=seed
        ),
    }
    if n.seed == DRAWN_SEED:
        measured["nulls"] = analysis.null_models(trace, repeats=NULLS, estimator=fit, random_state=seed)
        measured["baselines"] = analysis.baselines(trace, embedding=n.embedding, estimator=fit, random_state=seed)
        plots.subsampling(measured["steps"], path=picture(n, "steps"))
        plots.null_models(measured["nulls"], path=picture(n, "nulls"))
        plots.baselines(measured["baselines"], path=picture(n, "baselines"))
    return measured


def picture(n: Network, what: str) -> str:
    return str(FOLDER / f"digits-{n.cell.lower()}-{what}.png")


def measured(name: str, *, refits: bool = True) -> dict[str, Any]:
    """The measures of the network ``name``, in a form for JSON; without ``refits`` those that fit only once."""
    started = time.perf_counter()
    n = network(name)
    results = entropies(n) | labels(n)
    results |= importance(n, results["inter"], results["information"]) | judged(n)
    if refits:
        results |= refitted(n)
    useful = analysis.compression_kind(results["phases"], results["probe"])
    metrics = dict(n.training.trace.metrics)
    entry = {what: summary_of(result) for what, result in (results | {"useful": useful}).items()}
    # The entropies of the single units, and the islands, may be too many to keep.
    entry["trust"]["largest_island"] = float(max(results["trust"].island_shares))
    entry["inter"]["mean"] = results["inter"].values.mean(1)
    return entry | {"metrics": metrics, "seconds": time.perf_counter() - started}


def main(arguments: Sequence[str]) -> int:
    names = [name for name in arguments if name != "--no-refits"]
    for name in names or NAMES:
        kept("digits", name, measured(name, refits="--no-refits" not in arguments))
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
