"""Sums of values that share an index, with the same bits on every run."""

from __future__ import annotations

import torch


def scatter_sum(index: torch.Tensor, values: torch.Tensor, size: int) -> torch.Tensor:  # (k,), (k,) -> (size,)
    """``out[index[j]] += values[j]`` from zeros; O(k + size). Deterministic.

    On the CPU `scatter_add_` of a flat tensor runs in order, and `index_put_` does not. On CUDA `scatter_add_` uses
    atomics, whose order changes from run to run, and `index_put_` sorts first.
    """
    out = torch.zeros(size, dtype=values.dtype, device=values.device)
    if values.device.type == "cpu":
        return out.scatter_add_(0, index, values)
    return out.index_put_((index,), values, accumulate=True)
