"""MMPHATE: the scikit-learn estimator over the pipeline."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError

from .analysis.activity import most_active_class
from .embedding import Embedding
from .errors import InputError
from .landmarks.stratified import shares
from .mds.place import Placement
from .operators import AffinityOperator
from .ops.launch.compile_ahead import compile_ahead
from .ops.word_hashes import word_hashes
from .params import Labels, Params
from .pipeline import Run
from .planning.fit import run_within_memory
from .planning.plan import check_least
from .runtime.arrays import array_library, to_library
from .runtime.devices import resolve_device
from .runtime.isolation import isolated
from .runtime.memory import available_bytes
from .slices import SliceLayout, unit_major
from .stages import Stages, progress_callback
from .trace import Trace, as_trace
from .trace.convert import is_xarray
from .trace.stored import blocks


class MMPHATE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Multiway Multislice PHATE: what happens inside a recurrent network while it learns, in two or three dimensions.

    Parameters
    ----------
    n_components : int
        Dimensions of the embedding.
    intraslice_knn, interslice_knn : int
        Neighbors that set the bandwidth between units of one slice, and between slices of one unit.
    decay : float or None
        Exponent of the intraslice kernel; None links the ``intraslice_knn`` nearest units with weight 1.
    t : int or "auto"
        Diffusion time; "auto" takes the knee of the von Neumann entropy.
    gamma : float in [-1, 1]
        Transform of the diffusion potential: 1 logarithm, -1 none, 0 square root.
    n_landmark : int or None
        Clusters the nodes are condensed to; None uses all nodes.
    landmarks : {"spectral", "stratified"} or (N,) integers
        How they are found: from the leading singular vectors of the diffusion affinity; cheaply, from the points of one
        unit after the other; or as given, one number per node, whatever ``n_landmark``.
    normalize : bool
        z-score every (slice, unit) over samples first.
    mds_solver : {"smacof", "classic", "nonmetric"}
    mds_dist : {"euclidean", "cosine"}
    n_pca : int or None
        Samples are reduced to this many principal components where there are more.
    n_svd : int
        Singular vectors used to find the landmarks.
    thresh : float
        Affinities below it are 0.
    t_max : int
        Length of the entropy curve.
    random_state : int or None
    device : "auto", "cpu", "cuda", "cuda:1", torch.device
    storage : {"auto", "sparse", "tiles", "lazy"}
        How the affinity is kept: as CSR, as dense tiles in half precision (for a GPU; products to about 5e-4), or
        matrix-free.
    knn_backend : {"auto", "torch", "keops", "pynndescent"}
    verbose : int or bool
        Draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after every stage.

    Attributes
    ----------
    embedding_ : (N, n_components)
        Row ``(epoch * n_timesteps + timestep) * n_units + unit``.
    t_ : int
    stress_ : float
        Kruskal's stress-1 of the landmark distances.
    landmark_op_ : (L, L) float64
    transitions_ : (N, L) sparse
    clusters_ : (N,) int64
    affinity_ : operator (N, N)
    bandwidth_ : float
        The interslice bandwidth.
    von_neumann_entropy_ : (t_max,) float64
    diff_potential_ : (L, L) float64
    n_landmark_ : int
        L, the number of landmarks after empty clusters are dropped.
    report_ : list of dict
        Seconds, bytes and form of every stage.
    result_ : Embedding
        Coordinates with the epoch, time step and unit of every row.

    Notes
    -----
    Arrays come back in the kind (NumPy, torch, CuPy, xarray) and on the device of the input. Fitting the same values
    again with another ``t``, ``gamma``, ``n_components`` or solver uses the stages again that did not change.
    ``landmark_op_``, ``transitions_``, ``clusters_``, ``von_neumann_entropy_`` and ``diff_potential_`` stay on the
    device until they are first read or pickled, which copies them, or until a later fit has succeeded. The affinity
    takes O(M S^2 D) time, and the stages after the landmarks O(L^3). `plan` says what memory a run takes, and `fit`
    checks it before it allocates anything. One ``random_state``, device, dtype and thread count give the same bits.
    Source: Xie et al., "Multiway Multislice PHATE", arXiv 2406.01969.

    Examples
    --------
    >>> import numpy as np
    >>> trace = np.random.default_rng(0).normal(size=(30, 4, 10)).cumsum(0)  # (slice, unit, sample)
    >>> MMPHATE(n_components=2, random_state=0).fit_transform(trace).shape
    (120, 2)
    """

    embedding_: Any
    t_: int
    stress_: float
    n_landmark_: int
    affinity_: AffinityOperator
    bandwidth_: float
    report_: list[dict[str, Any]]
    result_: Embedding

    def __init__(
        self,
        n_components: int = 2,
        *,
        intraslice_knn: int = 2,
        interslice_knn: int = 25,
        decay: float | None = 5,
        t: int | str = "auto",
        gamma: float = 0,
        n_landmark: int | None = 4000,
        landmarks: Any = "spectral",
        normalize: bool = True,
        mds_solver: str = "smacof",
        mds_dist: str = "euclidean",
        n_pca: int | None = 100,
        n_svd: int = 100,
        thresh: float = 1e-4,
        t_max: int = 100,
        random_state: int | None = None,
        device: Any = "auto",
        storage: str = "auto",
        knn_backend: str = "auto",
        verbose: int = 0,
        callback: Any = None,
    ) -> None:
        self.n_components = n_components
        self.intraslice_knn = intraslice_knn
        self.interslice_knn = interslice_knn
        self.decay = decay
        self.t = t
        self.gamma = gamma
        self.n_landmark = n_landmark
        self.landmarks = landmarks
        self.normalize = normalize
        self.mds_solver = mds_solver
        self.mds_dist = mds_dist
        self.n_pca = n_pca
        self.n_svd = n_svd
        self.thresh = thresh
        self.t_max = t_max
        self.random_state = random_state
        self.device = device
        self.storage = storage
        self.knn_backend = knn_backend
        self.verbose = verbose
        self.callback = callback

    @isolated()
    def fit(self, X: Any, y: Any = None) -> MMPHATE:
        """Embed the trace ``X``: (epoch, timestep, unit, sample) or (slice, unit, sample), or a `Trace`.

        Raises
        ------
        InputError, InputTypeError
            Input or parameters that cannot be used, or a run that does not fit in memory; what an earlier call
            fitted is then untouched.
        """
        params = Params(**self._run_params())
        input_trace = as_trace(X)
        device = resolve_device(params.device, input_trace.data)
        _check_landmarks(params, input_trace)
        compile_ahead(device, **_sizes(input_trace, params))
        trace = input_trace.to(device)
        stages, key = self._stages_for(trace, device)
        free_bytes = available_bytes(device) + stages.held_bytes(but=tuple(getattr(self, "_results", {}).values()))
        check_least(trace, params, device, free_bytes)
        self._stages, self._stages_key = stages, key  # the next fit reuses finished stages even if this one fails
        with progress_callback(self.verbose, self.callback) as callback:
            run = run_within_memory(trace, params, stages, callback, free_bytes)
        reports = [report.asdict() for report in stages.reports]
        fitted = self._fitted(X, input_trace, run) | {"report_": reports}
        # One step, so that an interruption leaves the old state or the new one, never a mix.
        self.__dict__.update(fitted)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Embed ``X`` and return its coordinates, (N, n_components), in the kind of ``X``."""
        return self.fit(X, y).embedding_

    @isolated()
    def transform(self, X: Any) -> Any:
        """Place new slices of the same units and samples in the fitted picture: (N_new, n_components), in the kind of
        ``X``.

        Each row lands at the mean of the landmarks of its unit's fitted slices, weighted by the interslice affinity to
        them; it depends on no other row (to rounding), and the fitted state stays as it is. A slice that was fitted
        lands near, not on, its own embedding, which also has intraslice links. O(N_new S D) time.

        Raises
        ------
        InputError
            Other units or samples than the fitted trace has; not fitted yet (`sklearn.exceptions.NotFittedError`).
        """
        self._check_fitted()
        trace = as_trace(X, min_slices=1)
        return in_kind(X, trace, self._placement.coordinates(trace).to(trace.data.dtype))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "embedding_")

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the kept stages, which hold every intermediate result, and the callback."""
        for name in tuple(getattr(self, "_results", ())):
            self._copy_of(name)
        return {**super().__getstate__(), "_stages": None, "callback": None}

    landmark_op_ = property(lambda self: self._copy_of("landmark_op_"))
    transitions_ = property(lambda self: self._copy_of("transitions_"))
    clusters_ = property(lambda self: self._copy_of("clusters_"))
    von_neumann_entropy_ = property(lambda self: self._copy_of("von_neumann_entropy_"))
    diff_potential_ = property(lambda self: self._copy_of("diff_potential_"))

    @isolated()
    def _copy_of(self, name: str) -> Any:
        """The result ``name`` as the kind of array that the input was; the first call copies it and keeps the copy."""
        self._check_fitted()
        if name not in self._copies:
            self._copies[name] = _copy(self._results[name], *self._kind)
        self._results.pop(name, None)
        return self._copies[name]

    @property
    def _n_features_out(self) -> int:
        return self.result_.n_components

    def _run_params(self) -> dict[str, Any]:
        names = Params.__dataclass_fields__
        return {name: value for name, value in self.get_params(deep=False).items() if name in names}

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")

    def _stages_for(self, trace: Trace, device: torch.device) -> tuple[Stages, tuple[str, str]]:
        """The stages of the last run if it had this trace on this device, else new ones; and what tells them apart."""
        key = (str(device), fingerprint(trace))
        stages: Stages | None = getattr(self, "_stages", None)
        return (Stages(device) if stages is None or self._stages_key != key else stages), key

    def _fitted(self, X: Any, trace: Trace, run: Run) -> dict[str, Any]:
        """The fitted attributes, as the kind of array that ``X`` is. The large ones are the run's own tensors, which
        are copied when they are read."""
        landmarks = run.landmarks
        targets = run.mds.coordinates[landmarks.clusters]
        return {
            "result_": _embedding(trace, run),
            "embedding_": in_kind(X, trace, run.coordinates),
            "t_": run.t,
            "stress_": run.mds.stress,
            "n_landmark_": len(landmarks.landmark_op),
            "affinity_": run.affinity.operator,
            "bandwidth_": float(run.affinity.bandwidth),
            "n_features_in_": trace.n_samples,
            "_results": {
                "landmark_op_": landmarks.landmark_op,
                "transitions_": landmarks.transitions,
                "clusters_": landmarks.clusters,
                "von_neumann_entropy_": run.entropy,
                "diff_potential_": run.potential,
            },
            "_copies": {},
            "_kind": (_kind(X), trace.data.device),
            "_placement": Placement(
                n_samples=trace.n_samples,
                normalize=self.normalize,
                axes=run.axes,
                points=unit_major(run.points),
                targets=unit_major(targets.view(*run.points.shape[:2], -1)),
                bandwidth=run.affinity.bandwidth,
                thresh=self.thresh,
            ),
        }


def fingerprint(trace: Trace) -> str:
    """A digest of the values and the mask of ``trace``: equal traces have equal digests. O(N D) time.

    The bits are hashed on their device, block by block, and about a thousandth of them goes to the host.
    """
    parts = (part for _, *pair in blocks(trace.data, trace.mask) for part in pair if part is not None)
    digest = hashlib.blake2b(repr((trace.shape, trace.data.dtype, trace.recorded, trace.mask is None)).encode())
    digest.update(torch.cat([word_hashes(part) for part in parts]).cpu().numpy().data)
    return digest.hexdigest()


def _sizes(trace: Trace, params: Params) -> dict[str, Any]:
    """The sizes that decide, with the types, which CUDA kernels a fit launches: the arguments of `compile_ahead`."""
    return {
        "n_slices": trace.n_slices,
        "n_features": min(trace.n_samples, params.n_pca or trace.n_samples),
        "width": params.n_svd + 10,  # of the blocks of `top_eigenpairs`
        "n_components": params.n_components,
        "wide": trace.data.dtype == torch.float64,
    }


def _check_landmarks(params: Params, trace: Trace) -> None:
    """Refuse, before anything is computed, landmarks that ``trace`` cannot have."""
    if isinstance(params.landmarks, Labels):
        params.landmarks.of_nodes(trace.n_nodes)
    most = params.most_landmarks(trace.n_nodes)
    if params.landmarks == "stratified" and most < trace.n_nodes:
        shares(most, trace.n_units)
    if params.n_components >= most:
        raise InputError(
            f"n_components={params.n_components} is more than {most} points span; accepted: 1 to {most - 1}"
        )


def _embedding(trace: Trace, run: Run) -> Embedding:
    return Embedding(
        run.coordinates.clone().cpu().numpy(),
        SliceLayout(trace.epoch, trace.timestep, trace.unit),
        most_active=most_active_class(trace),
        entropy=run.entropy.clone().cpu().numpy(),
        t=run.t,
        stress=run.mds.stress,
    )


def _kind(X: Any) -> str:
    return "torch" if isinstance(X, Trace) else array_library(X)


def _copy(tensor: torch.Tensor, library: str, device: torch.device) -> Any:
    """A copy of ``tensor`` as an array of ``library``, or as a tensor on ``device``.

    It is a copy, so that a caller who writes into a result does not change the stages kept for the next run.
    """
    target = {"torch": device, "cupy": tensor.device, "numpy": torch.device("cpu")}[library]
    return to_library(tensor.to(target, copy=True), library)


def in_kind(X: Any, trace: Trace, tensor: torch.Tensor) -> Any:
    """A copy of ``tensor``, whose rows are the nodes of ``trace``, in the kind and on the device of the input ``X``."""
    array = _copy(tensor, _kind(X), trace.data.device)
    if not is_xarray(X):
        return array
    import xarray

    layout = SliceLayout(trace.epoch, trace.timestep, trace.unit)
    coords = {axis: ("node", layout.labels(axis)) for axis in ("epoch", "timestep", "unit")}
    return xarray.DataArray(array, dims=("node", "component"), coords=coords)
