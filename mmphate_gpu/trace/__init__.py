"""What was recorded: traces, how they are read, normalized, reduced and saved."""

from .convert import as_trace
from .files import load_trace, save_trace
from .join import join_traces
from .normalize import flat_points, normalize, trace_points
from .pca import PrincipalAxes, principal_axes, reduce
from .points import Points
from .trace import Trace

__all__ = [
    "Points",
    "PrincipalAxes",
    "Trace",
    "as_trace",
    "flat_points",
    "join_traces",
    "load_trace",
    "normalize",
    "principal_axes",
    "reduce",
    "save_trace",
    "trace_points",
]
