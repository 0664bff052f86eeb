"""Files with named dimensions."""

from __future__ import annotations

import numpy as np
import torch

from mmphate_gpu.trace import Trace

AXES = ("epoch", "timestep", "unit", "sample")


SLICE_AXES = ("slice", "unit", "sample")


SHAPES = ((4, 3, 5, 7), (4, 4, 4, 4))  # in the second one only names distinguish the axes


def values(shape=SHAPES[0]):
    return np.random.default_rng(0).normal(size=shape)


def full_mask(shape=SHAPES[0]):
    mask = np.random.default_rng(1).random(shape) < 0.7
    mask[..., 0] = True
    return mask


def same(first: Trace, second: Trace) -> None:
    first, second = first.load(), second.load()
    assert first.axes == second.axes and first.shape == second.shape
    assert first.data.dtype == second.data.dtype and torch.equal(first.data, second.data)
    for name in (*AXES, "label"):
        ours, theirs = getattr(first, name), getattr(second, name)
        assert (ours is None) == (theirs is None) and np.array_equal(ours, theirs), name
    assert (first.mask is None) == (second.mask is None)
    assert first.mask is None or torch.equal(first.mask, second.mask)
