"""M_PHATE: `MMPHATE` with the arguments, methods and attributes of M-PHATE. See docs/m_phate.md."""

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
from .estimator import MMPHATE, like_input
from .operators import AffinityOperator, to_scipy
from .params import RECIPES, Params
from .trace import as_trace
from .trace.fingerprint import fingerprint

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from .pipeline import Run
    from .trace import Trace

# M-PHATE takes these by position, in this order. All others are passed by name.
POSITIONAL = (
    "n_components", "intraslice_knn", "interslice_knn", "decay", "t", "gamma", "n_landmark", "normalize",
)  # fmt: skip
MDS = {"metric": "smacof", "classic": "classic", "nonmetric": "nonmetric"}
# Arguments of M-PHATE and PHATE that do not exist here, each with the only accepted value, which asks for what this
# package does in any case.
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

# The same for arguments of methods of M-PHATE, with what to use instead.
OF_METHODS = {
    "plot_optimal_t": (False, "plots.entropy(op.result_) draws the entropy, with the time that was used"),
    "ax": (None, "plots.entropy(op.result_) makes a new figure"),
    "t_max": (..., "it is an argument of the constructor and of set_params, and transform() follows them"),
}


def _signature() -> inspect.Signature:
    """The signature of `MMPHATE`, with the `POSITIONAL` arguments first and ``n_jobs`` last."""
    parameters = dict(inspect.signature(MMPHATE.__init__).parameters)
    by_position = [
        parameters.pop(name).replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *POSITIONAL)
    ]
    n_jobs = inspect.Parameter("n_jobs", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="int | None")
    return inspect.Signature([*by_position, *parameters.values(), n_jobs])


def _translated(options: dict[str, Any]) -> dict[str, Any]:
    """``options`` in the names of `MMPHATE`; raises `InputTypeError` for arguments that do not exist here."""
    for name, value in options.items():
        if name in INSTEAD and not (name in DONE_ANYWAY and repr(value) == repr(DONE_ANYWAY[name])):
            raise InputTypeError(f"{name}={value!r} is not accepted by M_PHATE: {INSTEAD[name]}")
    translated = {name: value for name, value in options.items() if name not in (*INSTEAD, "mds")}
    solver = options.get("mds_solver", "smacof")
    if "mds" in options:
        if solver not in ("sgd", "smacof", MDS.get(options["mds"])):
            raise InputError(f"mds={options['mds']!r} contradicts mds_solver={solver!r}; accepted: one of the two")
        translated["mds_solver"] = MDS[check_choice("mds", options["mds"], MDS)]
    elif solver == "sgd":
        translated["mds_solver"] = "smacof"
    return translated


def _check_none(method: str, options: dict[str, Any]) -> None:
    """Raise `InputTypeError` if an option of ``method`` has another value than the accepted one."""
    for name, value in options.items():
        done_anyway, remedy = OF_METHODS.get(name, (..., "it takes the data alone"))
        if value is not done_anyway:
            raise InputTypeError(f"{name}={value!r} is not accepted by {method} of M_PHATE: {remedy}")


class Graph:
    """The graph of all N nodes as SciPy CSR matrices (N, N), made when they are first read.

    The matrices are copies, so writing into them does not change a later fit.
    """

    def __init__(self, affinity: AffinityOperator) -> None:
        self._affinity = affinity

    @cached_property
    def K(self) -> csr_matrix:
        """The affinity."""
        return to_scipy(self._affinity)

    @property
    def kernel(self) -> csr_matrix:
        """Another name of `K`."""
        return self.K

    @cached_property
    def diff_op(self) -> csr_matrix:
        """The diffusion operator: the affinity with rows that add up to 1."""
        from sklearn.preprocessing import normalize

        # From another copy, because the user may write into `K`.
        return normalize(to_scipy(self._affinity), norm="l1", copy=False)

    @property
    def P(self) -> csr_matrix:
        """Another name of `diff_op`."""
        return self.diff_op


def _argument_optional(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` with None as the default of its argument, which scikit-learn's wrapper has made required."""

    @functools.wraps(method)
    def transform(self: M_PHATE, X: Any = None, **options: Any) -> Any:
        return method(self, X, **options)

    return transform


class M_PHATE(MMPHATE):
    """Multislice PHATE of a (slice, unit, sample) tensor, for scripts that were written for M-PHATE.

    The parameters are those of `MMPHATE` and ``n_jobs``, the number of CPU threads: -1 is all, -2 is all but one, and
    None keeps the setting of torch. The first eight may be passed by position: ``n_components, intraslice_knn,
    interslice_knn, decay, t, gamma, n_landmark, normalize``. ``mds="metric"``, ``"classic"`` and ``"nonmetric"`` set
    ``mds_solver``, and ``mds_solver="sgd"`` means ``"smacof"``. Other arguments of M-PHATE and of its methods raise
    `InputTypeError`. The message names the argument to use instead.

    After ``fit`` it has the attributes of `MMPHATE` and those of M-PHATE: ``X`` (the argument of ``fit``),
    ``embedding``, ``diff_op``, ``diff_potential``, ``optimal_t`` and ``graph``. ``graph`` has the SciPy matrices ``K``
    or ``kernel`` and ``diff_op`` or ``P``.

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

    # scikit-learn reads the names of the parameters from the signature.
    __init__.__signature__ = _signature()  # type: ignore[attr-defined]

    @classmethod
    def stable(cls, **parameters: Any) -> M_PHATE:
        """See `MMPHATE.stable`. The names of M-PHATE are accepted as in the constructor."""
        return cls(**RECIPES["stable"] | _translated(parameters))

    def set_params(self, **params: Any) -> M_PHATE:
        """Set parameters. The names of M-PHATE are accepted as in the constructor."""
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
        """See `MMPHATE.fit_transform`. Arguments of M-PHATE that do not exist here raise `InputTypeError`."""
        _check_none("fit_transform", options)
        return self.fit(X, y).embedding_

    def transform(self, X: Any = None, **options: Any) -> Any:
        """The embedding of the data of ``fit`` with the present parameters, or the coordinates of new slices.

        Without ``X``, or if ``X`` has the values of the data of ``fit``, the result is a copy of the embedding. If
        parameters were set after ``fit``, ``self.X`` is fitted again first, and the stages that did not change are
        reused. For any other ``X`` see `MMPHATE.transform`. The result has the array type of ``X``, or without it of
        ``self.X``.

        Raises
        ------
        InputError, InputTypeError
            Errors of `MMPHATE.transform`, arguments of M-PHATE that do not exist here, or an array ``self.X`` that has
            changed since ``fit`` and would have to be fitted again.
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
        return like_input(X, trace, torch.from_numpy(self.result_.coordinates))

    def reset_mds(self) -> None:
        """Raise `InputTypeError`: `transform` repeats the stages that changed, so a reset has no use."""
        raise InputTypeError("reset_mds() is not accepted by M_PHATE: transform() runs again what set_params changed")

    def reset_potential(self) -> None:
        """Raise `InputTypeError`: `transform` repeats the stages that changed, so a reset has no use."""
        raise InputTypeError(
            "reset_potential() is not accepted by M_PHATE: transform() runs again what set_params changed"
        )

    def von_neumann_entropy(self, t_max: int = 100) -> Any:
        """The entropy of `diff_op` for the times 0 to ``t_max`` - 1: (t_max,). O(n_landmark^3) time."""
        return von_neumann_entropy(self.landmark_op_, t_max)

    @property
    def X(self) -> Any:
        """The argument of ``fit``."""
        self._check_fitted()
        return self._X

    @property
    def embedding(self) -> Any:
        """``embedding_`` of `MMPHATE`: (N, n_components)."""
        self._check_fitted()
        return self.embedding_

    @property
    def diff_op(self) -> Any:
        """``landmark_op_`` of `MMPHATE`: (L, L). Without landmarks it is the diffusion operator of the nodes."""
        return self.landmark_op_

    @property
    def diff_potential(self) -> Any:
        """``diff_potential_`` of `MMPHATE`: (L, L)."""
        return self.diff_potential_

    @property
    def optimal_t(self) -> int:
        """``t_`` of `MMPHATE`."""
        self._check_fitted()
        return self.t_

    @property
    def graph(self) -> Graph:
        """The affinity and the diffusion operator of the nodes."""
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
    return min(n_jobs, cpus) if n_jobs > 0 else max(1, cpus + 1 + n_jobs)  # far more threads would crash the process
