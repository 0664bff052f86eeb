"""Pictures of embeddings and of analyses. The first call loads matplotlib; importing this module does not."""

from .curve import entropy
from .entropy_curves import entropy_curves
from .heatmap import heatmap
from .rankings import unit_rankings
from .scatter import panels
from .strips import community_strips

__all__ = [
    "community_strips",
    "entropy",
    "entropy_curves",
    "heatmap",
    "panels",
    "unit_rankings",
]
