"""M_PHATE: the constructor, the methods and the attributes that users of M-PHATE have. See docs/m_phate.md."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from .diffusion import von_neumann_entropy
from .errors import InputError, InputTypeError, check_choice, check_number
from .estimator import MMPHATE, fingerprint, in_kind
from .operators import AffinityOperator, to_scipy
from .params import Params
from .trace import as_trace

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from .pipeline import Run
    from .trace import Trace

# M-PHATE takes these by position, in this order; everything else is given by name.
POSITIONAL = (
    "n_components", "intraslice_knn", "interslice_knn", "decay", "t", "gamma", "n_landmark", "normalize",
)  # fmt: skip
MDS = {"metric": "smacof", "classic": "classic", "nonmetric": "nonmetric"}
# Arguments of M-PHATE and PHATE that are none here, each with the one value that asks for what is done anyway.
DONE_ANYWAY = {"knn_dist": "euclidean", "knn_max": None, "kernel_symm": "+"}
_KNN = "use intraslice_knn (units of one slice) or interslice_knn (slices of one unit)"
_EDGES = "multislice_affinity makes the graph and landmark_diffusion takes a graph of yours"
_BANDWIDTHS = f"bandwidths follow from intraslice_knn and interslice_knn; {_EDGES}"
INSTEAD = {
    "k": _KNN,
    "knn": _KNN,
    "a": "use decay",
    "alpha_decay": "use decay; decay=None switches the decay off",
    "njobs": "use n_jobs",
    "potential_method": "use gamma, which is 1 for 'log' and 0 for 'sqrt'",
    "knn_dist": "distances are Euclidean ('euclidean'); transform the trace first for others",
    "knn_max": "thresh alone ends the neighborhoods (None)",
    "kernel_symm": "the affinity is the mean of both directions ('+')",
    "bandwidth": _BANDWIDTHS,
    "bandwidth_scale": _BANDWIDTHS,
    "anisotropy": _EDGES,
    "theta": _EDGES,
    "precomputed": _EDGES,
    "distance": "distances are Euclidean; transform the trace first for others",
    "use_pygsp": "to_scipy(op.affinity_) is the weight matrix that pygsp.graphs.Graph takes",
}

# Arguments of methods of M-PHATE, each with the one value that asks for what is done anyway, and what to use instead.
OF_METHODS = {
    "plot_optimal_t": (False, "plots.entropy(op.result_) draws the entropy, with the time that was used"),
    "ax": (None, "plots.entropy(op.result_) makes a figure of its own"),
    "t_max": (..., "it is an argument of the constructor and of set_params, and transform() follows them"),
}


def _signature() -> inspect.Signature:
    """The signature of `MMPHATE` with ``n_jobs``, and with the arguments that M-PHATE takes by position."""
    parameters = dict(inspect.signature(MMPHATE.__init__).parameters)
    by_position = [
        parameters.pop(name).replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *POSITIONAL)
    ]
    n_jobs = inspect.Parameter("n_jobs", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="int | None")
    return inspect.Signature([*by_position, *parameters.values(), n_jobs])


def _translated(options: dict[str, Any]) -> dict[str, Any]:
    """``options`` with the arguments of M-PHATE that have another name here; others that are none here are refused."""
    for name, value in options.items():
        if name in INSTEAD and not (name in DONE_ANYWAY and repr(value) == repr(DONE_ANYWAY[name])):
            raise InputTypeError(f"{name}={value!r} is not accepted by M_PHATE: {INSTEAD[name]}")
    translated = {name: value for name, value in options.items() if name not in (*INSTEAD, "mds")}
    solver = options.get("mds_solver", "smacof")
    if "mds" in options:
        if solver not in ("sgd", "smacof", MDS.get(options["mds"])):
            raise InputError(f"mds={options['mds']!r} and mds_solver={solver!r} contradict; accepted: one of the two")
        translated["mds_solver"] = MDS[check_choice("mds", options["mds"], MDS)]
    elif solver == "sgd":
        translated["mds_solver"] = "smacof"
    return translated


def _check_none(method: str, options: dict[str, Any]) -> None:
    """Raise `InputTypeError` if ``options`` of a method ask for anything."""
    for name, value in options.items():
        done_anyway, remedy = OF_METHODS.get(name, (..., "it takes the data alone"))
        if value is not done_anyway:
            raise InputTypeError(f"{name}={value!r} is not accepted by {method} of M_PHATE: {remedy}")


class Graph:
    """The graph of all N nodes as SciPy CSR matrices (N, N), made when they are first read.

    They are copies, so writing into them changes no later fit.
    """

    def __init__(self, affinity: AffinityOperator) -> None:
        self._affinity = affinity

    @cached_property
    def K(self) -> csr_matrix:
        """The affinity."""
        return to_scipy(self._affinity)

    @property
    def kernel(self) -> csr_matrix:
        return self.K

    @cached_property
    def diff_op(self) -> csr_matrix:
        """The affinity with rows that add up to 1."""
        from sklearn.preprocessing import normalize

        # From another copy, because the user may write into `K`.
        return normalize(to_scipy(self._affinity), norm="l1", copy=False)

    @property
    def P(self) -> csr_matrix:
        return self.diff_op


def _argument_optional(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method``, which scikit-learn has wrapped so that it needs its argument, with None for one that is left out."""

    @functools.wraps(method)
    def transform(self: M_PHATE, X: Any = None, **options: Any) -> Any:
        return method(self, X, **options)

    return transform


class M_PHATE(MMPHATE):
    """Multislice PHATE of a (slice, unit, sample) tensor; a drop-in for scripts written for M-PHATE.

    Takes the parameters of `MMPHATE` and ``n_jobs``: CPU threads to use (-1 all, -2 all but one, None torch's own
    setting). The first eight may be given by position: ``n_components, intraslice_knn, interslice_knn, decay, t, gamma,
    n_landmark, normalize``. ``mds="metric"``, ``"classic"`` or ``"nonmetric"`` stands for ``mds_solver``, and
    ``mds_solver="sgd"`` for ``"smacof"``. Arguments of M-PHATE that are none here raise `InputTypeError`, which names
    the one to use; so do those of its methods.

    After ``fit`` it has, beside the attributes of `MMPHATE`, those of M-PHATE: ``X`` (what was given to ``fit``),
    ``embedding``, ``diff_op``, ``diff_potential``, ``optimal_t`` and ``graph`` with the SciPy matrices ``K`` or
    ``kernel`` and ``diff_op`` or ``P``.

    Examples
    --------
    >>> import numpy as np
    >>> trace = np.random.default_rng(0).normal(size=(30, 4, 10)).cumsum(0)
    >>> op = M_PHATE(n_components=2, intraslice_knn=2, interslice_knn=25, decay=5, t="auto", gamma=0, random_state=0)
    >>> op.fit_transform(trace).shape
    (120, 2)
    >>> op.set_params(n_components=3).transform().shape
    (120, 3)
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        arguments = inspect.signature(M_PHATE.__init__).bind(self, *args, **_translated(options))
        arguments.apply_defaults()
        values = dict(arguments.arguments)
        del values["self"]
        self.n_jobs = values.pop("n_jobs")
        super().__init__(**values)

    # scikit-learn reads the parameters off the signature.
    __init__.__signature__ = _signature()  # type: ignore[attr-defined]

    def set_params(self, **params: Any) -> M_PHATE:
        """Set parameters; the names of M-PHATE are taken as by the constructor."""
        return super().set_params(**_translated(params))

    def fit(self, X: Any, y: Any = None) -> M_PHATE:
        """See `MMPHATE.fit`."""
        before = torch.get_num_threads()
        torch.set_num_threads(_threads(self.n_jobs, before))
        try:
            super().fit(X, y)
        finally:
            torch.set_num_threads(before)
        return self

    def _fitted(self, X: Any, trace: Trace, run: Run) -> dict[str, Any]:
        fitted = super()._fitted(X, trace, run) | {"_X": X, "_graph": Graph(run.affinity.operator)}
        fitted |= {"_fitted_params": Params(**self._run_params()), "_fitted_trace": self._stages_key[1]}
        # A copy, because the user may write into `embedding_`.
        return fitted | {"_coordinates": copy.deepcopy(fitted["embedding_"])}

    def fit_transform(self, X: Any, y: Any = None, **options: Any) -> Any:
        """See `MMPHATE.fit_transform`; arguments of M-PHATE that are none here raise `InputTypeError`."""
        _check_none("fit_transform", options)
        return self.fit(X, y).embedding_

    def transform(self, X: Any = None, **options: Any) -> Any:
        """The embedding of the data of ``fit``, with the parameters as they are now; other slices are placed.

        The data of ``fit`` are meant without ``X`` and with an ``X`` of the same values; for others see
        `MMPHATE.transform`. Parameters that were set after ``fit`` lead to another fit of ``self.X``, which uses the
        stages again that did not change. The result is a copy, in the kind of ``X`` if it is given.

        Raises
        ------
        InputError, InputTypeError
            As `MMPHATE.transform`; arguments of M-PHATE that are none here; another fit of ``self.X`` is needed, but
            somebody has written into that array since ``fit``.
        """
        _check_none("transform", options)
        self._check_fitted()
        trace = None if X is None else as_trace(X, min_slices=1)
        if trace is not None and fingerprint(trace) != self._fitted_trace:
            return super().transform(X)
        if Params(**self._run_params()) != self._fitted_params:
            if fingerprint(as_trace(self.X)) != self._fitted_trace:
                raise InputError("X holds other values than it did at fit; accepted: fit(X) for them")
            self.fit(self.X)
        if trace is None:
            return copy.deepcopy(self._coordinates)
        return in_kind(X, trace, torch.from_numpy(self.result_.coordinates))

    def reset_mds(self) -> None:
        """Raises `InputTypeError`: nothing is to be reset."""
        raise InputTypeError("reset_mds() is not accepted by M_PHATE: transform() runs again what set_params changed")

    def reset_potential(self) -> None:
        """Raises `InputTypeError`: nothing is to be reset."""
        raise InputTypeError(
            "reset_potential() is not accepted by M_PHATE: transform() runs again what set_params changed"
        )

    def von_neumann_entropy(self, t_max: int = 100) -> Any:
        """The entropy of `diff_op` for the times 0 to ``t_max`` - 1: (t_max,). O(n_landmark^3) time."""
        self._check_fitted()
        return von_neumann_entropy(self.landmark_op_, t_max)

    @property
    def X(self) -> Any:
        self._check_fitted()
        return self._X

    @property
    def embedding(self) -> Any:
        self._check_fitted()
        return self.embedding_

    @property
    def diff_op(self) -> Any:
        """The landmark operator; without landmarks the diffusion operator itself."""
        self._check_fitted()
        return self.landmark_op_

    @property
    def diff_potential(self) -> Any:
        self._check_fitted()
        return self.diff_potential_

    @property
    def optimal_t(self) -> int:
        self._check_fitted()
        return self.t_

    @property
    def graph(self) -> Graph:
        self._check_fitted()
        return self._graph


M_PHATE.transform = _argument_optional(M_PHATE.transform)  # type: ignore[method-assign]


def _threads(n_jobs: int | None, present: int) -> int:
    if n_jobs is None:
        return present
    check_number("n_jobs", n_jobs, integer=True)
    if n_jobs == 0:
        raise InputError("n_jobs=0 is out of range; accepted: a number of CPU threads, -1 for all, or None")
    import psutil

    cpus = psutil.cpu_count() or 1
    return min(n_jobs, cpus) if n_jobs > 0 else max(1, cpus + 1 + n_jobs)  # many more threads would end the process
