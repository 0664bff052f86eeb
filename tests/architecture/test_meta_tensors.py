"""Tensors without values are refused. ``torch.ones(...)`` makes them in a script whose default device is "meta"."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mmphate_gpu as mp

WIDE = np.random.default_rng(0).normal(size=(30, 4, 6)).cumsum(0)
FIT = {"n_landmark": 40, "random_state": 0, "device": "cpu"}
META = {
    "fit": lambda tensor: mp.MMPHATE(**FIT).fit(tensor(30, 4, 6)),
    "as_trace": lambda tensor: mp.as_trace(tensor(30, 4, 6)),
    "a mask": lambda tensor: mp.as_trace(WIDE, mask=tensor(30, 4, 6).bool()),
    "a label": lambda tensor: mp.as_trace(WIDE, label=tensor(6).long()),
    "stress": lambda tensor: mp.stress(tensor(9, 9), tensor(9, 2)),
    "a start of MDS": lambda tensor: mp.metric_mds(1 - np.eye(5), init=tensor(5, 2)),
    "preservation": lambda tensor: mp.neighborhood_preservation(WIDE, tensor(120, 2), 3),
    "a product": lambda tensor: mp.multislice_affinity(WIDE, device="cpu") @ tensor(120),
    "clusters": lambda tensor: mp.MMPHATE(**FIT, landmarks=tensor(120).long()).fit(WIDE),
}


@pytest.mark.parametrize("call", META.values(), ids=META)
def test_a_tensor_without_values_is_refused(call):
    with pytest.raises(mp.InputTypeError, match="accepted: "):
        call(lambda *shape: torch.ones(*shape, device="meta"))
