"""Values and masks of small traces."""

from __future__ import annotations

import numpy as np
import torch

SHAPE = (4, 3, 5, 7)


def values(shape=SHAPE, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def lengths_mask():
    """(timestep, sample): the later samples end early."""
    return np.arange(SHAPE[1])[:, None] < np.array([3, 3, 3, 3, 2, 2, 1])[None, :]


def full_mask(seed=1):
    mask = np.random.default_rng(seed).random(SHAPE) < 0.7
    mask[..., 0] = True
    return mask


def same(left, right):
    assert left.axes == right.axes and torch.equal(left.data, right.data) and left.data.dtype == right.data.dtype
    for name in ("epoch", "timestep", "unit", "sample", "label"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    assert (left.mask is None) == (right.mask is None)
    assert left.mask is None or torch.equal(left.mask, right.mask)
