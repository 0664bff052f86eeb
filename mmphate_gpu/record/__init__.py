"""Recording what a network does on a probe while it trains."""

from .keras import KerasRecorder
from .lightning import LightningRecorder
from .recorder import Recorder
from .schedule import every

__all__ = ["KerasRecorder", "LightningRecorder", "Recorder", "every"]
