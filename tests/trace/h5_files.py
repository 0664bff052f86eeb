"""Files of HDF5, and the sentences that refuse them."""

from __future__ import annotations

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.trace import load_trace

h5py = pytest.importorskip("h5py")


SHAPE = (4, 3, 5, 7)


streams = pytest.mark.parametrize("stream", [False, True])


def values():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


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


def refusal(path):
    """The message of `load_trace` for ``path``, which must be the same in memory and block by block."""
    sentences = set()
    for stream in (False, True):
        with pytest.raises(InputError) as caught:
            load_trace(path, stream=stream)
        sentences.add(str(caught.value).removeprefix(f"{path}: "))
    assert len(sentences) == 1
    (sentence,) = sentences
    assert "\n" not in sentence and len(sentence) < len(str(path)) + 500
    return sentence
