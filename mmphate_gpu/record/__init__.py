"""Recording what a network does on a probe while it trains."""

from .recorder import Recorder

__all__ = ["Recorder"]
