"""MMPHATE: the scikit-learn estimator over the pipeline."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError

from .embedding import Embedding
from .errors import PictureWarning, warn_caller
from .landmarks.possible import check_possible
from .mds.place import Placement
from .operators import AffinityOperator
from .operators.graph_nodes import of_all_nodes
from .ops.launch.compile_ahead import compile_ahead
from .params import RECIPES, Params
from .pipeline import Run
from .planning.fit import launch_sizes, run_within_memory
from .planning.plan import check_least
from .runtime.arrays import array_library, copied
from .runtime.devices import resolve_device
from .runtime.isolation import isolated
from .runtime.memory import available_bytes
from .slices import SliceLayout, unit_major
from .stages import Stages, progress_callback
from .trace import Trace, as_trace
from .trace.activity import most_active_class
from .trace.convert import is_xarray
from .trace.fingerprint import fingerprint


class MMPHATE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Multiway Multislice PHATE: embeds the states of a recurrent network while it learns in two or three dimensions.

    Parameters
    ----------
    n_components : int
        Dimensions of the embedding.
    intraslice_knn, interslice_knn : int
        Neighbors that set the bandwidth between units of one slice, and between slices of one unit.
    decay : float or None
        Exponent of the intraslice kernel; None links the ``intraslice_knn`` nearest units with weight 1.
    t : int, "auto" or "eigenvalues"
        Diffusion time; "auto" takes the knee of the von Neumann entropy of the landmark operator's singular values, as
        published, "eigenvalues" that of its eigenvalues, which depend less on ``random_state``.
    gamma : float in [-1, 1]
        Transform of the diffusion potential: 1 logarithm, -1 none, 0 square root.
    n_landmark : int or None
        Number of clusters of nodes; None makes every node a landmark.
    landmarks : {"spectral", "stratified"} or (N,) integers
        How nodes are grouped into landmarks. "spectral" clusters the leading singular vectors of the diffusion
        affinity. "stratified" clusters the points of each unit, which takes less time, with the mean in place of
        missing samples. An array holds the landmark of every node, and ``n_landmark`` is then ignored.
    normalize : bool
        Whether to z-score every (slice, unit) over its samples first.
    mds_solver : {"smacof", "classic", "nonmetric"}
        SMACOF from the start of classical MDS, classical MDS alone, or nonmetric MDS from the end of SMACOF.
    mds_dist : {"euclidean", "cosine"}
        Distance between the potentials of two landmarks.
    n_init : int
        Starts of SMACOF, of which the one that ends with the least stress counts. The first is classical MDS.
    islands : {"potential", "states"}
        Distance between landmarks of different islands: that of their potentials, by which the places of islands are
        arbitrary, or that of their mean states, in the scale within islands. With "states" islands keep a gap.
    refine_knn : int
        If it is not 0, every node moves a little at the end, towards the ``refine_knn`` slices of its unit whose states
        are nearest to its own: at most a 200th of the slices, or 5 if that is more, and at most a third. The picture
        then keeps more neighbors, and 10 is a good number. `transform` leaves this out.
    n_pca : int or None
        If there are more samples, they are reduced to this many principal components. None never reduces them, and
        those of a masked trace are not reduced.
    n_svd : int
        Singular vectors that "spectral" clusters.
    thresh : float
        Affinities below this number are 0.
    t_max : int
        Length of the entropy curve.
    random_state : int or None
        Seed of the random numbers; None takes another seed for every fit.
    device : "auto", "cpu", "cuda", "cuda:1", torch.device
        "auto" is the GPU of the input, else the current GPU, else the CPU.
    storage : {"auto", "sparse", "tiles", "lazy"}
        Form of the affinity: CSR, dense tiles in half precision (for a GPU; the error of products is about 5e-4), or
        matrix-free. "auto" chooses by the memory and the device.
    knn_backend : {"auto", "torch", "scipy", "keops", "pynndescent"}
        Library for distances to neighbors. "pynndescent" is approximate. A masked trace accepts "auto" and "torch".
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after every stage.

    Attributes
    ----------
    embedding_ : (N, n_components)
        Row ``(epoch * n_timesteps + timestep) * n_units + unit``. The row of a node that is left out of the graph is
        NaN.
    graph_nodes_ : (N',) int64
        The nodes of the graph: all N, but of a masked trace only those with two present samples (one without
        ``normalize``). A warning counts the others.
    t_ : int
        Diffusion time.
    t_range_ : (int, int) or None
        The lowest and the highest t that other landmarks of the same nodes could give; None for a ``t`` that is a
        number.
    stress_ : float
        Kruskal's stress-1 of the landmark distances; between islands they are those that ``islands`` chooses.
    landmark_op_ : (L, L) float64
        Diffusion operator of the landmarks.
    landmark_degrees_ : (L,) float64
        ``landmark_op_`` with rows times these numbers is symmetric.
    transitions_ : (N', L) sparse
        Transitions from the nodes of the graph to landmarks.
    clusters_ : (N',) int64
        Landmark of every node of the graph.
    affinity_ : operator (N', N')
    bandwidth_ : float
        The interslice bandwidth.
    von_neumann_entropy_ : (t_max,) float64, of the values that ``t`` names
    diff_potential_ : (L, L) float64
    n_landmark_ : int
        L, the number of landmarks after empty clusters are dropped.
    report_ : list of dict
        Seconds, bytes and form of every stage. The stages "reduce", "affinity", "landmarks", "entropy" and
        "distances" also say whether the picture can be trusted: ``constant``, ``share_without_interslice_neighbor``,
        ``islands``, ``share_outside_largest_island``, ``t_at_end`` and ``collapsed``.
    result_ : Embedding
        Coordinates with the epoch, time step and unit of every row.
    placement_ : Placement
        What `transform` needs.

    Notes
    -----
    Results have the array type (NumPy, torch, CuPy, xarray) and the device of the input. Another fit of the same values
    repeats only the stages whose parameters have changed. ``landmark_op_``, ``transitions_``, ``clusters_``,
    ``von_neumann_entropy_`` and ``diff_potential_`` stay on the device until they are first read or pickled, which
    copies them, or until a later fit has succeeded. The affinity takes O(M S^2 D) time, and the stages after the
    landmarks O(L^3). `plan` estimates the memory of a run, and `fit` checks the memory before it allocates anything.
    The result is the same to the bit for the same ``random_state``, device, dtype and thread count.
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
    t_range_: tuple[int, int] | None
    stress_: float
    n_landmark_: int
    affinity_: AffinityOperator
    bandwidth_: float
    placement_: Placement
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
        n_init: int = 2,
        islands: str = "potential",
        refine_knn: int = 0,
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
        self.n_init = n_init
        self.islands = islands
        self.refine_knn = refine_knn
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

    @classmethod
    def stable(cls, **parameters: Any) -> MMPHATE:
        """An estimator whose picture depends little on the seed: ``parameters`` win over those of the recipe.

        The recipe comes from measurements (docs/decisions.md, "The stable recipe"). Printing the estimator shows it.
        Its classical MDS has about twice the stress of SMACOF. Its refinement keeps more neighbors. O(1) time.

        Examples
        --------
        >>> MMPHATE.stable(n_components=3, random_state=0).n_components
        3
        """
        return cls(**RECIPES["stable"] | parameters)

    @isolated()
    def fit(self, X: Any, y: Any = None) -> MMPHATE:
        """Embed the trace ``X``: (epoch, timestep, unit, sample) or (slice, unit, sample), or a `Trace`.

        Raises
        ------
        InputError, InputTypeError
            Input or parameters that cannot be used, or a run that does not fit in memory. The results of an earlier
            fit then stay.
        """
        params = Params(**self._run_params())
        input_trace = as_trace(X)
        device = resolve_device(params.device, input_trace.data)
        check_possible(params, input_trace)
        compile_ahead(device, **launch_sizes(input_trace, params))
        trace = input_trace.to(device)
        stages, key = self._stages_for(trace, device)
        free_bytes = available_bytes(device) + stages.held_bytes(without=tuple(getattr(self, "_results", {}).values()))
        check_least(trace, params, device, free_bytes)
        self._stages, self._stages_key = stages, key  # the next fit reuses finished stages even if this one fails
        with progress_callback(self.verbose, self.callback) as callback:
            run = run_within_memory(trace, params, stages, callback, free_bytes)
        signs = run.diagnosis.by_stage()
        reports = [report.asdict() | signs.get(report.stage, {}) for report in stages.reports]
        fitted = self._fitted(X, input_trace, run) | {"report_": reports}
        # One step: after an interruption the state is the old one or the new one, never a mix.
        self.__dict__.update(fitted)
        if text := run.diagnosis.sentence(params, run.t):
            warn_caller(text, PictureWarning)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Embed ``X`` and return its coordinates, (N, n_components), in the array type of ``X``."""
        return self.fit(X, y).embedding_

    @isolated()
    def transform(self, X: Any) -> Any:
        """Coordinates of new slices in the fitted embedding: (S_new M, n_components), in the array type of ``X``.

        ``X`` has the units and samples of the fitted trace. A node is placed at the mean of the landmarks of all fitted
        slices of its unit, weighted by the interslice affinity to these slices (see `Placement`). Up to rounding, the
        place does not depend on other nodes of ``X``. The fitted state does not change. A fitted slice is placed near
        its embedding, not at it, because the embedding also uses intraslice affinities. O(S_new M S D) time.

        Raises
        ------
        InputError
            Other units or samples than the fitted trace.
        NotFittedError
            Nothing is fitted yet; the class is that of `sklearn.exceptions`.
        """
        self._check_fitted()
        trace = as_trace(X, min_slices=1)
        return like_input(X, trace, self.placement_.coordinates(trace).to(trace.data.dtype))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "embedding_")

    def __getstate__(self) -> dict[str, Any]:
        """The state without the callback and the kept stages, which hold every intermediate result."""
        for name in tuple(getattr(self, "_results", ())):
            self._copy_of(name)
        return {**super().__getstate__(), "_stages": None, "callback": None}

    landmark_op_ = property(lambda self: self._copy_of("landmark_op_"))
    landmark_degrees_ = property(lambda self: self._copy_of("landmark_degrees_"))
    transitions_ = property(lambda self: self._copy_of("transitions_"))
    clusters_ = property(lambda self: self._copy_of("clusters_"))
    von_neumann_entropy_ = property(lambda self: self._copy_of("von_neumann_entropy_"))
    diff_potential_ = property(lambda self: self._copy_of("diff_potential_"))
    graph_nodes_ = property(lambda self: self._copy_of("graph_nodes_"))

    @isolated()
    def _copy_of(self, name: str) -> Any:
        """The result ``name`` in the array type of the input. The first call copies it and keeps the copy."""
        self._check_fitted()
        if name not in self._copies:
            self._copies[name] = copied(self._results[name], *self._input_type)
        self._results.pop(name, None)
        return self._copies[name]

    _n_features_out = property(lambda self: self.result_.n_components)

    def _run_params(self) -> dict[str, Any]:
        names = Params.__dataclass_fields__
        return {name: value for name, value in self.get_params(deep=False).items() if name in names}

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")

    def _stages_for(self, trace: Trace, device: torch.device) -> tuple[Stages, tuple[str, str]]:
        """The stages of the last run if it had this trace and device, else new stages; and their key."""
        key = (str(device), fingerprint(trace))
        stages: Stages | None = getattr(self, "_stages", None)
        return (Stages(device) if stages is None or self._stages_key != key else stages), key

    def _fitted(self, X: Any, trace: Trace, run: Run) -> dict[str, Any]:
        """The fitted attributes, in the array type of ``X``. The large ones are the tensors of ``run``; they are copied
        when they are read."""
        landmarks, nodes = run.landmarks, run.affinity.nodes
        targets = of_all_nodes(run.mds.coordinates[landmarks.clusters], nodes, trace.n_nodes, 0)
        return {
            "result_": _embedding(trace, run),
            "embedding_": like_input(X, trace, run.coordinates),
            "t_": run.t,
            "t_range_": run.t_range,
            "stress_": run.mds.stress,
            "n_landmark_": len(landmarks.landmark_op),
            "affinity_": run.affinity.operator,
            "bandwidth_": float(run.affinity.bandwidth),
            "n_features_in_": trace.n_samples,
            "_results": {
                "landmark_op_": landmarks.landmark_op,
                "landmark_degrees_": landmarks.degrees,
                "transitions_": landmarks.transitions,
                "clusters_": landmarks.clusters,
                "von_neumann_entropy_": run.entropy,
                "diff_potential_": run.potential,
                "graph_nodes_": torch.arange(trace.n_nodes, device="cpu") if nodes is None else nodes,
            },
            "_copies": {},
            "_input_type": (_array_type(X), trace.data.device),
            "placement_": Placement(
                n_samples=trace.n_samples,
                normalize=self.normalize,
                axes=run.axes,
                points=unit_major(run.points),
                targets=unit_major(targets.view(*run.points.shape[:2], -1)),
                bandwidth=run.affinity.bandwidth,
                thresh=self.thresh,
                masked=trace.mask is not None,
            ),
        }


def _embedding(trace: Trace, run: Run) -> Embedding:
    return Embedding(
        run.coordinates.clone().cpu().numpy(),
        SliceLayout(trace.epoch, trace.timestep, trace.unit),
        most_active=most_active_class(trace),
        entropy=run.entropy.clone().cpu().numpy(),
        t=run.t,
        t_range=run.t_range,
        stress=run.mds.stress,
    )


def _array_type(X: Any) -> str:
    return "torch" if isinstance(X, Trace) else array_library(X)


def like_input(X: Any, trace: Trace, tensor: torch.Tensor) -> Any:
    """A copy of ``tensor``, whose rows are the nodes of ``trace``, in the array type and on the device of ``X``."""
    array = copied(tensor, _array_type(X), trace.data.device)
    if not is_xarray(X):
        return array
    import xarray

    layout = SliceLayout(trace.epoch, trace.timestep, trace.unit)
    coords = {axis: ("node", layout.labels(axis)) for axis in ("epoch", "timestep", "unit")}
    return xarray.DataArray(array, dims=("node", "component"), coords=coords)
