"""The class of samples that activates a unit most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..errors import check_choice
from .convert import as_trace
from .points import normalized
from .stored import blocks
from .trace import Trace

# (B, m, P) values, 0 where absent, (P, classes) membership, and (B, m, classes) samples -> (B, m, classes) strength
_Strength = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def most_active_class(trace: Any, strength: str = "mean") -> np.ndarray | None:  # (N,)
    """For every node, the class whose samples activate it most; None for a trace without labels.

    Five definitions are in use. ``"mean"`` is this library's own, and the one that `Embedding.most_active` has.

    Parameters
    ----------
    trace : anything `as_trace` accepts
    strength : str
        What is largest for the class. z is the activation, z-scored over the samples of the node.

        - "mean": the mean of z
        - "abs": the sum of \\|z\\|
        - "peak": the largest \\|z\\| of a single sample
        - "raw": the sum of \\|activation\\|
        - "root": the root of the sum of squared activations

        A sum is larger for a class with more samples.

    Returns
    -------
    (N,) array of the classes in ``trace.label``, or None
        Of equally active classes it has the smallest label, and so for a node without any present sample.

    Raises
    ------
    InputError
        Another strength.

    Notes
    -----
    O(N P) time, block by block. Masked samples do not count. Deterministic.

    Examples
    --------
    >>> from mmphate_gpu import as_trace
    >>> trace = as_trace(np.array([[[1.0, 1.0, 0.0, -4.0]]] * 2), label=[0, 0, 1, 1])
    >>> [int(most_active_class(trace, strength)[0]) for strength in ("mean", "peak")]
    [0, 1]
    """
    check_choice("strength", strength, STRENGTHS)
    trace = trace if isinstance(trace, Trace) else as_trace(trace)  # as_trace refuses a single slice
    if trace.label is None:
        return None
    classes, members = np.unique(trace.label, return_inverse=True)
    onehot = torch.nn.functional.one_hot(torch.from_numpy(members), len(classes)).double()  # (P, classes)
    onehot, winners = onehot.to(trace.data.device), []
    for _, values, present in blocks(trace.data, trace.mask):
        if strength in ("raw", "root"):
            activity = values if present is None else values.masked_fill(~present, 0)
        else:
            activity = normalized(values, present)
        counts = onehot.sum(0) if present is None else present.double() @ onehot
        winners.append(STRENGTHS[strength](activity.double(), onehot, counts).argmax(-1).flatten())
    return classes[torch.cat(winners).cpu().numpy()]


def _mean(z: torch.Tensor, onehot: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    return torch.where(counts > 0, z @ onehot / counts.clamp_min(1), -torch.inf)


def _peak(z: torch.Tensor, onehot: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return torch.stack([z[..., members > 0].abs().amax(-1) for members in onehot.T], dim=-1)


STRENGTHS: dict[str, _Strength] = {
    "mean": _mean,
    "abs": lambda z, onehot, _: z.abs() @ onehot,
    "peak": _peak,
    "raw": lambda values, onehot, _: values.abs() @ onehot,
    "root": lambda values, onehot, _: values.square() @ onehot,  # the root keeps the order
}
