"""Parameters of a run: defaults, ranges, and the one place that checks them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InputError, InputTypeError, check_choice, check_number, listed

if TYPE_CHECKING:
    import torch

STORAGES = ("auto", "sparse", "tiles", "lazy")
KNN_BACKENDS = ("auto", "torch", "scipy", "keops", "pynndescent")
LANDMARKS = ("spectral", "stratified")
TIMES = ("auto", "eigenvalues")
MDS_SOLVERS = ("classic", "smacof", "nonmetric")
MDS_DISTANCES = ("euclidean", "cosine")
ISLANDS = ("potential", "states")

# The stages of `pipeline.mmphate`, in order, and the parameters that each stage reads.
STAGE_PARAMETERS = {
    "normalize": ("normalize", "n_pca"),
    "reduce": ("n_pca",),
    "affinity": ("intraslice_knn", "interslice_knn", "decay", "thresh", "storage", "knn_backend"),
    "landmarks": ("n_landmark", "n_svd", "landmarks", "random_state"),
    "entropy": ("t_max",),
    "potential": ("t", "gamma"),
    "distances": ("mds_dist", "islands"),
    "mds": ("n_components", "mds_solver", "n_init", "islands"),
    "interpolate": ("refine_knn", "knn_backend"),
}

# {recipe: the parameters that it sets}; every other parameter keeps its default.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "stable": {
        "t": "eigenvalues",
        "gamma": 1,
        "n_landmark": 3000,
        "landmarks": "stratified",
        "mds_solver": "classic",
        "refine_knn": 10,
    },
}

# The largest eigenvalue of a diffusion operator is 1 up to rounding, and the rounding grows with the power: after t
# steps the entries are off by 1e-16 t. In runs with one component, only rounding was left at t = 10,000.
LARGEST_T = 10**9


def check_steps(t: Any) -> int:
    """Return ``t`` if it is a whole number from 1 to `LARGEST_T`, else raise."""
    return int(check_number("t", t, low=1, high=LARGEST_T, integer=True))


def recipe_parameters(recipe: Any) -> dict[str, Any]:
    """The parameters that the recipe of this name sets; raises `InputError` for another name."""
    return dict(RECIPES[check_choice("recipe", recipe, RECIPES)])


def check_t_max(t_max: Any) -> int:
    """Return ``t_max`` if it is a length of the entropy curve from 4 to 100,000, else raise.

    The knee takes time with the square of the length: 2 s for 10,000, minutes for 100,000.
    """
    return int(check_number("t_max", t_max, low=4, high=10**5, integer=True))


class Labels:
    """Landmarks of the nodes that a user chose: a checked copy, compared and hashed by its values.

    So labels can be a parameter, and part of the key of a kept stage.

    Parameters
    ----------
    labels : (N,) integers from 0; torch, NumPy, CuPy or xarray array, or list
        The landmark of every node.
    name : str
        The name in error messages.

    Raises
    ------
    InputError, InputTypeError
        Another number of axes, a negative number, masked entries, or values that are no array of integers.
    """

    def __init__(self, labels: Any, name: str = "landmarks") -> None:
        import numpy as np
        import torch  # imported here, because the command line checks parameters before it loads torch

        accepted = "one whole number from 0 per node" + (f", or {listed(LANDMARKS)}" if name == "landmarks" else "")
        if _is_masked(labels):
            raise InputError(f"{name} is masked; accepted: {accepted}")
        on_device = isinstance(labels, torch.Tensor) or hasattr(labels, "__cuda_array_interface__")
        try:
            array = torch.as_tensor(labels, device="cpu").detach() if on_device else np.asarray(labels)
            dtype, array = array.dtype, _as_numpy(array)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputTypeError(f"{name} is a {type(labels).__name__}; accepted: {accepted}") from error
        if array.dtype == object and array.ndim == 0:  # no array at all
            raise InputTypeError(f"{name} is a {type(labels).__name__}; accepted: {accepted}")
        if array.dtype.kind not in "iu":
            raise InputTypeError(f"{name} has dtype {dtype}; accepted: integers, {accepted}")
        if array.ndim != 1 or array.size == 0:
            raise InputError(f"{name} has shape {array.shape}; accepted: (N,), {accepted}")
        most = np.iinfo(np.int64).max
        for extreme in (int(array.min()), int(array.max())):
            if not 0 <= extreme <= most:
                raise InputError(f"{name} contains {extreme}; accepted: numbers from 0 to {most}, {accepted}")
        self.name = name
        self.values: torch.Tensor = torch.from_numpy(array.astype(np.int64, order="C"))  # (N,), a copy
        self.n_landmark = self.values.unique().numel()
        self._digest = hashlib.blake2b(self.values.numpy().data).digest()

    def of_nodes(self, n_nodes: int) -> torch.Tensor:  # (N,) int64
        """The labels; raises `InputError` unless there is a label for each of ``n_nodes`` nodes."""
        if self.values.numel() != n_nodes:
            raise InputError(f"{self.name} has shape ({self.values.numel()},); accepted: ({n_nodes},), one per node")
        return self.values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Labels) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"Labels({self.values.numel()} nodes, {self.n_landmark} landmarks)"


def _is_masked(labels: Any) -> bool:
    """Whether ``labels`` is a masked tensor, an array with a masked entry, or a list that contains such an array."""
    import numpy as np
    from torch.masked import MaskedTensor

    if isinstance(labels, list | tuple):
        types = set(map(type, labels))
        return any(issubclass(item, np.ma.MaskedArray) for item in types) and any(map(np.ma.is_masked, labels))
    return isinstance(labels, MaskedTensor) or np.ma.is_masked(labels)


def _as_numpy(array: Any) -> Any:
    """``array`` as a NumPy array. Half precision becomes single precision, because NumPy has no bfloat16."""
    if not hasattr(array, "numpy"):
        return array
    return (array.float() if array.is_floating_point() else array).numpy()


def check_landmarks(landmarks: Any) -> str | Labels:
    """Return the name of a method, or `Labels` of an array; raise `InputError` for anything else."""
    if isinstance(landmarks, Labels):
        return landmarks
    return check_choice("landmarks", landmarks, LANDMARKS) if isinstance(landmarks, str) else Labels(landmarks)


@dataclass(frozen=True)
class Params:
    """The parameters that decide the result of a run. They are those of `MMPHATE`, which describes each of them.

    Raises
    ------
    InputError, InputTypeError
        A value out of range or of the wrong type. The message names the parameter.
    """

    n_components: int = 2
    intraslice_knn: int = 2
    interslice_knn: int = 25
    decay: float | None = 5
    t: int | str = "auto"
    t_max: int = 100
    gamma: float = 0
    n_landmark: int | None = 4000
    landmarks: Any = "spectral"  # or "stratified", or labels (N,), kept as `Labels`
    normalize: bool = True
    mds_solver: str = "smacof"
    mds_dist: str = "euclidean"
    n_init: int = 2
    islands: str = "potential"
    refine_knn: int = 0
    n_pca: int | None = 100
    n_svd: int = 100
    thresh: float = 1e-4
    random_state: int | None = None
    device: Any = "auto"
    storage: str = "auto"
    knn_backend: str = "auto"

    def __post_init__(self) -> None:
        whole = {"n_components": 1, "intraslice_knn": 1, "interslice_knn": 1, "n_init": 1, "refine_knn": 0, "n_svd": 1}
        whole |= {name: low for name, low in {"n_landmark": 2, "n_pca": 1}.items() if getattr(self, name) is not None}
        for name, low in whole.items():  # kept as int, in which no product overflows
            object.__setattr__(self, name, check_number(name, getattr(self, name), low=low, integer=True))
        check_t_max(self.t_max)
        object.__setattr__(self, "landmarks", check_landmarks(self.landmarks))
        if self.decay is not None:
            check_number("decay", self.decay, low=0, open_low=True)
        if isinstance(self.t, str):
            check_choice("t", self.t, TIMES)
        else:
            check_steps(self.t)
        check_number("gamma", self.gamma, low=-1, high=1)
        check_number("thresh", self.thresh, low=0, high=0.5)
        if self.random_state is not None:
            check_number("random_state", self.random_state, low=0, high=2**63 - 1, integer=True)
        if not isinstance(self.normalize, bool):
            raise InputTypeError(f"normalize={self.normalize!r} must be True or False")
        check_choice("storage", self.storage, STORAGES)
        check_choice("knn_backend", self.knn_backend, KNN_BACKENDS)
        check_choice("mds_solver", self.mds_solver, MDS_SOLVERS)
        check_choice("mds_dist", self.mds_dist, MDS_DISTANCES)
        check_choice("islands", self.islands, ISLANDS)

    def of(self, stage: str) -> dict[str, Any]:
        """The parameters that ``stage`` reads, by name."""
        return {name: getattr(self, name) for name in STAGE_PARAMETERS[stage]}

    @property
    def chooses_t(self) -> bool:
        """Whether t is the knee of an entropy, and not a number."""
        return isinstance(self.t, str)

    @property
    def further_starts(self) -> int:
        """How many starts of SMACOF may follow the classical one."""
        return 0 if self.mds_solver == "classic" else self.n_init - 1

    def most_landmarks(self, n_nodes: int) -> int:
        """The largest number of landmarks of a run over ``n_nodes`` nodes. Without landmarks it is ``n_nodes``."""
        if isinstance(self.landmarks, Labels):
            return self.landmarks.n_landmark
        return min(n_nodes, self.n_landmark or n_nodes)
