"""Recording what a network does on a probe while it trains."""

from .recorder import Recorder
from .schedule import every

__all__ = ["Recorder", "every"]
