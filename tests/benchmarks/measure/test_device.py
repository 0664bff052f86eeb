"""Peak memory."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from benchmarks.measure import device


@pytest.mark.skipif(not os.access(device.CLEAR, os.W_OK), reason="the high-water mark cannot be reset here")
def test_peaks_belong_to_their_spans():
    meter = device.PeakMeter(torch.device("cpu"))
    block = np.ones(25_000_000)  # 200 MB
    meter("large")
    del block
    meter("between")  # begins with the block still there
    meter("small")
    assert meter.spans["large"] - meter.spans["small"] > 150e6
