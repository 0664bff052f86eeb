"""Pictures of an embedding. The first call loads matplotlib; importing this module does not."""

from .curve import entropy
from .scatter import panels

__all__ = [
    "entropy",
    "panels",
]
