"""Pictures of embeddings and of analyses. The first call loads matplotlib; importing this module does not."""

from .affinity_blocks import affinity_blocks
from .baselines import baselines
from .curve import entropy
from .entropy_curves import entropy_curves
from .films import animate
from .grid import grid
from .heatmap import heatmap
from .interactive import interactive
from .rankings import unit_rankings
from .scatter import panels
from .spectrum import spectrum
from .strips import community_strips
from .trajectories import trajectories
from .trust import null_models, subsampling

__all__ = [
    "animate",
    "affinity_blocks",
    "baselines",
    "community_strips",
    "entropy",
    "entropy_curves",
    "grid",
    "heatmap",
    "interactive",
    "null_models",
    "panels",
    "spectrum",
    "subsampling",
    "trajectories",
    "unit_rankings",
]
