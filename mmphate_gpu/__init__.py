"""MM-PHATE on GPUs and laptops: what happens inside a recurrent network while it learns, drawn."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module that holds it; imported at first use, so that importing the package stays fast
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


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from . import datasets, plots, reference
    from .analysis import neighborhood_preservation
    from .config import show_config
    from .diffusion import diffusion_potential, optimal_t, potential_distances, von_neumann_entropy
    from .embedding import Embedding
    from .errors import InputError, InputTypeError
    from .estimator import MMPHATE
    from .landmarks import Landmarks, landmark_diffusion
    from .m_phate import M_PHATE
    from .mds import MDSResult, metric_mds, stress
    from .operators import as_linear_operator, multislice_affinity, to_cupy, to_scipy, to_torch_csr
    from .params import Params
    from .planning import Plan, plan
    from .record import Recorder
    from .trace import Trace, as_trace, load_trace, save_trace
