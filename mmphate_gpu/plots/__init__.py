"""Pictures of embeddings and of analyses. The first call loads matplotlib; importing this module does not."""

from .baselines import baselines
from .curve import entropy
from .entropy_curves import entropy_curves
from .heatmap import heatmap
from .rankings import unit_rankings
from .scatter import panels
from .strips import community_strips
from .trust import null_models, subsampling

__all__ = [
    "baselines",
    "community_strips",
    "entropy",
    "entropy_curves",
    "heatmap",
    "null_models",
    "panels",
    "subsampling",
    "unit_rankings",
]
