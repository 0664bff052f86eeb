"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.runtime.devices import resolve_device


def test_resolve_device():
    assert resolve_device("cpu") == torch.device("cpu") == resolve_device(torch.device("cpu"))
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="device='gpu' is unknown"):
        resolve_device("gpu")
    with pytest.raises(InputError, match="device='meta' is not there; accepted here: 'cpu'"):
        resolve_device("meta")
    with pytest.raises(InputError, match="device='cuda:99' is not there"):
        resolve_device("cuda:99")
    with pytest.raises(InputTypeError, match="device=3 must be a string or a torch.device"):
        resolve_device(3)
