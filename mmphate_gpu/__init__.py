"""MM-PHATE on GPUs and laptops: pictures of what happens inside a recurrent network while it learns."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The names of each module. A module is imported when one of its names is first used, so the package loads fast.
_NAMES = {
    "analysis": ("neighborhood_preservation",),
    "config": ("show_config",),
    "diffusion": ("diffusion_potential", "optimal_t", "potential_distances", "von_neumann_entropy"),
    "embedding": ("Embedding",),
    "errors": ("InputError", "InputTypeError", "PictureWarning"),
    "estimator": ("MMPHATE",),
    "landmarks": ("Landmarks", "landmark_diffusion"),
    "live": ("LiveEmbedding",),
    "m_phate": ("M_PHATE",),
    "mds": ("MDSResult", "Placement", "metric_mds", "stress"),
    "operators": ("as_linear_operator", "multislice_affinity", "to_cupy", "to_scipy", "to_torch_csr"),
    "params": ("Params",),
    "planning": ("Plan", "plan"),
    "record": ("KerasRecorder", "LightningRecorder", "Recorder", "every"),
    "trace": ("Trace", "as_trace", "join_traces", "load_trace", "save_trace"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = ("analysis", "datasets", "plots", "reference")

__all__ = [*_HOMES, *_MODULES, "__version__"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:  # "as" marks a name as public for type checkers
    from . import analysis as analysis
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
    from .errors import PictureWarning as PictureWarning
    from .estimator import MMPHATE as MMPHATE
    from .landmarks import Landmarks as Landmarks
    from .landmarks import landmark_diffusion as landmark_diffusion
    from .live import LiveEmbedding as LiveEmbedding
    from .m_phate import M_PHATE as M_PHATE
    from .mds import MDSResult as MDSResult
    from .mds import Placement as Placement
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
    from .record import KerasRecorder as KerasRecorder
    from .record import LightningRecorder as LightningRecorder
    from .record import Recorder as Recorder
    from .record import every as every
    from .trace import Trace as Trace
    from .trace import as_trace as as_trace
    from .trace import join_traces as join_traces
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
