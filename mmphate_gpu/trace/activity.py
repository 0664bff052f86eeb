"""The class of samples that activates a unit most."""

from __future__ import annotations

import numpy as np
import torch

from .points import normalized
from .stored import blocks
from .trace import Trace


def most_active_class(trace: Trace) -> np.ndarray | None:  # (N,)
    """For every node, the class whose samples have the highest mean activation, z-scored over samples.

    Of equal means the smallest label wins, so a node without any present sample has the smallest. None for a trace
    without labels. O(N P) time.
    """
    if trace.label is None:
        return None
    classes, members = np.unique(trace.label, return_inverse=True)
    onehot = torch.nn.functional.one_hot(torch.from_numpy(members), len(classes)).double()  # (P, classes)
    onehot, winners = onehot.to(trace.data.device), []
    for _, values, present in blocks(trace.data, trace.mask):
        points = normalized(values, present).double()
        counts = onehot.sum(0) if present is None else present.double() @ onehot
        means = torch.where(counts > 0, points @ onehot / counts.clamp_min(1), -torch.inf)
        winners.append(means.argmax(-1).flatten())
    return classes[torch.cat(winners).cpu().numpy()]
