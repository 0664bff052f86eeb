"""What was recorded: traces, how they are read, normalized, reduced and saved."""

from .pca import PrincipalAxes, principal_axes
from .points import Points
from .trace import Trace, as_trace, flat_points, load_trace, normalize, save_trace, trace_points

__all__ = [
    "Points",
    "PrincipalAxes",
    "Trace",
    "as_trace",
    "flat_points",
    "load_trace",
    "normalize",
    "principal_axes",
    "save_trace",
    "trace_points",
]
