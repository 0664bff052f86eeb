"""Small traces, comparisons of traces, and the sentences by which files are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.trace import Trace, load_trace
from mmphate_gpu.trace.dims import AXES

SHAPE = (4, 3, 5, 7)
streams = pytest.mark.parametrize("stream", [False, True])


def values(shape=SHAPE, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def lengths_mask():
    """(timestep, sample): the later samples end early."""
    return np.arange(SHAPE[1])[:, None] < np.array([3, 3, 3, 3, 2, 2, 1])[None, :]


def full_mask(shape=SHAPE, seed=1):
    mask = np.random.default_rng(seed).random(shape) < 0.7
    mask[..., 0] = True
    return mask


def same(left: Trace, right: Trace) -> None:
    """Every field has the same bits."""
    left, right = left.load(), right.load()
    assert left.axes == right.axes and torch.equal(left.data, right.data) and left.data.dtype == right.data.dtype
    for name in (*AXES, "label", "unit_layer"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    assert left.metrics.keys() == right.metrics.keys()
    for name, metric in left.metrics.items():
        assert np.array_equal(metric, right.metrics[name], equal_nan=True), name
    assert (left.mask is None) == (right.mask is None)
    assert left.mask is None or torch.equal(left.mask, right.mask)


def same_points(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether the points have the same bits, and NaN at the same missing samples."""
    return np.array_equal(left.cpu(), right.cpu(), equal_nan=True)


def refusal(path, most=500, **options):
    """The sentence by which `load_trace` refuses ``path``, in memory and block by block alike."""
    sentences = set()
    for stream in (False, True):
        with pytest.raises(InputError) as caught:
            load_trace(path, stream=stream, **options)
        sentences.add(str(caught.value).removeprefix(f"{path}: "))
    (sentence,) = sentences
    assert "\n" not in sentence and len(sentence) < len(str(path)) + most
    return sentence
