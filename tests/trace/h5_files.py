"""Files of HDF5."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from . import traces
from .traces import SHAPE

h5py = pytest.importorskip("h5py")
values = functools.partial(traces.values, dtype=np.float32)


def written(path, *, plain=True):
    """Create a file, open for writing, with the trace as "data" unless ``plain`` is False."""
    file = h5py.File(path, "w")
    if plain:
        file["data"] = values()
    return file


def virtual(file, name, *sources, shape=SHAPE):
    """Make a virtual dataset of the values of ``sources``, each (file, dataset)."""
    layout = h5py.VirtualLayout(shape=shape, dtype="f4")
    for source in sources:
        layout[...] = h5py.VirtualSource(*source, shape=shape)
    file.create_virtual_dataset(name, layout)
