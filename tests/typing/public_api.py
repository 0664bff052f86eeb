"""Every public name, used as a user's program would use it. A type checker reads this file; nothing runs it.

.ci/run checks it with mypy --strict against the installed package, whose marker `py.typed` promises these types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from typing_extensions import assert_type

import mmphate_gpu
from mmphate_gpu import (
    M_PHATE,
    MMPHATE,
    Embedding,
    InputError,
    InputTypeError,
    KerasRecorder,
    Landmarks,
    LightningRecorder,
    LiveEmbedding,
    MDSResult,
    Params,
    PictureWarning,
    Placement,
    Plan,
    Recorder,
    Trace,
    analysis,
    as_linear_operator,
    as_trace,
    datasets,
    diffusion_potential,
    every,
    join_traces,
    landmark_diffusion,
    load_trace,
    metric_mds,
    multislice_affinity,
    neighborhood_preservation,
    optimal_t,
    plan,
    plots,
    potential_distances,
    reference,
    save_trace,
    show_config,
    stress,
    to_cupy,
    to_scipy,
    to_torch_csr,
    von_neumann_entropy,
)


def estimators(array: np.ndarray[Any, Any]) -> None:
    op = MMPHATE(n_components=3, interslice_knn=30, t="auto", n_landmark=None, random_state=0, device="cpu")
    assert_type(op.fit(array), MMPHATE)
    assert_type(op.t_, int)
    assert_type(op.t_range_, tuple[int, int] | None)
    assert_type(op.stress_, float)
    assert_type(op.n_landmark_, int)
    assert_type(op.bandwidth_, float)
    assert_type(op.placement_, Placement)
    assert_type(op.placement_.coordinates(as_trace(array)), torch.Tensor)
    assert_type(op.result_, Embedding)
    assert_type(op.affinity_ @ torch.ones(3), torch.Tensor)
    assert_type(op.report_, list[dict[str, Any]])
    assert_type(op.fit_transform(array), Any)  # the kind of array that went in
    assert_type(op.transform(array), Any)
    drop_in = M_PHATE(2, 2, 25, random_state=0)
    assert_type(drop_in.fit(array), M_PHATE)
    assert_type(drop_in.set_params(t=10), M_PHATE)
    assert_type(drop_in.optimal_t, int)
    assert_type(drop_in.result_, Embedding)
    assert_type(MMPHATE.stable(n_components=3, random_state=0), MMPHATE)
    assert_type(M_PHATE.stable(mds="classic"), M_PHATE)
    MMPHATE(n_components="two")  # type: ignore[arg-type]
    MMPHATE(components=2)  # type: ignore[call-arg]


def results(embedding: Embedding) -> None:
    assert_type(embedding.n_nodes, int)
    assert_type(embedding.t, int | None)
    assert_type(embedding.layout.shape, tuple[int, int, int])
    epochs: np.ndarray[Any, Any] = embedding.by("epoch")
    coordinates: np.ndarray[Any, Any] = embedding.coordinates[epochs == 0]
    embedding.save("embedding.npz", overwrite=True)
    assert_type(Embedding.load("embedding.npz"), Embedding)
    assert_type(plots.panels(embedding, path="panels.png"), Figure)
    columns = {"layer": ("unit", np.array(["a", "b"])), "class": np.zeros(4)}
    assert_type(plots.interactive(embedding, "x.html", columns=columns, title="A run", max_nodes=1000), Path)
    assert_type(plots.trajectories(embedding, ["a", "b"], through="both", epochs=[0, 9]), Figure)
    assert_type(plots.grid({"ours": embedding, "other": coordinates}, ["epoch"], align=False), Figure)
    assert_type(plots.entropy(embedding), Figure)
    assert_type(plots.animate(embedding, "rotation", "film.mp4", color_by="unit", fps=25, seconds=6), Path)
    op = MMPHATE()
    assert_type(plots.affinity_blocks(op, unit=1, path="blocks.png"), Figure)
    assert_type(plots.spectrum(op, figsize=(3.35, 5)), Figure)
    curves = analysis.entropy(embedding)
    assert_type(plots.entropy_curves(curves, phases=analysis.phases(curves), metrics={"loss": [1.0, 0.5]}), Figure)
    assert_type(plots.heatmap(curves, field="values", figsize=(3.35, 2.4)), Figure)
    assert_type(plots.unit_rankings(analysis.unit_importance(embedding)), Figure)
    assert_type(plots.community_strips(analysis.unit_communities(embedding, epoch="each")), Figure)
    classes: np.ndarray[Any, Any] | None = analysis.most_active_class(as_trace(coordinates))
    assert classes is not None
    spread_of_units = analysis.entropy(embedding, "units", "kde", random_state=0)
    assert_type(spread_of_units, analysis.Entropy)
    assert_type(spread_of_units.low, np.ndarray | None)
    assert_type(spread_of_units.dims, tuple[str, ...])
    assert_type(analysis.trace_entropy(coordinates, over="nodes", n_components=3).to_dict(), dict[str, Any])
    assert_type(neighborhood_preservation(coordinates, embedding, k=10), tuple[float, float])
    assert_type(neighborhood_preservation(coordinates, embedding, k=[10, 40]), list[tuple[float, float]])
    assert_type(neighborhood_preservation(coordinates, embedding, k=10, normalize=False), tuple[float, float])
    assert_type(analysis.trust(coordinates, embedding, k=10, seeds=2, estimator=MMPHATE()), analysis.Trust)
    nulls = analysis.null_models(coordinates, ["units"], metrics={"t": lambda trace, embedding: embedding.t or 0})
    assert_type(nulls, analysis.NullModels)
    study = analysis.subsample_study(coordinates, over="samples", rates=[0.5], metrics=["inter"])
    assert_type(study, analysis.SubsampleStudy)
    assert_type(plots.null_models(nulls, path="nulls.png"), Figure)
    assert_type(plots.subsampling(study, figsize=(3.35, 4.5)), Figure)
    others = analysis.baselines(coordinates, ["pca", "cka"], embedding=embedding, metrics=["inter"], random_state=0)
    assert_type(others, analysis.Baselines)
    assert_type(others.best("inter"), list[str])
    assert_type(others.similarity["cka of epochs"], np.ndarray)
    assert_type(plots.baselines(others, color_by="timestep"), Figure)


def units(embedding: Embedding, trace: Trace) -> None:
    communities = analysis.unit_communities(embedding, "each", method="hierarchical", n_null=19, random_state=0)
    assert_type(communities, analysis.UnitCommunities)
    assert_type(analysis.unit_communities(trace, groups=trace.unit_layer).settings["n_null"], Any)
    stability = analysis.community_stability(embedding, (0, 1), -1, ks=[3, 4])
    assert_type(stability, analysis.CommunityStability)
    assert_type(stability.mean, float)
    assert_type(analysis.spread(embedding), analysis.Spread)
    assert_type(analysis.displacement(embedding, against=trace.metrics["loss"]), analysis.Displacement)


def labels_in_the_states(trace: Trace) -> None:
    probe = analysis.linear_probe(trace, [0, 1], folds=3, C=0.5, permutations=2, random_state=0)
    assert_type(probe, analysis.LinearProbe)
    assert_type(probe.n_skipped, int)
    information = analysis.label_information(trace, k=5, probe=probe, verbose=1)
    assert_type(information, analysis.LabelInformation)
    assert_type(information.label_entropy, float)
    assert_type(information.to_dict(), dict[str, Any])


def curves(probe: analysis.LinearProbe, trace: Trace) -> None:
    curve = np.zeros(50)
    cut = analysis.phases(curve, 4, replicates=np.zeros((6, 50)), min_length=4, n_bootstrap=200, random_state=0)
    assert_type(cut, analysis.Phases)
    judged = analysis.compression_kind(cut, probe, measure="score", margin=0.02)
    assert_type(judged, analysis.CompressionKinds)
    followed = analysis.follows(curve, "loss", 3, trace=trace, null="shifts", n_permutations=99)
    assert_type(followed, analysis.Follows)
    assert_type(followed.changes, analysis.Follows | None)
    strongest: np.ndarray[Any, Any] | None = analysis.most_active_class(trace, strength="peak")
    assert strongest is not None


def traces(model: torch.nn.Module, probe: torch.Tensor) -> None:
    with Recorder(model, ["rnn", "head"], probe, labels=[0, 1], epochs=every(5, after=28)) as recorder:
        recorder.add_listener(lambda recorder, epoch: recorder.trace())
        assert_type(recorder.snapshot(0, loss=0.5), bool)
        live = LiveEmbedding(recorder, refit_every=5, out="live/", max_overhead=None, n_components=3)
    assert_type(recorder.epochs, list[float])
    assert_type(live.embedding, Embedding | None)
    live.close()
    callback = LightningRecorder("rnn", probe, when="step", epochs=every(100))
    assert_type(callback.trace(), Trace)
    LiveEmbedding(KerasRecorder(["lstm"], probe, labels=[0, 1]))
    assert_type(recorder.trace(), Trace)
    assert_type(datasets.bifurcation("hopf", n_epochs=10), Trace)
    assert_type(datasets.random_walk(n_slices=10), Trace)
    trace = as_trace(probe, label=[0, 1])
    assert_type(trace, Trace)
    assert_type(trace.shape, tuple[int, int, int, int])
    assert_type(trace.subsample(epochs=slice(0, 5)), Trace)
    save_trace("trace.npz", trace)
    assert_type(load_trace("trace.npz", stream=True), Trace)
    assert_type(join_traces(["before.trace", trace], overlap="last"), Trace)
    trace = as_trace(probe, metrics={"loss": [0.5, 0.25]}, unit_layer=["encoder", "decoder"])
    assert_type(trace.metrics["loss"], np.ndarray)


def ablations(model: torch.nn.Module, probe: torch.Tensor, embedding: Embedding) -> None:
    steps = analysis.ablate_timesteps(model, "rnn", probe, [0, 1], states={0: model.state_dict()}, state="h")
    assert_type(steps, analysis.TimestepAblation)
    units = analysis.ablate_units(model, "rnn", probe, [0.5, 1.5], replacement="shuffle", output=lambda y: y[0])
    assert_type(units, analysis.UnitAblation)
    changes: np.ndarray[Any, Any] = units.loss_change
    assert_type(units.to_dict(), dict[str, Any])
    importance = analysis.unit_importance(embedding, units, scores={"changes": changes[-1]}, random_state=0)
    assert_type(importance, analysis.UnitImportance)


def stages(trace: Trace) -> None:
    affinity = multislice_affinity(trace, storage="sparse")
    assert_type(affinity @ torch.ones(trace.n_nodes), torch.Tensor)
    assert_type(to_torch_csr(affinity), torch.Tensor)
    to_scipy(affinity).sum()
    as_linear_operator(affinity).matvec(np.ones(trace.n_nodes))
    to_cupy(affinity)
    landmarks = landmark_diffusion(affinity, n_landmark=100, random_state=0)
    assert_type(landmarks, Landmarks)
    entropy = von_neumann_entropy(landmarks.landmark_op)
    assert_type(entropy, torch.Tensor)
    potential = diffusion_potential(landmarks.landmark_op, optimal_t(landmarks.landmark_op), gamma=0)
    distances = potential_distances(potential)
    assert_type(distances, torch.Tensor)
    layout = metric_mds(distances, n_components=2, solver="smacof", n_init=2, random_state=0)
    assert_type(layout, MDSResult)
    assert_type(stress(distances, layout.coordinates), float)
    assert_type(reference.mmphate(np.ones((3, 2, 4)), n_components=2), reference.Result)


def plans(trace: Trace) -> None:
    estimate = plan((127, 128, 30, 6), device="24 GB card")
    assert_type(estimate, Plan)
    assert_type(estimate.peak_bytes, int)
    assert_type(estimate.fits, bool)
    assert_type(plan(trace).stages[0].operations, float)
    assert_type(Params(n_components=2).t, int | str)
    assert_type(show_config(), str)
    assert_type(mmphate_gpu.__version__, str)
    mmphate_gpu.MPHATE  # type: ignore[attr-defined]  # noqa: B018
    try:
        estimate.check()
    except InputTypeError as error:
        assert_type(error.args, tuple[Any, ...])
    except InputError as error:
        raise ValueError(str(error)) from error


def errors(of_value: InputError, of_type: InputTypeError) -> tuple[ValueError, TypeError]:
    return of_value, of_type


def warned(of_picture: PictureWarning) -> UserWarning:
    return of_picture
