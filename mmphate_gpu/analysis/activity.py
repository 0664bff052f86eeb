"""What a unit responds to."""

from __future__ import annotations

import numpy as np
import torch

from ..trace import Trace, normalize


def most_active_class(trace: Trace) -> np.ndarray | None:  # (N,)
    """Per node, the class whose samples have the highest mean activation (z-scored over samples).

    None for a trace without labels; among equal means the smallest label. O(N S) time.
    """
    if trace.label is None:
        return None
    classes, members = np.unique(trace.label, return_inverse=True)
    points = normalize(trace)
    onehot = torch.nn.functional.one_hot(torch.as_tensor(members), len(classes)).to(points)  # (S, classes)
    present = torch.ones_like(points) if trace.mask is None else trace.mask.reshape(points.shape).to(points)
    counts = present @ onehot
    means = torch.where(counts > 0, points @ onehot / counts.clamp_min(1), -torch.inf)
    return classes[means.argmax(-1).flatten().cpu().numpy()]
