"""The analyses that `analyze` runs: what each needs, how it is computed, and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..embedding import Embedding
    from ..estimator import MMPHATE
    from ..trace import Trace


@dataclass(frozen=True, eq=False)
class Network:
    """The network that was recorded, with its state dict at each epoch."""

    model: torch.nn.Module
    layer: str
    probe: Any
    states: Mapping[Any, Mapping[str, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Data:
    """What analyses read.

    Attributes
    ----------
    embedding : the picture.
    estimator : its settings; fitted if this command made the picture.
    trace : the trace of the picture, or None.
    labels : (P,) the class of each sample, or a real target, or None.
    network : the network that was recorded, or None.
    seed, verbose : options of every analysis.
    """

    embedding: Embedding
    estimator: MMPHATE
    trace: Trace | None = None
    labels: np.ndarray | None = None
    network: Network | None = None
    seed: int = 0
    verbose: bool = False

    @property
    def seeded(self) -> dict[str, Any]:
        return {"random_state": self.seed}

    @property
    def shown(self) -> dict[str, Any]:
        """The options of an analysis that shows its progress."""
        return self.seeded | {"verbose": self.verbose}

    @property
    def refits(self) -> dict[str, Any]:
        """The options of an analysis that embeds again."""
        return self.shown | {"estimator": self.estimator}

    @property
    def metrics(self) -> Mapping[str, np.ndarray]:
        return {} if self.trace is None else self.trace.metrics


Done = Mapping[str, Any]  # the results so far, by the names of their analyses
Compute = Callable[[Any, Data, Done], Any]  # of the module `analysis`
Draw = Callable[[Any, Any, Data, Done, Any], Any]  # of the module `plots`, the result, and last the path


@dataclass(frozen=True)
class Analysis:
    """An analysis of the table.

    Attributes
    ----------
    compute : the result, or a mapping from names to results.
    needs : keys of `NEEDS`, and names of analyses above this one in the table.
    option : the option that asks for an analysis that takes long.
    pictures : {name of the file: function that draws it}.
    """

    compute: Compute
    needs: tuple[str, ...] = ()
    option: str | None = None
    pictures: Mapping[str, Draw] = field(default_factory=dict)


# What an analysis may need: whether the data have it, and the reason that is given if they lack it.
NEEDS: dict[str, tuple[Callable[[Data], bool], str]] = {
    "trace": (lambda data: data.trace is not None, "the trace is missing; --trace TRACE names it"),
    "labels": (lambda data: data.labels is not None, "the samples have no labels; --labels FILE names them"),
    "metrics": (
        lambda data: bool(data.metrics),
        "the trace has no metrics; recorder.snapshot(epoch, loss=...) records them",
    ),
    "network": (lambda data: data.network is not None, "it runs the network; use mmphate_gpu.analysis in Python"),
}


def _curves(plots: Any, entropy: Any, data: Data, done: Done, path: Any) -> None:
    plots.entropy_curves(entropy, phases=done.get("phases"), metrics=data.metrics, path=path)


def _map(plots: Any, result: Any, data: Data, done: Done, path: Any) -> None:
    plots.heatmap(result, path=path)


def _ablated(ablate: Callable[..., Any], data: Data) -> Any:
    network: Any = data.network
    return ablate(network.model, network.layer, network.probe, data.labels, states=network.states, **data.shown)


ANALYSES: dict[str, Analysis] = {
    "entropy": Analysis(
        lambda analysis, data, done: analysis.entropy(data.embedding, **data.shown),
        pictures={"entropy_curves.png": _curves},
    ),
    "unit_entropy": Analysis(
        lambda analysis, data, done: analysis.entropy(data.embedding, over="timesteps", **data.shown),
        pictures={"unit_entropy.png": _map},
    ),
    "trace_entropy": Analysis(
        lambda analysis, data, done: analysis.trace_entropy(data.trace, **data.shown),
        needs=("trace",),
        pictures={"trace_entropy.png": _map},
    ),
    "phases": Analysis(
        lambda analysis, data, done: analysis.phases(done["entropy"], **data.seeded),
        needs=("entropy",),
    ),
    "follows": Analysis(
        lambda analysis, data, done: {
            name: analysis.follows(done["entropy"], name, trace=data.trace, **data.seeded) for name in data.metrics
        },
        needs=("metrics", "entropy"),
    ),
    "linear_probe": Analysis(
        lambda analysis, data, done: analysis.linear_probe(data.trace, data.labels, **data.shown),
        needs=("trace", "labels"),
        pictures={"linear_probe.png": _map},
    ),
    "label_information": Analysis(
        lambda analysis, data, done: analysis.label_information(
            data.trace, data.labels, probe=done["linear_probe"], **data.shown
        ),
        needs=("linear_probe",),
        pictures={"label_information.png": _map},
    ),
    "compression_kind": Analysis(
        lambda analysis, data, done: analysis.compression_kind(done["phases"], done["linear_probe"], **data.seeded),
        needs=("phases", "linear_probe"),
    ),
    "ablate_timesteps": Analysis(
        lambda analysis, data, done: _ablated(analysis.ablate_timesteps, data),
        needs=("network", "labels"),
        pictures={"timestep_ablation.png": _map},
    ),
    "ablate_units": Analysis(
        lambda analysis, data, done: _ablated(analysis.ablate_units, data),
        needs=("network", "labels"),
        pictures={"unit_ablation.png": _map},
    ),
    "unit_importance": Analysis(
        lambda analysis, data, done: analysis.unit_importance(
            done["unit_entropy"], done.get("ablate_units"), done["label_information"], **data.seeded
        ),
        needs=("unit_entropy", "label_information"),
        pictures={"unit_rankings.png": lambda plots, result, data, done, path: plots.unit_rankings(result, path=path)},
    ),
    "unit_communities": Analysis(
        lambda analysis, data, done: analysis.unit_communities(data.embedding, **data.shown),
    ),
    "epoch_communities": Analysis(
        lambda analysis, data, done: analysis.unit_communities(data.embedding, epoch="each", **data.shown),
        pictures={"communities.png": lambda plots, result, data, done, path: plots.community_strips(result, path=path)},
    ),
    "spread": Analysis(lambda analysis, data, done: analysis.spread(data.embedding)),
    "displacement": Analysis(lambda analysis, data, done: analysis.displacement(data.embedding)),
    "trust": Analysis(
        lambda analysis, data, done: analysis.trust(data.trace, data.embedding, **data.refits),
        needs=("trace",),
    ),
    "null_models": Analysis(
        lambda analysis, data, done: analysis.null_models(data.trace, **data.refits),
        needs=("trace",),
        option="null_models",
        pictures={"null_models.png": lambda plots, result, data, done, path: plots.null_models(result, path=path)},
    ),
    "subsample_study": Analysis(
        lambda analysis, data, done: analysis.subsample_study(data.trace, **data.refits),
        needs=("trace",),
        option="subsampling",
        pictures={"subsampling.png": lambda plots, result, data, done, path: plots.subsampling(result, path=path)},
    ),
    "baselines": Analysis(
        lambda analysis, data, done: analysis.baselines(data.trace, embedding=data.embedding, **data.refits),
        needs=("trace",),
        option="baselines",
        pictures={
            "baselines.png": lambda plots, result, data, done, path: plots.baselines(result, path=path),
            "cka_epochs.png": lambda plots, result, data, done, path: plots.heatmap(
                result, field="cka of epochs", path=path
            ),
            "cka_timesteps.png": lambda plots, result, data, done, path: plots.heatmap(
                result, field="cka of timesteps", path=path
            ),
        },
    ),
}
# The files that the analyses may write, apart from those of `result_folder`.
PICTURES = frozenset(name for analysis in ANALYSES.values() for name in analysis.pictures)
