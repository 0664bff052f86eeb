"""Which function opens the arrays of a container of each ending."""

from __future__ import annotations

from ._trace_h5 import open_h5
from ._trace_zarr import open_zarr

OPENERS = {".zarr": open_zarr, ".h5": open_h5}
