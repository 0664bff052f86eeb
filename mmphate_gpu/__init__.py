"""MM-PHATE on GPUs and laptops: pictures of what happens inside a recurrent network while it learns."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The module of each name. A module is imported when its name is first used, so that importing the package stays fast.
_HOMES = {
    "MMPHATE": "estimator",
    "M_PHATE": "m_phate",
    "Trace": "trace",
    "as_trace": "trace",
    "load_trace": "trace",
    "save_trace": "trace",
    "Recorder": "record",
    "Embedding": "embedding",
    "multislice_affinity": "operators",
    "to_scipy": "operators",
    "to_torch_csr": "operators",
    "to_cupy": "operators",
    "as_linear_operator": "operators",
    "landmark_diffusion": "landmarks",
    "Landmarks": "landmarks",
    "von_neumann_entropy": "diffusion",
    "optimal_t": "diffusion",
    "diffusion_potential": "diffusion",
    "potential_distances": "diffusion",
    "metric_mds": "mds",
    "MDSResult": "mds",
    "stress": "mds",
    "neighborhood_preservation": "analysis",
    "plan": "planning",
    "Plan": "planning",
    "Params": "params",
    "InputError": "errors",
    "InputTypeError": "errors",
    "show_config": "config",
}
_MODULES = ("datasets", "plots", "reference")

__all__ = [*_HOMES, *_MODULES, "__version__"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:  # "as" marks a name as public for type checkers
    from . import datasets as datasets
    from . import plots as plots
    from . import reference as reference
    from .analysis import neighborhood_preservation as neighborhood_preservation
    from .config import show_config as show_config
    from .diffusion import diffusion_potential as diffusion_potential
    from .diffusion import optimal_t as optimal_t
    from .diffusion import potential_distances as potential_distances
    from .diffusion import von_neumann_entropy as von_neumann_entropy
    from .embedding import Embedding as Embedding
    from .errors import InputError as InputError
    from .errors import InputTypeError as InputTypeError
    from .estimator import MMPHATE as MMPHATE
    from .landmarks import Landmarks as Landmarks
    from .landmarks import landmark_diffusion as landmark_diffusion
    from .m_phate import M_PHATE as M_PHATE
    from .mds import MDSResult as MDSResult
    from .mds import metric_mds as metric_mds
    from .mds import stress as stress
    from .operators import as_linear_operator as as_linear_operator
    from .operators import multislice_affinity as multislice_affinity
    from .operators import to_cupy as to_cupy
    from .operators import to_scipy as to_scipy
    from .operators import to_torch_csr as to_torch_csr
    from .params import Params as Params
    from .planning import Plan as Plan
    from .planning import plan as plan
    from .record import Recorder as Recorder
    from .trace import Trace as Trace
    from .trace import as_trace as as_trace
    from .trace import load_trace as load_trace
    from .trace import save_trace as save_trace
else:  # hidden from type checkers, because with `__getattr__` they accept every name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
