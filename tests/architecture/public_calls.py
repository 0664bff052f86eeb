"""Calls of every public function, whose results the test of global state compares to the bit."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import mmphate_gpu as mp
from mmphate_gpu import analysis, datasets, plots, reference
from mmphate_gpu.diffusion import diffuse, knee
from mmphate_gpu.embedding import Embedding
from mmphate_gpu.linalg.kmeans import kmeans
from mmphate_gpu.linalg.top_eigenpairs import top_eigenpairs
from mmphate_gpu.ops.launch import twins
from mmphate_gpu.runtime.isolation import isolated
from mmphate_gpu.slices import SliceLayout


def _walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


WIDE = _walk(30, 4, 6)
# Half of the units have values near the smallest normal numbers, so their squares are subnormal.
NARROW = (_walk(6, 5, 4, 5, seed=1) * np.array([1, 1e-19, 1, 1e-20])[:, None]).astype(np.float32)
FIT = {"n_landmark": 40, "random_state": 0, "device": "cpu"}
FITTED = ("landmark_op_", "transitions_", "clusters_", "von_neumann_entropy_", "diff_potential_")


def fit(trace: Any = WIDE, **options: Any) -> list[Any]:
    model = mp.MMPHATE(**FIT | options)
    coordinates = model.fit_transform(trace)
    return [coordinates, model.stress_, model.transform(trace), *(getattr(model, name) for name in FITTED)]


def _masked() -> list[Any]:
    mask = np.arange(6) < np.array([6, 6, 4, 5])[:, None]
    trace = mp.as_trace(WIDE, mask=np.broadcast_to(mask, WIDE.shape), label=[0, 1, 0, 1, 2, 2])
    model = mp.MMPHATE(**FIT).fit(trace)
    shares = mp.neighborhood_preservation(trace, model.embedding_, [2, 5])
    return [model.embedding_, model.result_.most_active, shares, model.placement_.coordinates(trace)]


def _trusted() -> list[Any]:
    small = mp.MMPHATE(**FIT, mds_solver="classic")
    trust = mp.analysis.trust(WIDE, small.fit_transform(WIDE), k=3, seeds=2, estimator=small, random_state=0)
    nulls = mp.analysis.null_models(WIDE, metrics=("inter", "stress"), repeats=1, estimator=small, random_state=0)
    study = mp.analysis.subsample_study(WIDE, "epochs", (0.9,), 1, k=3, estimator=small, random_state=0)
    measures = [trust.trustworthiness, trust.geodesic_spearman, trust.stress_by_epoch, trust.seed_procrustes]
    return [*measures, nulls.data, nulls.null, study.values, study.curves, _drawn(plots.subsampling(study))]


def _others() -> list[Any]:
    small = mp.MMPHATE(**FIT, mds_solver="classic")
    methods = ("pca", "isomap", "m_phate_per_step", "cka", "svcca")
    result = mp.analysis.baselines(WIDE, methods, k=3, estimator=small, random_state=0)
    return [*result.coordinates.values(), result.table, *result.similarity.values(), _drawn(plots.heatmap(result))]


def _joined() -> list[Any]:
    parts = [mp.as_trace(WIDE[start:stop], epoch=np.arange(start, stop)) for start, stop in ((0, 12), (10, 30))]
    masked = mp.as_trace(parts[1], mask=parts[1].data[:, 0] > 0)
    trace = mp.join_traces([parts[0], masked], overlap="last")
    return [trace.data, trace.mask, trace.epoch]


def _affinity(storage: str) -> list[Any]:
    """Call every member of the operator, with float32 values and a vector in float64."""
    operator = mp.multislice_affinity(NARROW, storage=storage, device="cpu")
    vector = torch.from_numpy(np.sin(np.arange(len(NARROW) * 5 * 4.0)))
    linear = mp.as_linear_operator(operator) @ vector.numpy()
    sums = operator.row_sums(), operator.aggregate(torch.from_numpy(np.arange(120) % 7), 7)
    return [operator @ vector, linear, *sums, operator.to_dense(), mp.to_scipy(operator), mp.to_torch_csr(operator)]


def _stages() -> list[Any]:
    operator = mp.multislice_affinity(WIDE, device="cpu")
    landmarks = mp.landmark_diffusion(operator, n_landmark=30, random_state=0)
    whole = mp.landmark_diffusion(operator, n_landmark=None).landmark_op
    op = landmarks.landmark_op.numpy()
    potential = mp.diffusion_potential(op, 5)
    distances = mp.potential_distances(potential, "cosine")
    solved = mp.metric_mds(distances, solver="nonmetric", random_state=0)
    curve = mp.von_neumann_entropy(op)
    numbers = [mp.stress(distances, solved.coordinates), mp.optimal_t(op), knee(curve)]
    return [op, whole, potential, distances, solved.coordinates, curve, diffuse(op, 3), *numbers]


def _reference() -> list[Any]:
    result = reference.mmphate(WIDE[:27], n_landmark=40, random_state=0)
    return [value for value in vars(result).values() if isinstance(value, np.ndarray | float | int)]


def _labels_in_the_states() -> list[Any]:
    trace = mp.as_trace(_walk(3, 2, 4, 24), label=np.arange(24) % 3)
    probe = analysis.linear_probe(trace, random_state=0)
    real = analysis.linear_probe(trace, np.arange(24) / 7, random_state=0)
    information = analysis.label_information(trace, probe=probe, permutations=3, random_state=0)
    return [value for result in (probe, real, information) for value in vars(result).values() if np.ndim(value)]


def _entropies() -> list[Any]:
    trace = _walk(3, 2, 12, 5)
    picture = Embedding(_walk(72, 2), SliceLayout.of_shape(3, 2, 12))
    names = ("histogram", "kde", "knn", "spectral")
    results = [analysis.entropy(picture, "units", name, random_state=0, n_bootstrap=2) for name in names]
    results += [analysis.trace_entropy(trace, "nodes", name) for name in names]
    return [value for result in results for value in vars(result).values() if isinstance(value, np.ndarray | float)]


def _curves() -> list[Any]:
    curve, metric = _walk(40, seed=2).cumsum(), _walk(40, seed=3)
    cut = analysis.phases(curve, random_state=0)
    judged = analysis.compression_kind(cut, metric, random_state=0)
    followed = analysis.follows(curve, metric, random_state=0)
    return [str(result.to_dict()) for result in (cut, judged, followed)]


def _drawn(figure: Any) -> np.ndarray:
    with io.BytesIO() as file:
        figure.savefig(file, format="raw", dpi=30)
        return np.frombuffer(file.getvalue(), dtype=np.uint8)


def _film(embedding: Embedding) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return plots.animate(embedding, "epochs", f"{folder}/film.gif", fps=2, figsize=(2.6, 2.2)).read_bytes()


def _pictures() -> list[Any]:
    op = mp.MMPHATE(**FIT).fit(WIDE)
    result = op.result_
    spread = analysis.trace_entropy(_walk(3, 2, 12, 5), n_bootstrap=2, random_state=0)
    figures = [plots.panels(result), plots.entropy(result), plots.entropy(result.entropy)]
    figures += [plots.trajectories(result, through="both"), plots.grid({"a": result, "b": result.coordinates[:, :1]})]
    figures += [plots.entropy_curves(spread, metrics={"loss": np.arange(3.0)}), plots.heatmap(spread)]
    figures += [plots.affinity_blocks(op), plots.spectrum(op)]
    return [*map(_drawn, figures), _film(result), result._repr_html_()]


def _ops() -> list[Any]:
    """Call two ops that have only a torch version, in float32, and the portable versions of four ops that have C++."""
    portable, points = twins.PORTABLE, torch.from_numpy(WIDE.transpose(1, 0, 2).copy())
    generator = torch.Generator("cpu").manual_seed(0)
    with isolated():
        rows = points.reshape(-1, 6).float()
        gram = rows @ rows.T
        results = [
            portable["radius_counts"](points, 2.0),
            portable["assign_nearest"](rows, rows[:3]),
            portable["kth_neighbor_distance"](points, 3),
            portable["guttman_transform"](torch.cdist(points[0], points[0]), points[0, :, :2], 0.0),
        ]
    pairs = top_eigenpairs(gram.matmul, 120, 3, dtype=torch.float32, generator=generator)
    return [*results, kmeans(rows, 9, generator=generator), *pairs]


READER = torch.nn.GRU(6, 3, dtype=torch.float64, device="cpu").requires_grad_(False)
for number, weight in enumerate(READER.parameters()):
    weight.copy_(torch.sin(torch.arange(weight.numel(), dtype=torch.float64, device="cpu") + number).view_as(weight))


def _ablations() -> list[Any]:
    """A network that is made once, because the settings of the user change how one is made."""
    probe, labels = torch.from_numpy(WIDE), np.array([0, 1, 2, 1])
    options: Any = {"output": lambda y: y[0][-1], "replacement": "shuffle", "random_state": 0, "repeats": 2}
    steps = analysis.ablate_timesteps(READER, "", probe, labels, timesteps=slice(None, None, 10), **options)
    units = analysis.ablate_units(READER, "", probe, labels, **options)
    ranks = analysis.unit_importance(ablation=units, scores={"order": np.arange(3)})
    return [steps.loss, steps.accuracy, units.loss, units.accuracy, ranks.spearman, ranks.p, ranks.ranks["ablation"]]


def _units() -> list[Any]:
    result = mp.MMPHATE(**FIT).fit(WIDE).result_
    options = {"n": 2, "n_null": 5, "random_state": 0}
    communities = [mp.analysis.unit_communities(of, **options) for of in (WIDE, result)]
    stability = mp.analysis.community_stability(result, 0, -1, ks=[2], n_seeds=3, random_state=0)
    parts = *communities, stability, mp.analysis.spread(result), mp.analysis.displacement(result)
    return [value for part in parts for value in vars(part).values() if isinstance(value, np.ndarray)]


CALLS: dict[str, Callable[[], list[Any]]] = {
    "fit float64": fit,
    "fit float32": lambda: fit(NARROW),
    "fit a tensor": lambda: fit(torch.from_numpy(WIDE), landmarks="stratified", mds_solver="classic"),
    "fit tiles, PCA, links": lambda: fit(storage="tiles", n_pca=3, decay=None, gamma=1, n_landmark=None),
    "fit lazy": lambda: fit(NARROW, storage="lazy", normalize=False, gamma=-1, knn_backend="torch"),
    "M_PHATE": lambda: [mp.M_PHATE(**FIT, n_jobs=1).fit_transform(WIDE)],
    "stable": lambda: [mp.MMPHATE.stable(**FIT).fit_transform(WIDE)],
    "masked": _masked,
    "joined": _joined,
    "trust": _trusted,
    "baselines": _others,
    "affinity sparse": lambda: _affinity("sparse"),
    "affinity tiles": lambda: _affinity("tiles"),
    "affinity lazy": lambda: _affinity("lazy"),
    "stages": _stages,
    "datasets": lambda: [datasets.bifurcation("hopf_pitchfork", 4, 20, 3).data, datasets.random_walk(5, 3, 4).data],
    "labels in the states": _labels_in_the_states,
    "entropies": _entropies,
    "plan": lambda: [
        str(mp.plan(mp.as_trace(WIDE), device=device)).splitlines()[1:9] for device in ("cpu", "9 GB card")
    ],
    "curves": _curves,
    "reference": _reference,
    "pictures": _pictures,
    "ablations": _ablations,
    "units": _units,
    "ops": _ops,
}
# Public names without a call above.
NOT_CALLED = {
    *("KerasRecorder", "LightningRecorder", "LiveEmbedding"),  # tests/record and tests/test_live.py call these
    *("Recorder", "every", "load_trace", "save_trace"),  # tests/record and tests/trace call these
    "to_cupy",  # needs a GPU
    *("Trace", "Landmarks", "Embedding", "MDSResult", "Placement", "Plan", "Params"),  # classes of inputs and results
    *("InputError", "InputTypeError", "PictureWarning", "show_config", "__version__"),
    *("analysis", "datasets", "plots", "reference"),  # modules, whose functions are called
}
