"""Pictures of an embedding. matplotlib is loaded by the first call, never by this import."""

from .curve import entropy
from .scatter import panels

__all__ = ["entropy", "panels"]
